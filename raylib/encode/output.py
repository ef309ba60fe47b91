"""Vectors → one file in the form that was asked for, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from raylib import storage
from raylib.encode.config import VectorFormat
from raylib.errors import UserError
from raylib.store.vector_files import IDS
from raylib.types import Embeddings

_BLOCK_BYTES = 32 * 2**20

NAMES = ("embeddings.parquet", "embeddings.npy", "embeddings.npz", "embeddings.h5", IDS)
"""Every file that a run may write besides errors.parquet and the manifest."""


@dataclass(frozen=True)
class VectorTable:
    """What a file of vectors holds. ids, sources [n]: sources are the files of the contents. late: contents may have
    several vectors. about: what the file says of itself."""

    ids: Sequence[str]
    sources: Sequence[str]
    vectors: Embeddings
    late: bool
    about: Mapping[str, str]

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Contents first:last of about _BLOCK_BYTES together."""
        tokens = max(1, _BLOCK_BYTES // (self.vectors.dim * self.vectors.values.itemsize))
        offsets, first, n = self.vectors.offsets, 0, len(self.ids)
        while first < n:
            last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + tokens, side="right")) - 1)
            yield first, min(last, n)
            first = last


def write_vectors(table: VectorTable, folder: str, form: VectorFormat) -> dict[str, str]:
    """Write the file, whole or not at all; gives the names of what was written: "embeddings", and "ids" where they lie
    apart. Raises UserError for ids that the form cannot hold."""
    _check_ids(table.ids, form)
    name, write = _form(table, form)
    files = {"embeddings": name}
    if form == "npy":
        with storage.atomic_write(storage.join(folder, IDS), "w") as stream:
            stream.writelines(f"{i}\n" for i in table.ids)
        files["ids"] = IDS
    with storage.atomic_write(storage.join(folder, name), "w+b") as stream:
        write(table, stream)
    return files


def _form(table: VectorTable, form: VectorFormat) -> tuple[str, Callable[[VectorTable, IO[bytes]], None]]:
    if form == "parquet":
        return "embeddings.parquet", _write_parquet
    if form == "hdf5":
        return "embeddings.h5", _write_hdf5
    return ("embeddings.npz", _write_npz) if table.late else ("embeddings.npy", _write_npy)


def _check_ids(ids: Sequence[str], form: VectorFormat) -> None:
    """ids.txt has one a line, whose blanks at the ends say nothing; HDF5's text ends at a NUL."""
    if form == "npy":
        unfit = next((i for i in ids if not i or i.strip() != i or i[0] == "\ufeff" or "\n" in i or "\r" in i), None)
    elif form == "hdf5":
        unfit = next((i for i in ids if "\0" in i), None)
    else:
        unfit = None
    if unfit is not None:
        raise UserError(f"the id {unfit!r} cannot be written with --format {form}; use --format parquet")


def _write_parquet(table: VectorTable, stream: IO[bytes]) -> None:
    """Columns id, source and vector: a list of numbers of fixed size; for late interaction a list of those, and tokens
    counts them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = table.vectors
    numbers = pa.list_(pa.from_numpy_dtype(vectors.values.dtype), vectors.dim)
    late = [("tokens", pa.int32()), ("vector", pa.list_(numbers))]
    schema = pa.schema(
        [("id", pa.string()), ("source", pa.string()), *(late if table.late else [("vector", numbers)])],
        metadata=dict(table.about),
    )
    compressed: Any = {"id": "zstd", "source": "zstd"}  # vectors do not shrink
    with pq.ParquetWriter(stream, schema, compression=compressed) as writer:
        for first, last in table.blocks():
            start, stop = vectors.offsets[first], vectors.offsets[last]
            flat = np.ascontiguousarray(vectors.values[start:stop]).reshape(-1)
            column: Any = pa.FixedSizeListArray.from_arrays(pa.array(flat), vectors.dim)
            columns = {"id": pa.array(table.ids[first:last]), "source": pa.array(table.sources[first:last])}
            if table.late:
                offsets = pa.array((vectors.offsets[first : last + 1] - start).astype(np.int32))
                columns["tokens"] = pa.array(vectors.token_counts[first:last].astype(np.int32))
                column = pa.ListArray.from_arrays(offsets, column)
            writer.write_table(pa.table({**columns, "vector": column}, schema=schema))


def _write_rows(table: VectorTable, stream: IO[bytes]) -> None:
    """The values as an .npy array [tokens, dim]."""
    values = table.vectors.values
    told = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": values.shape}
    np.lib.format.write_array_header_1_0(stream, told)
    for first, last in table.blocks():
        stream.write(values[table.vectors.offsets[first] : table.vectors.offsets[last]].tobytes())


def _write_npy(table: VectorTable, stream: IO[bytes]) -> None:
    """[n, dim]."""
    _write_rows(table, stream)


def _write_npz(table: VectorTable, stream: IO[bytes]) -> None:
    """vectors [tokens, dim] and offsets [n + 1], as np.savez writes them."""
    import zipfile

    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as entry:
            _write_rows(table, entry)
        with archive.open("offsets.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array(entry, table.vectors.offsets)


def _write_hdf5(table: VectorTable, stream: IO[bytes]) -> None:
    """Data sets ids [n], sources [n] and vectors [n, dim]; for late interaction vectors [tokens, dim], offsets
    [n + 1]."""
    import h5py

    vectors = table.vectors
    with h5py.File(stream, "w") as file:
        file.attrs.update(table.about)
        file.create_dataset("ids", data=list(table.ids), dtype=h5py.string_dtype())
        file.create_dataset("sources", data=list(table.sources), dtype=h5py.string_dtype())
        if table.late:
            file.create_dataset("offsets", data=vectors.offsets)
        rows = file.create_dataset("vectors", shape=vectors.values.shape, dtype=vectors.values.dtype)
        for first, last in table.blocks():
            start, stop = int(vectors.offsets[first]), int(vectors.offsets[last])
            rows[start:stop] = vectors.values[start:stop]
