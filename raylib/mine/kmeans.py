"""Balanced k-means, for comparison: clusters of one size around centroids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from raylib.mine.inverted import nearest_centroid
from raylib.mine.neighbours import nearest
from raylib.mine.plans import cluster_sizes
from raylib.mine.split import cut_pieces, pieces_of
from raylib.mine.vectors import Rows, as_vectors

_ROUNDS, _CHOICES = 6, 16
"""Rounds of assignment and mean; centroids that each vector asks for a place in a round of assignment."""

_PIECE = 4096
"""Vectors that are balanced together. More are cut by plain k-means first, into pieces of about half as many: to
compare each of a million vectors with 31,250 centroids, round after round, would take hours."""


def balanced_kmeans(vectors: Rows, cluster_size: int, seed: int) -> np.ndarray:
    """int64 [n]: clusters of exactly cluster_size, and one of what remains, of vectors [n, d] of length 1."""
    n = len(vectors)
    if n <= _PIECE:
        return _balanced(vectors[:], cluster_size, seed)
    whole = as_vectors(vectors, "document")

    def cut(pieces: Sequence[np.ndarray]) -> Iterable[np.ndarray]:
        return (_balanced(whole[rows], cluster_size, seed) for rows in pieces)

    return cut_pieces(pieces_of(nearest_centroid(whole, 2 * n // _PIECE, seed)), cluster_size, cut)


def _balanced(vectors: np.ndarray, cluster_size: int, seed: int) -> np.ndarray:
    sizes = cluster_sizes(len(vectors), cluster_size)
    rng = np.random.default_rng(seed)
    centroids = vectors[rng.choice(len(vectors), size=len(sizes), replace=False)]
    part = np.zeros(len(vectors), dtype=np.int64)
    for _ in range(_ROUNDS):
        part = _assign(vectors, centroids, sizes)
        centroids = _means(vectors, part, len(sizes))
    return part


def _assign(vectors: np.ndarray, centroids: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Turn by turn every vector that waits asks for its next nearest centroid that had room, and the most similar of
    those who ask get the places that are left; who finds none asks again among what is left."""
    part = np.full(len(vectors), -1, dtype=np.int64)
    room = sizes.astype(np.int64)
    waiting = np.arange(len(vectors))
    while len(waiting):
        there = np.flatnonzero(room > 0)
        scores, choice = nearest(vectors[waiting], centroids[there], min(_CHOICES, len(there)), method="exact")
        for turn in range(choice.shape[1]):
            asking = np.flatnonzero(part[waiting] < 0)
            wanted = there[choice[asking, turn]]
            order = np.lexsort((waiting[asking], -scores[asking, turn], wanted))
            asking, wanted = asking[order], wanted[order]
            place = np.arange(len(wanted)) - np.searchsorted(wanted, wanted)
            served = place < room[wanted]
            part[waiting[asking[served]]] = wanted[served]
            room -= np.bincount(wanted[served], minlength=len(room))
        waiting = waiting[part[waiting] < 0]
    return part


def _means(vectors: np.ndarray, part: np.ndarray, n_parts: int) -> np.ndarray:
    order = np.argsort(part, kind="stable")
    counts = np.bincount(part, minlength=n_parts)
    means = np.add.reduceat(vectors[order], np.cumsum(counts) - counts, axis=0)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
