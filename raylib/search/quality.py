"""What a search that does not compare everything loses and saves, in the words that results and summaries use."""

from __future__ import annotations

from typing import Any

import numpy as np

_SAMPLED_QUERIES = 100

_RECALL_AT = (10, 100, 1000)


def sampled(n_queries: int) -> np.ndarray:
    """[at most 100] int64: the queries that are searched exactly as well, spread evenly."""
    return np.unique(np.linspace(0, n_queries - 1, _SAMPLED_QUERIES).round().astype(np.int64))


def recall(found_QK: np.ndarray, exact_QK: np.ndarray) -> dict[int, float]:
    """k → the share of the exact best k that are among the found best k, the mean over queries; for 10, 100 and 1,000
    where so many were asked for, and for all that were. Both [n_queries, K]: positions, best first, -1 for none."""
    most = exact_QK.shape[1]
    shares = {}
    for k in sorted({k for k in _RECALL_AT if k < most} | {most}):
        hits = [len(np.intersect1d(a[:k], b[:k])) for a, b in zip(found_QK, exact_QK, strict=True)]
        shares[k] = float(np.mean(hits)) / k
    return shares


def losses(found_QK: np.ndarray, exact_QK: np.ndarray) -> dict[str, Any]:
    """`recall` over the sampled queries, as it is reported: "recall_at_10" …, and "sampled_queries", their number."""
    shares = {f"recall_at_{k}": share for k, share in recall(found_QK, exact_QK).items()}
    return {**shares, "sampled_queries": len(exact_QK)}


def sizes(compared: float, plain: float) -> dict[str, float]:
    """As it is reported: bytes of a document as the first pass compares it, and as float32."""
    return {"bytes_per_document": round(compared, 1), "bytes_per_document_float32": round(plain, 1)}
