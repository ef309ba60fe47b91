"""Losses from scores, and which columns do not count: values by hand."""

import math

import numpy as np
import pytest
import torch

from raylib.train.false_negatives import Layout, above_positive
from raylib.train.losses import explicit_negatives, info_nce, pairwise, sigmoid

LN2, LN3 = math.log(2), math.log(3)


def _softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def _scores(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


def _nothing(scores: torch.Tensor) -> torch.Tensor:
    return torch.zeros(scores.shape, dtype=torch.bool)


def test_info_nce() -> None:
    """-log(1 / (1 + 3)), and with a temperature of 2 of twice the scores the same; a masked column is not there."""
    scores, own = _scores([[0, LN3, 0]]), torch.tensor([0])
    masked = torch.tensor([[False, False, True]])
    assert info_nce(scores, own, _nothing(scores), 1.0).tolist() == pytest.approx([math.log(5)])
    assert info_nce(scores, own, masked, 1.0).tolist() == pytest.approx([math.log(4)])
    assert info_nce(2 * scores, own, masked, 2.0).tolist() == pytest.approx([math.log(4)])
    found = info_nce(scores, own, masked, 1.0)
    found.sum().backward()
    assert scores.grad is not None and scores.grad.tolist() == [pytest.approx([-0.75, 0.75, 0])]


def test_pairwise_looks_at_the_best_negative_alone() -> None:
    scores = _scores([[1, 1 + LN3, 0], [5, 3, 3 - LN2]])
    masked = torch.tensor([[False, False, False], [True, False, False]])
    found = pairwise(scores, torch.tensor([0, 1]), masked, 1.0)
    assert found.tolist() == pytest.approx([math.log(4), math.log(1.5)])
    found.sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [pytest.approx([-0.75, 0.75, 0]), pytest.approx([0, -1 / 3, 1 / 3])]


def test_a_query_without_negatives() -> None:
    """Adds nothing, and its gradient is 0, not nan."""
    for function in (info_nce, pairwise):
        scores = _scores([[0.3, 0.9]])
        found = function(scores, torch.tensor([0]), torch.tensor([[False, True]]), 0.02)
        found.sum().backward()
        assert found.tolist() == [0] and scores.grad is not None and scores.grad.tolist() == [[0, 0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_not_hidden(bad: float) -> None:
    for function in (info_nce, pairwise):
        scores = torch.tensor([[0.3, bad]])
        assert not torch.isfinite(function(scores, torch.tensor([0]), _nothing(scores), 1.0)).any()


def test_explicit_negatives_are_a_mean_of_each_query_s_own() -> None:
    scores = _scores([[0, 9, LN2, LN3, 9], [9, 1, 9, 9, 1], [9, 9, 9, 9, 9]])
    negatives = torch.tensor([[2, 3], [4, -1], [-1, -1]])
    found = explicit_negatives(scores, torch.tensor([0, 1, 2]), negatives, 1.0)
    assert found.tolist() == pytest.approx([(math.log(3) + math.log(4)) / 2, LN2, 0])
    found.sum().backward()
    assert scores.grad is not None
    expected = [[-(2 / 3 + 3 / 4) / 2, 0, 1 / 3, 3 / 8, 0], [0, -0.5, 0, 0, 0.5], [0] * 5]
    assert scores.grad.tolist() == [pytest.approx(row) for row in expected]


def test_no_query_has_explicit_negatives() -> None:
    scores = _scores([[1, 2]])
    found = explicit_negatives(scores, torch.tensor([0]), torch.zeros((1, 0), dtype=torch.int64), 1.0)
    assert found.tolist() == [0]


def test_sigmoid_adds_up_pairs() -> None:
    """Scale 10, bias -1: 10 · 0.2 - 1 = 1 for the positive, 10 · 0.5 - 1 = 4 for the negative."""
    scores = _scores([[0.2, 0.5, 0.7]])
    found = sigmoid(scores, torch.tensor([0]), torch.tensor([[False, False, True]]), 10.0, -1.0)
    assert found.tolist() == pytest.approx([_softplus(-1) + _softplus(4)])


# Which columns do not count.


def test_duplicates_by_hand() -> None:
    """Queries a, b, a, with the positives X, Y, Z and the hard negatives Y of the first, X and W of the third.

    X and Z both answer a, so neither is a negative of the first and the third; Y is b's own positive again.
    """
    layout = Layout(np.array([0, 1, 0]), np.array([10, 11, 12]), np.array([11, 10, 13]), np.array([0, 2, 2]))
    assert layout.masked(slice(0, 3)).tolist() == [
        [False, False, True, False, True, False],
        [False, False, False, True, False, False],
        [True, False, False, False, True, False],
    ]
    assert layout.negative_columns(slice(0, 3)).tolist() == [[3, -1], [-1, -1], [4, 5]]
    for rows in (slice(0, 1), slice(1, 3), slice(2, 3), slice(3, 3)):
        np.testing.assert_array_equal(layout.masked(rows), layout.masked(slice(None))[rows])
    assert layout.negative_columns(slice(2, 3)).tolist() == [[4, 5]]
    assert layout.negative_columns(slice(1, 2)).tolist() == [[]]


def test_one_positive_of_two_queries() -> None:
    layout = Layout(np.array([0, 1]), np.array([7, 7]), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    assert layout.masked(slice(None)).tolist() == [[False, True], [True, False]]


def test_what_scores_above_the_positive() -> None:
    """By more than 0.125 above 0.5, 0.25 and 0.9; just so much is not more."""
    scores = torch.tensor([[0.5, 0.7, 0.55], [0.1, 0.25, 0.375], [1.0, 0.0, 0.9]])
    found = above_positive(scores, torch.tensor([0, 1, 2]), 0.125)
    assert found.tolist() == [[False, True, False], [False, False, False], [False, False, False]]
    assert above_positive(scores, torch.tensor([0, 1, 2]), 0.0).tolist() == [
        [False, True, True],
        [False, False, True],
        [True, False, False],
    ]
