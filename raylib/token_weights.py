"""How learned token weights lie in Embeddings: one row of three numbers for each token that a content has.

A row is (id // 2048, id % 2048, weight): whole numbers up to 2048 are exact in float16 too, so ids of any vocabulary of
up to four million tokens survive in the number format of the model. A content without a weighted token has one row of
weight 0: no content is without a row.
"""

from __future__ import annotations

import numpy as np

COLUMNS = 3

_STEP = 2048


def pack(ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """ids [n] whole numbers, weights [n] → rows [n, 3] in the weights' dtype."""
    high, low = np.divmod(ids, _STEP)
    return np.stack([high.astype(weights.dtype), low.astype(weights.dtype), weights], axis=1)


def unpack(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """rows [n, 3] → (ids [n] int64, weights [n] float64)."""
    high, low = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
    return high * _STEP + low, rows[:, 2].astype(np.float64)
