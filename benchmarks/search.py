"""Search over a store: a million dense vectors streamed, against plain FAISS in memory; an index; late interaction in
fewer tokens and bits.

    python benchmarks/search.py [--quick] [--documents 1000000] [--cores 2] [--output benchmarks/results/search.json]

Every measurement is a fresh process (search_side.py), pinned to the same cores, over the same store. README.md says
what is compared with what.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.common import say  # noqa: E402
from benchmarks.search_report import show, write_into_readme  # noqa: E402
from benchmarks.search_side import write_dense, write_late  # noqa: E402

DENSE = [
    ("raylib, streamed", "raylib", {}),
    ("FAISS IndexFlatIP, in memory", "faiss", {}),
    ("the same, OpenBLAS told the core", "faiss", {"OPENBLAS_CORETYPE": "SKYLAKEX"}),
]
LATE = [
    ("every document, float32", {}),
    ("bfloat16 candidates", {"candidates": "bfloat16"}),
    ("int8 candidates", {"candidates": "int8"}),
    ("binary candidates", {"candidates": "binary"}),
    ("tokens pooled, factor 2", {"token_pooling": 2}),
    ("tokens pooled, factor 3", {"token_pooling": 3}),
    ("factor 3, int8 candidates", {"token_pooling": 3, "candidates": "int8"}),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small corpus: does everything run?")
    parser.add_argument("--documents", type=int, default=1_000_000, help="dense documents; 2 KB each on disk")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--pages", type=int, default=2000, help="late-interaction documents, 400 tokens on average")
    parser.add_argument("--index", default="IVF1024,Flat")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--output", help="JSON; by default benchmarks/results, or nowhere with --quick")
    options = parser.parse_args()
    if options.quick:
        options.documents, options.dim, options.queries, options.pages = 20_000, 64, 50, 60
        options.index = "IVF64,Flat"
    output = options.output or (None if options.quick else str(REPOSITORY / "benchmarks" / "results" / "search.json"))
    with tempfile.TemporaryDirectory(prefix="raylib-benchmark-") as root:
        record = run(root, options)
    show(record)
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if options.output is None:
            write_into_readme(record, REPOSITORY / "benchmarks" / "README.md")
        print(f"The numbers: {output}")
    return 0 if record["dense"][0]["same_as_reference"] else 1


def run(root: str, options: argparse.Namespace) -> dict[str, Any]:
    """Write both corpora, measure every way."""
    started = time.time()
    load = [round(x, 2) for x in os.getloadavg()]
    say(f"writing {options.documents:,} × {options.dim} dense vectors and {options.pages:,} pages to {root}")
    write_dense(f"{root}/dense", options.documents, options.dim, options.queries)
    write_late(f"{root}/late", options.pages, min(100, options.queries))
    dense = [measure(root, name, side, {"k": 100}, options, more) for name, side, more in DENSE]
    compare(root, dense)
    index = measure(root, f"index {options.index}", "raylib", {"k": 100, "index": options.index}, options, {})
    late = [measure(root, name, "late", {"k": 10, **settings}, options, {}) for name, settings in LATE]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "sizes": {name: getattr(options, name) for name in ("documents", "dim", "queries", "pages", "cores")},
        "dense": dense,
        "index": index,
        "late": late,
        "load average": {"start": load, "end": [round(x, 2) for x in os.getloadavg()]},
        "minutes": round((time.time() - started) / 60, 1),
    }


def measure(
    root: str, name: str, side: str, settings: dict[str, Any], options: argparse.Namespace, more: dict[str, str]
) -> dict[str, Any]:
    """One process: its seconds, its CPU seconds, the most memory it held, and what it found, in a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.cores), "PYTHONPATH": str(REPOSITORY)}
    environment.pop("OPENBLAS_CORETYPE", None)
    out = f"{root}/found-{len(os.listdir(root))}.npz"
    job = {**settings, "root": root, "out": out, "cores": options.cores, "documents": options.documents}
    job |= {"queries": options.queries, "pages": options.pages}
    script = str(REPOSITORY / "benchmarks" / "search_side.py")
    process = subprocess.run(
        [sys.executable, script, side, json.dumps(job)],
        env={**environment, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith("MEASURED ")]
    if process.returncode != 0 or not lines:
        raise SystemExit(f"{name} failed:\n{process.stdout[-3000:]}\n{process.stderr[-3000:]}")
    measured = {"name": name, **json.loads(lines[-1].removeprefix("MEASURED ")), "out": out}
    say(f"{name}: {measured['seconds']:.1f} s, {measured['cpu']:.1f} CPU s, {measured['peak_mb']:,.0f} MB")
    return measured


def compare(root: str, dense: list[dict[str, Any]]) -> None:
    """Whether each way gives what float64 gives: queries whose best 100 are the same documents, and places that differ.
    FAISS rounds, so documents whose scores agree to the last bits may change places."""
    del root
    found = [np.load(row.pop("out")) for row in dense]
    reference = found[0]["documents"]
    for row, other in zip(dense, found, strict=True):
        theirs = other["documents"]
        row["places_that_differ"] = int((theirs != reference).sum())
        row["queries_with_other_documents"] = sum(
            set(a) != set(b) for a, b in zip(theirs.tolist(), reference.tolist(), strict=True)
        )
        row["largest_score_difference"] = float(np.abs(other["scores"] - found[0]["scores"]).max())
        row["same_as_reference"] = bool(row["largest_score_difference"] < 1e-5)
    dense[0]["same_as_reference"] = all(row["same_as_reference"] for row in dense)


if __name__ == "__main__":
    sys.exit(main())
