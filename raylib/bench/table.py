"""The rows of every table: of each cell the medians over its rounds, and what they are against PyTorch's in float32."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from raylib.bench.records import Result, Round
from raylib.prices import usd_per_million

MISSING = "–"
"""Where there is no figure."""

BASELINE = ("torch", "fp32")
"""The runtime and precision that all others are compared with."""
RUNTIMES = ("torch", "torch-compile", "onnx", "ort-native", "ort-rust", "openvino", "candle")
PRECISIONS = ("fp32", "bf16", "int8")
_TOWERS = ("text", "image")
"""The orders of tables and legends; what is in none comes after them, by name."""

MEASURES: dict[str, Callable[[Round], float | None]] = {
    "contents_per_s": lambda r: r.contents_per_s,
    "p50_ms": lambda r: r.latency_ms.get("p50"),
    "p90_ms": lambda r: r.latency_ms.get("p90"),
    "p95_ms": lambda r: r.latency_ms.get("p95"),
    "p99_ms": lambda r: r.latency_ms.get("p99"),
    "tensor_in_p50_ms": lambda r: (r.tensor_in or {}).get("p50"),
    "tensor_in_p95_ms": lambda r: (r.tensor_in or {}).get("p95"),
    "cpu_ms_per_call": lambda r: r.cpu_ms_per_call,
    "load_s": lambda r: r.load_s,
    "first_call_s": lambda r: r.first_call_s,
    "peak_rss_mb": lambda r: r.peak_rss_mb,
    "loaded_rss_mb": lambda r: r.loaded_rss_mb,
    "gpu_mb": lambda r: r.gpu_mb,
    "load_average": lambda r: r.load_average,
}
"""Column of the tables → what a round says of it; latencies in milliseconds, memory in megabytes."""


@dataclass(frozen=True)
class Spread:
    """Of the rounds that have the measure."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One cell. cpu_ratio, throughput_ratio: how many times less CPU time, and more contents per second, than
    PyTorch's float32 takes and gives in the same cell on the same node type. ndcg_loss: nDCG@5 of PyTorch's float32
    less this one's. usd_per_million: None where no_price says why, or where nothing was measured."""

    result: Result
    measures: Mapping[str, Spread] = field(default_factory=dict)
    cpu_ratio: float | None = None
    throughput_ratio: float | None = None
    ndcg_loss: float | None = None
    usd_per_million: float | None = None
    no_price: str = ""

    @property
    def node(self) -> str:
        return str(self.result.machine.get("node_type") or "")

    @property
    def measured(self) -> bool:
        return self.result.status == "measured" and bool(self.result.rounds)

    @property
    def under_load(self) -> bool:
        """Several clients, or calls that arrive by chance."""
        return self.result.cell.load is not None or self.result.cell.clients != 1

    @property
    def errors(self) -> int:
        return sum(r.errors for r in self.result.rounds)

    def median(self, measure: str) -> float | None:
        return self.measures[measure].median if measure in self.measures else None


def build_rows(results: Sequence[Result], prices: Mapping[str, float] | None) -> list[Row]:
    """In `order`, whatever that of `results` is. prices: node type → USD per hour; None for a table without prices."""
    ordered = sorted(results, key=order)
    measures = [_measures(result) for result in ordered]
    base = {_workload(r): m for r, m in zip(ordered, measures, strict=True) if _is_baseline(r) and m}
    quality: dict[tuple[str, str], float] = {}
    for result in ordered:
        if _is_baseline(result) and result.ndcg_at_5 is not None:
            quality.setdefault((result.cell.model, result.cell.tower), result.ndcg_at_5)
    return [_row(r, m, base.get(_workload(r)), quality, prices) for r, m in zip(ordered, measures, strict=True)]


def _row(
    result: Result,
    measures: Mapping[str, Spread],
    base: Mapping[str, Spread] | None,
    quality: Mapping[tuple[str, str], float],
    prices: Mapping[str, float] | None,
) -> Row:
    cell, best = result.cell, quality.get((result.cell.model, result.cell.tower))
    loss = None if best is None or result.ndcg_at_5 is None else best - result.ndcg_at_5
    if not measures:
        return Row(result, ndcg_loss=loss)
    cpu_ratio = throughput_ratio = None
    if base is not None:
        cpu_ratio = _ratio(base["cpu_ms_per_call"].median, measures["cpu_ms_per_call"].median)
        if cell.load is None:  # where calls arrive by chance, how many a second is a choice, and no result
            throughput_ratio = _ratio(measures["contents_per_s"].median, base["contents_per_s"].median)
    usd, why = _price(result, measures["contents_per_s"].median, prices)
    return Row(result, measures, cpu_ratio, throughput_ratio, loss, usd, why)


def _price(result: Result, per_s: float, prices: Mapping[str, float] | None) -> tuple[float | None, str]:
    if prices is None:
        return None, ""
    node = result.machine.get("node_type")
    if not node:
        return None, "the node type is not known"
    if node not in prices:
        return None, f"the price table has no {node}"
    return (usd_per_million(prices[node], per_s), "") if per_s > 0 else (None, "nothing was embedded")


def _measures(result: Result) -> dict[str, Spread]:
    """{} where nothing was measured."""
    if result.status != "measured":
        return {}
    found = {name: [v for v in map(read, result.rounds) if v is not None] for name, read in MEASURES.items()}
    return {name: Spread(statistics.median(v), min(v), max(v)) for name, v in found.items() if v}


def _ratio(above: float, below: float) -> float | None:
    return above / below if below > 0 else None


def _is_baseline(result: Result) -> bool:
    return (result.cell.runtime, result.cell.precision) == BASELINE


def _workload(result: Result) -> tuple[object, ...]:
    """What two cells must have in common to be compared."""
    c = result.cell
    node = result.machine.get("node_type") or ""
    return c.model, c.tower, node, c.threads, c.tokens, c.batch, c.clients, c.load


def order(result: Result, by_node: bool = True) -> tuple[object, ...]:
    """To sort results by: model, tower, node type, threads, tokens, batch, load, runtime, precision."""
    c = result.cell
    tokens = (c.tokens is None, c.tokens or 0)
    load = (c.load is not None, c.load or 0.0, c.clients)
    node = str(result.machine.get("node_type") or "") if by_node else ""
    names = (*rank(c.runtime, RUNTIMES), *rank(c.precision, PRECISIONS))
    last = (result.status, result.reason or "", result.rounds[0].started if result.rounds else "")
    return c.model, *rank(c.tower, _TOWERS), node, c.threads, *tokens, c.batch, *load, *names, *last


def rank(name: str, known: Sequence[str]) -> tuple[int, str]:
    """To sort names by: the known ones in their order, then the others."""
    return (known.index(name) if name in known else len(known)), name


def runtime_title(row: Row) -> str:
    """openvino int8"""
    return f"{row.result.cell.runtime} {row.result.cell.precision}"


def counted(n: int, name: str) -> str:
    """1 thread, 2 threads"""
    return f"{n} {name}{'s' if n != 1 else ''}"


def workload_title(row: Row) -> str:
    """128 tokens, batch 8"""
    cell = row.result.cell
    title = f"{'images' if cell.tokens is None else f'{cell.tokens} tokens'}, batch {cell.batch}"
    title += f", {counted(cell.clients, 'client')}" if cell.clients != 1 else ""
    return title + (f", load {cell.load:g}" if cell.load is not None else "")


def number(value: float | None, missing: str = MISSING) -> str:
    """Three digits that count, and no fewer than stand before the point: 1,234, 56.1, 0.0412."""
    if value is None:
        return missing
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    if abs(value) >= 0.9995 or value == 0:
        return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
    return f"{value:#.3g}"
