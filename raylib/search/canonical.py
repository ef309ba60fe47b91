"""The one score of a query and a document: the exact inner product, rounded once to float32.

Matrix products round differently with every block shape, thread count and library, so a score would depend on how a
corpus was cut and on who asked beside whom (measured: 3 positions in 100,000 swap). Canonical scores have the same bits
for every cut of the corpus, every number of queries and every machine; `raylib.search.rounding` says how.

Vectors are taken as they are: cosine is the inner product of what `normalise` gives.
"""

from __future__ import annotations

import numpy as np

from raylib.search.maxsim import QuerySide, for_each_group, maxsim, query_chunks
from raylib.search.rounding import (
    UNIT_32,
    UNIT_64,
    careful_products,
    multiply,
    relative_error,
    round_once,
)
from raylib.search.sparse import sparse_block
from raylib.types import Embeddings, Hybrid, Similarity, compares_vectors

_PAIRS = 256
"""Pairs that are gathered at a time: their vectors stay in a core's cache."""

_MEMORY = 256 * 2**20
"""Working memory of late-interaction pairs, beyond their vectors."""


def normalise(vectors_ND: np.ndarray) -> np.ndarray:
    """[n, dim] float32 rows of length 1; a zero row stays zero (length clamped at 1e-12, as torch does).

    Row by row, in float64: a row's bits do not depend on its neighbours.
    """
    wide = vectors_ND.astype(np.float64)
    lengths = np.sqrt(np.add.reduce(wide * wide, axis=1, keepdims=True))
    return (wide / np.maximum(lengths, 1e-12)).astype(np.float32)


def exact_block(queries: Embeddings, documents: Embeddings, similarity: Similarity) -> np.ndarray:
    """[n_queries, n_documents] float32: every query against every document. "cosine" expects normalised vectors."""
    if similarity == "maxsim":
        return maxsim(queries, documents)
    if similarity == "sparse":
        return sparse_block(queries, documents)
    if isinstance(similarity, Hybrid):
        from raylib.search.hybrid import hybrid_block  # it scores its parts here

        return hybrid_block(queries, documents, similarity)
    query_QD, document_ND = queries.dense().astype(np.float64), documents.dense().astype(np.float64)
    norms = np.outer(np.linalg.norm(query_QD, axis=1), np.linalg.norm(document_ND, axis=1))
    bound_QN = relative_error(queries.dim, UNIT_64) * norms
    scores, unsure = round_once(multiply(query_QD, document_ND), bound_QN)
    at_Q, at_N = np.nonzero(unsure)
    for first in range(0, len(at_Q), _PAIRS):
        some_Q, some_N = at_Q[first : first + _PAIRS], at_N[first : first + _PAIRS]
        scores[some_Q, some_N] = careful_products(query_QD[some_Q], document_ND[some_N])
    return scores


def exact_pairs(
    queries: Embeddings, documents: Embeddings, query_P: np.ndarray, document_P: np.ndarray, similarity: Similarity
) -> np.ndarray:
    """[n_pairs] float32: score of query query_P[i] and document document_P[i]; the same bits as `exact_block`. For
    vectors only."""
    assert compares_vectors(similarity), f"{similarity} scores whole blocks"
    if similarity == "maxsim":
        return _maxsim_pairs(queries, documents, query_P, document_P)
    scores = np.empty(len(query_P), dtype=np.float32)
    query_QD, document_ND = queries.dense(), documents.dense()
    for first in range(0, len(query_P), _PAIRS):
        pairs = slice(first, first + _PAIRS)
        left = query_QD[query_P[pairs]].astype(np.float64)
        right = document_ND[document_P[pairs]].astype(np.float64)
        norms = np.sqrt(np.vecdot(left, left) * np.vecdot(right, right))
        scores[pairs], unsure = round_once(np.vecdot(left, right), relative_error(queries.dim, UNIT_64) * norms)
        at = np.flatnonzero(unsure)
        scores[first + at] = careful_products(left[at], right[at])
    return scores


def _maxsim_pairs(
    queries: Embeddings, documents: Embeddings, query_P: np.ndarray, document_P: np.ndarray
) -> np.ndarray:
    """Only the queries that occur are prepared, some at a time: few pairs may point at few of very many."""
    scores = np.empty(len(query_P), dtype=np.float32)
    used, query_P = np.unique(query_P, return_inverse=True)
    chosen = queries.take(used)
    for first, last in query_chunks(chosen, _MEMORY):
        pairs = np.flatnonzero((query_P >= first) & (query_P < last))
        side = QuerySide(chosen.take(np.arange(first, last)))
        scores[pairs] = _pairs_by_document(side, documents, query_P[pairs] - first, document_P[pairs])
    return scores


def _pairs_by_document(
    side: QuerySide, documents: Embeddings, query_P: np.ndarray, document_P: np.ndarray
) -> np.ndarray:
    """Document by document, each against the queries it is paired with. One pair at least."""
    scores = np.empty(len(query_P), dtype=np.float32)
    order = np.argsort(document_P, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(document_P[order])) + 1)
    asked = document_P[[run[0] for run in runs]]

    def score(group: np.ndarray) -> None:
        for n in group:
            scores[runs[n]] = side.take(query_P[runs[n]]).score(documents.take(asked[n : n + 1]))[0]

    for_each_group(score, documents.token_counts[asked])
    return scores


def rounding_bound(queries: Embeddings, longest_token: float, similarity: Similarity) -> np.ndarray:
    """[n_queries] float64: how far a score computed in float32, in any order, can be from the canonical one.

    longest_token: the largest norm of a document token. Holds for float32 products with float32 accumulation, not for
    TF32, bfloat16 or int8.
    """
    del similarity  # a dense query is one token
    norms = np.linalg.norm(queries.values.astype(np.float64), axis=1)
    totals = np.add.reduceat(norms, queries.offsets[:-1]) if len(queries) else np.zeros(0)
    return 1.1 * (queries.dim + queries.token_counts + 8) * UNIT_32 * totals * longest_token
