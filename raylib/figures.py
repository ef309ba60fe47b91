"""What all figures look like: one ink, colours that readers of any colour vision can tell apart, the same bytes for the
same figure."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE = "#1b1d21", "#666b73", "#e4e4e0"
"""Of text, of what stands behind and of grids; a page may put its own in their place."""

_DPI = 110
_SVG = threading.Lock()
"""What decides the ids of an SVG is a setting of the process, so one is written at a time."""
_TURNS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]


def turns(n: int) -> list[str]:
    """Colours of n things side by side."""
    return [_TURNS[i % len(_TURNS)] for i in range(n)]


def save(figure: Figure, form: Literal["png", "svg"]) -> bytes:
    """The figure's file; without a date, and the same for the same figure. In an SVG text stays text."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.BytesIO()
    if form == "png":
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
        return stream.getvalue()
    with _SVG, mpl.rc_context({"svg.hashsalt": "raylib", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def new_figure(
    width: float, height: float, columns: int = 1, heights: Sequence[float] = (1,)
) -> tuple[Figure, list[Axes]]:
    """A white figure of `columns` axes side by side in each of the rows, sizes in inches. heights: of the rows, against
    each other. The axes come row by row."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=layout, facecolor="white")
    grid = figure.add_gridspec(len(heights), columns, height_ratios=list(heights))
    axes = [figure.add_subplot(grid[row, column]) for row in range(len(heights)) for column in range(columns)]
    for ax in axes:
        ax.set_facecolor("none")
        ax.set_axisbelow(True)
        ax.tick_params(colors=SOFT, labelcolor=INK, labelsize=10, length=3)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(SOFT)
    return figure, axes


def draw_head(ax: Axes, title: str, below: str) -> None:
    """A title at the left, and a softer line below it."""
    ax.set_title(plain(title, 60), loc="left", color=INK, fontsize=13, weight="bold", pad=22)
    ax.annotate(plain(below, 88), (0, 1), (0, 7), "axes fraction", "offset points", color=SOFT, fontsize=9.5)


def plain(text: str, limit: int) -> str:
    """A name from a file as a figure can show it: one line, no longer than `limit`, nothing of it read as a formula."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return (text if len(text) <= limit else text[: limit - 1] + "…").replace("$", r"\$")
