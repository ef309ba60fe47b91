"""The vectors that mining reads: arrays, memory maps, what lies in the store; a block of rows at a time, never copied
whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from raylib.errors import UserError

if TYPE_CHECKING:
    from raylib.store.embeddings import Shelf

_BLOCK_BYTES = 256 * 2**20
"""Of float32 vectors that are read at a time."""


Found = tuple[np.ndarray, np.ndarray]
"""What a search finds: (scores [n, k] float32, documents [n, k] int64), best first."""


class Rows(Protocol):
    """An array [n, d] of numbers, or what gives its rows as one does."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Vectors:
    """n vectors, float32 [n, d] as they are read.

    values: an array or a memory map of any float type. name: "query" or "document", for messages. unit: rows are read
    at length 1, so that inner products are cosines. rows int64 [n]: which of values; None for all. shelf, keys: where
    the same rows (all of values) lie in the store, so that another machine can read them there.
    """

    values: np.ndarray
    name: str
    unit: bool = True
    rows: np.ndarray | None = None
    shelf: Shelf | None = None
    keys: Sequence[bytes] = ()

    @classmethod
    def of(cls, values: np.ndarray, name: str, unit: bool = True) -> Vectors:
        """Raises UserError for what is no array of numbers [n, d] with a row at least."""
        values = np.asarray(values)
        if values.ndim != 2 or values.dtype.kind not in "fiu" or not len(values):
            raise UserError(
                f"{name} vectors have the shape {values.shape} of {values.dtype}; expected numbers of shape [n, d], "
                "with a row at least"
            )
        return cls(values, name, unit)

    def __len__(self) -> int:
        return len(self.values) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.values.shape[1]

    def take(self, rows: np.ndarray | None) -> Vectors:
        """Some of them, int64; None for all. Nothing is copied."""
        if rows is None:
            return self
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """[len(rows), d] float32, contiguous. Raises UserError naming the first row that cannot be compared."""
        at = rows if self.rows is None else self.rows[rows]
        found = np.ascontiguousarray(self.values[at], dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("nd,nd->n", found, found)
        sound = np.isfinite(squares) & (squares > 0) if self.unit else np.isfinite(squares)
        if not sound.all():
            position = int(np.arange(len(self.values))[at][int((~sound).argmax())])
            what = "zero or not finite" if self.unit else "not finite (NaN, infinite or too large)"
            raise UserError(f"{self.name} {position} has a vector that is {what}; encode it again")
        if not self.unit or np.abs(squares - 1).max(initial=0) < 1e-6:
            return found
        return found / np.sqrt(squares)[:, None]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """(which rows, their vectors), in order."""
        step = max(1, _BLOCK_BYTES // (4 * self.shape[1]))
        for first in range(0, len(self), step):
            part = slice(first, min(first + step, len(self)))
            yield part, self[part]


def as_vectors(rows: Rows, name: str, *, unit: bool = True) -> Vectors:
    """An array's rows, of length 1 or as they are; `Vectors` stay what they are. Raises as `Vectors.of` does."""
    return rows if isinstance(rows, Vectors) else Vectors.of(rows, name, unit)  # pyright: ignore[reportArgumentType]


def checked_positives(n_queries: int, n_documents: int, positives: np.ndarray | None) -> np.ndarray:
    """int64 [n_queries]: the document of each query; by default document i belongs to query i. Raises UserError for a
    number that is no document's."""
    if positives is None:
        if n_queries != n_documents:
            raise UserError(
                f"there are {n_queries} queries and {n_documents} documents; expected as many, or positives: the "
                "document of each query"
            )
        return np.arange(n_queries)
    positives = np.asarray(positives)
    if positives.shape != (n_queries,) or positives.dtype.kind not in "iu":
        raise UserError(
            f"positives have the shape {positives.shape} of {positives.dtype}; expected whole numbers, one for each of "
            f"the {n_queries} queries"
        )
    bad = np.flatnonzero((positives < 0) | (positives >= n_documents))
    if len(bad):
        raise UserError(
            f"query {bad[0]} has no positive: {positives[bad[0]]} is no position among {n_documents} documents; "
            f"expected numbers from 0 to {n_documents - 1} ({len(bad)} such queries)"
        )
    return positives.astype(np.int64)
