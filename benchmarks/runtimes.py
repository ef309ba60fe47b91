"""One embedding model of middle size on every runtime, by `raylib bench` itself.

    python benchmarks/runtimes.py [--quick] [--rounds 2] [--folder DIR] [--output benchmarks/results/runtimes.json]

With --folder, what is measured there is not measured again. README.md says what is compared with what.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.common import markdown_table, processor, publish, say  # noqa: E402
from raylib.bench.records import Result  # noqa: E402
from raylib.bench.table import Row, build_rows, runtime_title  # noqa: E402

BEGIN, END = "<!-- results of runtimes.py: rewritten by every full run -->", "<!-- end of results of runtimes.py -->"

LAYERS, HIDDEN = 6, 512
PRECISIONS, BATCHES, LENGTHS = ("fp32", "bf16", "int8"), (1, 8), (128,)

_COLUMNS = (
    "runtime",
    "batch",
    "p50, ms",
    "texts/s",
    "CPU ms a text",
    "× torch fp32, CPU",
    "lowest cosine",
    "MB",
    "load s",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small model, one batch: does everything run?")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", help="where models and results stay")
    parser.add_argument("--output", help="JSON; by default benchmarks/results, or nowhere with --quick")
    options = parser.parse_args()
    output = options.output or (None if options.quick else str(REPOSITORY / "benchmarks" / "results" / "runtimes.json"))
    started, load = time.time(), os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        root = options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="raylib-benchmark-"))
        results = measure(Path(root), options.quick, options.rounds)
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "minutes": round((time.time() - started) / 60, 1),
        "load average": {"start": round(load, 2), "end": round(os.getloadavg()[0], 2)},
        "results": [dataclasses.asdict(result) for result in results],
    }
    publish(record, table(record, results), output, (BEGIN, END), recorded=options.output is None)
    return 0


def measure(root: Path, quick: bool, rounds: int) -> list[Result]:
    import raylib
    from benchmarks.train_inputs import build_model

    model = root / "bert"
    if not model.exists():
        model.mkdir(parents=True)
        build_model(model, *((2, 64) if quick else (LAYERS, HIDDEN)))
    say("raylib bench")
    outcome = raylib.bench(
        str(model),
        precision=list(PRECISIONS),
        batch_sizes=[8] if quick else list(BATCHES),
        sequence_lengths=list(LENGTHS),
        rounds=1 if quick else rounds,
        duration=0.2 if quick else 3.0,
        local=True,
        output_folder=str(root / "bench"),
    )
    return outcome.results


def table(record: dict[str, Any], results: Sequence[Result]) -> list[str]:
    rows = build_rows(results, None)
    cells = [_cells(row) for row in rows if row.measured]
    others = {runtime_title(row): row.result.reason for row in rows if not row.measured}
    begin, end = record["load average"]["start"], record["load average"]["end"]
    versions = {k: v for row in rows for k, v in row.result.machine.get("versions", {}).items()}
    about = (
        f"{record['date']}; 1 thread, {record['processor']}; {record['minutes']} minutes, load average {begin} at the "
        f"start, {end} at the end; {', '.join(f'{name} {v}' for name, v in sorted(versions.items()))}."
    )
    told = [f"- {title}: {reason}" for title, reason in others.items()]
    return [*markdown_table(_COLUMNS, cells), "", "Not measured:", "", *told, "", about]


def _cells(row: Row) -> list[str]:
    cell, parity, cpu = row.result.cell, row.result.parity, row.median("cpu_ms_per_call")
    assert parity is not None and cpu is not None, "it was measured"
    return [
        runtime_title(row),
        str(cell.batch),
        f"{row.median('p50_ms') or 0:.1f}",
        f"{row.median('contents_per_s') or 0:.1f}",
        f"{cpu / cell.batch:.1f}",
        f"{row.cpu_ratio:.2f}×" if row.cpu_ratio is not None else "",
        f"{parity.cosine:.6f}",
        f"{row.median('peak_rss_mb') or 0:,.0f}",
        f"{row.median('load_s') or 0:.1f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
