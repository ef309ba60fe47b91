"""Contents of three parts, and the weighted mean of their scores (BGE-M3, https://arxiv.org/abs/2402.03216).

A content has one row for each of its tokens, all of one width: the numbers of a vector, then the three of a token
weight (see `raylib.token_weights`), 0 where a token has none. The first row's vector is the dense one, the others' are
those of late interaction.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from raylib.search.canonical import exact_block, normalise
from raylib.token_weights import COLUMNS
from raylib.types import Embeddings, Hybrid


def hybrid_block(queries: Embeddings, documents: Embeddings, weights: Hybrid) -> np.ndarray:
    """[n_queries, n_documents] float32. Each of the three scores is canonical; their mean is computed in float64, pair
    by pair and always in the same order, and rounded once. A score of weight 0 is not computed."""
    total = np.zeros((len(queries), len(documents)))
    for weight, scores in _weighted(queries, documents, weights):
        total += weight * scores
    return (total / (weights.dense + weights.sparse + weights.multi_vector)).astype(np.float32)


def _weighted(queries: Embeddings, documents: Embeddings, weights: Hybrid) -> Iterator[tuple[float, np.ndarray]]:
    if weights.dense:
        yield weights.dense, exact_block(dense_part(queries), dense_part(documents), "cosine").astype(np.float64)
    if weights.sparse:
        yield weights.sparse, exact_block(sparse_part(queries), sparse_part(documents), "sparse").astype(np.float64)
    if weights.multi_vector:
        tokens = late_part(queries)
        sums = exact_block(tokens, late_part(documents), "maxsim").astype(np.float64)
        yield weights.multi_vector, sums / tokens.token_counts[:, None]


def dense_part(contents: Embeddings) -> Embeddings:
    """One vector of length 1 a content."""
    return Embeddings.from_dense(normalise(contents.values[contents.offsets[:-1], :-COLUMNS]))


def late_part(contents: Embeddings) -> Embeddings:
    """The vectors of all tokens but the first."""
    others = np.ones(len(contents.values), dtype=bool)
    others[contents.offsets[:-1]] = False
    return Embeddings(contents.values[others, :-COLUMNS], contents.offsets - np.arange(len(contents.offsets)))


def sparse_part(contents: Embeddings) -> Embeddings:
    return Embeddings(contents.values[:, -COLUMNS:], contents.offsets)
