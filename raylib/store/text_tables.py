"""Tables of rows as text: CSV, JSONL and Parquet, of any size, with what is wrong beside what is read.

Every cell becomes text as it is written in the file, or null; a line that cannot be read is set aside, and the others
are read.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import UserError
from raylib.store.arrow_text import TEXT, as_text, kind_of
from raylib.store.unicode import SURROGATE, is_unicode

_CHUNK_ROWS = 65_536
_NO_UTF8 = "it holds bytes that are no UTF-8 text; save the file as UTF-8"
_ONE_JSON = "is one JSON value over all its lines; expected one JSON object per line"

_END = "\0the end of the file\0"
"""A last line for the reader of CSV, which does not tell whether the file ends inside of quotes."""

ID_COLUMNS = ("question_id", "image_id", "image_name")
"""Where a whole number is the same id with and without a point: 17 and 17.0."""


@dataclass
class TextTable:
    """columns: large_string, null where a cell is. numbers: int64 per row, its line in the file (row in Parquet), from
    1. unit: "line" or "row". bad: the lines that are not among the rows: number → why. images: the columns of Parquet
    that hold bytes, or structs of bytes and path. left_out: other columns that are no text."""

    columns: pa.Table
    numbers: np.ndarray
    unit: str
    bad: dict[int, str] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def ordinals(self) -> np.ndarray:
        """int64 per row: how many rows come before it in the file, bad lines among them, so that mending a line moves
        no other row."""
        return np.arange(len(self.numbers)) + np.searchsorted(np.sort(np.array([*self.bad], np.int64)), self.numbers)


def read_table(path: str) -> TextTable:
    """A table by the end of its name: .csv, .tsv, .parquet, .jsonl, .ndjson, or .json of one object a line.

    UTF-8 with or without a byte order mark, or UTF-16 with one. Raises UserError for a file that cannot be read, of
    another kind, without a header, or with two columns of one name.
    """
    readers: dict[str, Callable[[str], TextTable]] = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".parquet": _read_parquet,
        ".jsonl": _read_jsonl,
        ".ndjson": _read_jsonl,
        ".json": _read_jsonl,
    }
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in readers:
        raise UserError(f"{path}: this kind of file is not read; expected {', '.join(readers)}")
    try:
        return readers[suffix](path)
    except (OSError, pa.ArrowException) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(f"{path} cannot be read: {why}") from error


@contextmanager
def _opened(path: str, newline: str) -> Iterator[IO[str]]:
    """The file as text. Bytes that are no UTF-8 come as halves of surrogate pairs, so that one bad line is one bad
    row."""
    with storage.open_binary(path) as stream:
        start = stream.read(2)
        stream.seek(0)
        wide = start in (b"\xff\xfe", b"\xfe\xff")
        encoding, errors = ("utf-16", "surrogatepass") if wide else ("utf-8-sig", "surrogateescape")
        with io.TextIOWrapper(stream, encoding, errors=errors, newline=newline) as text:
            yield text


class _Builder:
    """Rows → Arrow columns, a chunk at a time: a million rows of Python strings would take gigabytes."""

    def __init__(self) -> None:
        self.bad: dict[int, str] = {}
        self._chunks: list[pa.Table] = []
        self._numbers: list[int] = []

    def add(self, names: Sequence[str], numbers: Sequence[int], rows: Sequence[Sequence[str | None]]) -> None:
        try:
            columns = [pa.array(column, TEXT) for column in zip(*rows, strict=True)]
        except UnicodeEncodeError:
            good = [all(cell is None or is_unicode(cell) for cell in row) for row in rows]
            for number, row in itertools.compress(zip(numbers, rows, strict=True), (not g for g in good)):
                self.bad[number] = _why_no_unicode(row)
            rows = list(itertools.compress(rows, good))
            numbers = list(itertools.compress(numbers, good))
            columns = [pa.array(column, TEXT) for column in zip(*rows, strict=True)]
        if rows:
            self._chunks.append(pa.Table.from_arrays(columns, list(names)))
            self._numbers.extend(numbers)

    def table(self, names: Sequence[str]) -> TextTable:
        """names: the columns of a table without rows."""
        empty = pa.schema([(name, TEXT) for name in names]).empty_table()
        columns = pa.concat_tables([empty, *self._chunks], promote_options="default")
        return TextTable(columns, np.array(self._numbers, np.int64), "line", self.bad)


def _why_no_unicode(row: Sequence[str | None]) -> str:
    """`_opened` leaves bytes that are no UTF-8 as U+DC80 to U+DCFF; JSON may spell any surrogate."""
    text = "".join(cell or "" for cell in row)
    bytes_only = all("\udc80" <= c <= "\udcff" for c in text if "\ud800" <= c <= "\udfff")
    return _NO_UTF8 if bytes_only else SURROGATE


# CSV.


def _read_csv(path: str) -> TextTable:
    csv.field_size_limit(sys.maxsize)  # a content may be longer than the library's 128 KiB
    builder = _Builder()
    with _opened(path, newline="") as stream:
        tab = path.lower().endswith(".tsv")
        reader = csv.reader(itertools.chain(stream, [_END]), delimiter="\t" if tab else ",")
        try:
            header = next(row for row in reader if row)
            if header[-1].endswith(_END) and header != [_END]:
                raise UserError(_open_quote(path, 1))
            names = _header(path, header if header != [_END] else [])
            lines = _csv_lines(path, reader, len(names), builder.bad)
            while chunk := list(itertools.islice(lines, _CHUNK_ROWS)):
                builder.add(names, [number for number, _ in chunk], [row for _, row in chunk])
        except (csv.Error, UnicodeError) as error:
            raise UserError(f"{path} cannot be read beyond line {reader.line_num}: {error}") from error
    return builder.table(names)


def _open_quote(path: str, line: int) -> str:
    return f"{path}: a quote in the row of line {line} is never closed; close it, or double it"


def _header(path: str, row: Sequence[str]) -> list[str]:
    """Names of columns, without blanks around them; one without a name goes by its position."""
    names = [cell.strip() or f"unnamed_{position}" for position, cell in enumerate(row)]
    if not names:
        raise UserError(f"{path} is empty; expected a header and rows")
    if not all(map(is_unicode, names)):
        raise UserError(f"{path}: the header is no UTF-8 text; save the file as UTF-8")
    if any("\0" in name for name in names):
        raise UserError(f"{path}: the name of a column holds a NUL character; save the file again without it")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: several columns are named {', '.join(twice)}; expected one name each")
    return names


def _csv_lines(path: str, reader: Any, width: int, bad: dict[int, str]) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, cells) of every row of `width` cells that is not blank; the others go to `bad`.

    Raises UserError for a quote that stays open: what follows it is no rows any more, and would be lost unseen.
    """
    number = reader.line_num + 1
    for row in reader:
        if row and row[-1].endswith(_END):
            if row == [_END]:
                return
            raise UserError(_open_quote(path, number))
        if len(row) == width:
            yield number, row
        elif row:
            bad[number] = f"the line has {len(row)} fields; the header has {width}"
        number = reader.line_num + 1


# JSONL.


class _Number(float):
    """A number of a JSON file that keeps how it is written."""

    text: str

    def __new__(cls, text: str) -> _Number:
        number = super().__new__(cls, text)
        number.text = text
        return number


def _read_jsonl(path: str) -> TextTable:
    builder = _Builder()
    seen: dict[str, None] = {}
    with _opened(path, newline="\n") as stream:
        try:
            objects = _objects(path, stream, builder.bad)
            while chunk := list(itertools.islice(objects, _CHUNK_ROWS)):
                names = list(dict.fromkeys(itertools.chain.from_iterable(row for _, row in chunk)))
                seen.update(dict.fromkeys(names))
                cells = [[row.get(name) for name in names] for _, row in chunk]
                builder.add(names, [number for number, _ in chunk], cells)
        except UnicodeError as error:
            raise UserError(f"{path} cannot be read to its end: {error}") from error
    return builder.table(list(seen))


def _objects(path: str, stream: IO[str], bad: dict[int, str]) -> Iterator[tuple[int, dict[str, str | None]]]:
    """(line, cells) of every line that is an object; the others go to `bad`."""
    decode = json.JSONDecoder(parse_float=_Number).decode
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = decode(line)
        except json.JSONDecodeError as error:
            if number == 1 and line.strip() in ("[", "{"):
                raise UserError(f"{path} {_ONE_JSON}") from error
            bad[number] = f"the line is no JSON: {error.msg} (character {error.pos})"
        except (ValueError, RecursionError) as error:  # an integer of 5,000 digits, lists 10,000 deep
            bad[number] = f"the line is no JSON that can be read: {error}"
        else:
            if number == 1 and isinstance(row, list) and row and isinstance(row[0], dict):
                raise UserError(f"{path} {_ONE_JSON}")
            if not isinstance(row, dict):
                bad[number] = f"the line is a {type(row).__name__}; expected an object"
            elif (names := _names_of_fields(tuple(row))) is None:
                bad[number] = f"in the name of a field: {SURROGATE}"
            else:
                cells = zip(names, row.values(), strict=True)
                yield number, {name: _json_text(value, name in ID_COLUMNS) for name, value in cells}


@lru_cache(maxsize=1024)
def _names_of_fields(fields: tuple[str, ...]) -> tuple[str, ...] | None:
    """Without blanks around them; None where one is no text. Most rows of a file have the same fields."""
    return tuple(name.strip() for name in fields) if all(map(is_unicode, fields)) else None


def _json_text(value: Any, is_id: bool) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:  # and not True
        return str(value)
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, _Number):
        return value.text.removesuffix(".0") if is_id else value.text
    return json.dumps(value, ensure_ascii=False)


# Parquet.


def _read_parquet(path: str) -> TextTable:
    with storage.open_input(path) as source, pq.ParquetFile(source) as file:
        schema = file.schema_arrow
        header = _header(path, schema.names)
        kinds = {name: kind_of(schema.field(name).type) for name in schema.names}
        names = [name for name in schema.names if kinds[name] == "text"]
        table = file.read(columns=names, use_pandas_metadata=False)
    shown = dict(zip(schema.names, header, strict=True))
    texts = pa.table({shown[name]: as_text(table.column(name)) for name in names})
    texts.validate(full=True)  # a writer may have put bytes that are no UTF-8 into a column of text
    images, left_out = ([name for name in schema.names if kinds[name] == kind] for kind in ("image", "other"))
    return TextTable(texts, np.arange(1, len(table) + 1), "row", images=images, left_out=left_out)
