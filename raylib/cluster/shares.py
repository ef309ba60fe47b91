"""Documents in shares: each says where its vectors lie, and an actor that holds one searches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raylib.cluster.search import share_out
from raylib.cluster.session import answer_of
from raylib.cluster.shared_store import require_store, store_marker
from raylib.mine.inverted import InvertedFile, nearest_lists
from raylib.mine.neighbours import Asked, exact_search
from raylib.mine.vectors import Found, Vectors
from raylib.store.embeddings import PartRows


@dataclass(frozen=True)
class Share:
    """The documents of one actor, without their vectors.

    positions int64 [n], ascending: among all documents; rows int64 [n]: of the array that holds these, of which it has
    n_rows, of dim numbers. numbers: the distinct rows, ascending. parts: where they lie in the store, with positions
    among `numbers`; None where they do not.
    """

    positions: np.ndarray
    rows: np.ndarray
    numbers: np.ndarray
    n_rows: int
    dim: int
    dtype: np.dtype
    unit: bool
    parts: list[PartRows] | None = None
    marker: str | None = None

    @classmethod
    def of(cls, documents: Vectors, positions: np.ndarray, marker: str | None) -> Share:
        rows = positions if documents.rows is None else documents.rows[positions]
        n_rows, dim = documents.values.shape
        return cls(positions, rows, np.unique(rows), n_rows, dim, documents.values.dtype, documents.unit, marker=marker)

    def values_of(self, documents: Vectors) -> np.ndarray:
        """[len(numbers), d], from where the documents are."""
        return np.asarray(documents.values[self.numbers])

    def read(self) -> np.ndarray:
        """[len(numbers), d], out of the store, a part at a time."""
        require_store(self.marker)
        values = np.empty((len(self.numbers), self.dim), dtype=self.dtype)
        for part in self.parts or ():
            values[part.positions] = part.read().values
        return values

    def vectors(self, values: np.ndarray) -> Vectors:
        """values [len(numbers), d]: as `read` or `values_of` gives them."""
        stand_in: Any = _Some(self.numbers, values, self.n_rows)
        return Vectors(stand_in, "document", self.unit, self.rows)


@dataclass(frozen=True)
class _Some:
    """Some rows of an array, under the numbers that they have there: messages then name the right ones."""

    numbers: np.ndarray
    values: np.ndarray
    n_rows: int

    def __len__(self) -> int:
        return self.n_rows

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_rows, self.values.shape[1]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.values[np.searchsorted(self.numbers, rows)]


def shares_of(asked: Asked, n: int) -> list[Share]:
    """Of about as many documents each. Out of the store: of whole parts, but for those at the ends."""
    documents, rows = asked.documents, asked.rows
    if documents.shelf is None:
        return [Share.of(documents, positions, None) for positions in np.array_split(rows, n)]
    row_of = rows if documents.rows is None else documents.rows[rows]
    located = documents.shelf.locate([documents.keys[row] for row in row_of.tolist()])
    marker, shares = store_marker(documents.shelf), []
    for parts in share_out(located, [np.ones(len(part.rows), dtype=np.int64) for part in located], n):
        at = np.sort(np.concatenate([part.positions for part in parts]))
        share = Share.of(documents, rows[at], marker)
        inside = [PartRows(p.path, np.searchsorted(share.numbers, row_of[p.positions]), p.rows) for p in parts]
        shares.append(replace(share, parts=inside))
    return shares


class Shard:
    """An actor. What is given to it may be a failure, of another actor, and is then its answer."""

    def __init__(
        self, share: Share, values: np.ndarray | None, centroids_LD: np.ndarray | None, k: int, threads: int
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self._share, self._values, self._centroids_LD = share, values, centroids_LD
        self._k = min(k, len(share.positions))
        self._exact: Callable[[np.ndarray], Found] | None = None
        self._file: InvertedFile | None = None

    def everything(self, query_QD: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | Exception:
        """(scores [n, k], documents [n, k], lists [n, k]) of the best in all lists."""

        def found() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            file = self._index()
            scores, at = file.search(query_QD, self._k, file.n_lists)
            return scores, self._share.positions[at], file.list_of[at]

        return answer_of(found)

    def lists(self, query_QD: np.ndarray, visits: int) -> np.ndarray | Exception:
        """[n, visits] int32."""
        centroids_LD = self._centroids_LD
        assert centroids_LD is not None
        return answer_of(lambda: nearest_lists(query_QD, centroids_LD, visits).astype(np.int32))

    def search(self, query_QD: np.ndarray, lists_QV: np.ndarray | Exception | None) -> Found | Exception:
        """The best of this share; lists_QV: those that are visited, None to compare everything."""
        if isinstance(lists_QV, Exception):
            return lists_QV

        def found() -> Found:
            if lists_QV is None:
                return self._find(query_QD)
            scores, at = self._index().search_lists(query_QD, self._k, lists_QV)
            return scores, np.where(at >= 0, self._share.positions[at], -1)

        return answer_of(found)

    def _find(self, query_QD: np.ndarray) -> Found:
        if self._exact is None:
            self._exact = exact_search(self._vectors(), self._share.positions, self._k)
        return self._exact(query_QD)

    def _index(self) -> InvertedFile:
        if self._file is None:
            self._file = InvertedFile(self._vectors(), centroids_LD=self._centroids_LD)
            self._values = None  # the file holds them as well
        return self._file

    def _vectors(self) -> Vectors:
        return self._share.vectors(self._share.read() if self._values is None else self._values)
