"""An inverted file (Jégou, Douze and Schmid, 2011) for a join: so many queries that each list is visited thousands of
times.

FAISS scans, query after query, the lists that it visits, and so reads every list from memory once for each visit. Here
all queries of a block that visit a list meet it in one product of matrices; of the scores only those are kept that are
above the k-th best that the query has found before, which costs a comparison each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.mine.vectors import Found, Vectors
from raylib.search.dense import load_faiss
from raylib.search.dense import nearest as nearest_of_block
from raylib.search.maxsim import single_threaded_torch

if TYPE_CHECKING:
    import torch

_LISTS_PER_ROOT = 3
"""Lists for the square root of the number of documents. Measured over a million vectors of 384 dimensions: where few
lists hold the neighbours, half as many lists take as long, for centroids are cheaper to compare with than lists to
visit; where a query must visit dozens, they take nearly twice as long."""

_PER_LIST = 40
"""Vectors for each list that centroids are trained on; as many as a list must have on average."""

_ROUNDS = 8
"""Of k-means: more of them move centroids, and recall at a given number of visits, by little."""

_PRODUCT_ROWS = 1024
"""Queries of one product: its scores stay in a core's cache while they are compared with the k-th best."""

_MERGED_ROWS = 4096

_MOST_OF_A_WAVE = 24
"""Lists of each query between two choices of the k best: where hundreds are visited, what passes would fill memory."""

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


class InvertedFile:
    """Documents, of length 1 or nearly so, in lists around centroids. Positions count the documents that it was given.

    Memory: every vector once as float32, and 16 bytes. n_lists: how many; list_of int64 [m]: of each
    document.
    """

    def __init__(self, documents: Vectors, seed: int = 0, centroids_LD: np.ndarray | None = None) -> None:
        """centroids_LD: of the lists; by default those of these documents. Raises UserError for a document that is not
        finite."""
        m, dim = documents.shape
        self.centroids_LD = list_centroids(documents, seed) if centroids_LD is None else centroids_LD
        self.n_lists = len(self.centroids_LD)
        self.list_of = _assigned(documents, self.centroids_LD)
        self._positions = np.argsort(self.list_of, kind="stable")
        self._offsets = np.concatenate([[0], np.cumsum(np.bincount(self.list_of, minlength=self.n_lists))])
        place = np.empty(m, dtype=np.int64)
        place[self._positions] = np.arange(m)
        self._vectors = np.empty((m, dim), dtype=np.float32)
        for part, vectors in documents.blocks():
            self._vectors[place[part]] = vectors

    def lists_to_visit(self, query_QD: np.ndarray, exact_QK: np.ndarray, recall: float) -> tuple[int, float]:
        """(how many lists each query must visit so that on average this share of its exact nearest documents, [n, k]
        positions, is in one of them; the share that is). What lies in a list that is visited is found."""
        return lists_to_visit(query_QD, self.centroids_LD, self.list_of[exact_QK], recall)

    def search(self, query_QD: np.ndarray, k: int, visits: int) -> Found:
        """(scores [n, k] float32, positions [n, k] int64) of the best in the `visits` lists nearest to each query, best
        first; -inf and -1 where those hold fewer."""
        return self.search_lists(query_QD, k, nearest_lists(query_QD, self.centroids_LD, visits))

    def search_lists(self, query_QD: np.ndarray, k: int, lists_QV: np.ndarray) -> Found:
        """The same in the lists that are given for each query, the nearest first."""
        visits = lists_QV.shape[1]
        scores = np.full((len(query_QD), k), -np.inf, dtype=np.float32)
        positions = np.full((len(query_QD), k), -1, dtype=np.int64)

        def best_of(number: int, rows: np.ndarray) -> None:
            """Of the nearest list, in which most of what is found lies."""
            members, products = self._products(query_QD, number, rows)
            best, place = products.topk(min(k, products.shape[1]))
            scores[rows, : best.shape[1]] = best.numpy()
            positions[rows, : best.shape[1]] = members[place.numpy()]

        def above_floor(number: int, rows: np.ndarray) -> Pairs:
            """Of another list, where little is above the k-th best of the nearest one."""
            members, products = self._products(query_QD, number, rows)
            at = np.flatnonzero(products.numpy() >= scores[rows, -1:])
            row = at // products.shape[1]
            return rows[row], products.numpy().ravel()[at], members[at - row * products.shape[1]]

        _on_threads(best_of, self._visits(lists_QV[:, :1]))
        for first, stop in _waves(visits):
            found = _on_threads(above_floor, self._visits(lists_QV[:, first:stop]))
            if found:
                _merge(scores, positions, [np.concatenate(column) for column in zip(*found, strict=True)])
        return scores, positions

    def _visits(self, lists_QV: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """(list, queries that visit it), in pieces of one product each. lists_QV: of each query."""
        order = np.argsort(lists_QV.ravel(), kind="stable")
        bounds = np.searchsorted(lists_QV.ravel()[order], np.arange(self.n_lists + 1)).tolist()
        query_V = order // lists_QV.shape[1]
        return [
            (number, query_V[first : min(first + _PRODUCT_ROWS, bounds[number + 1])])
            for number in range(self.n_lists)
            if self._offsets[number] < self._offsets[number + 1]
            for first in range(bounds[number], bounds[number + 1], _PRODUCT_ROWS)
        ]

    def _products(self, query_QD: np.ndarray, number: int, rows: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        """(positions [N] of the documents of a list, inner products [len(rows), N])."""
        import torch

        members = slice(int(self._offsets[number]), int(self._offsets[number + 1]))
        vectors = torch.from_numpy(self._vectors[members])
        return self._positions[members], torch.mm(torch.from_numpy(query_QD[rows]), vectors.T)


def nearest_centroid(vectors: Vectors, n: int, seed: int = 0) -> np.ndarray:
    """int64 [len(vectors)]: which of n centroids, found by k-means over a sample, is nearest to each."""
    return _assigned(vectors, _centroids(vectors, min(n, len(vectors)), seed))


def _assigned(vectors: Vectors, centroids_LD: np.ndarray) -> np.ndarray:
    """int64 [len(vectors)]: the nearest centroid of each."""
    found = np.empty(len(vectors), dtype=np.int64)
    for part, rows in vectors.blocks():
        found[part] = nearest_of_block(rows, centroids_LD, 1)[1][:, 0]
    return found


def list_centroids(documents: Vectors, seed: int) -> np.ndarray:
    """float32 [n_lists, d]: centroids of as many lists as suit so many documents. Raises UserError for a document that
    is not finite."""
    m = len(documents)
    return _centroids(documents, max(1, min(int(_LISTS_PER_ROOT * np.sqrt(m)), m // _PER_LIST)), seed)


def nearest_lists(query_QD: np.ndarray, centroids_LD: np.ndarray, visits: int) -> np.ndarray:
    """int64 [n, visits]: the lists whose centroids are nearest to each query, the nearest first."""
    return nearest_of_block(query_QD, centroids_LD, visits)[1]


def lists_to_visit(
    query_QD: np.ndarray, centroids_LD: np.ndarray, list_QK: np.ndarray, recall: float
) -> tuple[int, float]:
    """The same as of an `InvertedFile`, by the lists [n, k] that hold the exact nearest documents of each query."""
    n_lists = len(centroids_LD)
    order_QL = nearest_lists(query_QD, centroids_LD, n_lists)
    rank_QL = np.empty_like(order_QL)
    np.put_along_axis(rank_QL, order_QL, np.broadcast_to(np.arange(n_lists), order_QL.shape), axis=1)
    needed = np.take_along_axis(rank_QL, list_QK, axis=1)
    shares = np.cumsum(np.bincount(needed.ravel(), minlength=n_lists)) / needed.size
    # A share of 1 may be missed by the last bit of a sum.
    visits = int(np.searchsorted(shares, min(recall, shares[-1])))
    return visits + 1, float(shares[visits])


def _centroids(documents: Vectors, n_lists: int, seed: int) -> np.ndarray:
    """float32 [n_lists, d], of length 1."""
    import torch

    faiss = load_faiss()
    faiss.omp_set_num_threads(torch.get_num_threads())
    n = min(len(documents), _PER_LIST * n_lists)
    sample = documents[np.sort(np.random.default_rng(seed).choice(len(documents), n, replace=False))]
    means = faiss.Kmeans(sample.shape[1], n_lists, niter=_ROUNDS, spherical=True, seed=seed % 2**31)
    means.cp.min_points_per_centroid = 1
    means.train(sample)
    return means.centroids


def _waves(visits: int) -> Iterator[tuple[int, int]]:
    """Ranges of lists by nearness, after the nearest: each three times as wide as all before, the k-th best of which
    lets the less pass, and no wider than bounds what passes."""
    first = 1
    while first < visits:
        stop = min(first + min(3 * first, _MOST_OF_A_WAVE), visits)
        yield first, stop
        first = stop


def _on_threads(work: Callable[..., Any], pieces: list[Any]) -> list[Any]:
    """What `work` gives for each piece. A thread for each piece: one is too little work to be shared among threads."""
    with single_threaded_torch() as n_threads:
        if n_threads == 1:
            return [work(*piece) for piece in pieces]
        with ThreadPoolExecutor(n_threads, thread_name_prefix="lists") as pool:
            return list(pool.map(lambda piece: work(*piece), pieces))


def _merge(scores: np.ndarray, positions: np.ndarray, pairs: Sequence[np.ndarray]) -> None:
    """Puts pairs (query, score, position) among the k best [n, k] of their queries, in place."""
    import torch

    query_P, score_P, position_P = pairs
    k = scores.shape[1]
    counts = np.bincount(query_P, minlength=len(scores))
    order = np.argsort(query_P, kind="stable")
    starts = np.cumsum(counts) - counts
    by_count = np.argsort(counts, kind="stable")  # alike together, so that little is padded
    by_count = by_count[np.searchsorted(counts[by_count], 1) :]
    for first in range(0, len(by_count), _MERGED_ROWS):
        rows = by_count[first : first + _MERGED_ROWS]
        column = np.arange(int(counts[rows[-1]]))
        empty = column >= counts[rows, None]
        at = order[np.where(empty, 0, starts[rows, None] + column)]
        new = torch.from_numpy(np.where(empty, np.float32(-np.inf), score_P[at]))
        best, place = torch.cat([torch.from_numpy(scores[rows]), new], dim=1).topk(k)
        both = np.concatenate([positions[rows], np.where(empty, -1, position_P[at])], axis=1)
        scores[rows], positions[rows] = best.numpy(), np.take_along_axis(both, place.numpy(), axis=1)
