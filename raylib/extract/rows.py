"""VQA rows as an extract job takes them: question and image, in the order of the file, with what is wrong of the rest.

A table of a million rows stays in Arrow columns; a row becomes an object where it is asked for.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import pyarrow as pa

from raylib.errors import BadContent
from raylib.extract.columns import OWN_NAMES, ColumnNames, choose_columns
from raylib.extract.faults import Faults
from raylib.extract.images import ImageSource
from raylib.extract.places import ImagePlace
from raylib.extract.row_images import EmbeddedImages, NamedImages, RowImages
from raylib.store.arrow_text import TEXT, compute
from raylib.store.text_tables import TextTable, read_table

_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class VqaRow:
    """number: its place among the rows of the file, from 0; rows that cannot be read count too. answer: "" where the
    file has no answers. carried: the other columns, as text. mark: what tells its image from others, and from itself
    after a change."""

    number: int
    question_id: str
    image_id: str
    question: str
    answer: str
    carried: Mapping[str, str]
    image: ImagePlace
    mark: str


class VqaRows(Sequence[VqaRow]):
    """Rows; a slice of them copies nothing."""

    def __init__(self, columns: pa.Table, positions: np.ndarray, numbers: np.ndarray, images: RowImages) -> None:
        """columns: OWN_NAMES but the last, then the carried ones, large_string without nulls. Per row, int64:
        positions, its place among those that `images` knows; numbers, see `VqaRow`."""
        self._columns, self._positions, self._numbers, self._images = columns, positions, numbers, images

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> VqaRow: ...
    @overload
    def __getitem__(self, index: slice) -> VqaRows: ...
    def __getitem__(self, index: int | slice) -> VqaRow | VqaRows:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self.take(range(start, stop, step))
            columns = self._columns.slice(start, max(stop - start, 0))
            return VqaRows(columns, self._positions[start:stop], self._numbers[start:stop], self._images)
        position = range(len(self))[index]
        return next(iter(self[position : position + 1]))

    def __iter__(self) -> Iterator[VqaRow]:
        for start in range(0, len(self), _BLOCK_ROWS):
            cells = self._columns.slice(start, _BLOCK_ROWS).to_pylist()
            positions = self._positions[start : start + _BLOCK_ROWS]
            numbers = self._numbers[start : start + _BLOCK_ROWS]
            told = zip(numbers.tolist(), positions.tolist(), cells, self._images.marks(positions), strict=True)
            for number, position, row, mark in told:
                own = [row.pop(name) for name in OWN_NAMES[:4]]
                yield VqaRow(number, *own, carried=row, image=self._images.place(position), mark=mark.hex())

    def take(self, indices: Iterable[int]) -> VqaRows:
        """The rows at these positions, in this order."""
        chosen = np.fromiter(indices, np.int64)
        columns = self._columns.take(pa.array(chosen))
        return VqaRows(columns, self._positions[chosen], self._numbers[chosen], self._images)

    def carried(self) -> list[VqaRow]:
        """All of them with the bytes of their images, each image once, for a machine that sees no files of this one."""
        held: dict[ImagePlace, ImagePlace] = {}
        found = []
        for row in self:
            if row.image not in held:
                held[row.image] = row.image.carried()
            found.append(replace(row, image=held[row.image]))
        return found

    @property
    def carried_names(self) -> list[str]:
        return self._columns.column_names[len(OWN_NAMES) - 1 :]

    @property
    def question_ids(self) -> list[str]:
        return self._columns["question_id"].to_pylist()

    def digest(self) -> str:
        """SHA-256, as hex, over everything that decides what comes of these rows: their texts, their order, and which
        images they are."""
        digest = hashlib.sha256(repr(self._columns.column_names).encode())
        for column in self._columns.columns:
            digest.update(compute.fill_null(compute.binary_length(column), 0).to_numpy().astype("<i8").tobytes())
            for chunk in column.chunks:
                for start in range(0, len(chunk), _BLOCK_ROWS):
                    digest.update("".join(chunk.slice(start, _BLOCK_ROWS).to_pylist()).encode())
        for mark in self._images.marks(self._positions):
            digest.update(mark)
        return digest.hexdigest()


@dataclass(frozen=True)
class VqaTable:
    """rows: those that can be used, in the order of the file. bad: the others, in that order too. digest: of the rows,
    see `VqaRows.digest`. left_out: columns of bytes that are not carried along."""

    rows: VqaRows
    bad: list[BadContent]
    digest: str
    left_out: list[str]


def sample(rows: VqaRows, n: int = 3, seed: int = 42) -> VqaRows:
    """n rows, always the same of a file, in its order; all where there are no more."""
    return rows.take(sorted(random.Random(seed).sample(range(len(rows)), min(n, len(rows)))))


def read_rows(path: str, images: ImageSource | None = None, image_column: str | None = None) -> VqaTable:
    """The rows of a CSV, JSONL or Parquet file.

    Columns: question_id; question; image_id or image_name; the first of answer, gt_answer and ground_truth_answer, if
    any. The image is what `images` has under image_id, or under `image_column` where that is a column of text; or it is
    in `image_column`, a column of Parquet with bytes or structs of bytes and path, which is "image" without `images`.
    Then image_id may be left out, and is a digest of the image.

    Bad are: rows without question_id, or with one that an earlier row has; with an empty question; without an answer
    where the file has answers; without an image; with text that no HDF5 file can hold; and lines that cannot be read.
    Nothing is decoded here. Raises UserError for a file or columns that cannot be used.
    """
    table = read_table(path)
    names = choose_columns(path, table, with_images=images is not None, image_column=image_column)
    faults = Faults(path, table, names)
    faults.check_texts()
    columns = _columns(table, names)
    if names.embedded is not None:
        placed = EmbeddedImages(path, names.embedded, images, faults.report)
        if names.image_id is None:
            columns = columns.set_column(1, "image_id", pa.array(placed.names(), TEXT))
    else:
        assert images is not None and names.image is not None
        placed = NamedImages(images, table.columns[names.image], faults.report)
    good = faults.good()
    rows = VqaRows(columns.take(pa.array(good)), good, table.ordinals()[good], placed)
    return VqaTable(rows, faults.bad(), rows.digest(), names.left_out)


def _columns(table: TextTable, names: ColumnNames) -> pa.Table:
    """As `VqaRows` has them, null as ""."""
    nothing = pa.array([""] * len(table.columns), TEXT)
    chosen = {
        "question_id": names.question_id,
        "image_id": names.image_id,
        "question": names.question,
        "answer": names.answer,
        **{out: name for name, out in names.carried.items()},
    }
    return pa.table(
        {out: nothing if name is None else compute.fill_null(table.columns[name], "") for out, name in chosen.items()}
    ).combine_chunks()
