"""MaxSim with gradient: the fast one against the plain one, and both against values by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from raylib.models.token_vectors import TokenVectors
from raylib.train.maxsim import dense_scores, maxsim, plain_maxsim

from .made_vectors import again, gradient, leaf

SIZES = [
    ([1], [1]),
    ([3], [5, 5, 5]),
    ([4, 1, 2], [3, 1, 7, 2]),
    ([2, 2, 2, 2, 2], [1, 9]),
    ([5, 11, 1, 3, 8, 2, 6], [13, 1, 1, 4, 30, 7, 7, 2, 19]),
]
"""Tokens of each query and of each document."""

VALUE, GRADIENT = 1e-5, 1e-5
"""Of float32 with unit vectors: sums of up to 30 products in another order."""


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("chunk_bytes", [1, 600, 128 * 2**20])
@pytest.mark.parametrize(("queries", "documents"), SIZES)
def test_the_fast_one_is_the_plain_one(
    queries: Sequence[int], documents: Sequence[int], chunk_bytes: int, unit: bool
) -> None:
    """Forward and gradient, weighted by chance, however many documents are scored at a time."""
    q, d = leaf(queries, seed=1, unit=unit), leaf(documents, seed=2, unit=unit)
    fast = maxsim(q, d, chunk_bytes)
    plain_q, plain_d = again(q), again(d)
    plain = plain_maxsim(plain_q, plain_d)
    weight = leaf([len(queries)], dim=len(documents), seed=3, unit=False).values.detach()
    (fast * weight).sum().backward()
    (plain * weight).sum().backward()
    scale = 1 if unit else 10
    assert fast.shape == (len(queries), len(documents)) and fast.dtype == torch.float32
    torch.testing.assert_close(fast, plain, rtol=0, atol=scale * VALUE)
    torch.testing.assert_close(gradient(q), gradient(plain_q), rtol=0, atol=scale * GRADIENT)
    torch.testing.assert_close(gradient(d), gradient(plain_d), rtol=0, atol=scale * GRADIENT)


def test_by_hand() -> None:
    """Queries (1, 0), (0, 1) and (2, 0); documents {(3, 0), (0, 1)} and {(-1, -1)}: 3 + 1, -1 - 1; 6, -2."""
    q = _of([[1, 0], [0, 1], [2, 0]], [2, 1])
    d = _of([[3, 0], [0, 1], [-1, -1]], [2, 1])
    for function in (maxsim, plain_maxsim):
        assert function(q, d).tolist() == [[4, -2], [6, -2]]
    maxsim(q, d).sum().backward()
    assert gradient(q).tolist() == [[2, -1], [-1, 0], [2, -1]], "the nearest token of each document, added"
    assert gradient(d).tolist() == [[3, 0], [0, 1], [3, 1]], "the query tokens that a token is nearest to, added"


def test_of_equal_tokens_the_first_gets_the_gradient() -> None:
    q, d = _of([[1, 0]], [1]), _of([[1, 0], [1, 0], [0, 0]], [3])
    maxsim(q, d).sum().backward()
    assert gradient(d).tolist() == [[1, 0], [0, 0], [0, 0]]


def test_neighbours_do_not_show() -> None:
    """A document scores the same alone and beside longer ones, in any order."""
    q, d = leaf([3, 5], seed=4), leaf([2, 17, 1, 9], seed=5)
    together = maxsim(q, d)
    for i in range(4):
        alone = maxsim(q, d.slice(i, i + 1))
        torch.testing.assert_close(alone[:, 0], together[:, i], rtol=0, atol=1e-6)
    order = np.array([3, 0, 2, 1])
    torch.testing.assert_close(maxsim(q, d.take(order)), together[:, order], rtol=0, atol=1e-6)


def test_there_is_no_padding_that_could_score() -> None:
    """A zero vector that is a document's own token scores 0, above its negative products; between documents of other
    lengths there is none."""
    q = _of([[1, 0]], [1])
    assert maxsim(q, _of([[-1, 0], [-2, 0], [-3, 0]], [1, 2])).tolist() == [[-1, -2]]
    assert maxsim(q, _of([[-1, 0], [0, 0], [-2, 0], [-3, 0]], [2, 2])).tolist() == [[0, -2]]


def test_only_what_learns_gets_a_gradient() -> None:
    q, d = leaf([2, 3]), leaf([4, 1])
    fixed = TokenVectors(d.values.detach(), d.counts)
    maxsim(q, fixed).sum().backward()
    plain_q = again(q)
    plain_maxsim(plain_q, fixed).sum().backward()
    torch.testing.assert_close(gradient(q), gradient(plain_q))
    assert fixed.values.grad is None


def test_number_formats() -> None:
    """float64 is kept; half precision is added up in float32, and its gradient is in its own format."""
    q, d = leaf([2, 3], seed=6), leaf([4, 1], seed=7)
    double = maxsim(TokenVectors(q.values.double(), q.counts), TokenVectors(d.values.double(), d.counts))
    assert double.dtype == torch.float64
    half = TokenVectors(q.values.detach().bfloat16().requires_grad_(), q.counts)
    half_d = TokenVectors(d.values.detach().bfloat16(), d.counts)
    found = maxsim(half, half_d)
    assert found.dtype == torch.float32
    exact = plain_maxsim(TokenVectors(half.values.float(), q.counts), TokenVectors(half_d.values.float(), d.counts))
    torch.testing.assert_close(found, exact, rtol=0, atol=VALUE)
    found.sum().backward()
    assert half.values.grad is not None and half.values.grad.dtype == torch.bfloat16


def test_numerical_gradient() -> None:
    """torch's own check, in float64."""
    q, d = leaf([2, 1, 3], dim=3, seed=8), leaf([4, 1, 2], dim=3, seed=9)

    def scores(queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        return maxsim(TokenVectors(queries, q.counts), TokenVectors(documents, d.counts))

    inputs = (q.values.detach().double().requires_grad_(), d.values.detach().double().requires_grad_())
    assert torch.autograd.gradcheck(scores, inputs)


def test_nothing_to_score() -> None:
    q, d = leaf([2, 1]), leaf([3, 4])
    nothing = TokenVectors(torch.zeros(0, 6), np.zeros(0, dtype=np.int64))
    assert maxsim(q, nothing).shape == (2, 0) and maxsim(nothing, d).shape == (0, 2)


def test_a_query_without_tokens_scores_nothing() -> None:
    q, d = leaf([2, 0, 1]), leaf([3, 4])
    found = maxsim(q, d)
    assert found[1].tolist() == [0, 0]
    torch.testing.assert_close(found, plain_maxsim(q, d), rtol=0, atol=VALUE)


def test_a_document_without_tokens_is_no_document() -> None:
    """It has no nearest token; the first of its neighbour is not its own."""
    with pytest.raises(AssertionError, match="document"):
        maxsim(leaf([2]), leaf([3, 0, 4]))


def test_a_missing_number_stays_one() -> None:
    d = leaf([3, 4])
    with torch.no_grad():
        d.values[1] = float("nan")
    found = maxsim(leaf([2]), d)
    assert torch.isnan(found[0]).tolist() == [True, False]


def test_dense_scores_by_hand() -> None:
    q, d = _of([[1, 2]], [1]), _of([[3, 4], [0, -1]], [1, 1])
    assert dense_scores(q, d).tolist() == [[11, -2]]


def _of(rows: list[list[float]], counts: list[int]) -> TokenVectors:
    return TokenVectors(torch.tensor(rows, dtype=torch.float32).requires_grad_(), np.array(counts))
