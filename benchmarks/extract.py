"""Rows a second of `raylib extract` against the procedure that it replaces: one sample at a time, three passes each.

    python benchmarks/extract.py [--quick] [--rounds 3] [--threads 1] [--output benchmarks/results/extract.json]
    python benchmarks/extract.py --device cuda --model google/gemma-3-12b-it [--rows 256] [--dtype bfloat16]

One process, which loads the weights once, for both sides; they take turns. README.md says what is compared with what.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.common import processor, publish, say  # noqa: E402
from benchmarks.extract_inputs import MODELS, Lengths, write_rows  # noqa: E402
from benchmarks.extract_old import PerSample  # noqa: E402
from benchmarks.extract_report import BEGIN, END, TOLERANCE, summary, table  # noqa: E402


@dataclass(frozen=True)
class Case:
    """One model and data set. new_tokens: of an answer, None without answers; batches: sizes that are tried."""

    model: str
    rows: int
    lengths: Lengths
    new_tokens: int | None
    batches: tuple[int | str, ...]


INTERVAL = 64
"""Rows of a file, on both sides: raylib writes one while it runs the next rows, and a long run has many."""

FULL = (
    Case("tiny Gemma 3", 256, "short", None, (1, 8, 16, 32, "auto")),
    Case("tiny Gemma 3", 256, "mixed", None, (1, 8, 16, 32, "auto")),
    Case("tiny Gemma 3", 64, "mixed", None, (8, 16, 32)),
    Case("tiny Gemma 3", 32, "mixed", 200, (8, 16, 32)),
    Case("deep Gemma 3", 64, "mixed", None, (8, 16)),
    Case("heavier Gemma 3", 64, "mixed", None, (8, 16)),
    Case("tiny Qwen2.5-VL", 128, "mixed", None, (8, 16, 32)),
    Case("tiny Qwen2.5-VL", 32, "mixed", 100, (8, 32)),
)
QUICK = (Case("tiny Gemma 3", 12, "mixed", 8, (4,)), Case("tiny Qwen2.5-VL", 8, "short", None, (4,)))


@dataclass
class Way:
    """One way to the states of the same rows. run: writes them into a new folder."""

    name: str
    run: Callable[[Path], None]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rows, one round: does everything run?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch, for both sides")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", help="by default float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--model", help="measure this checkpoint, a folder or a hub name, instead of the tiny ones")
    parser.add_argument("--rows", type=int, default=256, help="with --model")
    parser.add_argument("--new-tokens", type=int, default=200, help="with --model")
    parser.add_argument("--output", help="JSON; by default benchmarks/results, or nowhere with --quick or --model")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    recorded = not options.quick and options.model is None
    output = options.output or (str(REPOSITORY / "benchmarks" / "results" / "extract.json") if recorded else None)
    record = run(options, cases_of(options))
    publish(record, table(record), output, (BEGIN, END), recorded=options.output is None)
    exact = record["dtype"] == "float32"
    return 0 if not exact or all(case["largest difference"] <= TOLERANCE for case in record["cases"]) else 1


def cases_of(options: argparse.Namespace) -> tuple[Case, ...]:
    if options.model is None:
        return QUICK if options.quick else FULL
    rows = 8 if options.quick else options.rows
    sizes = (8, 32, "auto")
    return tuple(Case(options.model, rows, "mixed", tokens, sizes) for tokens in (None, options.new_tokens))


def run(options: argparse.Namespace, cases: tuple[Case, ...]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(options.threads)
    dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    started, load = time.time(), [round(x, 2) for x in os.getloadavg()]
    with tempfile.TemporaryDirectory(prefix="raylib-benchmark-") as root:
        found = [measure_case(case, Path(root), options, dtype) for case in cases]
    title = processor() if options.device == "cpu" else torch.cuda.get_device_name(0)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": title,
        "dtype": dtype,
        "threads": options.threads,
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "transformers": __import__("transformers").__version__,
        "rounds": options.rounds,
        "minutes": round((time.time() - started) / 60, 1),
        "load average": {"start": load, "end": [round(x, 2) for x in os.getloadavg()]},
        "cases": found,
    }


def measure_case(case: Case, root: Path, options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Every way once unmeasured, then by turns, in an order that alternates by round."""
    say(f"{case.model}, {case.rows} rows, {case.lengths} questions, {case.new_tokens or 'no'} new tokens")
    model = case.model
    if model in MODELS:
        model = str(root / case.model.replace(" ", "-"))
        if not os.path.exists(model):
            MODELS[case.model](Path(model))
    data = root / f"{case.rows}-{case.lengths}"
    if not data.exists():
        write_rows(data, case.rows, case.lengths)
    settings = {"vqa_dataset": str(data / "vqa.csv"), "images_dir": str(data / "images"), "local": True, "quiet": True}
    settings |= {"device": options.device, "dtype": dtype, "generate": case.new_tokens is not None}
    settings |= {"max_new_tokens": case.new_tokens or 1, "checkpoint_interval": INTERVAL}
    extractor = loaded(model, settings)
    old = PerSample.of(extractor, case.new_tokens, settings["checkpoint_interval"])
    ways = [Way("one sample at a time", lambda folder: old.run(data / "vqa.csv", data / "images", folder))]
    for size in case.batches:
        ways.append(Way(f"raylib, {size}", raylib_way(extractor, model, {**settings, "batch_size": size}, case.rows)))
    difference, answers = compare(old, ways, case, root)
    for number in range(options.rounds):
        for way in ways if number % 2 == 0 else ways[::-1]:
            with tempfile.TemporaryDirectory(dir=root) as folder:
                wall, cpu = time.perf_counter(), time.process_time()
                way.run(Path(folder))
                way.wall.append(time.perf_counter() - wall)
                way.cpu.append(time.process_time() - cpu)
            say(f"  {way.name}: {case.rows / way.wall[-1]:.1f} rows/s, {way.cpu[-1]:.1f} CPU s")
    parameters = sum(weight.numel() for weight in extractor.model.parameters())
    return {
        "model": case.model,
        "parameters": parameters,
        "rows": case.rows,
        "lengths": case.lengths,
        "new tokens": case.new_tokens,
        "largest difference": difference,
        "answers that differ": answers,
        "ways": [summary(way.name, way.wall, way.cpu, ways[0].wall, ways[0].cpu, case.rows) for way in ways],
    }


def loaded(model: str, settings: dict[str, Any]) -> Any:
    """An extractor that has its weights: loading is no part of what is measured."""
    from raylib.evaluate.quiet import quiet_libraries
    from raylib.extract.config import ExtractConfig
    from raylib.extract.extractor import Extractor

    quiet_libraries()
    extractor = Extractor.of(ExtractConfig(model=model, **settings))
    extractor.load()
    _ = extractor.identity  # of which reading the weights is the larger part
    return extractor


def raylib_way(extractor: Any, model: str, settings: dict[str, Any], rows: int) -> Callable[[Path], None]:
    """The whole job of `raylib extract --local`: reading, planning, decoding, forwards, files, manifest."""
    from raylib.evaluate.progress import QuietReporter
    from raylib.extract.config import ExtractConfig
    from raylib.extract.job import ExtractJob
    from raylib.extract.local import ThisProcess

    def once(folder: Path) -> None:
        job = ExtractJob(ExtractConfig(model=model, output_dir=str(folder), **settings), ThisProcess(), QuietReporter())
        job.extractor = extractor
        outcome = job.run()
        if outcome.counts["extracted"] != rows:
            raise RuntimeError(f"{outcome.counts} for {rows} rows")

    return once


def compare(old: PerSample, ways: list[Way], case: Case, root: Path) -> tuple[float, int]:
    """The unmeasured run of every way, with its vectors held against those of the first: the largest difference of any
    number, as a share of the largest in its column of vectors, and how many answers differ at most.

    The scripts' own guess of the last image token is left aside; their hooks' states at the true one are compared.
    """
    from raylib.store.hidden_states import open_states
    from raylib.store.representations import Representation

    with tempfile.TemporaryDirectory(dir=root) as folder:
        old.check = True
        ways[0].run(Path(folder))
        old.check = False
        theirs = open_states(folder)
        ids, answers = theirs.question_ids, dict(zip(theirs.question_ids, theirs.texts("answer"), strict=True))
        expected = {r: theirs.matrix(r) for r in theirs.representations if r.kind != "vision_token"}
    for layer in old.layers:
        expected[Representation("vision_token", layer)] = np.stack([old.vision_tokens[name][layer] for name in ids])
    largest, differ = 0.0, 0
    for way in ways[1:]:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            way.run(Path(folder))
            ours = open_states(folder)
            order = [ours.question_ids.index(name) for name in ids]
            for representation, vectors in expected.items():
                found = ours.matrix(representation)[order]
                largest = max(largest, float(np.abs(found - vectors).max() / np.abs(vectors).max()))
            said = dict(zip(ours.question_ids, ours.texts("answer"), strict=True))
            differ = max(differ, sum(said[name] != answers[name] for name in ids) if case.new_tokens else 0)
    return largest, differ


if __name__ == "__main__":
    sys.exit(main())
