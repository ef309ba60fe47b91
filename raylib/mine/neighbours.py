"""Nearest documents of queries."""

from __future__ import annotations

import numpy as np

from raylib.search import dense

_QUERIES = 4096
"""Queries searched at a time."""


def nearest(queries: np.ndarray, documents: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(scores float32 [n, k], best first, and positions int64 [n, k]) by inner product, every document compared.

    queries [n, d] and documents [m, d] float32; k is at most m.
    """
    scores = np.empty((len(queries), k), dtype=np.float32)
    positions = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), _QUERIES):
        rows = slice(start, start + _QUERIES)
        scores[rows], positions[rows] = dense.nearest(queries[rows], documents, k)
    return scores, positions
