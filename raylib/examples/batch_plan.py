"""The plan of batches as a file: which examples are trained on together, and how that was decided."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import UserError

_KEY = b"raylib.batches"
_VERSION = 1


@dataclass(frozen=True)
class BatchPlan:
    """batches: int64 [steps, batch], numbers of examples in the order in which they were read. ids [steps, batch]: of
    the same examples. settings: of the plan, the seed among them. teacher: the fingerprint of the model whose vectors
    it was made from; "" for a plan without one."""

    batches: np.ndarray
    ids: list[list[str]]
    settings: dict[str, Any]
    teacher: str


def write_plan(
    path: str, batches: np.ndarray, ids: Sequence[str], *, settings: Mapping[str, Any], teacher: str
) -> None:
    """Write a plan as Parquet, one row a step: step, example_ids and examples (their numbers). Whole or not at all.

    batches: int64 [steps, batch]. ids [n]: of all examples. settings: what JSON can hold. Raises ValueError for batches
    that are not of two dimensions, hold a number of no example, or one twice.
    """
    if batches.ndim != 2 or not batches.size:
        raise ValueError(f"batches have the shape {batches.shape}; expected [steps, batch]")
    _check_numbers(batches, len(ids))
    steps, size = batches.shape
    flat = pa.array(batches.reshape(-1).astype(np.int64))
    names = pa.array(ids, pa.large_string()).take(flat).cast(pa.string())
    about = {
        "version": _VERSION,
        "settings": dict(settings),
        "teacher": teacher,
        "examples": len(ids),
        "ids_digest": ids_digest(ids),
    }
    table = pa.table(
        {
            "step": pa.array(np.arange(steps, dtype=np.int64)),
            "example_ids": pa.FixedSizeListArray.from_arrays(names, size),
            "examples": pa.FixedSizeListArray.from_arrays(flat, size),
        }
    ).replace_schema_metadata({_KEY: json.dumps(about, sort_keys=True)})
    with storage.atomic_write(path) as stream:
        pq.write_table(table, stream, compression="zstd")


def read_plan(path: str, ids: Sequence[str] | None = None) -> BatchPlan:
    """Read a plan. ids: of all examples of the data that it is used on, to be checked against those it was made of.

    Raises UserError for a file that is no plan, is damaged, or was made of other examples.
    """
    try:
        with storage.open_input(path) as source:
            table = pq.read_table(source)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    metadata = (table.schema.metadata or {}).get(_KEY)
    if metadata is None or table.column_names != ["step", "example_ids", "examples"] or not len(table):
        raise UserError(f"{path} is no plan of batches; expected a file that `raylib mine batches` wrote")
    about = json.loads(metadata)
    if about["version"] != _VERSION:
        raise UserError(f"{path} is a plan of version {about['version']}; this raylib reads version {_VERSION}")
    if ids is not None and about["ids_digest"] != ids_digest(ids):
        raise UserError(
            f"{path} was made of {about['examples']} other examples than these {len(ids)}; "
            "give it the data it was made of, or make it again"
        )
    column = table.column("examples").combine_chunks()
    batches = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
    try:
        _check_numbers(batches, about["examples"])
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return BatchPlan(batches, table.column("example_ids").to_pylist(), about["settings"], about["teacher"])


def ids_digest(ids: Sequence[str]) -> str:
    """64 hex digits that tell this list of ids from another, its order included."""
    digest = hashlib.sha256()
    for name in ids:
        data = name.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _check_numbers(batches: np.ndarray, examples: int) -> None:
    counts = np.unique(batches, return_counts=True)
    if counts[0][0] < 0 or counts[0][-1] >= examples:
        raise ValueError(f"it holds the example {counts[0][[0, -1]].tolist()}; there are {examples}, from 0")
    if counts[1].max() > 1:
        raise ValueError(f"it holds the example {counts[0][counts[1].argmax()]} {counts[1].max()} times; expected once")
