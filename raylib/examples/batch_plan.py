"""The plan of batches as a file: which examples are trained on together, and how that was decided.

One row a step, in Parquet. A list of a row has one length in the whole file, so that Arrow reads it as an array; what
other readers see are plain lists, and lists of lists for the hard negatives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylib import __version__, storage
from raylib.errors import UserError

Ids = Sequence[str] | pa.Array | pa.ChunkedArray
"""Strings; those of millions of examples are best in Arrow's array, which holds no Python objects."""

NO_EXAMPLE = -1
"""What stands in batches and hard negatives where there is none; the id there is null."""

_KEY = b"raylib.batches"
_VERSION = 1
_COLUMNS = ["step", "example_ids", "examples"]
_NEGATIVE_COLUMNS = ["negative_ids", "negative_examples"]
_ID_COLUMNS = ["example_ids", "negative_ids"]
_NEEDED = ("method", "seed")
_GROUP_CELLS = 1 << 20
"""Examples and hard negatives in a row group: what a trainer that reads by row groups holds."""
_DIGEST_ROWS = 1 << 16


@dataclass(frozen=True)
class BatchPlan:
    """batches: int64 [steps, batch], numbers of examples in the order in which they were read, -1 for none (where a
    batch is short). settings: what the plan was made with, the method and the seed among them. teacher: the fingerprint
    of the model whose vectors it was made from; "" for a plan without one. hard_negatives: int64 [steps, batch, h], for
    each place of a batch the examples whose positives are its hard negatives, -1 for none; None for a plan without
    them. ids: [steps] lists of [batch], the ids of `batches`, null for none; negative_ids: [steps] lists of [batch]
    lists of [h], those of `hard_negatives`; both None where they were not read. made_by: the version of raylib that
    made it."""

    batches: np.ndarray
    settings: dict[str, Any]
    teacher: str
    hard_negatives: np.ndarray | None = None
    ids: pa.ChunkedArray | None = None
    negative_ids: pa.ChunkedArray | None = None
    made_by: str = ""


def write_plan(
    path: str,
    batches: np.ndarray,
    ids: Ids,
    *,
    settings: Mapping[str, Any],
    teacher: str,
    hard_negatives: np.ndarray | None = None,
) -> None:
    """Write a plan as Parquet, whole or not at all. Columns: step, example_ids [batch], examples [batch] (their
    numbers), and with hard negatives negative_ids [batch][h] and negative_examples [batch][h].

    batches: int64 [steps, batch], -1 for no example. ids [n]: of all examples. settings: what JSON can hold, enough to
    make the plan again: `method` and `seed`, and all that differs from what they are without being said.
    hard_negatives: int64 [n, h], for each example those whose positives are its hard negatives, -1 for none. Memory
    beyond the arguments: the ids once as Arrow holds them, 8 bytes for each example and hard negative, and one row
    group.

    Raises ValueError for batches that are not of two dimensions, hold a number of no example, or one twice, or nothing
    in a step; for hard negatives that are not of these examples; and for settings without method or seed, or that JSON
    cannot hold.
    """
    batches = np.asarray(batches)
    _check_batches(batches, len(ids))
    if hard_negatives is not None:
        hard_negatives = np.asarray(hard_negatives)
        _check_hard_negatives(hard_negatives, len(ids))
    missing = [name for name in _NEEDED if name not in settings]
    if missing:
        raise ValueError(f"the settings of the plan have no {' and no '.join(missing)}: it could not be made again")
    about = {
        "version": _VERSION,
        "settings": dict(settings),
        "teacher": teacher,
        "examples": len(ids),
        "ids_digest": ids_digest(ids),
        "made_by": __version__,
    }
    try:
        written = json.dumps(about, sort_keys=True, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"the settings of the plan cannot be written as JSON: {error}") from error
    names = _strings(ids)
    schema = _schema(batches.shape[1], None if hard_negatives is None else hard_negatives.shape[1])
    width = batches.shape[1] * (1 if hard_negatives is None else 1 + hard_negatives.shape[1])
    steps = max(1, _GROUP_CELLS // width)
    with (
        storage.atomic_write(path) as stream,
        pq.ParquetWriter(stream, schema.with_metadata({_KEY: written}), compression="zstd") as writer,
    ):
        for first in range(0, len(batches), steps):
            part = batches[first : first + steps].astype(np.int64)
            columns = [pa.array(np.arange(first, first + len(part), dtype=np.int64)), *_lists(part, names)]
            if hard_negatives is not None:
                held = np.where(part[..., None] == NO_EXAMPLE, NO_EXAMPLE, hard_negatives[part]).astype(np.int64)
                columns += _lists(held, names)
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=steps)


def read_plan(path: str, ids: Ids | None = None, *, with_ids: bool = False) -> BatchPlan:
    """Read a plan. ids: of all examples of the data that it is used on, to be checked against those it was made of.
    with_ids: read the ids in it as well; the numbers are enough where the data is at hand.

    Raises UserError for a file that is no plan, is damaged, or was made of other examples.
    """
    try:
        with storage.open_input(path) as source:
            file = pq.ParquetFile(source)
            names = file.schema_arrow.names
            metadata = (file.schema_arrow.metadata or {}).get(_KEY)
            with_negatives = names == [*_COLUMNS, *_NEGATIVE_COLUMNS]
            if metadata is None or not (with_negatives or names == _COLUMNS):
                raise UserError(f"{path} is no plan of batches; expected a file that `raylib mine batches` wrote")
            about = _about(path, metadata)
            table = file.read([name for name in names if with_ids or name not in _ID_COLUMNS])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if ids is not None and (about["examples"] != len(ids) or about["ids_digest"] != ids_digest(ids)):
        raise UserError(
            f"{path} was made of {about['examples']} other examples than these {len(ids)}; "
            "give it the data it was made of, or make it again"
        )
    try:
        batches = _array(table, "examples", 1)
        _check_batches(batches, about["examples"])
        if not np.array_equal(table.column("step").to_numpy(), np.arange(len(table))):
            raise ValueError("its steps are not numbered from 0")
        hard = _array(table, "negative_examples", 2) if with_negatives else None
        if hard is not None:
            _check_range(hard, about["examples"])
            if hard.shape[:2] != batches.shape:
                raise ValueError(f"it has hard negatives of {hard.shape[1]} examples in batches of {batches.shape[1]}")
    except (ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    found, found_negatives = (table.column(n) if n in table.column_names else None for n in _ID_COLUMNS)
    made_by = str(about.get("made_by", ""))
    return BatchPlan(batches, about["settings"], about["teacher"], hard, found, found_negatives, made_by)


def ids_digest(ids: Ids) -> str:
    """64 hex digits that tell this list of ids from another, its order included."""
    digest = hashlib.sha256()
    names = _strings(ids)
    for first in range(0, len(names), _DIGEST_ROWS):
        # A copy of the part starts at offset 0, so that only its own bytes are read.
        part = pa.concat_arrays([names.slice(first, _DIGEST_ROWS), names.slice(0, 0)])
        _, offsets, data = part.buffers()
        ends = np.frombuffer(offsets, dtype="<i8", count=part.offset + len(part) + 1)[part.offset :]
        digest.update((ends - ends[0]).tobytes())
        if data is not None:
            digest.update(memoryview(data)[int(ends[0]) : int(ends[-1])])
    return digest.hexdigest()


def _strings(ids: Ids) -> pa.LargeStringArray:
    """Offsets of 64 bits: the ids of ten million examples may be more than 2 GiB."""
    names: Any = ids
    if isinstance(ids, pa.ChunkedArray):
        names = names.combine_chunks()
    return names.cast(pa.large_string()) if isinstance(names, pa.Array) else pa.array(names, pa.large_string())


def _schema(batch: int, n_negatives: int | None) -> pa.Schema:
    fields = [("step", pa.int64()), ("example_ids", pa.list_(pa.string(), batch))]
    fields.append(("examples", pa.list_(pa.int64(), batch)))
    if n_negatives is not None:
        for name, kind in zip(_NEGATIVE_COLUMNS, (pa.string(), pa.int64()), strict=True):
            fields.append((name, pa.list_(pa.list_(kind, n_negatives), batch)))
    return pa.schema(fields)


def _lists(numbers: np.ndarray, names: pa.LargeStringArray) -> list[pa.Array]:
    """Ids and numbers [steps, batch] or [steps, batch, h] as columns of lists of one length."""
    flat = numbers.reshape(-1)
    columns: list[pa.Array] = [names.take(pa.array(flat, mask=flat < 0)).cast(pa.string()), pa.array(flat)]
    for size in numbers.shape[:0:-1]:
        columns = [pa.FixedSizeListArray.from_arrays(column, size) for column in columns]
    return columns


def _array(table: pa.Table, name: str, depth: int) -> np.ndarray:
    """int64 of 1 + depth dimensions. Raises ValueError for a column that is no such array."""
    column: Any = table.column(name).combine_chunks()
    shape, kind = [len(table)], column.type
    for _ in range(depth):
        if not pa.types.is_fixed_size_list(column.type) or column.null_count:
            raise ValueError(f"its column {name} is {kind}, expected lists of one length")
        shape.append(column.type.list_size)
        column = column.flatten()
    if column.type != pa.int64() or column.null_count:
        raise ValueError(f"its column {name} is {kind} with {column.null_count} nulls, expected int64")
    return column.to_numpy().reshape(shape)


def _about(path: str, metadata: bytes) -> dict[str, Any]:
    try:
        about = json.loads(metadata)
        version = about["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: what it says of itself is {metadata[:80]!r}") from error
    if version != _VERSION:
        raise UserError(f"{path} is a plan of version {version}; this raylib reads version {_VERSION}")
    kinds = {"settings": dict, "teacher": str, "examples": int, "ids_digest": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(about.get(name), kind)]
    if wrong:
        raise UserError(f"{path} is damaged: it does not say its {', '.join(wrong)}")
    return about


def _check_range(numbers: np.ndarray, examples: int) -> None:
    if numbers.size and (numbers.min() < NO_EXAMPLE or numbers.max() >= examples):
        wrong = numbers.min() if numbers.min() < NO_EXAMPLE else numbers.max()
        raise ValueError(f"it holds the example {wrong}; there are {examples}, from 0")


def _check_batches(batches: np.ndarray, examples: int) -> None:
    if batches.ndim != 2 or not batches.size:
        raise ValueError(f"batches have the shape {batches.shape}; expected [steps, batch], and one step at least")
    _check_range(batches, examples)
    empty = np.flatnonzero((batches == NO_EXAMPLE).all(axis=1))
    if len(empty):
        raise ValueError(f"the step {empty[0]} holds no example")
    times = np.bincount(batches.ravel() + 1, minlength=1)[1:]
    if times.max() > 1:
        raise ValueError(f"it holds the example {times.argmax()} {times.max()} times; expected once")


def _check_hard_negatives(hard_negatives: np.ndarray, examples: int) -> None:
    if hard_negatives.ndim != 2 or len(hard_negatives) != examples or not hard_negatives.shape[1]:
        raise ValueError(f"hard negatives have the shape {hard_negatives.shape}; expected [{examples}, 1 or more]")
    _check_range(hard_negatives, examples)
    own = np.flatnonzero((hard_negatives == np.arange(examples)[:, None]).any(axis=1))
    if len(own):
        raise ValueError(f"the example {own[0]} is a hard negative of itself")
