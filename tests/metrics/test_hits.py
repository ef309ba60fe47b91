"""hit@1 with ties, worked out by hand."""

import math

import pytest

from raylib.errors import UserError
from raylib.metrics.hits import expected_hit


def test_the_best_alone():
    hit = expected_hit({"a": 0.1, "b": 0.9, "c": 0.5}, "b", query="q")
    assert (hit.value, hit.rank, hit.best) == (1.0, 1.0, ("b",))


def test_of_t_tied_candidates_each_is_first_once_in_t():
    scores = {"a": 0.5, "b": 0.9, "c": 0.9, "d": 0.9}
    for relevant in "bcd":
        hit = expected_hit(scores, relevant, query="q")
        assert hit.value == pytest.approx(1 / 3) and hit.rank == 2.0, "the mean of the ranks 1, 2 and 3"
    assert expected_hit(dict.fromkeys("abcdefgh", 0.0), "a", query="q").value == 1 / 8, "a model that tells none apart"


def test_a_tie_below_the_best_is_no_hit():
    hit = expected_hit({"a": 0.9, "b": 0.5, "c": 0.5}, "b", query="q")
    assert (hit.value, hit.rank, hit.best) == (0.0, 2.5, ("a",))


def test_a_candidate_without_a_score_is_no_hit():
    assert expected_hit({}, "a", query="q").value == 0.0
    hit = expected_hit({"b": 0.5}, "a", query="q", top_k=1000)
    assert hit.value == 0.0 and math.isinf(hit.rank)


def test_nan_is_an_error_that_names_the_row():
    with pytest.raises(UserError, match=r"query row 7: the score of b is NaN \(1 of 2 candidates\)"):
        expected_hit({"a": 0.5, "b": math.nan}, "a", query="row 7")


def test_a_ranking_that_was_cut_among_its_best_is_an_error():
    with pytest.raises(UserError, match="query q: the 2 best candidates share one score"):
        expected_hit({"a": 1.0, "b": 1.0}, "c", query="q", top_k=2)
    assert expected_hit({"a": 1.0, "b": 0.9}, "c", query="q", top_k=2).value == 0.0
