"""One file of a corpus' changes: a Parquet table with a row for each document that was added or taken out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import StoreError
from raylib.serve.protocol import Document
from raylib.store.vector_columns import vector_column
from raylib.types import Embeddings

_GROUP_BYTES = 2**20
"""Of a row group, about: what is read for one document."""

_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("deleted", pa.bool_(), nullable=False),
        ("text", pa.large_string()),
        ("image", pa.large_binary()),
        ("metadata", pa.string()),
        ("tokens", pa.int32()),
        ("vector", pa.large_binary()),
    ]
)


def count_rows(path: str) -> int:
    with _readable(path), storage.open_input(path) as source:
        return pq.read_metadata(source).num_rows


def to_table(
    documents: Sequence[Document], vectors: Embeddings | None, deleted: Sequence[str], fingerprint: str
) -> pa.Table:
    """The documents in order, then what is deleted."""
    gone: list[None] = [None] * len(deleted)
    nothing = pa.nulls(len(deleted), pa.large_binary())
    columns = {
        "id": [document.id for document in documents] + list(deleted),
        "deleted": [False] * len(documents) + [True] * len(deleted),
        "text": [document.content.text for document in documents] + gone,
        "image": [document.content.image for document in documents] + gone,
        "metadata": [json.dumps(dict(document.metadata)) for document in documents] + gone,
        "tokens": ([] if vectors is None else vectors.token_counts.tolist()) + [0] * len(deleted),
        "vector": nothing if vectors is None else pa.concat_arrays([vector_column(vectors), nothing]),
    }
    dim, dtype = ("0", "float32") if vectors is None else (str(vectors.dim), vectors.values.dtype.name)
    return pa.table(columns, schema=_SCHEMA.with_metadata({"dim": dim, "dtype": dtype, "fingerprint": fingerprint}))


def write_table(path: str, table: pa.Table) -> None:
    """Whole or not at all. Raises UserError on a full disk."""
    rows = max(1, min(4096, len(table) * _GROUP_BYTES // max(1, table.nbytes)))
    compressed: Any = {"id": "zstd", "text": "zstd", "metadata": "zstd"}  # images and vectors do not shrink
    with storage.atomic_write(path) as stream:
        pq.write_table(table, stream, row_group_size=rows, compression=compressed, write_page_checksum=True)


def join_tables(paths: Sequence[str], keep: Sequence[np.ndarray]) -> pa.Table:
    """The kept rows of parts whose vectors have one width and number format. keep: per part [rows] bool."""
    tables = [read_columns(path, _SCHEMA.names).filter(pa.array(kept)) for path, kept in zip(paths, keep, strict=True)]
    full = [table for table in tables if about_of(table)["dim"] != "0"]
    schema = _SCHEMA.with_metadata((full or tables)[0].schema.metadata)
    return pa.concat_tables([table.cast(schema) for table in tables])


def read_columns(path: str, columns: list[str]) -> pa.Table:
    """All rows. Raises StoreError, naming the file, where it cannot be read; FileNotFoundError where it is gone."""
    with _readable(path), storage.open_input(path) as source:
        return pq.read_table(source, columns=columns, page_checksum_verification=True)


def read_rows(path: str, rows: Sequence[int], columns: list[str]) -> pa.Table:
    """Some rows, in their order: only the row groups are read that hold them. Errors as for `read_columns`."""
    with _readable(path), storage.open_input(path) as source:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        wanted = np.asarray(rows, dtype=np.int64)
        groups = np.searchsorted(starts, wanted, side="right") - 1
        read = np.unique(groups)
        if not len(read):
            return file.schema_arrow.empty_table().select(columns)
        table = file.read_row_groups(read.tolist(), columns=columns)
        firsts = np.concatenate([[0], np.cumsum([sizes[i] for i in read])])[:-1]
        return table.take(pa.array(firsts[np.searchsorted(read, groups)] + wanted - starts[groups]))


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split())
        raise StoreError(
            f"{path} cannot be read ({why}). Restore it from a copy, or move it away: its documents are then gone."
        ) from error


def about_of(table: pa.Table) -> dict[str, str]:
    """dim ("0" where no row has a vector), dtype and fingerprint of the vectors."""
    return {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
