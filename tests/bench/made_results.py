"""Results of a bench made by hand, for tests of what is written of them."""

from __future__ import annotations

from typing import Any

from raylib.bench.records import Cell, Parity, Result, Round, Status

MACHINE = {
    "node_type": "c7i.xlarge",
    "processor": "Intel(R) Xeon(R) Platinum 8488C",
    "gpu": None,
    "versions": {"torch": "2.13.0", "onnxruntime": "1.22.0"},
}


def round_of(p50: float, per_s: float, cpu_ms: float = 10.0, **changed: Any) -> Round:
    """A round of 100 calls: too few for p99."""
    p50 = float(p50)
    made: dict[str, Any] = {
        "started": "2026-11-26T10:57:03+00:00",
        "load_s": 0.5,
        "first_call_s": 0.25,
        "warm_up": 10,
        "calls": 100,
        "seconds": 12.5,
        "latency_ms": {"p50": p50, "p90": p50 * 1.5, "p95": p50 * 2, "p99": None},
        "cpu_ms_per_call": float(cpu_ms),
        "contents_per_s": float(per_s),
        "peak_rss_mb": 450.0,
        "loaded_rss_mb": 300.0,
        "gpu_mb": None,
        "load_average": 0.75,
    }
    return Round(**{**made, **changed})


def result(
    runtime: str = "torch",
    precision: str = "fp32",
    rounds: list[Round] | None = None,
    status: Status = "measured",
    reason: str | None = None,
    **changed: Any,
) -> Result:
    """Of BAAI/bge-m3's texts of 128 tokens, one at a time on one thread; fields of the cell or of the result change."""
    cell: dict[str, Any] = {
        "model": "BAAI/bge-m3",
        "tower": "text",
        "runtime": runtime,
        "precision": precision,
        "threads": 1,
        "batch": 1,
        "tokens": 128,
    }
    made: dict[str, Any] = {"machine": dict(MACHINE)}
    if status == "measured":
        made |= {"disk_bytes": 143_000_000, "dim": 512, "parity": Parity(0.9999999, 1.5e-07, 24)}
    for name, value in changed.items():
        (cell if name in Cell.__dataclass_fields__ else made)[name] = value
    return Result(Cell(**cell), status, reason, rounds=rounds or [], **made)
