"""Files → items: each with its id, and its text, its image, or both. One item is in memory at a time."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from raylib.copies import local_copy
from raylib.encode.config import EncodeConfig
from raylib.encode.image_files import Place
from raylib.encode.inputs import InputFile
from raylib.encode.pdf import count_pages
from raylib.errors import UserError
from raylib.evaluate.contents import BadContentError
from raylib.evaluate.pixel_files import PixelFile
from raylib.store.unicode import SURROGATE, is_unicode

_READ_ROWS = 128
_DEFAULT_IDS = ("id", "_id")


@dataclass(frozen=True)
class Item:
    """One content. source: the file it is from; image: encoded bytes, or a place that is read later; error: why it
    cannot be encoded, for an item that has nothing."""

    id: str
    source: str
    text: str | None = None
    image: bytes | Place | None = None
    error: str | None = None


@dataclass(frozen=True)
class Columns:
    """Which fields of a row hold its id, text and image; None and () for what is not read."""

    id: str | None
    text: tuple[str, ...]
    image: str | None

    @classmethod
    def of(cls, config: EncodeConfig, names: Sequence[str]) -> Columns:
        """What the flags name, else the usual names among `names`."""
        text, image = tuple(config.text_column), config.image_column
        if not text and image is None:
            text = ("text",) if "text" in names else ()
            image = "image" if "image" in names else None
        return cls(config.id_column or next((n for n in _DEFAULT_IDS if n in names), None), text, image)

    def missing(self, names: Sequence[str]) -> str | None:
        """What is wrong with these columns for rows of these fields."""
        wanted = [*([self.id] if self.id else []), *self.text, *([self.image] if self.image else [])]
        absent = [name for name in wanted if name not in names]
        have = ", ".join(names) or "none"
        if absent:
            return f"no field {', '.join(absent)}; the fields are {have}"
        if not self.text and self.image is None:
            return f"neither text nor image among the fields {have}; name one with --text-column or --image-column"
        return None


def read_items(file: InputFile, config: EncodeConfig) -> Iterator[Item]:
    """The contents of a file, in order. What cannot be read is an item with an error. Raises UserError for a table
    without the columns that were asked for."""
    readers: dict[str, Callable[[InputFile, EncodeConfig], Iterator[Item]]] = {
        "image": _read_image,
        "pdf": _read_pdf,
        "lines": _read_whole if config.whole_files else _read_lines,
        "whole": _read_whole,
        "jsonl": _read_jsonl,
        "csv": _read_csv,
        "parquet": _read_parquet,
    }
    try:
        yield from readers[file.kind](file, config)
    except BadContentError as error:
        yield Item(file.name, file.source, error=str(error))
    except OSError as error:
        yield Item(file.name, file.source, error=f"the file cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        yield Item(file.name, file.source, error=_no_utf8(error))


def _no_utf8(error: UnicodeDecodeError) -> str:
    return f"it is no UTF-8 text (byte {error.start} is {error.object[error.start]})"


# Images and PDFs.


def _read_image(file: InputFile, config: EncodeConfig) -> Iterator[Item]:
    del config
    yield Item(file.name, file.source, image=(PixelFile.at(file.path), None))


def _read_pdf(file: InputFile, config: EncodeConfig) -> Iterator[Item]:
    del config
    pdf = PixelFile.at(file.path)
    for page in range(count_pages(file.path)):
        yield Item(f"{file.name}#page={page + 1}", file.source, image=(pdf, page))


# Text.


def _read_whole(file: InputFile, config: EncodeConfig) -> Iterator[Item]:
    del config
    with open(file.path, encoding="utf-8-sig") as stream:
        yield Item(file.name, file.source, text=stream.read())


def _numbered(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of every line that is not blank. Only a newline ends a line."""
    for number, line in enumerate(stream, 1):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if line.strip():
            yield number, line


def _read_lines(file: InputFile, config: EncodeConfig) -> Iterator[Item]:
    del config
    with open(file.path, "rb") as stream:
        for number, line in _numbered(stream):
            name = f"{file.name}#line={number}"
            try:
                yield Item(name, file.source, text=line.decode().rstrip("\r\n"))
            except UnicodeDecodeError as error:
                yield Item(name, file.source, error=_no_utf8(error))


# Tables.


def _read_jsonl(file: InputFile, config: EncodeConfig) -> Iterator[Item]:
    with open(file.path, "rb") as stream:
        for number, line in _numbered(stream):
            name = f"{file.name}#line={number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield Item(name, file.source, error=f"the line is no JSON: {error.msg} (character {error.pos})")
                continue
            except UnicodeDecodeError as error:
                yield Item(name, file.source, error=_no_utf8(error))
                continue
            if not isinstance(row, dict):
                yield Item(name, file.source, error=f"the line is a {type(row).__name__}; expected an object")
                continue
            columns = Columns.of(config, list(row))
            wrong = columns.missing(list(row))
            yield Item(name, file.source, error=wrong) if wrong else _row_item(file, name, row, columns)


def _read_csv(file: InputFile, config: EncodeConfig) -> Iterator[Item]:
    csv.field_size_limit(sys.maxsize)  # a content may be longer than the library's 128 KiB
    with open(file.path, encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t" if file.path.lower().endswith(".tsv") else ",")
        names = list(rows.fieldnames or [])
        columns = _columns_of_table(file, config, names)
        number = 0
        try:
            for number, row in enumerate(rows, 1):
                yield _row_item(file, f"{file.name}#row={number}", row, columns)
        except csv.Error as error:
            yield Item(file.name, file.source, error=f"it cannot be read beyond row {number}: {error}")


def _read_parquet(file: InputFile, config: EncodeConfig) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file.path) as table:
            columns = _columns_of_table(file, config, table.schema_arrow.names)
            wanted = [*([columns.id] if columns.id else []), *columns.text, *([columns.image] if columns.image else [])]
            for batch in table.iter_batches(batch_size=_READ_ROWS, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield _row_item(file, f"{file.name}#row={number}", row, columns)
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split())
        yield Item(file.name, file.source, error=f"it cannot be read beyond row {number}: {why}")


def _columns_of_table(file: InputFile, config: EncodeConfig, names: Sequence[str]) -> Columns:
    columns = Columns.of(config, names)
    wrong = columns.missing(names)
    if wrong:
        raise UserError(f"{file.path}: {wrong}")
    return columns


def _row_item(file: InputFile, name: str, row: Mapping[str, Any], columns: Columns) -> Item:
    """One row of a table. Raises nothing: what is wrong with it is in the item."""
    if columns.id is not None:
        value = row[columns.id]
        if value is None or value == "":
            return Item(name, file.source, error=f"its {columns.id} is empty; expected an id")
        name = str(value)
        if not is_unicode(name):
            return Item(ascii(name), file.source, error=SURROGATE)
    try:
        text = _text(row, columns.text)
        image = _image(row[columns.image], file) if columns.image is not None else None
    except BadContentError as error:
        return Item(name, file.source, error=str(error))
    return Item(name, file.source, text=text, image=image)


def _text(row: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """The texts of these fields, joined by a space as MTEB joins a title and its text; None where all are null."""
    found = [(name, row[name]) for name in columns if row[name] is not None]
    for name, value in found:
        if not isinstance(value, str):
            raise BadContentError(f"its {name} is {type(value).__name__}, expected text")
        if not is_unicode(value):
            raise BadContentError(SURROGATE)
    if not found:
        return None
    return found[0][1] if len(columns) == 1 else " ".join(value for _, value in found).strip()


def _image(value: Any, table: InputFile) -> bytes | Place | None:
    """An image cell: bytes, {"bytes", "path"} as `datasets` stores it, or a path from the table's folder."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if value is None or value == "":
        return None
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return PixelFile.at(_beside(table, value)), None
    raise BadContentError(f"its image is {type(value).__name__}; expected encoded bytes or a path")


def _beside(table: InputFile, value: str) -> str:
    """The file of a path from the table's folder; of a table in a bucket that was given by itself, a copy."""
    path = os.path.join(os.path.dirname(table.path), value)
    if table.origin is None or os.path.exists(path):
        return path
    try:
        return local_copy(f"{table.origin.rpartition('/')[0]}/{value}")
    except UserError as error:
        raise BadContentError(str(error)) from error
