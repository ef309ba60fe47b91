"""Scores of learned token weights (SPLADE, uniCOIL, the sparse half of BGE-M3): over the tokens that query and document
share, the sum of the products of their weights.

Canonical like all others (see `raylib.search.canonical`): the exact sum, rounded once to float32. Weights are never
negative, so that a sum in float64 is within a small fraction of itself, and 0 where no token is shared.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from raylib.search.rounding import UNIT_64, relative_error, round_once
from raylib.token_weights import unpack
from raylib.types import Embeddings


def sparse_block(queries: Embeddings, documents: Embeddings) -> np.ndarray:
    """[n_queries, n_documents] float32 canonical scores. Contents as `raylib.token_weights` lays them out; a token that
    one content has twice counts with the larger weight."""
    query_QV, document_NV = _matrix(queries), _matrix(documents)
    width = max(query_QV.shape[1], document_NV.shape[1])
    query_QV.resize(len(queries), width)
    document_NV.resize(len(documents), width)
    # Row by row of documents, token by token in rising order: a sum's bits do not depend on what is beside it.
    products_QN = (document_NV @ query_QV.T.tocsr()).toarray().T
    most = int(min(queries.token_counts.max(initial=1), documents.token_counts.max(initial=1)))
    scores, unsure = round_once(products_QN, relative_error(most, UNIT_64) * products_QN)
    for query, document in zip(*np.nonzero(unsure), strict=True):
        scores[query, document] = _careful(query_QV, document_NV, int(query), int(document))
    return scores


def _matrix(contents: Embeddings) -> Any:
    """[n, vocabulary] CSR float64, ids rising in every row, without zeros."""
    from scipy.sparse import csr_matrix

    ids, weights = unpack(contents.values)
    owners = np.repeat(np.arange(len(contents)), contents.token_counts)
    if not weights.all():
        ids, weights, owners = (column[weights > 0] for column in (ids, weights, owners))
    rises = (owners[1:] != owners[:-1]) | (ids[1:] > ids[:-1])
    if not rises.all():
        order = np.lexsort((-weights, ids, owners))
        ids, weights, owners = ids[order], weights[order], owners[order]
        first = np.ones(len(ids), dtype=bool)
        first[1:] = (ids[1:] != ids[:-1]) | (owners[1:] != owners[:-1])
        ids, weights, owners = ids[first], weights[first], owners[first]
    pointers = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(contents)))])
    return csr_matrix((weights, ids, pointers), shape=(len(contents), int(ids.max(initial=0)) + 1))


def _careful(query_QV: Any, document_NV: Any, query: int, document: int) -> np.float32:
    """One score, summed without any error: products of float32 numbers are exact in float64."""
    left, right = query_QV[query], document_NV[document]
    _, at_left, at_right = np.intersect1d(left.indices, right.indices, return_indices=True)
    return np.float32(math.fsum(left.data[at_left] * right.data[at_right]))
