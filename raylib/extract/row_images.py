"""The images of a table's rows, found and told apart before any is decoded: some bytes of memory per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import pyarrow as pa

from raylib.errors import UserError
from raylib.evaluate.contents import BadContentError
from raylib.extract.cells import read_cells
from raylib.extract.images import Found, ImageSource
from raylib.extract.places import ImagePlace

Report = Callable[[int, str], None]
"""(row of the table, why it is bad)."""


class RowImages(Protocol):
    """rows are positions in the table, from 0."""

    def place(self, row: int) -> ImagePlace: ...

    def marks(self, rows: np.ndarray) -> Iterator[bytes]:
        """What tells the images of these rows from others, one a row."""
        ...


class NamedImages:
    """Images that rows name. Each name is looked up once, whatever the number of its rows."""

    def __init__(self, source: ImageSource, names: pa.ChunkedArray, report: Report) -> None:
        """names: large_string; null, and names that nothing is found under, are reported."""
        self._source = source
        encoded = pa.concat_arrays(names.chunks or [pa.array([], names.type)]).dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        self._names: list[str] = [""] * len(distinct)
        self._numbers = np.zeros((len(distinct), 2), np.int64)
        reasons: dict[int, str] = {}
        for i, name in enumerate(distinct):
            try:
                self._names[i], *self._numbers[i] = source.find(name)
            except BadContentError as error:
                reasons[i] = str(error)
        self._index = encoded.indices.fill_null(-1).to_numpy()
        for row in np.flatnonzero(np.isin(self._index, [-1, *reasons])):
            report(int(row), reasons.get(int(self._index[row]), "it names no image"))

    def place(self, row: int) -> ImagePlace:
        return self._source.place(self._found(row))

    def marks(self, rows: np.ndarray) -> Iterator[bytes]:
        return (repr(tuple(self._found(row))).encode() for row in rows)

    def _found(self, row: int) -> Found:
        i = self._index[row]
        size, mark = self._numbers[i].tolist()
        return Found(self._names[i], size, mark)


class EmbeddedImages:
    """Images in a column of a Parquet file, and those that it holds only the paths of, as `datasets` may write them."""

    def __init__(self, path: str, column: str, source: ImageSource | None, report: Report) -> None:
        """Raises UserError where the column cannot be read."""
        try:
            self._cells = read_cells(path, column)
        except (OSError, pa.ArrowException) as error:
            why = " ".join(str(error).split())
            raise UserError(f"the column {column} of {path} cannot be read: {why}") from error
        self._source = source
        self._beside: dict[int, Found] = {}
        for row, written in self._cells.paths.items():
            try:
                self._beside[row] = _beside(written, column, source)
            except BadContentError as error:
                report(row, str(error))

    def place(self, row: int) -> ImagePlace:
        if row in self._beside:
            assert self._source is not None
            return self._source.place(self._beside[row])
        return self._cells.place(row)

    def marks(self, rows: np.ndarray) -> Iterator[bytes]:
        for row in rows.tolist():
            found = self._beside.get(row)
            yield self._cells.digests[row].tobytes() if found is None else repr(tuple(found)).encode()

    def names(self) -> list[str]:
        """Per row, a name that equal images share: for tables that give none."""
        digests = self._cells.digests
        return [
            self._beside[row].name if row in self._beside else f"sha256:{digests[row, :8].tobytes().hex()}"
            for row in range(len(digests))
        ]


def _beside(written: str, column: str, source: ImageSource | None) -> Found:
    if not written:
        raise BadContentError(f"its {column} is empty; expected an image")
    if source is None:
        raise BadContentError(
            f"its {column} holds the path {written!r} and no bytes; pass --images-dir, or write the bytes into the file"
        )
    return source.find(written)
