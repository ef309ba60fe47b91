"""What is printed of mined negatives and of batches is what was found."""

import io

import numpy as np
import pytest
from rich.console import Console

from raylib.mine import report
from raylib.mine.comparison import DenseComparison
from raylib.mine.negatives import HardNegatives, mine_negatives
from raylib.mine.neighbours import SearchFacts
from raylib.mine.quality import ClusterQuality, Quality
from raylib.mine.vectors import Vectors

EXACT = SearchFacts("exact")


def negatives(indices, *, removed=None, duplicates=0, search=EXACT):
    indices = np.array(indices)
    n = len(indices)
    none = np.zeros(indices.shape)
    short = int((indices[:, -1] < 0).sum())
    return HardNegatives(indices, none, none, np.zeros(n), removed or {}, short, duplicates, search)


def quality(**changed):
    numbers = {
        "n_batches": 1200,
        "n_examples": 38_400,
        "hardness": 0.51239,
        "similarity": 0.25,
        "suspects": 0.00125,
        "examples_with_suspects": 0.03,
        "duplicates": 1234,
        "group_purity": 1.0,
        "suspect_above": 0.95,
        "hardest": np.zeros(2),
    }
    return Quality(**(numbers | changed))


def printed(what, *arguments):
    stream = io.StringIO()
    what(*arguments, Console(file=stream, width=120))
    return stream.getvalue()


def test_removals_by_reason_in_order():
    found = negatives([[1, 2]] * 4, removed={"positive": 4, "same_content": 0, "max_score": 6000, "other": 2})
    assert report.removal_rows(found) == [
        ("the positive itself", ("4", "1.00")),
        ("another copy of the positive, or the query's own content", ("0", "0.00")),
        ("score above --max-score", ("6,000", "1500.00")),
        ("other", ("2", "0.50")),
        ("in all", ("6,006", "1501.50")),
    ]


def test_every_reason_of_mining_has_words():
    vectors = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    found = mine_negatives(
        DenseComparison(Vectors.of(vectors, "query"), Vectors.of(vectors, "document")),
        np.arange(12),
        k=2,
        range_min=1,
        max_score=0.9,
        min_score=-0.9,
        absolute_margin=0.0,
        relative_margin=0.0,
        positive_fraction=1.0,
    )
    assert set(found.removed) == set(report._REASONS)


def test_queries_that_are_short():
    assert report.short_line(negatives([[1, 2], [3, 4]])) is None
    line = report.short_line(negatives([[1, 2], [3, -1], [-1, -1]]))
    assert line == (
        "2 of 3 queries have fewer than 2 negatives, 1 of them none at all. "
        "Raise --range-max, loosen the thresholds, or ask for fewer."
    )
    few = report.short_line(negatives([[3, -1]]))
    assert few is not None
    assert "none at all" not in few


def test_what_else_there_is_to_know():
    found = negatives([[1, 2], [3, -1]], duplicates=7)
    assert report.negatives_lines(found) == [
        "3 negatives for 2 queries.",
        "7 documents have the content of an earlier one, which stands for them.",
        "Neighbours: exact search.",
    ]


@pytest.mark.parametrize(
    ("searches", "lines"),
    [
        ({None: EXACT}, ["exact search."]),
        ({"a": EXACT, "b": EXACT}, ["exact search."]),
        (
            {None: SearchFacts("ivf", 0.99321, 256, 4096, 31)},
            ["inverted file; recall 0.9932, measured with 256 queries, 31 of 4,096 lists visited."],
        ),
        (
            {"a": EXACT, "b": SearchFacts("ivf", 0.995, 256, 64, 3), "c": SearchFacts("ivf", 0.991, 128, 32, 2)},
            [
                "exact search (1 of 3 groups).",
                "inverted file (2 of 3 groups); recall 0.9910, measured with 128 queries, 2 of 32 lists visited, "
                "the least of them in c.",
            ],
        ),
        ({}, []),
    ],
)
def test_how_neighbours_were_found(searches, lines):
    assert report.search_lines(searches) == [f"Neighbours: {line}" for line in lines]


def test_plans_side_by_side():
    chance = quality(hardness=float("nan"), suspects=0.0, duplicates=0, group_purity=0.125)
    assert report.quality_rows({"b3": quality(), "random": chance}) == [
        ("hardness: mean of an example's ten hardest negatives", ("0.5124", "–")),
        ("mean similarity of all negatives", ("0.2500", "0.2500")),
        ("suspects: negatives at 0.95 of the positive's score or more", ("0.125%", "0.000%")),
        ("examples with suspects", ("3.00%", "3.00%")),
        ("duplicates that meet (pairs to be masked)", ("1,234", "0")),
        ("purity: pairs of one data set", ("100.00%", "12.50%")),
        ("batches", ("1,200", "1,200")),
        ("examples", ("38,400", "38,400")),
    ]
    with pytest.raises(AssertionError, match="judged alike"):
        report.quality_rows({"b3": quality(), "random": quality(suspect_above=0.9)})


def test_clusters():
    assert report.cluster_rows(ClusterQuality(0.1234, 7.5, 0.0625, 32, 32)) == [
        ("edge cut: mutual edges between clusters", ("12.34%",)),
        ("wanted neighbours that an example meets in its cluster", ("7.50",)),
        ("excluded first ranks that it meets there", ("0.062",)),
        ("examples of a cluster", ("32",)),
    ]
    assert report.cluster_rows(ClusterQuality(0, 0, 0, 4, 32))[-1].values == ("4 to 32",)


def test_negatives_are_printed_whole():
    text = printed(report.print_negatives, negatives([[1, -1]], removed={"positive": 1}))
    for part in ("the positive itself", "1.00", "Neighbours: exact search.", "! 1 of 1 queries have fewer than 2"):
        assert part in text
    assert "!" not in printed(report.print_negatives, negatives([[1, 2]]))


def test_batches_are_printed_whole():
    plans = {"b3 [metis]": quality(), "random": quality()}
    text = printed(report.print_batches, plans, ClusterQuality(0.5, 1, 0, 2, 3), {"[red]": EXACT, "b": EXACT})
    for part in ("b3 [metis]", "random", "0.5124", "50.00%", "2 to 3", "Neighbours: exact search."):
        assert part in text
    assert "Clusters" not in printed(report.print_batches, plans, None, {})
