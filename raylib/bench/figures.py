"""Figures of a bench: throughput against latency, and latency under load.

Colours are those of Okabe and Ito (2008), which people with any kind of colour vision can tell apart; runtimes differ
by their markers as well, precisions by dashes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from raylib.bench.findings import Section, sections
from raylib.bench.table import PRECISIONS, RUNTIMES, Row, counted, rank, runtime_title
from raylib.figures import INK, LINE, SOFT, draw_head, new_figure, plain, turns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_STYLES: dict[str, Any] = {"fp32": "-", "bf16": (0, (5, 2)), "int8": (0, (1.2, 1.6))}
_COLUMNS = 2
_RING: dict[str, Any] = {"marker": "o", "markersize": 14, "markerfacecolor": "none", "markeredgecolor": INK}
_RING |= {"markeredgewidth": 1.3, "linestyle": "none"}


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (latency, throughput) points that no other is at least as good as in both and better in one."""
    return [
        i
        for i, (latency, speed) in enumerate(points)
        if not any(x <= latency and y >= speed and (x, y) != (latency, speed) for x, y in points)
    ]


def throughput_figure(rows: Sequence[Row]) -> Figure | None:
    """Throughput against p50 of one client, a line per runtime and precision over the batches, the front ringed; axes
    for each model, tower, node type, threads and length. None where nothing was measured."""
    panels = _panels(rows, lambda row: not row.under_load)
    if not panels:
        return None
    figure, axes = _grid(len(panels))
    for ax, (section, tokens, mine) in zip(axes, panels, strict=False):
        points = [_lines(ax, line, "p50_ms", "contents_per_s") for line in _by_runtime(mine).values()]
        flat = [point for line in points for point in line]
        front = sorted(flat[i] for i in pareto([(x, y) for x, y, _ in flat]))
        ax.plot([x for x, _, _ in front], [y for _, y, _ in front], zorder=5, gid="pareto", **_RING)
        _name_batches(ax, front)
        _log_axes(ax, "p50 latency of a call, ms", "embeddings per second")
        _head(ax, section, tokens)
    _key(figure, [row for _, _, mine in panels for row in mine], ring="Pareto front, with its batch sizes")
    return figure


def load_figure(rows: Sequence[Row]) -> Figure | None:
    """p95 against embeddings per second where calls arrive by chance, a line per runtime and precision over the shares
    of its capacity. None where there is no such cell."""
    panels = _panels(rows, lambda row: row.result.cell.load is not None)
    if not panels:
        return None
    figure, axes = _grid(len(panels))
    for ax, (section, tokens, mine) in zip(axes, panels, strict=False):
        for line in _by_runtime(mine).values():
            _lines(ax, line, "contents_per_s", "p95_ms")
        _log_axes(ax, "embeddings per second, calls arriving by chance", "p95 latency with queueing, ms")
        _head(ax, section, tokens)
    _key(figure, [row for _, _, mine in panels for row in mine], ring=None)
    return figure


def _panels(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> list[tuple[Section, int | None, list[Row]]]:
    found = []
    for section in sections(rows):
        mine = [row for row in section.rows if row.median("p50_ms") and row.median("contents_per_s") and wanted(row)]
        lengths = dict.fromkeys(row.result.cell.tokens for row in mine)
        found += [(section, n, [row for row in mine if row.result.cell.tokens == n]) for n in lengths]
    return found


def _by_runtime(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(runtime_title(row), []).append(row)
    return found


def _grid(n: int) -> tuple[Figure, list[Axes]]:
    columns = min(n, _COLUMNS)
    lines = -(-n // columns)
    figure, axes = new_figure(6.4 * columns if columns > 1 else 8.2, 4.6 * lines + 0.9, columns, [1] * lines)
    for ax in axes[n:]:
        ax.set_axis_off()
    return figure, axes


def _lines(ax: Axes, rows: list[Row], x: str, y: str) -> list[tuple[float, float, int]]:
    """The line of one runtime and precision, the range of its rounds as thin bars; gives its (x, y, batch)."""
    cell = rows[0].result.cell
    known = [row for row in rows if x in row.measures and y in row.measures]
    xs, ys = [row.measures[x].median for row in known], [row.measures[y].median for row in known]
    colour, marker = _look(cell.runtime)
    bars = [[row.measures[y].median - row.measures[y].low for row in known]]
    bars.append([row.measures[y].high - row.measures[y].median for row in known])
    ax.errorbar(xs, ys, yerr=bars, fmt="none", ecolor=colour, elinewidth=1, alpha=0.45, zorder=2)
    ax.plot(
        xs,
        ys,
        color=colour,
        marker=marker,
        markersize=6.5,
        markerfacecolor=colour if cell.precision == "fp32" else "white",
        markeredgewidth=1.5,
        linestyle=_STYLES.get(cell.precision, "-."),
        linewidth=1.8,
        zorder=3 if cell.precision == "fp32" else 4,
        gid=runtime_title(rows[0]),
    )
    return [(a, b, row.result.cell.batch) for a, b, row in zip(xs, ys, known, strict=True)]


def _look(runtime: str) -> tuple[str, str]:
    """Colour and marker; PyTorch, which all are compared with, has the ink of the text."""
    place = rank(runtime, RUNTIMES)[0]
    return [INK, *turns(len(RUNTIMES) - 1), SOFT][place], [*_MARKERS, "*"][place]


def _name_batches(ax: Axes, front: list[tuple[float, float, int]]) -> None:
    for x, y, batch in front:
        ax.annotate(
            str(batch), (x, y), (-8, 8), textcoords="offset points", color=INK, fontsize=9, ha="right", zorder=6
        )


def _log_axes(ax: Axes, below: str, beside: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis, scale in ((ax.xaxis, ax.set_xscale), (ax.yaxis, ax.set_yscale)):
        scale("log")
        low, high = axis.get_view_interval()
        width = high / low
        subs = (1.0,) if width > 300 else (1.0, 2.0, 5.0) if width > 12 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    ax.margins(0.08)
    ax.grid(color=LINE, linewidth=0.8)
    ax.set_xlabel(below, color=INK, fontsize=10.5)
    ax.set_ylabel(beside, color=INK, fontsize=10.5)


def _head(ax: Axes, section: Section, tokens: int | None) -> None:
    model = section.model if len(section.model) < 40 else "…" + section.model[-38:]
    about = "images" if tokens is None else f"texts of {tokens} tokens"
    rest = counted(section.threads, "thread") + (f" · {section.node}" if section.node else "")
    draw_head(ax, model, f"{about} · {plain(rest, 60)}")


def _key(figure: Figure, rows: Sequence[Row], ring: str | None) -> None:
    """The legend, below the axes: a colour and marker for each runtime, a dash for each precision, the ring. It has two
    lines where one is too short, and precisions then begin a column of their own."""
    from matplotlib.lines import Line2D

    items: list[Line2D] = []
    for name in sorted({row.result.cell.runtime for row in rows}, key=lambda name: rank(name, RUNTIMES)):
        colour, marker = _look(name)
        items.append(Line2D([], [], color=colour, marker=marker, linewidth=1.8, label=plain(name, 30)))
    precisions = sorted({row.result.cell.precision for row in rows}, key=lambda name: rank(name, PRECISIONS))
    short = len(items) + len(precisions) + (ring is not None) <= 5
    if not short and len(items) % 2:
        items.append(Line2D([], [], linestyle="none", label=" "))
    for name in precisions:
        look: dict[str, Any] = {"linestyle": _STYLES.get(name, "-."), "marker": "o", "markersize": 5}
        look["markerfacecolor"] = SOFT if name == "fp32" else "white"
        items.append(Line2D([], [], color=SOFT, linewidth=1.8, label=plain(name, 30), **look))
    if ring is not None:
        items.append(Line2D([], [], label=ring, **{**_RING, "markersize": 11}))
    columns = len(items) if short else -(-len(items) // 2)
    figure.legend(
        handles=items,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=2.4,
        columnspacing=1.4,
    )
