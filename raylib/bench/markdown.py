"""bench.md: the tables for people, by model and tower. Names and reasons come from files and are escaped."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from raylib.bench.findings import (
    Section,
    cheapest,
    cosine_text,
    fastest,
    gap_title,
    gaps,
    loss_text,
    machines,
    notes,
    sections,
    workloads,
)
from raylib.bench.table import BASELINE, MISSING, Row, counted, number, runtime_title
from raylib.evaluate.report import escape_markdown

_SPEED = [
    *("Embeddings/s", "× torch fp32", "p50 ms", "p95 ms", "p99 ms", "CPU ms/call", "CPU × less"),
    *("Cosine", "nDCG@5 loss", "USD/million"),
]
_COST = ["Cosine", "Difference", "nDCG@5", "Loss", "Load s", "First call s", "Peak RSS MB", "GPU MB", "Disk MB"]


def render_markdown(rows: Sequence[Row], figures: Iterable[str] = ()) -> str:
    """rows: of `table.build_rows`. figures: names of the images that lie beside the file."""
    lines = ["# Bench", ""]
    if not rows:
        return "# Bench\n\nThere are no results yet.\n"
    rounds = {len(row.result.rounds) for row in rows if row.measured}
    counts = f"{'up to ' if len(rounds) > 1 else ''}{counted(max(rounds, default=0), 'round')}"
    lines += [
        f"Medians over {counts}, in brackets the lowest and the highest. **Bold**: best of its column. "
        f"“× torch fp32”: against {' '.join(BASELINE)} in the same cell; “CPU × less”: how many times less CPU time.",
        "",
    ]
    lines += [line for name in figures for line in (f"![{name}]({name})", "")]
    for section in sections(rows):
        lines += _section(section)
    if cheapest(rows):
        lines += ["## Cheapest", "", *(_bullet(f.where, f.says) for f in cheapest(rows)), ""]
    lines += ["## Machines and versions", ""]
    for machine in machines(rows):
        about = "; ".join(f"{name.replace('_', ' ')}: {told}" for name, told in machine["about"].items())
        lines.append(_bullet(machine["node"], about or "nothing is known of it"))
    if notes(rows):
        lines += ["", "## Notes", "", *(f"- {_text(note)}" for note in notes(rows))]
    return "\n".join(lines) + "\n"


def _section(section: Section) -> list[str]:
    lines = [f"## {_text(section.title)}", ""]
    if fastest(section):
        lines += ["### What is fastest", "", *(_bullet(f.where, f.says) for f in fastest(section)), ""]
    groups = workloads(section.rows)
    if len(groups) > 1:
        lines += ["### Embeddings per second", "", *_overview(groups), ""]
    for title, rows in groups.items():
        lines += [f"### {_text(title[:1].upper() + title[1:])}", "", *_speed(rows), ""]
    measured = [row for row in section.rows if row.measured]
    if measured:
        lines += ["### Quality, loading and memory", "", *_cost(measured), ""]
    loaded = [row for row in section.rows if row.under_load and row.measured]
    if loaded:
        lines += ["### Under load", "", *_load(loaded), ""]
    missing = gaps(section)
    if missing:
        lines += ["### Without figures", ""]
        for gap in missing:
            name = f"{gap.name}{f', {gap.cells}' if gap.cells else ''}"
            lines.append(_bullet(f"{gap_title(gap.status)}: {name}", gap.reason))
        lines.append("")
    return lines


def _overview(groups: dict[str, list[Row]]) -> list[str]:
    """Runtimes by workloads; a cell that has no figure says what it is instead."""
    names = dict.fromkeys(runtime_title(row) for rows in groups.values() for row in rows)
    body = [[_text(name)] for name in names]
    for rows in groups.values():
        by_name = {runtime_title(row): row for row in rows}
        best = _best(lambda row: row.median("contents_per_s"), rows, high=True)
        for line, name in zip(body, names, strict=True):
            row = by_name.get(name)
            speed = None if row is None else row.median("contents_per_s")
            without = MISSING if row is None else row.result.status if not row.measured else MISSING
            line.append(without if speed is None else _bold(number(speed), speed == best))
    return _table(["Runtime", *map(_text, groups)], body)


def _speed(rows: list[Row]) -> list[str]:
    """Everything about speed in one workload."""
    readers: list[Callable[[Row], float | None]] = [
        *(
            lambda row, name=name: row.median(name)
            for name in ("contents_per_s", "p50_ms", "p95_ms", "cpu_ms_per_call")
        ),
        lambda row: row.usd_per_million,
    ]
    highest, *lowest = (_best(reader, rows, high=i == 0) for i, reader in enumerate(readers))
    body = []
    for row in rows:
        if not row.measured:
            body.append([_text(runtime_title(row)), row.result.status, *[MISSING] * (len(_SPEED) - 1)])
            continue
        parity = row.result.parity
        body.append(
            [
                _text(runtime_title(row)),
                _spread(row, "contents_per_s", highest),
                number(row.throughput_ratio),
                _spread(row, "p50_ms", lowest[0]),
                _spread(row, "p95_ms", lowest[1]),
                _spread(row, "p99_ms", None),
                _spread(row, "cpu_ms_per_call", lowest[2]),
                number(row.cpu_ratio),
                MISSING if parity is None else cosine_text(parity.cosine),
                MISSING if row.ndcg_loss is None else loss_text(row.ndcg_loss),
                _bold(
                    number(row.usd_per_million), row.usd_per_million is not None and row.usd_per_million == lowest[3]
                ),
            ]
        )
    return _table(["Runtime", *_SPEED], body)


def _best(read: Callable[[Row], float | None], rows: list[Row], high: bool) -> float | None:
    known = [value for value in map(read, rows) if value is not None]
    return None if len(known) < 2 else max(known) if high else min(known)


def _cost(rows: list[Row]) -> list[str]:
    """Of each runtime over all its cells: the lowest cosine, the median time to load, the highest memory."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(runtime_title(row), []).append(row)
    body = []
    for name, mine in groups.items():
        parities = [row.result.parity for row in mine if row.result.parity is not None]
        quality = next((row for row in mine if row.result.ndcg_at_5 is not None), None)
        disk = [row.result.disk_bytes for row in mine if row.result.disk_bytes is not None]
        body.append(
            [
                _text(name),
                cosine_text(min(p.cosine for p in parities)) if parities else MISSING,
                f"{max(p.difference for p in parities):.1e}" if parities else MISSING,
                MISSING if quality is None else f"{quality.result.ndcg_at_5:.4f}",
                MISSING if quality is None or quality.ndcg_loss is None else loss_text(quality.ndcg_loss),
                number(_over(mine, "load_s", statistics.median)),
                number(_over(mine, "first_call_s", statistics.median)),
                number(_over(mine, "peak_rss_mb", max)),
                number(_over(mine, "gpu_mb", max)),
                number(max(disk) / 1e6) if disk else MISSING,
            ]
        )
    return _table(["Runtime", *_COST], body)


def _over(rows: list[Row], measure: str, pick: Callable[[list[float]], float]) -> float | None:
    found = [row.measures[measure].median for row in rows if measure in row.measures]
    return pick(found) if found else None


def _load(rows: list[Row]) -> list[str]:
    heads = ["Runtime", "Cell", "Embeddings/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms/call"]
    body = []
    for row in rows:
        cell = row.result.cell
        words = [f"{cell.tokens} tokens" if cell.tokens is not None else "images", f"batch {cell.batch}"]
        words.append(counted(cell.clients, "client") if cell.load is None else "")
        words.append("" if cell.load is None else f"Poisson arrivals at {cell.load:g} of what one client had")
        figures = [_spread(row, name, None) for name in ("contents_per_s", "p50_ms", "p95_ms", "p99_ms")]
        told = ", ".join(word for word in words if word)
        body.append([_text(runtime_title(row)), told, *figures, _spread(row, "cpu_ms_per_call", None)])
    return _table(heads, body)


def _spread(row: Row, measure: str, best: float | None) -> str:
    """11.9 [11.2, 13.0]"""
    if measure not in row.measures:
        return MISSING
    found = row.measures[measure]
    text = _bold(number(found.median), found.median == best)
    return text + (f" [{number(found.low)}, {number(found.high)}]" if len(row.result.rounds) > 1 else "")


def _table(heads: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "|:---|" + "---:|" * (len(heads) - 1)]
    return lines + [f"| {' | '.join(line)} |" for line in body]


def _bold(text: str, holds: bool) -> str:
    return f"**{text}**" if holds else text


def _bullet(name: str, says: str) -> str:
    return f"- **{_text(name)}**: {_text(says)}"


def _text(text: str) -> str:
    return escape_markdown(" ".join(text.split()))
