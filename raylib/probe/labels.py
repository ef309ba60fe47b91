"""Labels of rows: a table with question_id and a column of yes or no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raylib.errors import UserError
from raylib.store.arrow_text import compute
from raylib.store.text_tables import TextTable, read_table

ID_COLUMN = "question_id"

_VALUES = {"true": 1, "1": 1, "1.0": 1, "yes": 1, "false": 0, "0": 0, "0.0": 0, "no": 0}
_SHOWN_ROWS = 5


@dataclass(frozen=True)
class Labels:
    """A label per row, in the order of the file."""

    path: str
    target: str
    ids: list[str]
    """[n], distinct."""
    y: np.ndarray
    """int8 [n], 0 or 1."""
    columns: dict[str, list[str]]
    """Every other column: name → [n], "" where a row has none."""


def read_labels(path: str, target: str, columns: Mapping[str, str | None] | None = None) -> Labels:
    """Read labels from CSV, TSV, Parquet or JSONL, local or s3://.

    target: the column of labels; true, 1 and yes are 1, false, 0 and no are 0, in any case. columns: what raylib calls
    a column → its name in this file, where that is another: {"category": "topic"}; None for the same name.

    Raises UserError, naming rows and values, for a label that is something else or empty, an id that is empty or there
    twice, a line that cannot be read; and for columns that are not there, listing those that are.
    """
    table = read_table(path)
    names = {ours: theirs for ours, theirs in (columns or {}).items() if theirs is not None}
    id_name = names.get(ID_COLUMN, ID_COLUMN)
    have = table.columns.column_names
    absent = [name for name in dict.fromkeys([id_name, target, *names.values()]) if name not in have]
    if absent:
        raise UserError(
            f"{path} has no column {', '.join(absent)}; its columns are {', '.join(have) or 'none'}. Expected "
            f"{id_name}, and the labels in {target}: name another column of labels with --target."
        )
    if table.bad:
        _refuse(path, table.unit, [(number, why) for number, why in sorted(table.bad.items())], "Mend them.")
    if len(table.columns) == 0:
        raise UserError(f"{path} has a header, but no rows; expected one for each label")
    ids = _texts(table, id_name)
    _check_ids(path, table, id_name, ids)
    y = _parsed(path, table, target)
    taken = {id_name, target}
    others = {name: _texts(table, name) for name in have if name not in taken}
    others |= {ours: _texts(table, theirs) for ours, theirs in names.items() if ours != ID_COLUMN}
    return Labels(path, target, ids, y, others)


def _texts(table: TextTable, name: str) -> list[str]:
    return compute.fill_null(table.columns[name], "").to_pylist()


def _parsed(path: str, table: TextTable, target: str) -> np.ndarray:
    cells = _texts(table, target)
    parsed = [_VALUES.get(cell.strip().lower(), -1) for cell in cells]
    wrong = [
        (int(number), f"{target} is {cell!r}" if cell.strip() else f"{target} is empty")
        for number, cell, value in zip(table.numbers, cells, parsed, strict=True)
        if value < 0
    ]
    if wrong:
        _refuse(
            path,
            table.unit,
            wrong,
            "Expected true, 1 or yes, or else false, 0 or no; correct these rows, or remove them.",
        )
    return np.array(parsed, np.int8)


def _check_ids(path: str, table: TextTable, name: str, ids: list[str]) -> None:
    first: dict[str, int] = {}
    wrong: list[tuple[int, str]] = []
    for number, question_id in zip(table.numbers.tolist(), ids, strict=True):
        if not question_id.strip():
            wrong.append((number, f"{name} is empty"))
        elif question_id in first:
            wrong.append((number, f"{name} {question_id!r} is that of {table.unit} {first[question_id]} too"))
        else:
            first[question_id] = number
    if wrong:
        _refuse(path, table.unit, wrong, "Expected one row for each id; remove the others.")


def _refuse(path: str, unit: str, wrong: list[tuple[int, str]], advice: str) -> None:
    """Raises UserError for rows: (number in the file, why)."""
    shown = "; ".join(f"{unit} {number}: {why}" for number, why in wrong[:_SHOWN_ROWS])
    more = f"; and {len(wrong) - _SHOWN_ROWS:,} more" if len(wrong) > _SHOWN_ROWS else ""
    rows = f"a {unit}" if len(wrong) == 1 else f"{len(wrong):,} {unit}s"
    raise UserError(f"{path} has {rows} that cannot be used: {shown}{more}. {advice}")
