"""What the rows say in sentences: what is fastest and what it costs, what is missing and why, where it ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylib.bench.table import BASELINE, Row, counted, number, order, rank, runtime_title, workload_title

_TITLES = {"hole": "Cannot run", "refused": "Refused", "failed": "Failed", "measured": "Not measured yet"}
GAPS = tuple(_TITLES)
"""What a cell without figures can be: what a status is called, by `gap_title`."""


@dataclass(frozen=True)
class Section:
    """The cells of one model and tower on nodes of one type, with one number of threads."""

    model: str
    tower: str
    node: str
    threads: int
    rows: list[Row]

    @property
    def title(self) -> str:
        """BAAI/bge-m3 · text · 1 thread · c7i.xlarge"""
        words = [self.model, self.tower, counted(self.threads, "thread"), self.node]
        return " · ".join(word for word in words if word)


@dataclass(frozen=True)
class Finding:
    """row: the one it names. where: the workload it is about. says: its sentences, as plain text."""

    row: Row
    where: str
    says: str


@dataclass(frozen=True)
class Gap:
    """Cells of one runtime and precision that have no figures for one reason. cells: "" where it is all of them."""

    status: str
    name: str
    cells: str
    reason: str


def sections(rows: Sequence[Row]) -> list[Section]:
    """In the order of the rows. A cell that never ran knows no node: it belongs to each node type of its model."""
    groups: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in rows:
        cell = row.result.cell
        groups.setdefault((cell.model, cell.tower, row.node, cell.threads), []).append(row)
    found = []
    for (model, tower, node, threads), mine in groups.items():
        placed = any(key[0] == model and key[1] == tower and key[2] and key[3] == threads for key in groups)
        nowhere = groups.get((model, tower, "", threads), [])
        if not node and placed:
            mine = [row for row in mine if row.measured]
        elif node:
            mine = mine + [row for row in nowhere if not row.measured]
            mine.sort(key=lambda row: order(row.result, by_node=False))
        if mine:
            found.append(Section(model, tower, node, threads, mine))
    return found


def workloads(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Title of a workload → its rows, in their order; those of one client that calls again when it is answered."""
    found: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if not row.under_load), key=_size):
        found.setdefault(workload_title(row), []).append(row)
    return found


def _size(row: Row) -> tuple[int, int]:
    return row.result.cell.tokens or 0, row.result.cell.batch


def fastest(section: Section) -> list[Finding]:
    """Of each workload the runtime with the highest throughput, and what it costs in quality and money."""
    found = []
    for where, rows in workloads(section.rows).items():
        ranked = sorted((row for row in rows if row.measured), key=lambda row: -_per_s(row))
        if ranked:
            found.append(Finding(ranked[0], where, " ".join(_sentences(ranked))))
    return found


def _per_s(row: Row) -> float:
    return row.measures["contents_per_s"].median


def _sentences(ranked: list[Row]) -> list[str]:
    best, cell = ranked[0], ranked[0].result.cell
    speed = f"{runtime_title(best)} gives {number(_per_s(best))} embeddings per second"
    speed += f" at a p50 of {number(best.median('p50_ms'))} ms" if best.median("p50_ms") is not None else ""
    is_baseline = (cell.runtime, cell.precision) == BASELINE
    if best.throughput_ratio is not None and not is_baseline:
        speed += f", {number(best.throughput_ratio)} times PyTorch's fp32"
    told = [f"{speed}.", _cost(best)]
    close = [row for row in ranked[1:] if _overlap(best, row)]
    if close:
        names = " and ".join(map(runtime_title, close))
        told.append(f"The rounds do not tell it from {names}: their ranges of throughput overlap.")
    exact = next((row for row in ranked if row.result.cell.precision == "fp32"), None)
    if exact is not None and exact is not best:
        told.append(f"The fastest in fp32 is {exact.result.cell.runtime} with {number(_per_s(exact))} per second.")
    return told


def _cost(row: Row) -> str:
    """What the speed costs in quality, and what a million embeddings cost."""
    result, price = row.result, ""
    if row.usd_per_million is not None:
        price = f"; a million embeddings cost {number(row.usd_per_million)} USD on {row.node}"
    if (result.cell.runtime, result.cell.precision) == BASELINE:
        return f"Its vectors are what the others are compared with{price}."
    cosine = (
        "" if result.parity is None else f"the lowest cosine to PyTorch's fp32 is {cosine_text(result.parity.cosine)}"
    )
    if row.ndcg_loss is not None:
        told = f"It {'costs' if row.ndcg_loss >= 0 else 'gains'} {abs(row.ndcg_loss):.4f} of nDCG@5"
        return f"{told}{f', {cosine}' if cosine else ''}{price}."
    if result.cell.precision == "fp32":
        return f"It costs no quality: {cosine}{price}." if cosine else f"Its vectors were not compared{price}."
    unknown = "what it costs on a task was not measured"
    return f"{cosine[:1].upper()}{cosine[1:]}; {unknown}{price}." if cosine else f"{unknown.capitalize()}{price}."


def cosine_text(value: float) -> str:
    """With the digits that tell it from 1: 0.99955, 0.9999998; 1 itself only where it is 1."""
    text = "0.999999999" if 0.9999999995 <= value < 1 else f"{value:.9f}"
    kept = max(5, next((i for i, c in enumerate(text[2:], 1) if c != "9"), 9))
    return f"{value:.{kept}f}" if not 0 < value < 1 else text[: 2 + kept]


def loss_text(value: float) -> str:
    """Four digits; what rounds to nothing has no sign."""
    return f"{round(value, 4) + 0.0:.4f}"


def _overlap(best: Row, other: Row) -> bool:
    """Never of a single round, which has no spread."""
    a, b = best.measures["contents_per_s"], other.measures["contents_per_s"]
    return len(best.result.rounds) > 1 and len(other.result.rounds) > 1 and b.high >= a.low


def cheapest(rows: Sequence[Row]) -> list[Finding]:
    """Of each model, tower and length the batch, runtime and node type with the lowest price, where several node types
    have one."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        if row.usd_per_million is not None and not row.under_load:
            cell = row.result.cell
            groups.setdefault((cell.model, cell.tower, cell.tokens or 0), []).append(row)
    found = []
    for (model, tower, tokens), priced in groups.items():
        if len({row.node for row in priced}) > 1:
            best = min(priced, key=lambda row: row.usd_per_million or 0.0)
            where = f"{model} · {'images' if tower == 'image' else f'{tokens} tokens'}"
            batch, threads = best.result.cell.batch, counted(best.result.cell.threads, "thread")
            says = f"{runtime_title(best)} on {best.node}, batch {batch}, {threads}: a million embeddings cost "
            found.append(Finding(best, where, f"{says}{number(best.usd_per_million)} USD."))
    return found


def gaps(section: Section) -> list[Gap]:
    """What has no figures, by status and runtime; the cells of one reason together."""
    found: dict[tuple[str, str, str], list[str]] = {}
    total: dict[str, int] = {}
    for row in section.rows:
        name = runtime_title(row)
        total[name] = total.get(name, 0) + 1
        if not row.measured:
            key = (row.result.status, name, reason_text(row))
            found.setdefault(key, []).append(workload_title(row))
    made = [
        Gap(status, name, "" if len(cells) == total[name] else "; ".join(cells), reason)
        for (status, name, reason), cells in found.items()
    ]
    return sorted(made, key=lambda gap: rank(gap.status, GAPS))


def reason_text(row: Row) -> str:
    """Why a cell has no figures, in one line; what was refused has its difference with it."""
    reason, parity = row.result.reason or "", row.result.parity
    if row.result.status == "refused" and parity is not None:
        figures = f"lowest cosine {cosine_text(parity.cosine)}, largest difference {parity.difference:.2g}"
        reason = f"{reason} ({figures}, {parity.contents} contents)" if reason else figures
    if row.result.status == "measured":
        reason = reason or "no round has ended"
    return " ".join(reason.split()) or "no reason was given"


def gap_title(status: str) -> str:
    return _TITLES.get(status, status.capitalize())


def machines(rows: Iterable[Row]) -> list[Mapping[str, Any]]:
    """The node types, each with what is known of it as text; what differs between its results is listed."""
    found: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        about = found.setdefault(row.node, {}) if row.result.machine else {}
        for name, value in row.result.machine.items():
            parts = {f"{k} {v}" for k, v in value.items()} if isinstance(value, Mapping) else {str(value)}
            if value is not None and name != "node_type":
                about.setdefault(name, set()).update(parts)
    return [
        {
            "node": node or "node type not known",
            "about": {name: ", ".join(sorted(told)) for name, told in about.items()},
        }
        for node, about in sorted(found.items())
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """What to know of the figures: calls that failed, prices that are not there."""
    found = [
        f"{runtime_title(row)}, {row.result.cell.model}, {workload_title(row)}: {row.errors} calls failed and are not "
        "in the figures"
        for row in rows
        if row.errors
    ]
    return found + sorted({f"No price per million embeddings: {row.no_price}" for row in rows if row.no_price})
