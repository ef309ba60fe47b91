"""What mining found, on the terminal: which candidates were removed and why, and how hard the batches are.

Names come from data; they are printed as they are, and nothing that they hold is taken for a style.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from raylib.mine.negatives import HardNegatives
from raylib.mine.neighbours import SearchFacts
from raylib.mine.quality import ClusterQuality, Quality

if TYPE_CHECKING:
    from rich.console import Console

MISSING = "–"

_REASONS = {
    "positive": "the positive itself",
    "same_content": "another copy of the positive, or the query's own content",
    "same_query": "answers to the same query elsewhere in the data",
    "absolute_margin": "score above the positive's less --absolute-margin",
    "relative_margin": "score above the positive's less --relative-margin of it",
    "positive_fraction": "score above --positive-fraction of the positive's",
    "max_score": "score above --max-score",
    "min_score": "score below --min-score",
    "range_min": "among the first --range-min that were left",
}


class Row(NamedTuple):
    """A line of a table. values: as they are printed, one for each column of numbers."""

    name: str
    values: tuple[str, ...]


def removal_rows(found: HardNegatives) -> list[Row]:
    """What took candidates out, in the order in which it is applied: how many pairs of a query and a document, and how
    many of them for one query. What was not asked for is not among them."""
    n = max(1, len(found.indices))
    rows = [
        Row(_REASONS.get(reason, reason), (f"{count:,}", f"{count / n:.2f}")) for reason, count in found.removed.items()
    ]
    total = sum(found.removed.values())
    return [*rows, Row("in all", (f"{total:,}", f"{total / n:.2f}"))]


def negatives_lines(found: HardNegatives) -> list[str]:
    """What else there is to know of mined negatives."""
    kept = int((found.indices >= 0).sum())
    lines = [f"{kept:,} negatives for {len(found.indices):,} queries."]
    if found.duplicates:
        lines.append(f"{found.duplicates:,} documents have the content of an earlier one, which stands for them.")
    return [*lines, *search_lines({None: found.search})]


def short_line(found: HardNegatives) -> str | None:
    """A warning where queries have fewer negatives than were asked for."""
    n, wanted = found.indices.shape
    if not found.short:
        return None
    none = int((found.indices < 0).all(axis=1).sum())
    without = f", {none:,} of them none at all" if none else ""
    return (
        f"{found.short:,} of {n:,} queries have fewer than {wanted} negatives{without}. "
        "Raise --range-max, loosen the thresholds, or ask for fewer."
    )


def search_lines(searches: Mapping[Any, SearchFacts]) -> list[str]:
    """How neighbours were found. searches: by group, which is named where there are several. Exact searches make one
    line; so do shortcuts of one kind, which say the least recall that was measured."""
    lines = []
    for method in dict.fromkeys(facts.method for facts in searches.values()):
        of_method = {group: facts for group, facts in searches.items() if facts.method == method}
        groups = f" ({len(of_method)} of {len(searches)} groups)" if len(of_method) < len(searches) else ""
        group, worst = min(of_method.items(), key=lambda item: item[1].recall)
        where = f", the least of them in {group}" if len(of_method) > 1 else ""
        if not worst.sampled:
            lines.append(f"Neighbours: {_METHODS.get(method, method)}{groups}.")
            continue
        candidates = f", {worst.candidates:,} candidates" if worst.candidates else ""
        visited = f", {worst.visited:,} of {worst.lists:,} lists visited" if worst.lists else ""
        measured = f"recall {worst.recall:.4f}, measured with {worst.sampled:,} queries{visited}{candidates}{where}"
        lines.append(f"Neighbours: {_METHODS.get(method, method)}{groups}; {measured}.")
    return lines


_METHODS = {"exact": "exact search", "ivf": "inverted file", "pooled": "MaxSim of the nearest by mean vectors"}


def quality_rows(plans: Mapping[str, Quality]) -> list[Row]:
    """How plans compare: one column for each, in their order. All are judged by the same `suspect_above`."""
    found = list(plans.values())
    above = found[0].suspect_above
    assert all(quality.suspect_above == above for quality in found), "plans are judged alike to be compared"
    return [
        Row("hardness: mean of an example's ten hardest negatives", _values(found, "hardness", ".4f")),
        Row("mean similarity of all negatives", _values(found, "similarity", ".4f")),
        Row(f"suspects: negatives at {above:g} of the positive's score or more", _values(found, "suspects", ".3%")),
        Row("examples with suspects", _values(found, "examples_with_suspects", ".2%")),
        Row("duplicates that meet (pairs to be masked)", _values(found, "duplicates", ",")),
        Row("purity: pairs of one data set", _values(found, "group_purity", ".2%")),
        Row("batches", _values(found, "n_batches", ",")),
        Row("examples", _values(found, "n_examples", ",")),
    ]


def _values(plans: Sequence[Quality], name: str, form: str) -> tuple[str, ...]:
    numbers = [getattr(quality, name) for quality in plans]
    return tuple(MISSING if math.isnan(number) else format(number, form) for number in numbers)


def cluster_rows(found: ClusterQuality) -> list[Row]:
    """What the clusters are like that batches are made of."""
    sizes = f"{found.smallest:,}" if found.smallest == found.largest else f"{found.smallest:,} to {found.largest:,}"
    return [
        Row("edge cut: mutual edges between clusters", (f"{found.cut:.2%}",)),
        Row("wanted neighbours that an example meets in its cluster", (f"{found.wanted:.2f}",)),
        Row("excluded first ranks that it meets there", (f"{found.excluded:.3f}",)),
        Row("examples of a cluster", (sizes,)),
    ]


def print_negatives(found: HardNegatives, console: Console) -> None:
    """Print what was removed, how much was found, and, as a warning, which queries came short."""
    _print_table("Candidates that were removed", ("Pairs", "Per query"), removal_rows(found), console)
    _print_lines(negatives_lines(found), console)
    short = short_line(found)
    _print_lines([] if short is None else [f"! {short}"], console, "yellow")


def print_batches(
    plans: Mapping[str, Quality],
    clusters: ClusterQuality | None,
    searches: Mapping[Any, SearchFacts],
    console: Console,
) -> None:
    """Print how plans compare, then the clusters of the first, where it has some (a plan by chance has none)."""
    _print_table("Quality of the batches", tuple(plans), quality_rows(plans), console)
    if clusters is not None:
        _print_table("Clusters", ("",), cluster_rows(clusters), console)
    _print_lines(search_lines(searches), console)


def _print_table(title: str, heads: Sequence[str], rows: Sequence[Row], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold", header_style="dim", box=None)
    table.show_header = any(heads)
    table.add_column("", overflow="fold")
    for head in heads:
        table.add_column(Text(head), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(row.name), *map(Text, row.values))
    console.print(table)


def _print_lines(lines: Sequence[str], console: Console, style: str = "dim") -> None:
    from rich.text import Text

    for line in lines:
        console.print(Text(line, style=style), soft_wrap=True)
