"""The one score of a query and a document: the exact inner product, rounded once to float32.

Matrix products round differently with every block shape, thread count and library, so a score would depend on how a
corpus was cut and on who asked beside whom (measured: 3 positions in 100,000 swap). Here a product of float32 vectors
is computed in float64, whose error has a bound that holds for every order of summation (Higham, Accuracy and Stability
of Numerical Algorithms, 2002, section 3.1). Where both ends of that interval round to the same float32, that is the
score; the few others are summed again without error that matters (TwoSum; Ogita, Rump and Oishi, 2005). The bits are
therefore the same for every cut of the corpus, every number of queries, every machine.

Vectors are taken as they are: cosine is the inner product of what `normalise` gives.
"""

from __future__ import annotations

import numpy as np

from raylib.types import Embeddings, Similarity

_UNIT_64, _UNIT_32 = 2.0**-53, 2.0**-24
_PAIRS = 8192
"""Pairs that are summed again at a time."""


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
        columns = [_maxsim_column(queries, tokens) for tokens in documents]
        return np.stack(columns, axis=1) if columns else np.zeros((len(queries), 0), dtype=np.float32)
    query_QD, document_ND = queries.dense().astype(np.float64), documents.dense().astype(np.float64)
    product_QN = _product(query_QD, document_ND)
    bound_QN = _error_64(query_QD, document_ND)
    scores, unsure = _rounded(product_QN, bound_QN)
    at_Q, at_N = np.nonzero(unsure)
    scores[at_Q, at_N] = _careful(query_QD, document_ND, at_Q, at_N)
    return scores


def exact_pairs(
    queries: Embeddings, documents: Embeddings, query_P: np.ndarray, document_P: np.ndarray, similarity: Similarity
) -> np.ndarray:
    """[n_pairs] float32: score of query query_P[i] and document document_P[i]; the same bits as `exact_block`."""
    scores = np.empty(len(query_P), dtype=np.float32)
    if similarity == "maxsim":
        order = np.argsort(document_P, kind="stable")
        for pairs in np.split(order, np.flatnonzero(np.diff(document_P[order])) + 1):
            if len(pairs):
                scores[pairs] = _maxsim_column(queries.take(query_P[pairs]), documents[int(document_P[pairs[0]])])
        return scores
    for first in range(0, len(query_P), _PAIRS):
        pairs = slice(first, first + _PAIRS)
        left = queries.dense()[query_P[pairs]].astype(np.float64)
        right = documents.dense()[document_P[pairs]].astype(np.float64)
        bound = left.shape[1] * 1.01 * _UNIT_64 * np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        scores[pairs], unsure = _rounded(np.einsum("pd,pd->p", left, right), bound)
        at = np.flatnonzero(unsure)
        scores[first + at] = _careful(left, right, at, at)
    return scores


def rounding_bound(queries: Embeddings, longest_token: float, similarity: Similarity) -> np.ndarray:
    """[n_queries] float64: how far a score computed in float32, in any order, can be from the canonical one.

    longest_token: the largest norm of a document token. Holds for float32 products with float32 accumulation, not for
    TF32, bfloat16 or int8.
    """
    del similarity  # a dense query is one token
    norms = np.linalg.norm(queries.values.astype(np.float64), axis=1)
    totals = np.add.reduceat(norms, queries.offsets[:-1]) if len(queries) else np.zeros(0)
    return 1.1 * (queries.dim + queries.token_counts + 8) * _UNIT_32 * totals * longest_token


def _maxsim_column(queries: Embeddings, document_TD: np.ndarray) -> np.ndarray:
    """[n_queries] float32: MaxSim of every query with one document. The maxima are canonical inner products; they are
    summed in float64 and rounded once."""
    query_TD, document = queries.values.astype(np.float64), document_TD.astype(np.float64)
    similarities = _product(query_TD, document)
    best = similarities.max(axis=1)
    longest = np.linalg.norm(document, axis=1).max()
    bound = 1.01 * document.shape[1] * _UNIT_64 * np.linalg.norm(query_TD, axis=1) * longest
    maxima, unsure = _rounded(best, bound)
    for token in np.flatnonzero(unsure):
        rivals = np.flatnonzero(similarities[token] >= best[token] - 2 * bound[token])
        maxima[token] = _careful(query_TD, document, np.full(len(rivals), token), rivals).max()
    return np.add.reduceat(maxima.astype(np.float64), queries.offsets[:-1]).astype(np.float32)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left [n, dim] float64 times right [m, dim] float64, through torch, whose threads are the ones the user set."""
    import torch

    return torch.mm(torch.from_numpy(left), torch.from_numpy(right).T).numpy()


def _error_64(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[n, m]: the bound on the error of float64 inner products of length dim, for any order of summation."""
    scale = 1.01 * left.shape[1] * _UNIT_64
    return scale * np.outer(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))


def _rounded(values: np.ndarray, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values as float32, where the error could change them)."""
    low, high = (values - bound).astype(np.float32), (values + bound).astype(np.float32)
    return values.astype(np.float32), low != high


def _careful(left: np.ndarray, right: np.ndarray, at_left: np.ndarray, at_right: np.ndarray) -> np.ndarray:
    """[n_pairs] float32: inner products of rows, with a running error term. left, right: float64 holding float32
    values, whose products are exact in float64."""
    scores = np.empty(len(at_left), dtype=np.float32)
    for first in range(0, len(at_left), _PAIRS):
        pairs = slice(first, first + _PAIRS)
        products = np.ascontiguousarray((left[at_left[pairs]] * right[at_right[pairs]]).T)
        total, lost = np.zeros(products.shape[1]), np.zeros(products.shape[1])
        for term in products:
            new = total + term
            part = new - total
            lost += (total - (new - part)) + (term - part)
            total = new
        scores[pairs] = (total + lost).astype(np.float32)
    return scores
