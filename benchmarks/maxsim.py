"""MaxSim of raylib, colpali-engine, MTEB and PyLate: the same queries and pages, the same threads, one run.

    python benchmarks/maxsim.py [--quick] [--rounds 2] [--output benchmarks/results/maxsim.json]

Every measurement is a fresh process. Beside them, in the same run, the rate of the fastest float32 matrix product that
any library here has: a method's useful arithmetic is stated as a share of it. README.md holds protocol and results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.common import (  # noqa: E402
    README,
    forget_peak_memory,
    markdown_table,
    peak_memory,
    processor,
    write_between,
)

DIM = 128
TOP = 10
OVERSAMPLE = 4
BEGIN, END = "<!-- results of maxsim.py: rewritten by every full run -->", "<!-- end of maxsim results -->"


@dataclass(frozen=True)
class Case:
    """lengths "even": every document has `tokens`. "skewed": their mean is `tokens`, and one has 7.5 times as many."""

    name: str
    queries: int
    query_tokens: int
    documents: int
    tokens: int
    lengths: str = "even"


FULL = (Case("even", 200, 25, 1000, 700), Case("skewed", 200, 25, 1000, 400, "skewed"))
QUICK = (Case("even", 8, 25, 40, 700), Case("skewed", 8, 25, 40, 400, "skewed"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few documents, one round: does everything run?")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", help="JSON; by default benchmarks/results and the README, or nowhere with --quick")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print("MEASURED " + json.dumps(measure(**json.loads(options.measure))))
        return 0
    record = run(QUICK if options.quick else FULL, 1 if options.quick else options.rounds)
    print("\n".join(table(record)))
    print(about(record))
    output = options.output or (None if options.quick else str(REPOSITORY / "benchmarks" / "results" / "maxsim.json"))
    if output:
        Path(output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if options.output is None:
            write_into_readme(record)
    wrong = [row for row in record["rows"] if row["wrong"]]
    for row in wrong:
        print(f"{row['case']} {row['method']}: {row['wrong']}", file=sys.stderr)
    return 1 if wrong else 0


def run(cases: tuple[Case, ...], rounds: int) -> dict[str, Any]:
    """Every method on every case and number of threads, in an order that turns from round to round."""
    started, methods = time.time(), [name for name, (needs, _) in METHODS.items() if find_spec(needs)]
    found: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for case in cases:
            for threads in (1, 2):
                peak = in_a_process(method="", case=asdict(case), threads=threads)
                for method in methods[number % len(methods) :] + methods[: number % len(methods)]:
                    measured = {**in_a_process(method=method, case=asdict(case), threads=threads), **peak}
                    found.setdefault((case.name, threads, method), []).append(measured)
                    print(f"{case.name} {threads} thread(s) {method}: {measured['wall']:.2f} s", flush=True)
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "versions": {name: installed(name) for name in ("torch", "numpy", "colpali-engine", "mteb", "pylate")},
        "cases": [asdict(case) for case in cases],
        "rounds": rounds,
        "not installed": [name for name in METHODS if name not in methods],
        "rows": [],
    }
    exact = {case.name: np.array(found[case.name, 1, "raylib"][0]["top"]) for case in cases}
    for (case, threads, method), measured in found.items():
        record["rows"].append(summary(case, threads, method, measured, found, exact[case]))
    record["minutes"] = round((time.time() - started) / 60, 1)
    record["load average at the end"] = [round(x, 2) for x in os.getloadavg()]
    return record


def summary(
    case: str, threads: int, method: str, measured: list[dict], found: dict, exact_QK: np.ndarray
) -> dict[str, Any]:
    """Medians; ratios of a round to colpali-engine in the same round. CPU time at one thread, wall time at two."""
    clock = "cpu" if threads == 1 else "wall"
    peers = found[case, threads, "colpali-engine"]
    ratios = [peer[clock] / mine[clock] for peer, mine in zip(peers, measured, strict=True)]
    same_top = float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(measured[0]["top"], exact_QK, strict=True)]))
    wrong = ""
    if method.startswith("raylib") and same_top < 1:
        wrong = f"{same_top:.4f} of the top {TOP} are those of the exact search"
    return {
        "case": case,
        "threads": threads,
        "method": method,
        "clock": clock,
        "seconds": round(statistics.median(m[clock] for m in measured), 3),
        "times colpali-engine": round(statistics.median(ratios), 2),
        "share of the GEMM peak": round(statistics.median(m["rate"] / m["peak"] for m in measured), 3),
        "GEMM peak, GFLOP/s": round(statistics.median(m["peak"] for m in measured), 1),
        "memory over the inputs, MB": round(max(m["memory"] for m in measured) / 1e6),
        "same top": same_top,
        "wrong": wrong,
        "measurements": [{k: m[k] for k in ("cpu", "wall", "rate", "peak", "memory")} for m in measured],
    }


def in_a_process(**job: Any) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"]), "OPENBLAS_NUM_THREADS": str(job["threads"])}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [sys.executable, __file__, "--measure", json.dumps(job)], env=environment, capture_output=True, text=True
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith("MEASURED ")]
    if process.returncode or not lines:
        raise SystemExit(f"{job['method']} failed:\n{process.stderr[-3000:]}")
    return json.loads(lines[-1].removeprefix("MEASURED "))


# In the process of a measurement.


def measure(method: str, case: dict[str, Any], threads: int) -> dict[str, Any]:
    """Seconds of one call on warm code; rate: useful GFLOP/s; memory: bytes at the peak, beyond the inputs. Without a
    method the rate of matrix products alone."""
    import torch

    torch.set_num_threads(threads)
    if not method:
        return {"peak": matrix_peak(threads)}
    queries, documents = vectors(Case(**case))
    prepare = METHODS[method][1]
    few = prepare(queries[:2], documents[:3])  # imports, code paths and caches
    few()
    call = prepare(queries, documents)
    before = forget_peak_memory()
    cpu, wall = time.process_time(), time.perf_counter()
    scores_QN = call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    memory = peak_memory() - before
    products = sum(map(len, queries)) * sum(map(len, documents))
    top = np.argsort(-scores_QN, axis=1, kind="stable")[:, :TOP]
    rate = 2 * DIM * products / (cpu if threads == 1 else wall) / 1e9
    return {"cpu": cpu, "wall": wall, "rate": rate, "memory": memory, "top": np.sort(top).tolist()}


def vectors(case: Case) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random unit tokens; a document and a query of one topic share a direction, so that scores spread."""
    rng = np.random.default_rng(0)
    counts = np.full(case.documents, case.tokens)
    if case.lengths == "skewed":
        counts = rng.gamma(4.0, 1.0, case.documents)
        counts = np.maximum(1, counts / counts.mean() * case.tokens).astype(int).clip(max=3 * case.tokens)
        counts[case.documents // 2] = case.tokens * 15 // 2
    topics = rng.standard_normal((50, DIM))

    def tokens(n: int) -> np.ndarray:
        rows = rng.standard_normal((n, DIM)) + 0.5 * topics[rng.integers(len(topics))]
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return [tokens(case.query_tokens) for _ in range(case.queries)], [tokens(n) for n in counts]


def matrix_peak(threads: int) -> float:
    """GFLOP/s of the fastest float32 product here: torch (its own choice, and oneDNN), numpy's BLAS; several shapes."""
    import torch

    best = 0.0
    for rows, columns, inner in ((1024, 256, DIM), (1024, 1024, DIM), (2048, 2048, 1024)):
        left, right = torch.randn(rows, inner), torch.randn(columns, inner)
        ways: list[Callable[[], Any]] = [lambda a=left, b=right: torch.mm(a, b.T)]
        if torch.backends.mkldnn.is_available():
            linear = torch.ops.mkldnn._linear_pointwise
            ways.append(lambda a=left, b=right, f=linear: f(a, b, None, "none", [], ""))
        ways.append(lambda a=left, b=right: a.numpy() @ b.numpy().T)
        for way in ways:
            way()
            repeats = max(2, int(4e9 * threads / (2 * rows * columns * inner)))
            for _ in range(3):
                cpu, wall = time.process_time(), time.perf_counter()
                for _ in range(repeats):
                    way()
                seconds = time.process_time() - cpu if threads == 1 else time.perf_counter() - wall
                best = max(best, 2 * rows * columns * inner * repeats / seconds / 1e9)
    return best


# The methods: each takes its inputs as its users hold them, and gives a call that returns [queries, documents].


def raylib_exact(queries: list[np.ndarray], documents: list[np.ndarray]) -> Callable[[], np.ndarray]:
    from raylib import Embeddings, maxsim

    query_side, document_side = Embeddings.from_list(queries), Embeddings.from_list(documents)
    return lambda: maxsim(query_side, document_side)


def raylib_candidates(precision: str) -> Callable[..., Callable[[], np.ndarray]]:
    """Estimates for all, canonical scores for the best `OVERSAMPLE` x `TOP` of each query."""

    def prepare(queries: list[np.ndarray], documents: list[np.ndarray]) -> Callable[[], np.ndarray]:
        from raylib import Embeddings, maxsim
        from raylib.search.canonical import exact_pairs

        query_side, document_side = Embeddings.from_list(queries), Embeddings.from_list(documents)
        n = min(OVERSAMPLE * TOP, len(documents))

        def call() -> np.ndarray:
            estimates = maxsim(query_side, document_side, precision=precision)
            chosen = np.argpartition(-estimates, n - 1, axis=1)[:, :n]
            pairs_Q = np.repeat(np.arange(len(queries)), n)
            scores = np.full(estimates.shape, -np.inf, dtype=np.float32)
            scores[pairs_Q, chosen.ravel()] = exact_pairs(query_side, document_side, pairs_Q, chosen.ravel(), "maxsim")
            return scores

        return call

    return prepare


def colpali(queries: list[np.ndarray], documents: list[np.ndarray]) -> Callable[[], np.ndarray]:
    import torch
    from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

    query_side, document_side = [[torch.from_numpy(x) for x in side] for side in (queries, documents)]
    score = BaseVisualRetrieverProcessor.score_multi_vector
    return lambda: score(query_side, document_side, device="cpu").numpy()


def mteb(queries: list[np.ndarray], documents: list[np.ndarray]) -> Callable[[], np.ndarray]:
    import torch
    from mteb.similarity_functions import max_sim

    query_side, document_side = [[torch.from_numpy(x) for x in side] for side in (queries, documents)]
    return lambda: max_sim(query_side, document_side).numpy()


def pylate(queries: list[np.ndarray], documents: list[np.ndarray]) -> Callable[[], np.ndarray]:
    """It takes padded tensors and holds all similarities: 32 documents at a time, padded to their longest."""
    import torch
    from pylate.scores import colbert_scores  # pyright: ignore[reportMissingImports]
    from torch.nn.utils.rnn import pad_sequence

    query_side = pad_sequence([torch.from_numpy(x) for x in queries], batch_first=True)

    def call() -> np.ndarray:
        blocks = []
        for first in range(0, len(documents), 32):
            members = [torch.from_numpy(x) for x in documents[first : first + 32]]
            padded = pad_sequence(members, batch_first=True)
            lengths = torch.tensor([len(x) for x in members])
            mask = torch.arange(padded.shape[1]) < lengths[:, None]
            blocks.append(colbert_scores(query_side, padded, documents_mask=mask))
        return torch.cat(blocks, dim=1).numpy()

    return call


METHODS: dict[str, tuple[str, Callable[..., Callable[[], np.ndarray]]]] = {
    "raylib": ("raylib", raylib_exact),
    "raylib, bfloat16 candidates": ("raylib", raylib_candidates("bfloat16")),
    "raylib, int8 candidates": ("raylib", raylib_candidates("int8")),
    "colpali-engine": ("colpali_engine", colpali),
    "mteb": ("mteb", mteb),
    "PyLate": ("pylate", pylate),
}
"""Name → (the package it needs, how it is called)."""


# What a reader sees.

_COLUMNS = ("lengths", "threads", "method", "seconds", "× colpali-engine", "of the GEMM peak", "memory MB", "top 10")


def table(record: dict[str, Any]) -> list[str]:
    """Lines of Markdown."""
    rows = []
    order = {name: n for n, name in enumerate(METHODS)}
    for row in sorted(record["rows"], key=lambda r: (r["case"], r["threads"], order[r["method"]])):
        rows.append(
            [
                row["case"],
                str(row["threads"]),
                row["method"],
                f"{row['seconds']:.2f} {row['clock'].replace('cpu', 'CPU')}",
                f"{row['times colpali-engine']:.2f}×",
                f"{100 * row['share of the GEMM peak']:.0f} %",
                str(row["memory over the inputs, MB"]),
                "same" if row["same top"] == 1 else f"{100 * row['same top']:.1f} %",
            ]
        )
    return markdown_table(_COLUMNS, rows)


def about(record: dict[str, Any]) -> str:
    peaks = {n: [r["GEMM peak, GFLOP/s"] for r in record["rows"] if r["threads"] == n] for n in (1, 2)}
    rates = " and ".join(f"{statistics.median(values):.0f} at {n} thread(s)" for n, values in peaks.items())
    versions = ", ".join(f"{name} {text}" for name, text in record["versions"].items())
    return (
        f"{record['date']}; {record['processor']}; {versions}; {record['rounds']} rounds, {record['minutes']} minutes; "
        f"float32 GEMM peak in GFLOP/s: {rates}; load average at the end {record['load average at the end'][0]}."
    )


def write_into_readme(record: dict[str, Any]) -> None:
    write_between(README, BEGIN, END, [*table(record), "", about(record)])


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
