"""bench.html: one page that needs no network, figures in it, whose rows are sorted, and chosen by batch and length."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylib.bench.findings import (
    cheapest,
    cosine_text,
    fastest,
    gap_title,
    gaps,
    loss_text,
    machines,
    notes,
    reason_text,
    sections,
)
from raylib.bench.table import MISSING, PRECISIONS, RUNTIMES, Row, counted, number, rank, runtime_title


@dataclass(frozen=True)
class _Column:
    """read: its value, None where there is none; shown by `show`. high: the largest is the best; None: none is."""

    title: str
    unit: str
    read: Callable[[Row], float | None]
    high: bool | None = None
    show: Callable[[float], str] = number


def _measure(title: str, unit: str, name: str, high: bool | None = False) -> _Column:
    return _Column(title, unit, lambda row: row.median(name), high)


def _cosine(row: Row) -> float | None:
    return None if row.result.parity is None else row.result.parity.cosine


def _disk(row: Row) -> float | None:
    return None if row.result.disk_bytes is None else row.result.disk_bytes / 1e6


_COLUMNS = [
    _measure("Embeddings", "per second", "contents_per_s", True),
    _Column("Speed", "× torch fp32", lambda row: row.throughput_ratio, True),
    _measure("p50", "ms", "p50_ms"),
    _measure("p95", "ms", "p95_ms"),
    _measure("p99", "ms", "p99_ms"),
    _measure("Tensor-in p50", "ms", "tensor_in_p50_ms"),
    _measure("CPU", "ms per call", "cpu_ms_per_call"),
    _Column("CPU", "× less than torch fp32", lambda row: row.cpu_ratio, True),
    _Column("Cosine", "lowest", _cosine, None, cosine_text),
    _Column("nDCG@5", "loss", lambda row: row.ndcg_loss, None, loss_text),
    _measure("Load", "s", "load_s"),
    _measure("First call", "s", "first_call_s"),
    _measure("Memory", "peak, MB", "peak_rss_mb"),
    _measure("GPU memory", "MB", "gpu_mb"),
    _Column("Disk", "MB", _disk, False),
    _Column("Price", "USD per million", lambda row: row.usd_per_million, False),
]


def render_html(rows: Sequence[Row], figures: Mapping[str, bytes]) -> str:
    """rows: of `table.build_rows`. figures: what each shows → a PNG. Nothing that a name holds can run in the page."""
    from importlib.resources import files

    import jinja2

    template = files("raylib.bench").joinpath("templates", "bench.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    parts = sections(rows)
    columns = [column for column in _COLUMNS if any(row.measured and column.read(row) is not None for row in rows)]
    return environment.from_string(template).render(
        columns=columns,
        lines=[_line(row, columns) for row in rows],
        filters=_filters(rows),
        fastest=[(part, [(f, _facts(f.row)) for f in fastest(part)]) for part in parts if fastest(part)],
        cheapest=cheapest(rows),
        gaps=[(part, gaps(part)) for part in parts if gaps(part)],
        gap_title=gap_title,
        machines=machines(rows),
        notes=notes(rows),
        figures={f"data:image/png;base64,{base64.b64encode(png).decode()}": told for told, png in figures.items()},
        models=sorted({row.result.cell.model for row in rows}),
    )


def _facts(row: Row) -> dict[str, str]:
    """What the filters choose rows by: name of the filter → the row's value, as text."""
    cell = row.result.cell
    return {
        "model": cell.model,
        "tower": cell.tower,
        "tokens": MISSING if cell.tokens is None else str(cell.tokens),
        "batch": str(cell.batch),
        "load": _load(row),
        "runtime": cell.runtime,
        "precision": cell.precision,
        "threads": str(cell.threads),
        "node": row.node or MISSING,
    }


def _load(row: Row) -> str:
    cell = row.result.cell
    if cell.load is not None:
        return f"arrivals at {cell.load:g}"
    return counted(cell.clients, "client")


_FILTERS = {
    "model": "Model",
    "tower": "Tower",
    "tokens": "Tokens",
    "batch": "Batch",
    "load": "Load",
    "runtime": "Runtime",
    "precision": "Precision",
    "threads": "Threads",
    "node": "Node type",
}


def _filters(rows: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """(name, title, values) of each filter that has a choice."""
    found = []
    for name, title in _FILTERS.items():
        values = {_facts(row)[name]: row for row in rows}
        known = {"runtime": RUNTIMES, "precision": PRECISIONS}.get(name, ())

        def order(value: str, known: Sequence[str] = known) -> tuple[Any, ...]:
            number = re.match(r"\d+", value)  # 8 before 32, and 4 clients before calls that arrive by chance
            return rank(value, known)[0], value == MISSING, number is None, int(number[0]) if number else 0, value

        if len(values) > 1:
            found.append((name, title, sorted(values, key=order)))
    return found


def _line(row: Row, columns: Sequence[_Column]) -> dict[str, Any]:
    cell = row.result.cell
    about = ["images" if cell.tokens is None else f"{cell.tokens} tokens", f"batch {cell.batch}"]
    about += [_load(row)] if row.under_load else []
    about += [counted(cell.threads, "thread"), *([row.node] if row.node else [])]
    values = [column.read(row) if row.measured else None for column in columns]
    return {
        "runtime": runtime_title(row),
        "model": cell.model,
        "tower": cell.tower,
        "about": " · ".join(about),
        "facts": _facts(row),
        "gap": None if row.measured else gap_title(row.result.status),
        "reason": "" if row.measured else reason_text(row),
        "cells": [(MISSING if v is None else c.show(v), v) for c, v in zip(columns, values, strict=True)],
        "ranges": [_range(row, column) for column in columns],
    }


def _range(row: Row, column: _Column) -> str:
    """Lowest and highest round of the throughput and of the latency that a choice is made by."""
    name = {"Embeddings": "contents_per_s", "p50": "p50_ms"}.get(column.title)
    if name is None or name not in row.measures or len(row.result.rounds) < 2:
        return ""
    return f"{number(row.measures[name].low)} to {number(row.measures[name].high)}"
