"""The jobs as functions: what the command line and notebooks call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from raylib.api_settings import as_config, connected, reporter_of, timeline_of, with_settings
from raylib.bench.config import BenchConfig
from raylib.encode.config import EncodeConfig
from raylib.errors import UserError
from raylib.evaluate.config import EvaluateConfig
from raylib.extract.config import ExtractConfig
from raylib.probe.config import ProbeConfig

if TYPE_CHECKING:
    import numpy as np
    from mteb.abstasks.abstask import AbsTask
    from PIL import Image

    from raylib.bench.job import Outcome as BenchOutcome
    from raylib.encode.job import EncodeJob
    from raylib.encode.job import Outcome as EncodeOutcome
    from raylib.evaluate.job import Outcome
    from raylib.extract.job import Outcome as ExtractOutcome
    from raylib.probe.apply import Applied
    from raylib.probe.job import Outcome as ProbeOutcome


def evaluate(model: str | Sequence[str] | EvaluateConfig, **settings: Any) -> Outcome:
    """Score models on MTEB tasks; the settings are those of `raylib evaluate --help`, with underscores.

        raylib.evaluate(["openai/clip-vit-base-patch16", "pkg.mod:factory"], benchmarks=["StdlibPages"])

    Gives the run summaries and, per model, MTEB's TaskResult objects; `.ok` tells whether everything was scored.
    Results, summaries and the leaderboard are in `output_folder`. Raises UserError for what cannot be right from the
    start (an unknown name, an option a model does not have); what fails later is in the summaries.
    """
    config = as_config(EvaluateConfig, "evaluate", model, settings)
    config.check_complete()
    return _run(config)


@overload
def encode(  # pyright: ignore[reportOverlappingOverload], settings are neither texts nor images
    model: str, *, texts: Sequence[str], images: Sequence[Image.Image | str | bytes] | None = None, **settings: Any
) -> np.ndarray | list[np.ndarray]: ...


@overload
def encode(
    model: str, *, texts: None = None, images: Sequence[Image.Image | str | bytes], **settings: Any
) -> np.ndarray | list[np.ndarray]: ...


@overload
def encode(model: str | EncodeConfig, **settings: Any) -> EncodeOutcome: ...


def encode(model: str | EncodeConfig, *, texts: Any = None, images: Any = None, **settings: Any) -> Any:
    """Vectors of files, or of a few texts and images in memory.

        raylib.encode("openai/clip-vit-base-patch16", input="pages/", output="vectors")
        raylib.encode("openai/clip-vit-base-patch16", texts=["a red square"], role="query")

    From files the settings are those of `raylib encode --help`, with underscores; it gives what was done, and `.files`
    names what was written. With texts or images it gives [n, dim] float32 (for late interaction a list of
    [tokens, dim]); both in lists of one length make contents of text and image. That runs in this process, and the
    model stays loaded until another one is asked for; of the settings it takes the model's options, role, batch_size
    and store. Raises UserError for what cannot be right, and for contents in memory that cannot be encoded.
    """
    if texts is None and images is None:
        config = as_config(EncodeConfig, "encode", model, settings)
        config.check_complete()
        return _run_encoding(config)
    from raylib.encode.arrays import encode_arrays
    from raylib.models.options import ModelOptions

    config = as_config(EncodeConfig, "encode", model, settings)
    fitting = {*ModelOptions.__dataclass_fields__, "role", "batch_size", "store"}
    unfit = sorted(set(settings) - fitting)
    if isinstance(model, EncodeConfig) or unfit:
        what = ", ".join(unfit) or "an EncodeConfig"
        raise UserError(f"texts and images in memory do not go with {what}; write them to files, or leave it out")
    if config.batch_size == "auto":
        raise UserError("batch_size='auto' needs --input; give a number for contents in memory")
    return encode_arrays(config.spec, texts, images, config.role, config.contents, config.store)


def plan_encoding(config: EncodeConfig) -> dict[str, Any]:
    """What `encode` would encode; see `EncodeJob.dry_run`. Starts nothing and writes nothing."""
    from raylib.encode.planned import this_process
    from raylib.evaluate.progress import QuietReporter

    config.check_complete()
    return _encode_job(config, this_process(), QuietReporter()).dry_run()


def _run_encoding(config: EncodeConfig) -> EncodeOutcome:
    from raylib.encode.planned import this_process

    with connected(config, "encode"):
        if config.local:
            place = this_process()
        else:
            from raylib.cluster.evaluate import RayBackend

            place = RayBackend.of(config).encode_place()
        return _encode_job(config, place, reporter_of(config), timeline_of(config)).run()


def _encode_job(config: EncodeConfig, place: Any, reporter: Any, timeline: Any = None) -> EncodeJob:
    from raylib.encode.job import EncodeJob
    from raylib.evaluate.quiet import quiet_libraries

    quiet_libraries()
    return EncodeJob(config, place, reporter, timeline)


def extract(model: str | ExtractConfig, **settings: Any) -> ExtractOutcome:
    """Hidden states for questions about images; the settings are those of `raylib extract --help`, with underscores.

        raylib.extract("google/gemma-3-12b-it", vqa_dataset="vqa.csv", images_dir="images", output_dir="output")

    Gives what was done: `.files` names the parts, `.bad` the rows without states, `.ok` tells whether every row has
    them. Raises UserError for what cannot be right from the start, and ModelError for what fails later; what was done
    until then is kept, and the same call goes on from there.
    """
    from raylib.evaluate.quiet import quiet_libraries
    from raylib.extract.job import ExtractJob
    from raylib.extract.local import ThisProcess

    config = as_config(ExtractConfig, "extract", model, settings)
    config.check_complete()
    quiet_libraries()
    with connected(config, "extract"):
        if config.local:
            place = ThisProcess()
        else:
            from raylib.cluster.extract import RayPlace

            place = RayPlace.of(config)
        return ExtractJob(config, place, reporter_of(config), timeline_of(config)).run()


def probe(states: str | ProbeConfig, **settings: Any) -> ProbeOutcome | Applied:
    """Train probes on hidden states, or with `apply` score rows; the settings are those of `raylib probe --help`.

        raylib.probe("output", labels="reviewed.csv", target="is_hallucinating_manual", output_dir="probes")
        raylib.probe("output", apply="probes/best", output_dir="scores").scores

    Training gives `.results`, one for each probe, and `.best`; scoring gives `.scores` [n] of `.question_ids`. Raises
    UserError for states or labels that cannot be used.
    """
    from raylib.evaluate.progress import reporter
    from raylib.evaluate.quiet import quiet_libraries
    from raylib.probe.apply import apply_probe
    from raylib.probe.job import ProbeJob
    from raylib.probe.place import ThisProcess

    if isinstance(states, ProbeConfig):
        config = as_config(ProbeConfig, "probe", states, settings)
    else:
        config = with_settings(ProbeConfig, "probe", {"states": states, **settings})
    config.check_complete()
    quiet_libraries()
    if config.apply is not None:
        return apply_probe(config, reporter(config.quiet))
    with connected(config, "probe"):
        if config.local:
            place = ThisProcess()
        else:
            from raylib.cluster.probe import RayPlace

            place = RayPlace(config.workers)
        return ProbeJob(config, place, reporter(config.quiet)).run()


def bench(model: str | Sequence[str] | BenchConfig, **settings: Any) -> BenchOutcome:
    """Time models on several runtimes; the settings are those of `raylib bench --help`, with underscores.

        raylib.bench("BAAI/bge-m3", runtimes=["torch", "onnx"], batch_sizes=[1, 8], local=True)

    Gives `.results`, one for each cell, and `.ok`, whether none of them failed or was refused; tables, figures and the
    report are in `output_folder`. Raises UserError for what cannot be right from the start.
    """
    from raylib.bench.job import BenchJob, summarise
    from raylib.bench.place import ThisMachine
    from raylib.evaluate.progress import reporter
    from raylib.evaluate.quiet import quiet_libraries

    config = as_config(BenchConfig, "bench", model, settings)
    config.check_complete()
    if config.summary_only:
        return summarise(config)
    quiet_libraries()
    told = reporter(config.quiet)
    if config.local:
        return BenchJob(config, ThisMachine(next(iter(config.node_types), None)), told).run()
    with connected(config, "bench"):
        from raylib.cluster.bench import RayNodes

        gpus = (config.device or "cpu").startswith("cuda")
        return BenchJob(config, RayNodes(config.node_types, gpus, config.timeout, told), told).run()


def plan(config: EvaluateConfig) -> list[dict[str, Any]]:
    """What `evaluate` would encode, per model; see `EvaluateJob.dry_run`. Starts nothing and writes nothing."""
    from raylib.evaluate.backend import LocalBackend
    from raylib.evaluate.job import EvaluateJob
    from raylib.evaluate.progress import QuietReporter

    config.check_complete()
    job = EvaluateJob(config, LocalBackend(), QuietReporter())
    return job.dry_run(job.prepare(_tasks(config)))


def _run(config: EvaluateConfig) -> Outcome:
    from raylib import storage
    from raylib.evaluate.backend import LocalBackend
    from raylib.evaluate.job import EvaluateJob
    from raylib.evaluate.report import build_report, write_leaderboard

    tasks = _tasks(config)
    storage.make_folder(config.output_folder)
    storage.make_folder(config.store_folder)
    with connected(config, "evaluate"):
        if config.local:
            backend = LocalBackend()
        else:
            from raylib.cluster.evaluate import RayBackend

            backend = RayBackend.of(config)
        job = EvaluateJob(config, backend, reporter_of(config), timeline_of(config))
        outcome = job.run(job.prepare(tasks))
    write_leaderboard(build_report(config.output_folder), config.output_folder)
    return outcome


def _tasks(config: EvaluateConfig) -> list[AbsTask]:
    from raylib.evaluate.quiet import quiet_libraries
    from raylib.tasks.selection import select_tasks

    quiet_libraries()
    return select_tasks(
        config.benchmarks,
        config.tasks,
        config.languages or None,
        config.splits or None,
        mmeb=config.mmeb_options(),
    )
