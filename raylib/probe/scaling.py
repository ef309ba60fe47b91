"""Standardising vectors, by what the training rows are like."""

from __future__ import annotations

import numpy as np


def fit_scaling(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation), float32 [D], of rows [n, D]; the deviation of a dimension that never changes is 1, so that
    rounding is not blown up."""
    mean = x.mean(axis=0, dtype=np.float64)
    deviation = x.std(axis=0, dtype=np.float64)
    still = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-30)
    return mean.astype(np.float32), np.where(still, 1.0, deviation).astype(np.float32)


def scaled(x: np.ndarray, mean: np.ndarray | None, deviation: np.ndarray | None) -> np.ndarray:
    """float32 [n, D]; x as it is without a mean."""
    if mean is None or deviation is None:
        return np.asarray(x, np.float32)
    return ((x - mean) / deviation).astype(np.float32)
