"""Documents in shares: each says where its vectors lie, and reads them where it is needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raylib.cluster.search import share_out
from raylib.cluster.shared_store import require_store, store_marker
from raylib.mine.neighbours import Asked
from raylib.mine.vectors import Vectors
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
