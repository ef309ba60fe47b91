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
    """The k best documents of each query, fed block by block.

    scores_QK float32, documents_QK int64 and payload_QK float32, best first, where K grows to k with what is fed. The
    payload is a number that travels with a document and does not order it. A place that is not taken yet has the score
    -inf and the document -1; such places stay only where fewer than k documents were fed.
    """

    def __init__(self, n_queries: int, k: int) -> None:
        if k < 1:
            raise ValueError(f"top_k is {k}; expected at least 1")
        self.k = k
        self.scores_QK = np.zeros((n_queries, 0), dtype=np.float32)
        self.documents_QK = np.zeros((n_queries, 0), dtype=np.int64)
        self.payload_QK = np.zeros((n_queries, 0), dtype=np.float32)
        self._ranks_QK = np.zeros((n_queries, 0), dtype=np.int64)

    @property
    def floors(self) -> np.ndarray:
        """[n_queries] float32: what a document must score at least to enter; -inf while there is room."""
        if self.scores_QK.shape[1] < self.k:
            return np.full(len(self.scores_QK), -np.inf, dtype=np.float32)
        return self.scores_QK[:, -1]

    def add(self, scores_QN: np.ndarray, documents_N: np.ndarray, ranks_N: np.ndarray) -> None:
        """scores of a block of documents; documents_N: their positions in the corpus; ranks_N: their `tie_ranks`."""
        n_queries = len(scores_QN)
        if scores_QN.shape[1] > 4 * self.k:  # a block far longer than k: drop at once what cannot enter
            scores_QN, documents_QN, ranks_QN = _keep_candidates(scores_QN, documents_N, ranks_N, self.k)
        else:
            documents_QN = np.broadcast_to(documents_N, (n_queries, len(documents_N)))
            ranks_QN = np.broadcast_to(ranks_N, (n_queries, len(ranks_N)))
        self._merge(np.arange(n_queries), scores_QN, documents_QN, ranks_QN, np.zeros_like(scores_QN))

    def add_pairs(
        self,
        query_P: np.ndarray,
        scores_P: np.ndarray,
        documents_P: np.ndarray,
        ranks_P: np.ndarray,
        payload_P: np.ndarray | None = None,
    ) -> None:
        """Another choice of documents for every query, as pairs in any order."""
        counts = np.bincount(query_P, minlength=len(self.scores_QK))
        order = np.argsort(query_P, kind="stable")
        starts = np.cumsum(counts) - counts
        payload_P = np.zeros_like(scores_P) if payload_P is None else payload_P
        # Queries with about as many documents together: one with very many must not pad all others.
        sizes = np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64)
        for size in np.unique(sizes[counts > 0]):
            rows = np.flatnonzero((sizes == size) & (counts > 0))
            column = np.arange(counts[rows].max())
            empty = column >= counts[rows, None]
            at = order[np.where(empty, 0, starts[rows, None] + column)]
            self._merge(
                rows,
                np.where(empty, np.float32(-np.inf), scores_P[at]),
                np.where(empty, -1, documents_P[at]),
                np.where(empty, -1, ranks_P[at]),
                payload_P[at],
            )

    def _merge(
        self, rows: np.ndarray, scores: np.ndarray, documents: np.ndarray, ranks: np.ndarray, payload: np.ndarray
    ) -> None:
        """Each array [rows, M]: new documents of these queries."""
        self._widen(min(self.k, self.scores_QK.shape[1] + scores.shape[1]))
        width = self.scores_QK.shape[1]
        scores = np.concatenate([self.scores_QK[rows], scores], axis=1)
        ranks = np.concatenate([self._ranks_QK[rows], ranks], axis=1)
        order = np.lexsort((-ranks, -scores), axis=-1)[:, :width]
        for table, new in (
            (self.scores_QK, scores),
            (self._ranks_QK, ranks),
            (self.documents_QK, np.concatenate([self.documents_QK[rows], documents], axis=1)),
            (self.payload_QK, np.concatenate([self.payload_QK[rows], payload], axis=1)),
        ):
            table[rows] = np.take_along_axis(new, order, axis=1)

    def _widen(self, width: int) -> None:
        missing = width - self.scores_QK.shape[1]
        if missing > 0:
            shape = (len(self.scores_QK), missing)
            self.scores_QK = np.hstack([self.scores_QK, np.full(shape, -np.inf, dtype=np.float32)])
            self.documents_QK = np.hstack([self.documents_QK, np.full(shape, -1, dtype=np.int64)])
            self._ranks_QK = np.hstack([self._ranks_QK, np.full(shape, -1, dtype=np.int64)])
            self.payload_QK = np.hstack([self.payload_QK, np.zeros(shape, dtype=np.float32)])


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
