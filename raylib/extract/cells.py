"""Images inside a column of a Parquet file: named by their bytes in one pass, read again one by one."""

from __future__ import annotations

import hashlib
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.evaluate.contents import BadContentError, count_pixels
from raylib.extract.places import ImagePlace

_BATCH_ROWS = 32
_READ_BYTES = 4 << 20
"""Of a column at a time: a row group may hold gigabytes of images. (A file that is mapped to memory would count as
memory in use.)"""

_LOCK = threading.Lock()


@dataclass(frozen=True)
class CellImage(ImagePlace):
    """An image in a row, from 0, of a Parquet file's column. digest: SHA-256 of its bytes when the run began; count:
    its pixels."""

    path: str
    column: str
    row: int
    digest: bytes
    count: int

    def load(self, limit: int | None = None) -> bytes:
        try:
            with _LOCK:
                cell = _reader(self.path, self.column, os.getpid()).cell(self.row)
        except (OSError, IndexError, KeyError, pa.ArrowException) as error:
            why = " ".join(str(error).split())
            raise BadContentError(f"row {self.row + 1} of {self.path} cannot be read: {why}") from error
        data, _ = _parts(cell)
        if data is None or hashlib.sha256(data).digest() != self.digest:
            _reader.cache_clear()  # the open file may be the old one
            raise BadContentError(f"row {self.row + 1} of {self.path} has changed since the run began; run again")
        return data[:limit]

    def pixels(self) -> int:
        return self.count


@dataclass
class Cells:
    """A column of images. digests: uint8 [rows, 32]; pixels: int64 [rows], 0 where a header does not tell; paths: the
    rows without bytes → the path that stands there instead, "" for none."""

    path: str
    column: str
    digests: np.ndarray
    pixels: np.ndarray
    paths: dict[int, str]

    def place(self, row: int) -> CellImage:
        return CellImage(self.path, self.column, row, self.digests[row].tobytes(), int(self.pixels[row]))


def read_cells(path: str, column: str) -> Cells:
    """Read the column once, holding few images at a time. Raises OSError and pyarrow's errors."""
    path = path if storage.is_remote(path) else os.path.abspath(path)
    digests, pixels, paths = bytearray(), [], {}
    with storage.open_binary(path) as source, pq.ParquetFile(source, buffer_size=_READ_BYTES) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=[column]):
            for cell in batch.column(0):
                data, written = _parts(cell.as_py())
                if data is None:
                    paths[len(pixels)] = written
                digests += hashlib.sha256(data or b"").digest()
                pixels.append(count_pixels(data) if data else 0)
    return Cells(path, column, np.frombuffer(digests, np.uint8).reshape(-1, 32), np.array(pixels, np.int64), paths)


def _parts(cell: Any) -> tuple[bytes | None, str]:
    """(bytes, path) of a cell: bytes, or {"bytes", "path"} as `datasets` stores it; None and "" where absent."""
    if isinstance(cell, Mapping):
        return cell.get("bytes") or None, str(cell.get("path") or "")
    return cell or None, ""


class _Reader:
    """An open column, read forward; a row that was passed has its row group read again."""

    def __init__(self, path: str, column: str) -> None:
        with ExitStack() as stack:
            source = stack.enter_context(storage.open_binary(path))
            self._file = stack.enter_context(pq.ParquetFile(source, buffer_size=_READ_BYTES))
            self._open = stack.pop_all()
        self._column = column
        meta = self._file.metadata
        rows = (meta.row_group(group).num_rows for group in range(meta.num_row_groups))
        self._starts = [0, *accumulate(rows)]
        self._group, self._batches, self._first = -1, iter(()), 0
        self._batch: pa.Array | None = None

    def cell(self, row: int) -> Any:
        """Raises IndexError where there is no such row."""
        group = bisect_right(self._starts, row) - 1
        if not 0 <= group < len(self._starts) - 1:
            raise IndexError(f"it has {self._starts[-1]} rows")
        if group != self._group or row < self._first:
            self._group, self._first, self._batch = group, self._starts[group], None
            self._batches = self._arrays(group)
        while self._batch is None or row >= self._first + len(self._batch):
            self._first += len(self._batch) if self._batch is not None else 0
            self._batch = next(self._batches)
        return self._batch[row - self._first].as_py()

    def _arrays(self, group: int) -> Iterator[pa.Array]:
        batches = self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[self._column])
        return (batch.column(0) for batch in batches)


@lru_cache(maxsize=2)
def _reader(path: str, column: str, process: int) -> _Reader:
    """Kept open between images; a forked process opens its own."""
    del process
    return _Reader(path, column)
