"""Fewer tokens and fewer bits, against colpali-engine's pooler and against scores worked out by hand."""

import math

import numpy as np
import pytest

from raylib.search.compress import BinaryTokens, binary_scores, bytes_per_token, pool_tokens
from raylib.types import Embeddings


def pages(seed=0, n=6, dim=32):
    """Pages whose tokens gather around a few things, of length 1."""
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(n):
        things = rng.normal(size=(7, dim))
        tokens = things[rng.integers(0, 7, rng.integers(2, 90))]
        tokens = tokens + 0.4 * rng.normal(size=tokens.shape)
        items.append((tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).astype(np.float32))
    return Embeddings.from_list(items)


@pytest.mark.parametrize("factor", [2, 3, 5, 200])
def test_pooling_is_that_of_colpali_engine(factor):
    torch = pytest.importorskip("torch")
    pooling = pytest.importorskip("colpali_engine.compression.token_pooling")
    documents = pages()
    theirs = pooling.HierarchicalTokenPooler().pool_embeddings(
        [torch.from_numpy(tokens.copy()) for tokens in documents], pool_factor=factor
    )
    ours = pool_tokens(documents, factor)
    assert ours.token_counts.tolist() == [len(tokens) for tokens in theirs]
    for mine, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, their.numpy(), atol=1e-6)


def test_two_things_pool_to_two_tokens():
    """By hand: three tokens near e1, three near e2; the mean of each three, of length 1."""
    tokens = np.array([[1, 0], [0.8, 0.6], [1, 0], [0, 1], [0, 1], [0, 1]], np.float32)
    (pooled,) = pool_tokens(Embeddings.from_list([tokens]), 3)
    mean = np.array([2.8, 0.6]) / math.hypot(2.8, 0.6)
    np.testing.assert_allclose(sorted(pooled.tolist()), sorted([mean.tolist(), [0.0, 1.0]]), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_pooling_keeps_the_dtype_and_a_single_token(dtype):
    documents = Embeddings.from_list([np.full((1, 4), 3.0, dtype), np.eye(4, dtype=dtype)[[0, 1, 1, 0]]])
    pooled = pool_tokens(documents, 2)
    assert pooled.values.dtype == dtype and pooled.token_counts.tolist() == [1, 2]
    assert pooled[0].tolist() == [[3.0] * 4], "it stays as it is"
    assert pool_tokens(documents, 1) is documents


def test_factor_must_be_positive():
    with pytest.raises(ValueError, match="factor is 0"):
        pool_tokens(pages(), 0)


def test_a_bit_is_the_sign_of_a_number():
    documents = Embeddings.from_list([np.array([[0.5, -0.1, 0.0, 2.0, -3.0, 1.0, 1.0, -1.0, 7.0]], np.float32)])
    binary = BinaryTokens.of(documents)
    assert binary.bits.tolist() == [[0b10010110, 0b10000000]]
    assert binary.signs().values.tolist() == [[1, -1, -1, 1, -1, 1, 1, -1, 1]]


def test_binary_scores_weigh_signs_with_the_numbers_of_the_query():
    """Two query tokens, two documents: 4096 steps for the largest number of the query."""
    query = Embeddings.from_list([np.array([[1.0, -0.5, 0.25], [0.0, 0.5, 0.5]], np.float32)])
    documents = Embeddings.from_list(
        [np.array([[3, 1, 1], [-1, -1, 2]], np.float32), np.array([[1, -9, 0.1]], np.float32)]
    )
    # Signs (+,+,+) and (-,-,+); (+,-,+).  Token 1: max(0.75, -0.25) and 1.75; token 2: max(1, 0) and 0.
    assert (binary_scores(query, BinaryTokens.of(documents)) / 4096).tolist() == [[1.75, 1.75]]


def test_binary_scores_have_the_same_bits_beside_anything():
    queries, documents = pages(1), pages(2, n=40)
    whole = binary_scores(queries, BinaryTokens.of(documents))
    for at in (np.arange(3), np.array([39, 7]), np.arange(20, 40)):
        part = binary_scores(queries.take([4, 1]), BinaryTokens.of(documents.take(at)))
        assert np.array_equal(part, whole[[4, 1]][:, at])
    assert np.array_equal(whole, np.rint(whole)), "sums of whole numbers"


def test_bytes_of_a_token():
    assert [bytes_per_token(128, bits) for bits in ("float32", "bfloat16", "int8", "binary")] == [512, 256, 128, 16]
    assert (
        bytes_per_token(100, "binary")
        == BinaryTokens.of(Embeddings.from_dense(np.ones((1, 100), np.float32))).bits.nbytes
    )
