"""Balanced k-means, for comparison: clusters of one size around centroids."""

from __future__ import annotations

import numpy as np

from raylib.mine.neighbours import nearest

_ROUNDS, _CHOICES = 6, 16
"""Rounds of assignment and mean; centroids that each vector asks for a place in a round of assignment."""


def balanced_kmeans(vectors: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    """int64 [n]: clusters of exactly these sizes (int64 [clusters], sum n) of float32 [n, d], normalised.

    Every vector asks for its nearest centroids that have room, the most similar pairs are served first; who finds none
    asks again among what is left.
    """
    rng = np.random.default_rng(seed)
    centroids = vectors[rng.choice(len(vectors), size=len(sizes), replace=False)]
    part = np.zeros(len(vectors), dtype=np.int64)
    for _ in range(_ROUNDS):
        part = _assign(vectors, centroids, sizes)
        centroids = _means(vectors, part, len(sizes))
    return part


def _assign(vectors: np.ndarray, centroids: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    part = np.full(len(vectors), -1, dtype=np.int64)
    room = sizes.astype(np.int64).tolist()
    waiting = np.arange(len(vectors))
    while len(waiting):
        there = np.flatnonzero(np.asarray(room) > 0)
        scores, choice = nearest(vectors[waiting], centroids[there], min(_CHOICES, len(there)))
        order = np.argsort(-scores.ravel(), kind="stable")
        for v, c in zip(
            np.repeat(waiting, choice.shape[1])[order].tolist(), there[choice.ravel()[order]].tolist(), strict=True
        ):
            if part[v] < 0 and room[c]:
                part[v] = c
                room[c] -= 1
        waiting = waiting[part[waiting] < 0]
    return part


def _means(vectors: np.ndarray, part: np.ndarray, n_parts: int) -> np.ndarray:
    order = np.argsort(part, kind="stable")
    counts = np.bincount(part, minlength=n_parts)
    means = np.add.reduceat(vectors[order], np.cumsum(counts) - counts, axis=0)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
