"""Canonical scores against rational numbers, and their independence of the call."""

from fractions import Fraction

import numpy as np
import pytest

from raylib.search import canonical
from raylib.search.canonical import exact_block, exact_pairs, normalise, rounding_bound
from raylib.search.maxsim import QuerySide, maxsim
from raylib.types import Embeddings
from tests.search.test_maxsim import nearest_float32, ragged


def vectors(n, dim, seed, sparse=False):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, dim)).astype(np.float32)
    return Embeddings.from_dense(values * (rng.random((n, dim)) < 0.1) if sparse else values)


@pytest.mark.parametrize("sparse", [False, True])
def test_products_are_exact_and_rounded_once(sparse):
    """Sparse vectors have products of exactly zero, which no interval around zero can decide."""
    queries, documents = vectors(6, 96, 1, sparse), vectors(9, 96, 2, sparse)
    scores = exact_block(queries, documents, "dot")
    for i, query in enumerate(queries.values):
        for j, document in enumerate(documents.values):
            pairs = zip(query, document, strict=True)
            exact = sum((Fraction(float(a)) * Fraction(float(b)) for a, b in pairs), Fraction(0))
            assert scores[i, j] == nearest_float32(exact)
    assert scores.dtype == np.float32 and (not sparse or (scores == 0).any())


def test_cancellation_is_decided_exactly():
    """Large products that cancel: float64 alone would lose the rest."""
    queries = Embeddings.from_dense(np.array([[2.0**60, 1, -(2.0**60), 2.0**-60]], np.float32))
    documents = Embeddings.from_dense(np.array([[2.0**60, 3, 2.0**60, 2.0**-60], [1, 1, 1, 1]], np.float32))
    assert exact_block(queries, documents, "dot").tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize("similarity", ["dot", "maxsim"])
def test_pairs_blocks_and_single_calls_give_the_same_bits(similarity):
    if similarity == "dot":
        queries, documents = vectors(40, 200, 3), vectors(70, 200, 4)
    else:
        queries, documents = ragged([9, 1, 30, 4], seed=5), ragged([1, 700, 33, 2, 90], seed=6)
    block = exact_block(queries, documents, similarity)
    at_Q, at_D = (a.ravel() for a in np.indices(block.shape))
    order = np.random.default_rng(7).permutation(len(at_Q))
    pairs = exact_pairs(queries, documents, at_Q[order], at_D[order], similarity)
    assert (pairs == block.ravel()[order]).all()
    one = [exact_block(queries.take([q]), documents.take([d]), similarity)[0, 0] for q, d in ((0, 0), (3, 4), (2, 1))]
    assert one == [block[0, 0], block[3, 4], block[2, 1]]
    assert exact_pairs(queries, documents, at_Q[:0], at_D[:0], similarity).shape == (0,)


def test_single_precision_stays_within_the_bound():
    queries, documents = vectors(30, 512, 8), vectors(400, 512, 9)
    fast = queries.values @ documents.values.T
    longest = np.linalg.norm(documents.values, axis=1).max()
    bound = rounding_bound(queries, float(longest), "dot")
    assert (np.abs(fast - exact_block(queries, documents, "dot")) <= bound[:, None]).all()
    assert (bound < 0.5).all()
    tokens, pages = ragged([20, 3], dim=64, seed=10), ragged([90, 2, 400], dim=64, seed=11)
    plain = np.array([[(q @ d.T).max(1).sum(dtype=np.float32) for d in pages] for q in tokens])
    assert (np.abs(plain - maxsim(tokens, pages)) <= rounding_bound(tokens, 1.0001, "maxsim")[:, None]).all()


def test_rows_are_normalised_alone():
    values = np.random.default_rng(12).standard_normal((50, 77)).astype(np.float32)
    values[3] = 0
    unit = normalise(values)
    np.testing.assert_allclose(np.linalg.norm(unit.astype(np.float64), axis=1)[[0, 1, 2, 4]], 1, atol=1e-7)
    assert (unit[3] == 0).all()
    assert all((normalise(values[n : n + 1])[0] == unit[n]).all() for n in range(50))


def test_late_pairs_are_scored_in_bounded_pieces(monkeypatch):
    """Few of many queries, more tokens than are prepared at a time."""
    queries, documents = ragged([9, 1, 30, 4, 2, 6], seed=5), ragged([1, 70, 33, 2], seed=6)
    query_P, document_P = np.array([4, 2, 0, 4, 0, 5]), np.array([1, 1, 3, 0, 1, 2])
    prepared = []
    monkeypatch.setattr(canonical, "_MEMORY", 2 * 16 * queries.dim * 10)  # ten tokens
    monkeypatch.setattr(canonical, "QuerySide", lambda side: prepared.append(len(side.values)) or QuerySide(side))
    scores = exact_pairs(queries, documents, query_P, document_P, "maxsim")
    assert (scores == exact_block(queries, documents, "maxsim")[query_P, document_P]).all()
    assert prepared == [9, 30, 8]  # query 0; 2; 4 and 5; the others are in no pair
