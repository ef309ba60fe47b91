"""The loss of a batch in parts is that of the whole: chunks of queries, and the shares of workers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from raylib.models.token_vectors import TokenVectors
from raylib.train.false_negatives import Layout
from raylib.train.objective import Criterion, Objective

from .made_vectors import again, assert_same, gradient, leaf, run

N, DIM = 7, 6
QUERY_TOKENS, DOCUMENT_TOKENS = [3, 5, 1, 4, 2, 5, 3], [8, 2, 5, 1, 9, 3, 4, 3, 1, 7, 2, 2]

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "symmetric": {"symmetric": True},
    "explicit": {"explicit": 0.3},
    "mask_above": {"mask_above": 0.05},
    "pairwise": {"loss": "pairwise"},
    "pairwise, explicit": {"loss": "pairwise", "explicit": 0.5},
    "sigmoid": {"loss": "sigmoid", "temperature": 0.1},
    "temperature": {"learn_temperature": True, "symmetric": True},
}
DENSE: dict[str, dict[str, Any]] = {
    "matryoshka": {"matryoshka": (6, 3)},
    "all": {"matryoshka": (4, 2), "symmetric": True, "explicit": 0.2, "mask_above": 0.1, "learn_temperature": True},
}
BATCHES = [("maxsim", options) for options in VARIANTS.values()]
BATCHES += [("cosine", options) for options in (VARIANTS | DENSE).values()]


def uneven_batch(similarity: str) -> tuple[Layout, TokenVectors, TokenVectors]:
    """Hard negatives of some, and contents that occur twice."""
    layout = Layout(
        np.array([0, 1, 2, 1, 4, 5, 6]),
        np.array([20, 21, 22, 23, 24, 20, 26]),
        np.array([30, 31, 22, 33, 34]),
        np.array([1, 1, 4, 6, 6]),
    )
    late = similarity == "maxsim"
    queries = leaf(QUERY_TOKENS if late else [1] * N, dim=DIM, seed=11)
    return layout, queries, leaf(DOCUMENT_TOKENS if late else [1] * 12, dim=DIM, seed=12)


@pytest.mark.parametrize(("similarity", "options"), BATCHES)
def test_chunks_are_the_whole(similarity: Any, options: dict[str, Any]) -> None:
    layout, queries, documents = uneven_batch(similarity)
    whole = Criterion(Objective(similarity, **{"temperature": 0.05, **options}))
    expected = run(whole, layout, queries, documents)
    assert expected[0] > 0 and float(expected[2].abs().max()) > 0
    for chunk in (1, 2, 3, 6, 100):
        criterion = Criterion(whole.objective)
        found = run(criterion, layout, queries, documents, chunk)
        assert_same((*found, *_learned(criterion)), (*expected, *_learned(whole)))


@pytest.mark.parametrize("shares", [[(0, 3), (3, 5), (5, 7)], [(0, 0), (0, 7)], [(0, 6), (6, 7)]])
@pytest.mark.parametrize(("similarity", "options"), BATCHES)
def test_shares_add_up_to_the_whole(
    similarity: Any, options: dict[str, Any], shares: Sequence[tuple[int, int]]
) -> None:
    """As workers have them: each its own queries, unless documents rank queries, and all documents."""
    layout, queries, documents = uneven_batch(similarity)
    whole = Criterion(Objective(similarity, **{"temperature": 0.05, **options}))
    expected = run(whole, layout, queries, documents)
    q, d, criterion, loss = again(queries), again(documents), Criterion(whole.objective), 0.0
    for first, last in shares:
        own = q if criterion.objective.symmetric else q.slice(first, last)
        loss += criterion.backward(layout, slice(first, last), own, d, chunk=2)
    assert_same((loss, gradient(q), gradient(d), *_learned(criterion)), (*expected, *_learned(whole)))


def test_scale_is_of_the_gradient_alone() -> None:
    layout, queries, documents = uneven_batch("maxsim")
    criterion = Criterion(Objective("maxsim"))
    loss, to_q, to_d = run(criterion, layout, queries, documents)
    q, d = again(queries), again(documents)
    assert criterion.backward(layout, slice(0, N), q, d, scale=0.25) == loss
    assert_same((loss, gradient(q), gradient(d)), (loss, 0.25 * to_q, 0.25 * to_d))


def _learned(criterion: Criterion) -> list[torch.Tensor]:
    return [p.grad for p in criterion.parameters() if p.requires_grad and p.grad is not None]
