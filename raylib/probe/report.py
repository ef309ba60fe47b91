"""The report on a run of probes: one self-contained page, the overview figure, and a table on the terminal.

Names come from data, which may come from anyone: every form escapes them in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from raylib import storage
from raylib.figures import INK, LINE, SOFT, save
from raylib.probe import figures
from raylib.probe.findings import findings, split_title, within
from raylib.probe.results import GroupScores, ProbeResult, Scores
from raylib.probe.tables import by_auroc, in_order

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure
    from rich.console import Console

REPORT = "report.html"
MISSING = "–"
_THEMED = {
    INK: "currentColor",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    "#ffffff": "var(--card)",
}
"""Colours of a figure → what a page in light or dark has in their place."""


def write_report(
    folder: str,
    results: Sequence[ProbeResult],
    best: ProbeResult,
    dropped: Mapping[str, int],
    notes: Sequence[str],
    num_layers: int | None = None,
) -> None:
    """Write overview.png, overview.svg and, last, report.html.

    dropped: reason → rows of the states or labels that no probe saw. notes: what the job has to say. num_layers: of
    the decoder, for the depth of a layer, where it is known. Raises UserError where nothing can be written.
    """
    figure = figures.overview(results, best, num_layers)
    for form in ("png", "svg"):
        with storage.atomic_write(storage.join(folder, f"overview.{form}")) as stream:
            stream.write(save(figure, form))
    storage.write_text(storage.join(folder, REPORT), render_html(results, best, dropped, notes, num_layers))


def render_html(
    results: Sequence[ProbeResult],
    best: ProbeResult,
    dropped: Mapping[str, int],
    notes: Sequence[str],
    num_layers: int | None = None,
) -> str:
    """The page; see write_report. It needs no network, and nothing that a name holds can run in it."""
    from importlib.resources import files

    import jinja2

    template = files("raylib.probe").joinpath("templates", "probe.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"score": score, "interval": interval, "share": _share, "by_auroc": by_auroc}
    environment.globals |= {"within": _within}
    sets = [s for s in (best.train, best.validation, best.test) if s is not None]
    return environment.from_string(template).render(
        best=best,
        results=in_order(results),
        split=best.split,
        split_title=split_title(best.split),
        rows=sum(s.rows for s in sets),
        positives=sum(s.positives for s in sets),
        chosen_by="the test rows" if best.validation is None else "validation",
        dropped={reason: n for reason, n in dropped.items() if n},
        notes=notes,
        findings=findings(results, best),
        has_validation=any(r.validation is not None for r in results),
        overview=_inline(figures.overview(results, best, num_layers), "AUROC by layer and representation"),
        roc=_inline(figures.roc_curve(best), f"ROC curve of {best.title}"),
    )


def score(value: float | None) -> str:
    """Three digits, as an AUROC is written."""
    return MISSING if value is None else f"{value:.3f}"


def interval(scores: Scores | GroupScores) -> str:
    return "" if scores.interval is None else f"{scores.interval[0]:.3f} to {scores.interval[1]:.3f}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else MISSING


def _within(groups: Sequence[GroupScores]) -> str:
    return score(within(groups))


def _inline(figure: Figure, label: str) -> Markup:
    """A figure as an <svg> that stands in a page: as wide as its place, in the colours of the page's theme."""
    from markupsafe import Markup, escape

    svg = save(figure, "svg").decode()
    svg = svg[svg.index("<svg") :]
    for drawn, themed in _THEMED.items():
        svg = svg.replace(drawn, themed)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # two figures of one page have groups of the same names; none is used
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    view = re.search(r'viewBox="[0-9. ]*"', svg)
    assert view is not None, "matplotlib writes a viewBox"
    return Markup(f'<svg role="img" aria-label="{escape(label)}" {view[0]}>' + svg[svg.index(">") + 1 :])


def print_summary(results: Sequence[ProbeResult], best: ProbeResult, console: Console) -> None:
    """Print all probes, the best one marked, and the findings."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title_justify="left", title_style="bold", header_style="dim", box=None)
    table.title = Text(f"Probes of {best.target} in {best.model_name}")
    table.add_column("Probe", overflow="fold")
    for head in ("Test AUROC", "95 % interval", "Validation", "Train", "Accuracy", "F1"):
        table.add_column(head, justify="right", no_wrap=True)
    for result in in_order(results):
        chosen = result.name == best.name
        name = Text(result.title, style="bold green" if chosen else "").append(" · best" if chosen else "", style="dim")
        held_out = MISSING if result.validation is None else score(result.validation.auroc)
        test = Text(score(result.test.auroc), style="bold green" if chosen else "")
        rest = [score(result.train.auroc), f"{result.test.accuracy:.3f}", f"{result.test.f1:.3f}"]
        table.add_row(name, test, interval(result.test) or MISSING, held_out, *rest)
    console.print(table)
    told = "its test AUROC: nothing was held out" if best.validation is None else "its validation AUROC"
    console.print(Text(f"The best was chosen by {told}.", style="dim"))
    for line in findings(results, best):
        console.print(Text(f"! {line}", style="yellow"), soft_wrap=True)
