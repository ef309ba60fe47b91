"""The jobs as functions: what the command line and notebooks call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from raylib.errors import UserError
from raylib.evaluate.config import EvaluateConfig

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from raylib.evaluate.job import Outcome


def evaluate(model: str | Sequence[str] | EvaluateConfig, **settings: Any) -> Outcome:
    """Score models on MTEB tasks; the settings are those of `raylib evaluate --help`, with underscores.

        raylib.evaluate(["openai/clip-vit-base-patch16", "pkg.mod:factory"], benchmarks=["StdlibPages"])

    Gives the run summaries and, per model, MTEB's TaskResult objects; `.ok` tells whether everything was scored.
    Results, summaries and the leaderboard are in `output_folder`. Raises UserError for what cannot be right from the
    start (an unknown name, an option a model does not have); what fails later is in the summaries.
    """
    if isinstance(model, EvaluateConfig):
        if settings:
            raise UserError("give either an EvaluateConfig or settings by keyword, not both")
        config = model
    else:
        unknown = sorted(set(settings) - set(EvaluateConfig.__dataclass_fields__))
        if unknown:
            raise UserError(f"evaluate has no setting {', '.join(unknown)}; see raylib evaluate --help")
        config = EvaluateConfig(model=[model] if isinstance(model, str) else list(model), **settings)
    config.check_complete()
    return _run(config)


def plan(config: EvaluateConfig) -> list[dict[str, Any]]:
    """What `evaluate` would encode, per model; see `EvaluateJob.dry_run`. Starts nothing and writes nothing."""
    from raylib.evaluate.job import EvaluateJob, LocalBackend
    from raylib.evaluate.progress import QuietReporter

    config.check_complete()
    job = EvaluateJob(config, LocalBackend(), QuietReporter())
    return job.dry_run(job.prepare(_tasks(config)))


def _run(config: EvaluateConfig) -> Outcome:
    from raylib import storage
    from raylib.evaluate.job import EvaluateJob, LocalBackend
    from raylib.evaluate.progress import reporter
    from raylib.evaluate.report import build_report, write_leaderboard

    tasks = _tasks(config)
    storage.make_folder(config.output_folder)
    storage.make_folder(config.store_folder)
    with _connected(config):
        if config.local:
            backend = LocalBackend()
        else:
            from raylib.cluster.evaluate import RayBackend

            backend = RayBackend.of(config)
        job = EvaluateJob(config, backend, reporter(config.quiet))
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


def _connected(config: EvaluateConfig):
    if config.local:
        return nullcontext()
    from raylib.cluster.session import session

    return session(config.address)
