"""Top-k with an order that never depends on how the documents were cut into blocks: score, then document id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tie_ranks(document_ids: Sequence[str]) -> np.ndarray:
    """[n] int64: rank of each id among the sorted ids. Of equal scores the higher rank wins, as in MTEB's metrics."""
    order = np.argsort(np.asarray(document_ids, dtype=object), kind="stable")
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


class TopK:
    """The k best documents of each query, fed block by block."""

    def __init__(self, n_queries: int, k: int) -> None:
        if k < 1:
            raise ValueError(f"top_k is {k}; expected at least 1")
        self.k = k
        self.scores_QK = np.zeros((n_queries, 0), dtype=np.float32)
        self.documents_QK = np.zeros((n_queries, 0), dtype=np.int64)
        self._ranks_QK = np.zeros((n_queries, 0), dtype=np.int64)

    def add(self, scores_QN: np.ndarray, documents_N: np.ndarray, ranks_N: np.ndarray) -> None:
        """scores of a block of documents; documents_N: their positions in the corpus; ranks_N: their `tie_ranks`."""
        n_queries = len(scores_QN)
        if scores_QN.shape[1] > 4 * self.k:  # a block far longer than k: drop at once what cannot enter
            scores_QN, documents_QN, ranks_QN = _keep_candidates(scores_QN, documents_N, ranks_N, self.k)
        else:
            documents_QN = np.broadcast_to(documents_N, (n_queries, len(documents_N)))
            ranks_QN = np.broadcast_to(ranks_N, (n_queries, len(ranks_N)))
        scores = np.concatenate([self.scores_QK, scores_QN], axis=1)
        documents = np.concatenate([self.documents_QK, documents_QN], axis=1)
        ranks = np.concatenate([self._ranks_QK, ranks_QN], axis=1)
        order = np.lexsort((-ranks, -scores), axis=-1)[:, : self.k]
        self.scores_QK = np.take_along_axis(scores, order, axis=1)
        self.documents_QK = np.take_along_axis(documents, order, axis=1)
        self._ranks_QK = np.take_along_axis(ranks, order, axis=1)


def _keep_candidates(
    scores_QN: np.ndarray, documents_N: np.ndarray, ranks_N: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns that can be among the k best of a row. Ties at the boundary go by rank, so rows with such ties are
    sorted in full; they are rare."""
    kept = np.argpartition(-scores_QN, k - 1, axis=1)[:, :k]
    threshold = np.take_along_axis(scores_QN, kept, axis=1).min(axis=1, keepdims=True)
    for row in np.flatnonzero((scores_QN >= threshold).sum(axis=1) > k):
        kept[row] = np.lexsort((-ranks_N, -scores_QN[row]))[:k]
    return np.take_along_axis(scores_QN, kept, axis=1), documents_N[kept], ranks_N[kept]
