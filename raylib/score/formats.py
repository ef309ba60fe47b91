"""Readers of vector files: NumPy arrays, Parquet, HDF5. Where the form allows, a block is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import UserError
from raylib.score.vectors import BLOCK_BYTES, Block, Vectors, check_ids, ids_of
from raylib.types import Embeddings, Role


def read_npy(path: str, role: Role, ids: list[str] | None) -> Vectors:
    """An array [n, dim], one vector a content; or [n, tokens, dim], late interaction padded with zeros: the zero rows
    at the end of a content are taken for padding and left out."""
    with _readable(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if ids is None:
        raise UserError(f"{path} holds vectors alone; add --{role}-ids FILE, one id a line in the order of the vectors")
    _check_array(path, array, (2, 3), "[n, dim], or [n, tokens, dim] padded with zeros")
    check_ids(path, role, ids, len(array))
    if array.ndim == 2:
        offsets = np.arange(len(array) + 1)
        return _flat(path, role, ids, array, offsets, late=False)

    def read() -> Iterator[Block]:
        for first, last in _cut(np.arange(len(array) + 1) * array.shape[1], array.shape[2]):
            padded = np.asarray(array[first:last])
            at = np.arange(1, padded.shape[1] + 1)
            counts = np.where((padded != 0).any(axis=2), at, 0).max(axis=1, initial=0)
            keep = at <= counts[:, None]
            yield np.arange(first, last), _embeddings(padded[keep], _offsets(counts))

    return Vectors(path, role, ids, array.shape[2], True, read, np.arange(len(ids)), described={"form": "npy, padded"})


def read_npz(path: str, role: Role, ids: list[str] | None) -> Vectors:
    """Arrays `vectors` [n, dim] and `ids` [n]; for late interaction `vectors` [tokens, dim] and `offsets` [n + 1],
    where content i owns the rows offsets[i]:offsets[i + 1]."""
    with _readable(path), np.load(path, allow_pickle=False) as arrays:
        if not hasattr(arrays, "files"):
            raise UserError(f"{path} is no .npz archive")
        found = {name: arrays[name] for name in ("vectors", "ids", "offsets") if name in arrays.files}
        names = arrays.files
    if "vectors" not in found:
        raise UserError(f"{path} holds {', '.join(names) or 'no array'}; expected vectors, ids and maybe offsets")
    return _from_arrays(path, role, ids, found["vectors"], found.get("ids"), found.get("offsets"))


def read_hdf5(path: str, role: Role, ids: list[str] | None) -> Vectors:
    """Data sets `vectors`, `ids` and maybe `offsets`, as in an .npz; or one data set per content, named by its id:
    [dim], or [tokens, dim] for late interaction."""
    import h5py

    with _readable(path), h5py.File(path, "r") as file:
        if "vectors" not in file:
            return _one_per_id(path, role, ids, file)
        arrays = {name: _dataset(path, file, name)[()] for name in ("ids", "offsets") if name in file}
        vectors = _dataset(path, file, "vectors")
        shape = _without_values(vectors)

    def rows(first: int, last: int) -> np.ndarray:
        with _readable(path), h5py.File(path, "r") as file:
            return _dataset(path, file, "vectors")[first:last]

    return _from_arrays(path, role, ids, shape, arrays.get("ids"), arrays.get("offsets"), rows)


def _dataset(path: str, file: Any, name: str) -> Any:
    import h5py

    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{path}: {name} is a group; expected a data set, or one data set per id at the top")
    return found


def _without_values(dataset: Any) -> np.ndarray:
    """An array of the shape and type of a data set that takes no memory."""
    return np.broadcast_to(np.zeros((), dataset.dtype), dataset.shape)


def _one_per_id(path: str, role: Role, ids: list[str] | None, file: Any) -> Vectors:
    import h5py

    if ids is not None:
        raise UserError(f"{path} has one data set per id; leave --{role}-ids out")
    ids = list(file)
    check_ids(path, role, ids, len(ids))
    shapes = [_dataset(path, file, name).shape for name in ids]
    for name, shape in zip(ids, shapes, strict=True):
        _check_array(path, _without_values(file[name]), (1, 2), "[dim] or [tokens, dim]", name)
        if shape[-1] != shapes[0][-1]:
            raise UserError(_two_dims(path, name, shape[-1], ids[0], shapes[0][-1]))
    dim, offsets = shapes[0][-1], _offsets([shape[0] if len(shape) == 2 else 1 for shape in shapes])

    def read() -> Iterator[Block]:
        with _readable(path), h5py.File(path, "r") as file:
            for first, last in _cut(offsets, dim):
                parts = [np.atleast_2d(_dataset(path, file, name)[()]) for name in ids[first:last]]
                yield np.arange(first, last), _embeddings(np.concatenate(parts), offsets[first : last + 1])

    late = any(len(shape) == 2 for shape in shapes)
    return Vectors(path, role, ids, dim, late, read, np.arange(len(ids)), described={"form": "hdf5, one per id"})


def read_parquet(path: str, role: Role, ids: list[str] | None) -> Vectors:
    """Columns `id` and `vector`: a list of numbers, or a list of such lists for late interaction."""
    with _readable(path), storage.open_input(path) as source:
        file = pq.ParquetFile(source)
        schema = file.schema_arrow
        missing = [name for name in ("id", "vector") if name not in schema.names]
        if missing:
            raise UserError(f"{path} has the columns {', '.join(schema.names)}; expected id and vector")
        type_, late = schema.field("vector").type, False
        inner = type_.value_type if _is_list(type_) else None
        if inner is not None and _is_list(inner):
            inner, late = inner.value_type, True
        if inner is None or not pa.types.is_floating(inner):
            raise UserError(f"{path}: the column vector is {type_}; expected list<float>, or list<list<float>>")
        if ids is not None:
            raise UserError(f"{path} has its own ids; leave --{role}-ids out")
        column = file.read(columns=["id"]).column("id")
        if column.null_count:
            raise UserError(f"{path}: {column.null_count} rows have no id")
        ids = [str(i) for i in column.to_pylist()]
        check_ids(path, role, ids, file.metadata.num_rows)
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
        rows = max(1, BLOCK_BYTES * len(ids) // max(1, size))
        head = next(file.iter_batches(batch_size=1, columns=["vector"]))
    dim = _arrow_vectors(path, ids, 0, head.column(0), late).dim

    def read() -> Iterator[Block]:
        first = 0
        with _readable(path), storage.open_input(path) as source:
            for batch in pq.ParquetFile(source).iter_batches(batch_size=rows, columns=["vector"]):
                found = _arrow_vectors(path, ids, first, batch.column(0), late)
                if found.dim != dim:
                    raise UserError(_two_dims(path, ids[first], found.dim, ids[0], dim))
                yield np.arange(first, first + len(found)), found
                first += len(found)

    return Vectors(path, role, ids, dim, late, read, np.arange(len(ids)), described={"form": "parquet"})


def _is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


def _arrow_vectors(path: str, ids: list[str], first: int, column: pa.Array, late: bool) -> Embeddings:
    """A column of lists → embeddings; `first`: the row of the file that the column starts at."""

    def name(row: int) -> str:
        return ids[first + row]

    def opened(lists: pa.Array) -> tuple[np.ndarray, pa.Array]:
        """(how many items each list has, the items)."""
        return np.asarray(lists.value_lengths()), lists.flatten()

    if column.null_count:
        raise UserError(f"{path}: {name(int(np.argmax(np.asarray(column.is_null()))))} has no vector (null)")
    counts = np.ones(len(column), dtype=np.int64)
    vectors = column
    if late:
        counts, vectors = opened(column)
        if vectors.null_count:
            raise UserError(f"{path}: a vector of rows {first} to {first + len(column) - 1} is null")
    owners = np.repeat(np.arange(len(column)), counts)
    lengths, numbers = opened(vectors)
    if numbers.null_count:
        raise UserError(f"{path}: a number in a vector of rows {first} to {first + len(column) - 1} is null")
    dim = int(lengths[0]) if len(lengths) else 0
    odd = np.flatnonzero(lengths != dim)
    if len(odd):
        wrong = int(odd[0])
        raise UserError(_two_dims(path, name(int(owners[wrong])), int(lengths[wrong]), name(int(owners[0])), dim))
    if dim == 0:
        raise UserError(f"{path}: {name(0)} has a vector of no numbers")
    return _embeddings(np.asarray(numbers).reshape(-1, dim), _offsets(counts))


def _from_arrays(
    path: str,
    role: Role,
    ids: list[str] | None,
    vectors: np.ndarray,
    stored_ids: np.ndarray | None,
    offsets: np.ndarray | None,
    rows: Callable[[int, int], np.ndarray] | None = None,
) -> Vectors:
    """Vectors from arrays of the .npz form. rows: reads some rows of `vectors`, where they are not in memory."""
    if stored_ids is not None and ids is not None:
        raise UserError(f"{path} has its own ids; leave --{role}-ids out")
    if stored_ids is None and ids is None:
        raise UserError(f"{path} holds no ids; add an array `ids`, or --{role}-ids FILE")
    _check_array(path, vectors, (2,), "[n, dim], or [tokens, dim] with offsets")
    ids = ids_of(stored_ids, path) if stored_ids is not None else ids
    assert ids is not None
    late = offsets is not None
    if offsets is None:
        offsets = np.arange(len(vectors) + 1)
    elif (
        offsets.ndim != 1
        or offsets.dtype.kind not in "iu"
        or not len(offsets)
        or offsets[0] != 0
        or offsets[-1] != len(vectors)
        or (np.diff(offsets.astype(np.int64)) < 0).any()
    ):
        raise UserError(
            f"{path}: offsets {offsets.dtype}{list(offsets.shape)} do not cut {len(vectors)} vectors; expected whole "
            f"numbers [n + 1] that rise from 0 to {len(vectors)}"
        )
    check_ids(path, role, ids, len(offsets) - 1)
    return _flat(path, role, ids, vectors, offsets.astype(np.int64), late=late, rows=rows)


def _flat(
    path: str,
    role: Role,
    ids: list[str],
    vectors: np.ndarray,
    offsets: np.ndarray,
    *,
    late: bool,
    rows: Callable[[int, int], np.ndarray] | None = None,
) -> Vectors:
    """vectors [tokens, dim], cut at offsets [n + 1]."""

    def read() -> Iterator[Block]:
        for first, last in _cut(offsets, vectors.shape[1]):
            start, stop = int(offsets[first]), int(offsets[last])
            block = rows(start, stop) if rows is not None else np.asarray(vectors[start:stop])
            yield np.arange(first, last), _embeddings(block, offsets[first : last + 1])

    form = path.rpartition(".")[2].lower()
    return Vectors(path, role, ids, vectors.shape[1], late, read, np.arange(len(ids)), described={"form": form})


def _cut(offsets: np.ndarray, dim: int) -> Iterator[tuple[int, int]]:
    """Contents first:last whose float32 vectors take at most BLOCK_BYTES together, but one content at least."""
    tokens = max(1, BLOCK_BYTES // (4 * max(1, dim)))
    first, n = 0, len(offsets) - 1
    while first < n:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + tokens, side="right")) - 1)
        yield first, min(last, n)
        first = last


def _two_dims(path: str, name: str, dim: int, other: str, other_dim: int) -> str:
    return f"{path}: {name} has {dim} dimensions, {other} has {other_dim}; expected one dim"


def _embeddings(values: np.ndarray, offsets: np.ndarray) -> Embeddings:
    """float32 (float16 stays); offsets may start anywhere."""
    kind = values.dtype if values.dtype in (np.float16, np.float32) else np.dtype(np.float32)
    return Embeddings(np.ascontiguousarray(values, dtype=kind), (offsets - offsets[0]).astype(np.int64))


def _offsets(counts: Any) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _check_array(path: str, array: np.ndarray, ndims: tuple[int, ...], expected: str, name: str = "vectors") -> None:
    if array.dtype.kind != "f" or array.ndim not in ndims or array.shape[-1] == 0:
        shape = f"{array.dtype}{list(array.shape)}"
        raise UserError(f"{path}: {name}: {shape}; expected float16, float32 or float64, {expected}")


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Errors of the libraries that read files, as one of ours."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
