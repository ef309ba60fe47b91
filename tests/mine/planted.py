"""Made vectors whose right answer is known."""

from __future__ import annotations

import numpy as np

from raylib.mine.comparison import DenseComparison
from raylib.mine.vectors import Vectors


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def communities(n: int, size: int, *, seed: int = 0, dim: int = 48) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(queries, documents, community of each): n examples in communities of `size`, shuffled, far from each other."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(-(-n // size), dim)))
    community = rng.permutation(np.arange(n) // size)
    documents = unit(centres[community] + 0.06 * rng.normal(size=(n, dim)))
    return unit(documents + 0.03 * rng.normal(size=(n, dim))), documents, community


def compared(queries: np.ndarray, documents: np.ndarray) -> DenseComparison:
    """By cosine."""
    return DenseComparison(Vectors.of(queries, "query"), Vectors.of(documents, "document"))
