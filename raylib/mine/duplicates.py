"""Which examples must never be each other's negatives: those of one document, of one query, or nearly so."""

from __future__ import annotations

from typing import Any

import numpy as np

from raylib.mine.neighbours import nearest

_FIRST_K = 4
"""Neighbours asked for at first; a vector whose last one is still a duplicate asks for more."""


def same_examples(
    queries: np.ndarray, documents: np.ndarray, positives: np.ndarray, similarity: float | None, contents: Any = None
) -> np.ndarray:
    """int64 [n]: examples with one number are duplicates.

    Two examples are duplicates where they share their positive, their documents or their queries have the same vector,
    a similarity of at least `similarity` (None: the same vector only), or the same of `contents` [n] where it is given
    (any labels, e.g. digests); and where a chain of such pairs joins them. queries [n, d] and documents [m, d]:
    float32, normalised; positives int64 [n].
    """
    labels = [positives, same_vectors(documents, similarity)[positives], same_vectors(queries, similarity)]
    if contents is not None:
        labels.append(np.unique(np.asarray(contents), return_inverse=True)[1].ravel())
    n = len(positives)
    left, right = [], []
    for label in labels:
        order = np.argsort(label, kind="stable")
        equal = label[order][1:] == label[order][:-1]
        left.append(order[:-1][equal])
        right.append(order[1:][equal])
    return _components(np.concatenate(left), np.concatenate(right), n)


def same_vectors(vectors: np.ndarray, similarity: float | None) -> np.ndarray:
    """int64 [n]: rows with one number are equal, or joined by a chain of pairs of at least this similarity. Every pair
    is compared; the number of comparisons is that of the distinct vectors, squared."""
    # -0.0 and 0.0 are one number and differ in their bytes.
    rows = np.ascontiguousarray(vectors + 0.0)
    bytes_of = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, number = np.unique(bytes_of, return_index=True, return_inverse=True)
    if similarity is None or len(first) < 2:
        return number.ravel()
    distinct = rows[first]
    left, right = [], []
    asking, k = np.arange(len(distinct)), _FIRST_K
    while len(asking):
        k = min(k, len(distinct))
        scores, positions = nearest(distinct[asking], distinct, k, method="exact")
        near = scores >= similarity
        left.append(np.repeat(asking, near.sum(axis=1)))
        right.append(positions[near])
        asking = asking[near[:, -1]] if k < len(distinct) else asking[:0]
        k *= 4
    return _components(np.concatenate(left), np.concatenate(right), len(distinct))[number.ravel()]


def _components(left: np.ndarray, right: np.ndarray, n: int) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    joined = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(n, n))
    return connected_components(joined, directed=False)[1].astype(np.int64)
