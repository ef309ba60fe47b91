"""Inner products of float32 vectors, exact but for one rounding at the end, in any order of summation.

A product is computed in float64, whose error has a bound that holds for every order (Higham, Accuracy and Stability of
Numerical Algorithms, 2002, section 3.1). Where both ends of that interval round to the same float32, that is the
result; the few others are summed again with a running error term (TwoSum; Ogita, Rump and Oishi, 2005).
"""

from __future__ import annotations

import numpy as np

UNIT_32, UNIT_64 = 2.0**-24, 2.0**-53
"""Half the distance from 1 to the next number."""

_PAIRS = 8192


def relative_error(dim: int, unit: float) -> float:
    """|computed - exact| <= this times the product of the two norms, for sums of `dim` products in any order."""
    return 1.01 * dim * unit


def round_once(values: np.ndarray, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 values that are off by at most `bound` → (the nearest float32, True where the error could change it)."""
    low, high = (values - bound).astype(np.float32), (values + bound).astype(np.float32)
    return values.astype(np.float32), low != high


def careful_products(left_ND: np.ndarray, right_ND: np.ndarray) -> np.ndarray:
    """[n] float32: inner products of rows. Both hold float32 values as float64, so that single products are exact."""
    results = np.empty(len(left_ND), dtype=np.float32)
    for first in range(0, len(left_ND), _PAIRS):
        pairs = slice(first, first + _PAIRS)
        products = np.ascontiguousarray((left_ND[pairs] * right_ND[pairs]).T)
        total, lost = np.zeros(products.shape[1]), np.zeros(products.shape[1])
        for term in products:
            new = total + term
            part = new - total
            lost += (total - (new - part)) + (term - part)
            total = new
        results[pairs] = (total + lost).astype(np.float32)
    return results


def multiply(left_ND: np.ndarray, right_MD: np.ndarray) -> np.ndarray:
    """[n, m]: left times right transposed, through torch, whose threads are the ones the user set."""
    import torch

    return torch.mm(torch.from_numpy(left_ND), torch.from_numpy(right_MD).T).numpy()
