"""Columns of Parquet as text, as a person would write their cells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute

compute: Any = pyarrow.compute  # its functions are made when it is imported, unseen by a type checker

TEXT = pa.large_string()
"""Of every column of text: one of a million long answers outgrows the offsets of a small one."""

_EXACT_INTEGERS = 2.0**53


def kind_of(kind: pa.DataType) -> str:
    """Of a column: "image", "text", or "other" for bytes inside of something else."""
    if _is_bytes(kind):
        return "image"
    if pa.types.is_struct(kind) and "bytes" in (names := [field.name for field in kind]):
        return "image" if _is_bytes(kind.field(names.index("bytes")).type) else "text"
    return "other" if "binary" in str(kind) else "text"


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers as they are written, whole ones without a point (ids beside a NaN are floats); lists and structs as
    JSON; NaN as null."""
    types = pa.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_floating(column.type):
        column = column.cast(pa.float32()) if types.is_float16(column.type) else column
        column = compute.if_else(compute.is_nan(column), pa.scalar(None, column.type), column)
        whole = compute.and_(
            compute.equal(compute.round(column), column), compute.less(compute.abs(column), _EXACT_INTEGERS)
        )
        integers = compute.cast(compute.if_else(whole, column, pa.scalar(0, column.type)), pa.int64())
        return compute.if_else(whole, compute.cast(integers, TEXT), compute.cast(column, TEXT))
    try:
        return compute.cast(column, TEXT)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        cells = [None if cell is None else _nested_text(cell) for cell in column.to_pylist()]
        return pa.chunked_array([pa.array(cells, TEXT)])


def _nested_text(cell: Any) -> str:
    if isinstance(cell, Mapping | list | tuple):
        return json.dumps(cell, ensure_ascii=False, default=str)
    return str(cell)
