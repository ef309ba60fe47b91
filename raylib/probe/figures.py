"""Figures of probes, drawn with matplotlib's objects: no window, no global figure, the same bytes for the same results.

Colours are those of Okabe and Ito (2008), which people with any kind of colour vision can tell apart; kinds differ by
their markers as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.figures import INK, LINE, SOFT, draw_head, new_figure, plain, turns
from raylib.probe.results import CLASSIFIERS, Classifier, ProbeResult, Scores
from raylib.store.representations import KINDS, Kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: dict[Kind, str] = {
    "vision_only": "#CC79A7",
    "vision_token": "#D55E00",
    "query_token": "#0072B2",
    "multimodal": "#009E73",
    "image_mean": "#E69F00",
    "text_mean": "#56B4E9",
}
MARKERS: dict[Kind, str] = {
    "vision_only": "",
    "vision_token": "s",
    "query_token": "o",
    "multimodal": "D",
    "image_mean": "^",
    "text_mean": "v",
}
_STYLES: dict[Classifier, Any] = {"mlp": "-", "logistic": (0, (5, 2.5))}
_RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 10,
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "markeredgewidth": 1.6,
}
_OF_TRAINING = {"loss": "training loss", "accuracy": "training accuracy"}
"""What a history leaves unsaid beside the names that begin with "validation"."""
_NAMES: dict[Classifier, str] = {"mlp": "MLP", "logistic": "logistic"}


def overview(results: Sequence[ProbeResult], best: ProbeResult | None = None, num_layers: int | None = None) -> Figure:
    """Test AUROC by layer: a line per kind and classifier, the interval of each as a band; vision_only, of no layer, as
    a level band. best: is ringed. num_layers: of the decoder, for the depth below each layer."""
    figure, (ax,) = new_figure(8.6, 5.6)
    layers = sorted({r.representation.layer for r in results if r.representation.layer is not None})
    shown: list[Classifier] = [c for c in CLASSIFIERS if any(r.classifier == c for r in results)]
    for kind in KINDS:
        for classifier in shown:
            mine = [r for r in results if (r.representation.kind, r.classifier) == (kind, classifier)]
            _line(ax, sorted(mine, key=lambda r: r.representation), band=classifier == shown[0])
    ax.axhline(0.5, color=SOFT, linewidth=1, linestyle=":", zorder=1, gid="chance")
    ax.annotate(
        "chance", (1, 0.5), (-4, 3), ("axes fraction", "data"), "offset points", color=SOFT, fontsize=9, ha="right"
    )
    if best is not None and best.test.auroc is not None:
        _ring(ax, best, layers)
    _layer_axis(ax, layers, num_layers)
    _auroc_axis(ax, results)
    _key(figure, results, shown, best)
    about = results[0] if results else best
    if about is not None:
        draw_head(ax, "AUROC by layer", f"{about.model_name} · {about.target} · test rows, bands: 95 % intervals")
    return figure


def _line(ax: Axes, results: list[ProbeResult], band: bool) -> None:
    """The probes of one kind and classifier; of vision_only one level line over all layers."""
    points = [(r, r.test.auroc) for r in results if r.test.auroc is not None]
    if not points:
        return
    first = points[0][0]
    kind, name = first.representation.kind, f"{first.representation.kind}:{first.classifier}"
    look: dict[str, Any] = {"color": COLOURS[kind], "linestyle": _STYLES[first.classifier], "gid": name}
    intervals = [r.test.interval or (auroc, auroc) for r, auroc in points]
    if first.representation.layer is None:
        ax.axhline(points[0][1], linewidth=2 if band else 1.4, zorder=2, **look)
        if band:
            ax.axhspan(*intervals[0], color=COLOURS[kind], alpha=0.13, linewidth=0, zorder=1)
        return
    x = [r.representation.layer or 0 for r, _ in points]
    fill = COLOURS[kind] if band else "white"
    marker: dict[str, Any] = {"marker": MARKERS[kind], "markersize": 6 if band else 5, "markerfacecolor": fill}
    ax.plot(x, [auroc for _, auroc in points], linewidth=2 if band else 1.4, zorder=4 if band else 3, **look, **marker)
    if band:
        low, high = zip(*intervals, strict=True)
        ax.fill_between(x, low, high, color=COLOURS[kind], alpha=0.13, linewidth=0, zorder=1)


def _ring(ax: Axes, best: ProbeResult, layers: list[int]) -> None:
    layer = best.representation.layer
    x = layer if layer is not None else (layers[-1] if layers else 0)
    ax.plot([x], [best.test.auroc or 0.0], linestyle="none", zorder=6, gid="best", **{**_RING, "markersize": 14})


def _layer_axis(ax: Axes, layers: list[int], num_layers: int | None) -> None:
    """A tick at each probed layer, thinned where there are more than are readable, its depth below it."""
    if not layers:
        ax.set_xticks([])
        return
    step = -(-len(layers) // 13)
    ticks = layers[::step]
    deepest = num_layers - 1 if num_layers else 0
    labels = [f"{layer}\n{layer / deepest:.0%}" if deepest > 0 else str(layer) for layer in ticks]
    ax.set_xticks(ticks, labels)
    pad = max(0.5, 0.04 * (layers[-1] - layers[0]))
    ax.set_xlim(layers[0] - pad, layers[-1] + pad)
    ax.set_xlabel("decoder layer" + (", and its depth" if deepest > 0 else ""), color=INK, fontsize=11)


def _auroc_axis(ax: Axes, results: Sequence[ProbeResult]) -> None:
    known = [edge for r in results if r.test.auroc is not None for edge in (r.test.interval or (r.test.auroc,))]
    low, high = min([0.5, *known]), max([0.55, *known])
    ax.set_ylim(max(0.0, low - 0.03), min(1.0, high + 0.03) + (0.004 if high > 0.97 else 0))
    ax.set_ylabel("test AUROC", color=INK, fontsize=11)
    ax.grid(axis="y", color=LINE, linewidth=0.8)


def _key(
    figure: Figure, results: Sequence[ProbeResult], shown: list[Classifier], best: ProbeResult | None = None
) -> None:
    """The legend, below the axes: what a colour is, a dash where there are two classifiers, and the ring."""
    from matplotlib.lines import Line2D

    kinds: list[Kind] = [kind for kind in KINDS if any(r.representation.kind == kind for r in results)]
    items = [Line2D([], [], color=COLOURS[k], marker=MARKERS[k], linewidth=2, label=k.replace("_", " ")) for k in kinds]
    if len(shown) > 1:
        items += [Line2D([], [], color=SOFT, linestyle=_STYLES[c], linewidth=1.6, label=_NAMES[c]) for c in shown]
    if best is not None and best.test.auroc is not None:
        told = "best of the test" if best.validation is None else "best by validation"
        items.append(Line2D([], [], linestyle="none", label=told, **_RING))
    if items:
        columns = len(items) if len(items) <= 5 else -(-len(items) // 2) if len(items) <= 10 else 5
        figure.legend(
            handles=items, loc="outside lower center", ncols=columns, frameon=False, fontsize=10, labelcolor=INK
        )


def roc_curve(result: ProbeResult) -> Figure:
    """Of the test rows, with the AUROC and its interval; where they are of one class, the words instead."""
    from sklearn.metrics import roc_curve as curve

    figure, (ax,) = new_figure(5.8, 5.6)
    ax.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=":", gid="chance")
    if result.test.auroc is None:
        ax.text(0.5, 0.55, "All test rows are of one class:\nthere is no curve.", ha="center", color=SOFT, fontsize=11)
    else:
        false, true, _ = curve(result.test_labels, result.test_scores, drop_intermediate=True)
        colour = COLOURS[result.representation.kind]
        ax.plot(false, true, color=colour, linewidth=2.2, gid="roc", solid_joinstyle="round")
        ax.fill_between(false, true, color=colour, alpha=0.08, linewidth=0)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.set_xlabel("false positive rate", color=INK, fontsize=11)
    ax.set_ylabel("true positive rate", color=INK, fontsize=11)
    ax.grid(color=LINE, linewidth=0.8)
    draw_head(ax, f"Test AUROC {auroc_text(result.test)}", f"{result.title} · {result.model_name}")
    return figure


def confusion_matrix(result: ProbeResult) -> Figure:
    """Of the training and the test rows at the threshold 0.5: counts, and shares of the rows of a true class."""
    figure, axes = new_figure(8.6, 4.6, columns=2)
    for ax, title, scores in zip(axes, ("train", "test"), (result.train, result.test), strict=True):
        counts = np.asarray(scores.confusion, dtype=np.float64)
        totals = counts.sum(axis=1, keepdims=True)
        shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="equal")
        for (row, column), share in np.ndenumerate(shares):
            ink = "white" if share > 0.55 else "#1b1d22"
            place: dict[str, Any] = {"ha": "center", "color": ink}
            ax.text(
                column, row - 0.04, f"{int(counts[row, column]):,}", va="bottom", fontsize=15, weight="bold", **place
            )
            ax.text(column, row + 0.06, f"{share:.1%}", va="top", fontsize=10.5, **place)
        ax.set_xticks([0, 1], ["0", "1"])
        ax.set_yticks([0, 1], ["0", "1"])
        ax.set_xlabel("predicted", color=INK, fontsize=11)
        ax.set_ylabel(f"true {plain(result.target, 34)}", color=INK, fontsize=11)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        draw_head(ax, f"{title}: {scores.rows:,} rows", f"accuracy {scores.accuracy:.3f} · F1 {scores.f1:.3f}")
    figure.suptitle(plain(f"{result.title} · {result.model_name}", 90), color=SOFT, fontsize=10, x=0.02, ha="left")
    return figure


def training_history(result: ProbeResult) -> Figure:
    """Losses by epoch, and the measures between 0 and 1 in an axes of their own where there are any."""
    from matplotlib.ticker import MaxNLocator

    told = {_OF_TRAINING.get(name, name): values for name, values in result.history.items()}
    losses = {name: values for name, values in told.items() if "loss" in name}
    others = {name: values for name, values in told.items() if "loss" not in name}
    figure, axes = new_figure(8.6, 4.4, columns=2 if others and losses else 1)
    groups = [(losses, "loss"), (others, "measures")]
    for ax, (group, label) in zip(axes, [g for g in groups if g[0]] or groups[:1], strict=False):
        for (name, values), colour in zip(group.items(), turns(len(group)), strict=True):
            x = np.arange(1, len(values) + 1)
            marker = "o" if len(values) < 3 else ""
            ax.plot(
                x,
                values,
                color=colour,
                linewidth=2,
                marker=marker,
                label=plain(name.replace("_", " ").replace("auroc", "AUROC"), 30),
            )
        ax.set_xlabel("epoch", color=INK, fontsize=11)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(axis="y", color=LINE, linewidth=0.8)
        if group:
            ax.legend(frameon=False, fontsize=10, labelcolor=INK)
        draw_head(ax, label.capitalize(), f"{result.title} · {result.model_name}")
    return figure


def auroc_text(scores: Scores) -> str:
    """0.931 [0.912, 0.948]; a dash where there is none."""
    if scores.auroc is None:
        return "–"
    return f"{scores.auroc:.3f}" + (f" [{scores.interval[0]:.3f}, {scores.interval[1]:.3f}]" if scores.interval else "")
