"""Files, folders and local copies of data sets → rows of training data, one at a time."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.copies import local_copy as copy_of
from raylib.errors import UserError
from raylib.examples.forms import EXPECTED, Embedded, is_known
from raylib.examples.places import Places, TableItem, image_columns, local_copy, open_split, undecoded
from raylib.store.arrow_text import kind_of
from raylib.store.unicode import is_unicode

if TYPE_CHECKING:
    import datasets

_SUFFIXES = (".parquet", ".jsonl", ".ndjson")
_READ = ("query", "pos", "image", "negs", "neg", "qry", "qry_image_path")
_READ_TOO = ("pos_text", "pos_image_path", "neg_text", "neg_image_path")
_CHUNK_ROWS = 1000
_SHARD = re.compile(r".*-\d{5}-of-\d{5}", re.ASCII)


@dataclass(frozen=True)
class RawRow:
    """where: the name of the row, e.g. "train.jsonl#line=3". dataset: of what it came from. values: its fields, an
    image inside of a table as `Embedded`; None for one that cannot be read. error: why it cannot."""

    where: str
    dataset: str
    values: Mapping[str, Any] | None
    error: str = ""


def read_rows(
    data: Sequence[str], places: Places, *, hub_name: str | None = None, split: str | None = None
) -> Iterator[RawRow]:
    """The rows of these files and folders, then those of a data set of the hub, of which there is a local copy.

    A folder is a data set as the hub has it (with README.md; each of its configs is a data set), one that
    `save_to_disk` wrote, or holds .parquet and .jsonl files, by themselves or in a folder for each data set; the
    split of a file is how its name begins, up to the first "-". What lies in a bucket is copied to this node. Raises
    UserError for what is none of these, for a split that is not there, and for tables in no known form.
    """
    names = [os.path.basename(os.path.normpath(path)) for path in data]
    for path, short in zip(data, names, strict=True):
        name = path if names.count(short) > 1 else short
        full = copy_of(path) if storage.is_remote(path) else os.path.abspath(os.path.expanduser(path))
        if os.path.isdir(full):
            yield from _folder(full, name, split, places)
        elif not os.path.exists(full):
            raise UserError(f"--data {path} does not exist")
        else:
            yield from _file(full, name, _dataset_of(full), places)
    if hub_name is not None:
        yield from _data_set(local_copy(hub_name, places.data_root), hub_name, hub_name, split, places)


def _file(path: str, name: str, dataset: str, places: Places) -> Iterator[RawRow]:
    import datasets
    from datasets.exceptions import DatasetsError

    suffix = os.path.splitext(path)[1].lower()
    if not is_unicode(name):  # it is in the ids of its examples, and in all that is written of them
        raise UserError(f"the name of the file {name!r} is no UTF-8; give it another name")
    if suffix not in _SUFFIXES:
        raise UserError(f"{path}: this kind of file is not read; expected {', '.join(_SUFFIXES)}, or a folder")
    if suffix != ".parquet":
        yield from _lines(path, name, dataset)
        return
    try:
        if not pq.read_metadata(path).num_rows:  # `datasets` stumbles over it
            return
        table: Any = datasets.load_dataset("parquet", data_files=[path], split="train")
    except (ValueError, OSError, pa.ArrowException, DatasetsError) as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"{path} cannot be read: {cause}") from error
    yield from _table(table, path, name, dataset, places)


def _lines(path: str, name: str, dataset: str) -> Iterator[RawRow]:
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not line.strip():
                continue
            where = f"{name}#line={number}"
            try:
                row = json.loads(line.decode())
            except json.JSONDecodeError as error:
                yield RawRow(where, dataset, None, f"the line is no JSON: {error.msg} (character {error.pos})")
            except UnicodeDecodeError as error:
                yield RawRow(where, dataset, None, f"it is no UTF-8 text (byte {error.start})")
            except (ValueError, RecursionError) as error:  # an integer of 5,000 digits, lists 10,000 deep
                yield RawRow(where, dataset, None, f"the line is no JSON that can be read: {error}")
            else:
                if isinstance(row, dict):
                    yield RawRow(where, dataset, row)
                else:
                    yield RawRow(where, dataset, None, f"the line is a {type(row).__name__}; expected an object")


def _table(
    data: datasets.Dataset, path: str, name: str, dataset: str, places: Places, item_name: str = ""
) -> Iterator[RawRow]:
    """item_name: `owner/name/split` where its images can be named by it."""
    if not is_known(tuple(data.column_names)):
        raise UserError(f"{path}: its columns are {', '.join(data.column_names)}; expected {EXPECTED}")
    schema = data.features.arrow_schema
    odd = [c for c in schema.names if c in (*_READ, *_READ_TOO) and kind_of(schema.field(c).type) == "other"]
    if odd:
        raise UserError(f"{path}: {', '.join(odd)} holds lists of images; expected paths, or one image")
    embedded = image_columns(data)
    named = "image" if "image" in embedded else next(iter(embedded), "")
    images = {c: undecoded(data, c) for c in embedded if c in _READ or c in _READ_TOO}
    tables = {c: places.add_table(images[c]) for c in images}
    others = [c for c in data.column_names if c not in embedded and "binary" not in str(schema.field(c).type)]
    plain = data.select_columns(others)
    for start in range(0, len(data), _CHUNK_ROWS):
        stop = min(start + _CHUNK_ROWS, len(data))
        columns: dict[str, Any] = dict(plain[start:stop]) if others else {}
        for column, table in tables.items():
            arrow: Any = images[column].with_format("arrow")[start:stop]
            columns[column] = [
                None if null else Embedded(TableItem(table, row), _item(item_name, row) if column == named else "")
                for row, null in enumerate(arrow["image"].is_null().to_pylist(), start)
            ]
        for row in range(start, stop):
            values = {column: cells[row - start] for column, cells in columns.items()}
            yield RawRow(f"{name}#row={row + 1}", dataset, values)


def _item(split: str, row: int) -> str:
    return f"{split}/doc_{row}.png" if split else ""


def _folder(folder: str, name: str, split: str | None, places: Places) -> Iterator[RawRow]:
    present = set(os.listdir(folder))
    if present & {"README.md", "dataset_dict.json", "state.json"}:
        hub_name = "/".join(folder.split(os.sep)[-2:])
        yield from _data_set(folder, name, hub_name, split, places)
        return
    files = _files(folder, split)
    for path, inside in files:
        dataset = os.path.dirname(inside)
        plain = dataset in ("", "data")
        yield from _file(path, f"{name}/{inside}", os.path.basename(folder) if plain else dataset, places)


def _files(folder: str, split: str | None) -> list[tuple[str, str]]:
    """(path, path from the folder) of the data files in it and one level below, of one split."""
    found: list[str] = []
    for base in ("", *sorted(os.listdir(folder))):
        if os.path.isdir(os.path.join(folder, base)) and not base.startswith("."):
            names = sorted(os.listdir(os.path.join(folder, base)))
            found += [os.path.join(base, n) for n in names if n.endswith(_SUFFIXES) and not n.startswith(".")]
    if not found:
        raise UserError(f"{folder} holds no {', '.join(_SUFFIXES)} and is no data set; expected training data")
    splits = {path: _stem(os.path.basename(path)).partition("-")[0] for path in found}
    per_folder = {os.path.dirname(path): set[str]() for path in found}
    for path, name in splits.items():
        per_folder[os.path.dirname(path)].add(name)
    have = ", ".join(sorted(set(splits.values())))
    if split is None and any(len(names) > 1 for names in per_folder.values()):
        raise UserError(f"{folder} has several splits; choose one with --split. It has {have}")
    chosen = [path for path in found if split in (None, splits[path])]
    if not chosen:
        raise UserError(f"{folder} has no split {split}. It has {have}")
    return [(os.path.join(folder, path), path.replace(os.sep, "/")) for path in chosen]


def _data_set(folder: str, name: str, hub_name: str, split: str | None, places: Places) -> Iterator[RawRow]:
    """All configs of a data set. Its images go by hub_name where it has one config only."""
    configs = _configs(folder)
    for config in configs:
        data = open_split(folder, split, config)
        one = len(configs) == 1
        which = split or str(data.split or "train")
        label = name if one else f"{name}/{config}"
        dataset = os.path.basename(hub_name) if one else str(config)
        yield from _table(data, folder, label, dataset, places, f"{hub_name}/{which}" if one else "")


def _configs(folder: str) -> list[str | None]:
    import datasets
    from datasets.exceptions import DatasetsError

    if os.path.exists(os.path.join(folder, "README.md")):
        try:
            return [*datasets.get_dataset_config_names(folder)]
        except (ValueError, OSError, DatasetsError) as error:
            raise UserError(f"{folder} cannot be read as a data set: {' '.join(str(error).split())}") from error
    return [None]


def _dataset_of(path: str) -> str:
    """A part of a data set, like train-00000-of-00002.parquet, goes by the folder of all its parts."""
    stem = _stem(os.path.basename(path))
    above = [part for part in path.split(os.sep)[:-1] if part not in ("", "data")]
    return above[-1] if above and _SHARD.fullmatch(stem) else stem


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
