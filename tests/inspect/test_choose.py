"""Which queries come first, from tables written by hand."""

import pyarrow as pa
import pytest

from raylib.errors import UnknownNameError, UserError
from raylib.inspect.choose import (
    Hit,
    QueryId,
    distribution,
    first_relevant,
    hits_of,
    in_order,
    kept,
    measure_values,
)
from raylib.metrics.details import RANKINGS


def query(name, subset="en", split="test"):
    return QueryId(split, subset, name)


def rankings(*rows):
    """(subset, query, rank, document, relevance); the score is 10 − rank."""
    columns = {"split": [], "subset": [], "query_id": [], "rank": [], "document_id": [], "score": [], "relevance": []}
    for subset, query_id, rank, document, relevance in rows:
        values = ("test", subset, query_id, rank, document, 10.0 - rank, relevance)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return pa.table(columns).cast(RANKINGS)


RANKED = rankings(
    ("en", "a", 2, "d1", None),
    ("en", "a", 1, "d2", 0),
    ("en", "a", 3, "d3", 2),
    ("en", "b", 1, "d1", 1),
    ("fr", "a", 1, "d4", None),
    ("fr", "a", 2, "d5", 1),
)


def test_values_of_a_measure():
    table = pa.table(
        {
            "split": ["test"] * 3,
            "subset": ["en", "en", "fr"],
            "query_id": ["a", "b", "a"],
            "n_relevant": [1, 1, 1],
            "ndcg_at_5": [0.5, None, 1.0],
        }
    )
    assert measure_values(table, "ndcg_at_5") == {query("a"): 0.5, query("a", "fr"): 1.0}
    with pytest.raises(UnknownNameError, match=r"'ndcg_at_50'. Did you mean ndcg_at_5\? Kept are: ndcg_at_5"):
        measure_values(table, "ndcg_at_50")
    with pytest.raises(UnknownNameError):
        measure_values(table, "n_relevant")


def test_one_subset_alone():
    assert kept(RANKED, None, "fr").column("document_id").to_pylist() == ["d4", "d5"]
    assert len(kept(RANKED, "test", None)) == 6
    with pytest.raises(UnknownNameError, match=r"unknown subset 'french'.*There are: en, fr"):
        kept(RANKED, None, "french")
    with pytest.raises(UnknownNameError, match=r"unknown split 'tset'. Did you mean test"):
        kept(RANKED, "tset", None)


def test_the_first_relevant_rank_counts_grades_above_zero():
    assert first_relevant(RANKED) == {query("a"): 3, query("b"): 1, query("a", "fr"): 2}


def test_hits_are_by_rank_and_of_their_own_subset():
    found = hits_of(RANKED, [query("a"), query("c")])
    assert found == {
        query("a"): [Hit("d2", 1, 9.0, 0), Hit("d1", 2, 8.0, None), Hit("d3", 3, 7.0, 2)],
        query("c"): [],
    }


VALUES = {query("mid"): 0.5, query("late"): 0.0, query("never"): 0.0, query("top"): 1.0, query("soon"): 0.0}
FIRST = {query("mid"): 2, query("late"): 40, query("top"): 1, query("soon"): 6}


def names(queries):
    return [q.id for q in queries]


def test_worst_first_and_of_equals_the_one_whose_answer_came_last():
    assert names(in_order(VALUES, FIRST, "worst")) == ["never", "late", "soon", "mid", "top"]


def test_best_first():
    assert names(in_order(VALUES, FIRST, "best")) == ["top", "mid", "soon", "late", "never"]


def test_changed_first_whatever_the_direction_and_without_those_of_one_side():
    others = {query("mid"): 0.4, query("late"): 0.0, query("top"): 0.2, query("never"): 0.3, query("else"): 1.0}
    assert names(in_order(VALUES, FIRST, "changed", others)) == ["top", "never", "mid", "late"]


def test_distribution():
    found = distribution([0.0, 0.0, 0.05, 0.1, 0.3, 0.95, 1.0, 1.0])
    assert found.bins == [3, 1, 0, 1, 0, 0, 0, 0, 0, 3]  # 0.3 opens its bin although 10 · 0.3 may fall short of 3
    assert (found.n, found.n_zero, found.n_one) == (8, 2, 2)
    assert found.mean == pytest.approx(3.4 / 8) and found.median == pytest.approx(0.2)
    with pytest.raises(UserError, match="no query"):
        distribution([])
