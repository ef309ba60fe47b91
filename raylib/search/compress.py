"""Smaller late-interaction vectors: fewer tokens (hierarchical pooling) or fewer bits (int8, one bit a number)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raylib.search.rounding import multiply
from raylib.types import Embeddings

_EXACT_FLOAT32 = 2**24
"""Whole numbers up to here add up without rounding in float32, in any order."""

_MOST_STEPS = 2**12


def pool_tokens(documents: Embeddings, factor: int) -> Embeddings:
    """Each document with one token in `factor`, at least one: hierarchical token pooling (Clavié, Chaffin and Adams,
    "Reducing the footprint of multi-vector retrieval with minimal performance impact via token pooling", 2024).

    Tokens are clustered by Ward's method on 1 - their similarities and each cluster becomes its mean of length 1, as
    colpali-engine's HierarchicalTokenPooler has it. A document of one token stays as it is. Same dtype as given.
    """
    if factor < 1:
        raise ValueError(f"factor is {factor}; expected at least 1")
    if factor == 1:
        return documents
    from raylib.search.maxsim import for_each_group

    pooled: list[np.ndarray] = [documents.values[:0]] * len(documents)

    def pool(group: np.ndarray) -> None:
        for n in group.tolist():
            pooled[n] = _pool(documents[n], factor)

    for_each_group(pool, documents.token_counts)
    return Embeddings.from_list(pooled, documents.dim).astype(documents.values.dtype)


def _pool(tokens_TD: np.ndarray, factor: int) -> np.ndarray:
    from scipy.cluster.hierarchy import fcluster, ward

    n = len(tokens_TD)
    if n == 1:
        return tokens_TD
    tokens = tokens_TD.astype(np.float32)
    labels = fcluster(ward(_distances(tokens)), t=max(n // factor, 1), criterion="maxclust")
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(labels[order]) > 0])
    sums = np.add.reduceat(tokens[order].astype(np.float64), starts, axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)  # a mean and its sum have one direction
    return (sums / np.maximum(lengths, 1e-12)).astype(tokens_TD.dtype)


def _distances(tokens_TD: np.ndarray) -> np.ndarray:
    """[T * (T - 1) / 2] float64: Euclidean distances between the rows of 1 - similarities, through one product."""
    rows = 1.0 - multiply(tokens_TD, tokens_TD).astype(np.float64)
    squares = np.einsum("ij,ij->i", rows, rows)
    at = np.triu_indices(len(rows), 1)
    return np.sqrt(np.maximum(squares[at[0]] + squares[at[1]] - 2 * multiply(rows, rows)[at], 0.0))


@dataclass(frozen=True)
class BinaryTokens:
    """Signs of late-interaction vectors. bits [total_tokens, ceil(dim / 8)] uint8, a set bit where a number is
    positive; offsets as in Embeddings."""

    bits: np.ndarray
    offsets: np.ndarray
    dim: int

    @classmethod
    def of(cls, documents: Embeddings) -> BinaryTokens:
        return cls(np.packbits(documents.values > 0, axis=1), documents.offsets, documents.dim)

    def signs(self) -> Embeddings:
        """+1 and -1, float16."""
        ones = np.unpackbits(self.bits, axis=1, count=self.dim)
        return Embeddings((2 * ones.astype(np.int8) - 1).astype(np.float16), self.offsets)


def binary_scores(queries: Embeddings, documents: BinaryTokens) -> np.ndarray:
    """[n_queries, n_documents] float32: MaxSim of the queries' numbers with the documents' signs, up to a factor that
    each query has of its own. Queries are rounded to whole numbers, so small that every sum is exact: an estimate has
    the same bits whatever it is computed beside."""
    from raylib.search.maxsim import maxsim

    whole = np.empty(queries.values.shape, dtype=np.float32)
    for first, last in zip(queries.offsets[:-1], queries.offsets[1:], strict=True):
        tokens = queries.values[first:last].astype(np.float32)
        steps = max(1, min(_MOST_STEPS, _EXACT_FLOAT32 // (tokens.size + 1)))
        largest = float(np.abs(tokens).max())
        whole[first:last] = np.rint(tokens * (steps / largest)) if largest else 0.0
    return maxsim(Embeddings(whole, queries.offsets), documents.signs())


def estimates(queries: Embeddings, documents: Embeddings, candidates: str) -> np.ndarray:
    """[n_queries, n_documents] float32: MaxSim in few bits, by which candidates are chosen."""
    from raylib.search.maxsim import maxsim

    if candidates == "binary":
        return binary_scores(queries, BinaryTokens.of(documents))
    return maxsim(queries, documents, precision=candidates)


def bytes_per_token(dim: int, candidates: str) -> float:
    """What a token takes in these numbers; int8 has a float32 scale per document besides."""
    return {"float32": 4.0 * dim, "bfloat16": 2.0 * dim, "int8": 1.0 * dim, "binary": float(-(-dim // 8))}[candidates]
