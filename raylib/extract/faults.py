"""What is wrong with rows of a VQA table, each told by its first reason."""

from __future__ import annotations

from posixpath import basename

import numpy as np
import pyarrow as pa

from raylib.errors import BadContent
from raylib.extract.columns import ColumnNames
from raylib.store.arrow_text import TEXT, compute
from raylib.store.text_tables import TextTable

MISSING = ("", "nan", "NaN")
"""Cells that stand for nothing, as pandas wrote and read them; blanks around them do not count. "None", "NA" and "null"
are answers."""


class Faults:
    """Bad rows of a table, collected in any order."""

    def __init__(self, path: str, table: TextTable, names: ColumnNames) -> None:
        self._name, self._table, self._names = basename(path), table, names
        self._reasons: dict[int, str] = {}

    def report(self, row: int, reason: str) -> None:
        """row: its position in the table. Only the first reason of a row is kept."""
        self._reasons.setdefault(row, reason)

    def check_texts(self) -> None:
        """Every check that needs only the table: the ids, then the texts."""
        names = self._names
        self._check_filled("question_id", "an id")
        self._check_nul("question_id")
        self._check_repeated()
        self._check_filled(names.question, "text")
        if names.answer is not None:
            self._check_filled(names.answer, "an answer, for the file has answers")
        if names.image_id is not None:
            self._check_filled(names.image_id, "the name of an image")
        for name in self._table.columns.column_names:
            self._check_nul(name)

    def good(self) -> np.ndarray:
        """int64: the positions of rows with nothing wrong."""
        keep = np.ones(len(self._table.columns), bool)
        keep[list(self._reasons)] = False
        return np.flatnonzero(keep)

    def bad(self) -> list[BadContent]:
        """Rows with a reason and lines that could not be read, in the order of the file. item_id: the question_id where
        the row has one, else the place in the file; source: that place."""
        ids = self._table.columns["question_id"]
        found: dict[int, tuple[str | None, str]] = {line: (None, why) for line, why in self._table.bad.items()}
        for row, reason in self._reasons.items():
            found[int(self._table.numbers[row])] = (ids[row].as_py(), reason)
        bad = []
        for number in sorted(found):
            question_id, reason = found[number]
            place = f"{self._name}#{self._table.unit}={number}"
            has_id = (question_id or "").strip() not in MISSING and "\0" not in (question_id or "")
            bad.append(BadContent("", place, question_id or "" if has_id else place, reason))
        return bad

    def _report_all(self, mask: pa.ChunkedArray, reason: str) -> None:
        for row in np.flatnonzero(mask.to_numpy()):
            self.report(int(row), reason)

    def _check_filled(self, name: str, expected: str) -> None:
        cells = compute.utf8_trim_whitespace(compute.fill_null(self._table.columns[name], ""))
        self._report_all(compute.is_in(cells, pa.array(MISSING, TEXT)), f"its {name} is empty; expected {expected}")

    def _check_nul(self, name: str) -> None:
        mask = compute.match_substring(compute.fill_null(self._table.columns[name], ""), "\0")
        self._report_all(mask, f"its {name} holds a NUL character, which HDF5 cannot hold")

    def _check_repeated(self) -> None:
        """Rows whose id an earlier row has: which of them was meant cannot be told, so the first is used."""
        cells = self._table.columns["question_id"]
        codes = pa.concat_arrays(cells.chunks or [pa.array([], TEXT)]).dictionary_encode().indices
        codes = codes.fill_null(-1).to_numpy()
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        earliest = first[inverse]
        for row in np.flatnonzero(earliest != np.arange(len(codes))):
            where = f"{self._table.unit} {self._table.numbers[earliest[row]]}"
            self.report(int(row), f"{where} has this question_id already; only the first row of an id is used")
