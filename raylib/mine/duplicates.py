"""Which examples must never be each other's negatives: those of one document, of one query, or nearly so."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from raylib.mine.comparison import Comparison, Find
from raylib.mine.neighbours import neighbours
from raylib.mine.vectors import Vectors

_FIRST_K = 4
"""Neighbours asked for at first; a vector whose last one is still a duplicate asks for more."""


def same_examples(
    comparison: Comparison, positives: np.ndarray, similarity: float | None, contents: Any = None
) -> np.ndarray:
    """int64 [n]: examples with one number are duplicates.

    Two examples are duplicates where they share their positive, their documents or their queries have the same vector,
    a similarity of at least `similarity` (None: the same vector only), or the same of `contents` [n] where it is given
    (any labels, e.g. digests); and where a chain of such pairs joins them. positives int64 [n].
    """
    documents, queries = comparison.single("document"), comparison.single("query")
    labels = [
        positives,
        same_vectors(documents, similarity, comparison.find)[positives],
        same_vectors(queries, similarity, comparison.find),
    ]
    if contents is not None:
        labels.append(np.unique(np.asarray(contents), return_inverse=True)[1].ravel())
    left, right = [], []
    for label in labels:
        order = np.argsort(label, kind="stable")
        equal = label[order][1:] == label[order][:-1]
        left.append(order[:-1][equal])
        right.append(order[1:][equal])
    return _components(np.concatenate(left), np.concatenate(right), len(positives))


def same_vectors(vectors: Vectors, similarity: float | None, find: Find = neighbours) -> np.ndarray:
    """int64 [n]: rows with one number are equal, or joined by a chain of pairs of at least this similarity. Pairs are
    those that `find` finds among the nearest of each distinct vector: all of them where it compares everything."""
    number, first = _distinct(vectors)
    if similarity is None or len(first) < 2:
        return number
    distinct = vectors.take(first)
    left, right = [], []
    asking, k = np.arange(len(distinct)), _FIRST_K
    while len(asking):
        k = min(k, len(distinct))
        more = []
        for start, scores, found in find(distinct.take(asking), distinct, k).blocks():
            near = scores >= similarity
            here = asking[start : start + len(scores)]
            left.append(np.repeat(here, near.sum(axis=1)))
            right.append(found[near])
            more.append(here[near[:, -1]])
        asking = np.concatenate(more) if k < len(distinct) else asking[:0]
        k *= 4
    return _components(np.concatenate(left), np.concatenate(right), len(distinct))[number]


def _distinct(vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """(number of each row's value int64 [n], the first row of each int64), by digest: no row is held."""
    digests = np.empty(len(vectors), dtype=np.dtype((np.void, 16)))
    for part, rows in vectors.blocks():
        rows = rows + 0.0  # -0.0 and 0.0 are one number and differ in their bytes
        found = [hashlib.blake2b(row, digest_size=16).digest() for row in rows]
        digests[part] = np.frombuffer(b"".join(found), dtype=digests.dtype)
    _, first, number = np.unique(digests, return_index=True, return_inverse=True)
    return number.ravel(), first


def _components(left: np.ndarray, right: np.ndarray, n: int) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    joined = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(n, n))
    return connected_components(joined, directed=False)[1].astype(np.int64)
