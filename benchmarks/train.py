"""Training: time and memory of a step by size of the batch, with and without gradient cache, against
sentence-transformers; and B3 batches against batches by chance.

    python benchmarks/train.py [--quick] [--rounds 3] [--threads 1] [--output benchmarks/results/train.json]
    python benchmarks/train.py --parts cache --sizes 32,512
    python benchmarks/train.py --parts b3 --seeds 0,1,2 --folder DIR

Every measurement is a fresh process (train_side.py). What --parts and --sizes leave out stays in the output as it was.
README.md says what is compared with what.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.common import processor, publish, say  # noqa: E402
from benchmarks.train_report import BEGIN, END, same_losses, table  # noqa: E402
from benchmarks.train_side import WARM_UP, WAYS  # noqa: E402

SIZES = (32, 128, 512, 2048)
PARTS = ("cache", "b3")

_MOST_WHOLE = 128
"""Batches up to which a step without gradient cache is measured: 512 would take 11 GB."""

_MANY = 2048
"""From such batches on there is one round: a step takes minutes."""

_EXAMPLES = 256
"""About so many are trained on in a measurement, where batches are smaller."""

Measured = dict[str, Any]


def main() -> int:
    options = arguments()
    output = options.output or (None if options.quick else str(REPOSITORY / "benchmarks" / "results" / "train.json"))
    record: Measured = {"sizes": {}, "b3": {}, "runs": []}
    if output is not None and options.partial and os.path.exists(output):
        record = json.loads(Path(output).read_text(encoding="utf-8"))
    started, load = time.time(), [round(x, 2) for x in os.getloadavg()]
    with contextlib.ExitStack() as stack:
        root = options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="raylib-benchmark-"))
        folder = Path(root)
        folder.mkdir(parents=True, exist_ok=True)
        if "cache" in options.parts:
            measure_sizes(folder, options, record["sizes"])
        if "b3" in options.parts:
            from benchmarks.train_b3 import compare

            shape = {"steps": 4, "batch": 16, "limit": 200} if options.quick else {}
            record["b3"] = compare(folder, options.seeds, options.threads, **shape)
    record["sizes"] = dict(sorted(record["sizes"].items(), key=lambda item: int(item[0])))
    record["machine"] = machine(options.threads)
    record["runs"].append(
        {
            "date": time.strftime("%Y-%m-%d"),
            **{name: getattr(options, name) for name in ("parts", "sizes", "seeds", "rounds")},
            "minutes": round((time.time() - started) / 60, 1),
            "load average": {"start": load, "end": [round(x, 2) for x in os.getloadavg()]},
        }
    )
    publish(record, table(record), output, (BEGIN, END), recorded=options.output is None)
    return 0 if same_losses(record) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small batches, few steps: does everything run?")
    parser.add_argument("--parts", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--sizes", help="of batches, with commas between them")
    parser.add_argument("--seeds", default="0,1,2", help="of B3 against batches by chance")
    parser.add_argument("--rounds", type=int, default=3, help=f"of all ways by turns, below batches of {_MANY}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", help="where runs stay: what is complete there is not run again")
    parser.add_argument("--output", help="JSON; by default benchmarks/results, or nowhere with --quick")
    options = parser.parse_args()
    options.partial = any((options.parts, options.sizes))
    options.parts = options.parts.split(",") if options.parts else list(PARTS)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"--parts has {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}")
    options.sizes = [int(n) for n in options.sizes.split(",")] if options.sizes else list(SIZES)
    options.seeds = [int(n) for n in options.seeds.split(",")]
    if options.quick:
        options.sizes, options.seeds, options.rounds = [16, 64], [0], 1
    return options


def measure_sizes(folder: Path, options: argparse.Namespace, sizes: Measured) -> None:
    """All ways by turns, in an order that alternates by round. sizes: what is measured goes there."""
    from benchmarks.train_inputs import build_model, write_pairs

    model, pairs = folder / "model", folder / "pairs.jsonl"
    if not model.exists():
        model.mkdir()
        build_model(model, *((2, 64) if options.quick else ()))
    n = write_pairs(pairs, WARM_UP + max(_EXAMPLES, *options.sizes))
    for size in options.sizes:
        ways = [way for way, (_, cached) in WAYS.items() if cached or size <= _MOST_WHOLE]
        job = {"model": str(model), "pairs": str(pairs), "size": size, "steps": max(1, _EXAMPLES // size), "n": n}
        found: dict[str, list[Measured]] = {way: [] for way in ways}
        for number in range(options.rounds if size < _MANY else 1):
            for way in ways if number % 2 == 0 else ways[::-1]:
                found[way].append(measure(way, {**job, "threads": options.threads}))
        sizes[str(size)] = found


def measure(way: str, job: Measured) -> Measured:
    """One process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"]), "PYTHONPATH": str(REPOSITORY)}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "train_side.py"), way, json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]
    if done.returncode != 0 or not lines:
        raise SystemExit(f"{way} failed:\n{(done.stdout + done.stderr)[-5000:]}")
    found = json.loads(lines[-1].removeprefix("MEASURED "))
    say(f"{job['size']:,}: {way}: {found['step cpu s']:.2f} CPU s a step, {found['grown mb']:,.0f} MB")
    return {name: _rounded(value) for name, value in found.items()}


def _rounded(value: Any) -> Any:
    return [round(x, 6) for x in value] if isinstance(value, list) else round(value, 4)


def machine(threads: int) -> Measured:
    versions = {name: version(name) for name in ("torch", "transformers", "sentence-transformers")}
    return {"processor": processor(), "threads": threads, "python": platform.python_version(), **versions}


if __name__ == "__main__":
    sys.exit(main())
