"""Hidden states in HDF5: one group a row, named as the old scripts named them, and below /columns all rows as one
array per representation. docs/hidden-states.md describes the layout for a reader."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from raylib import storage
from raylib.errors import UserError
from raylib.store.representations import Representation
from raylib.store.state_table import (
    FAILED,
    LAYOUT,
    POSITIONS,
    StateRow,
    StateTable,
    check_layout,
    clean,
    from_attributes,
    row_name,
    text_name,
    to_attributes,
    unescape,
)

OLD_KINDS = ("vision_only", "vision_token", "query_token")
"""What a row's group holds, for readers of the old scripts' files; everything is in the columns."""

COLUMNS = "columns"
"""The one group at the top of a file that is no row."""

_CHUNK_BYTES = 1 << 20


# Writing.


def write_hdf5(table: StateTable, path: str, compression: str | None) -> None:
    """Write `table` to a local file that nobody reads yet. compression: None or "lzf". Raises OSError.

    No lock, here and in reading: a part has one writer and is never changed, and some file systems have no locks. The
    oldest format of HDF5 that holds it: any reader of the last fifteen years opens it. No times are kept, so
    equal tables give equal files.
    """
    import h5py

    _check_room(table, path)
    try:
        with h5py.File(path, "w", libver="earliest", locking=False) as file:
            for name, value in to_attributes(table.about).items():
                file.attrs[name] = value
            _write_columns(file, table, compression)
            _write_rows(file, table, compression)
    except RuntimeError as error:  # how HDF5 says that it could not close the file: the disk is full
        raise OSError(str(error)) from error


def _check_room(table: StateTable, path: str) -> None:
    """HDF5 can crash on a full disk, so it is not started where it would fill it: every vector is written twice."""
    needed = 2 * sum(values.nbytes for values in table.states.values())
    if shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free < needed:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed / 1e9:.2f} GB are needed")


def _write_columns(file: Any, table: StateTable, compression: str | None) -> None:
    import h5py

    columns = file.create_group(COLUMNS)
    columns.attrs["layout"] = LAYOUT
    _write_texts(columns, "question_id", table.question_ids)
    columns.attrs.create("texts", [text_name(name) for name in table.texts], (len(table.texts),), h5py.string_dtype())
    for name, values in table.texts.items():
        _write_texts(columns, text_name(name), [clean(value) for value in values])
    for name, values in table.positions.items():
        columns.create_dataset(name, data=values, track_times=False)
    for name, values in zip(FAILED, zip(*table.failed, strict=True) if table.failed else ((), ()), strict=True):
        _write_texts(columns, name, [clean(value) for value in values])
    for representation, values in sorted(table.states.items()):
        n, width = values.shape
        rows = max(1, min(n, _CHUNK_BYTES // (4 * max(width, 1))))
        layout: dict[str, Any] = {"chunks": (rows, width)} if values.size else {}
        if values.size and compression:
            layout |= {"compression": compression, "shuffle": True}
        made = columns.create_dataset(representation.path, (n, width), "<f4", track_times=False, **layout)
        for first in range(0, n, rows):
            made[first : first + rows] = values[first : first + rows]


def _write_texts(group: Any, name: str, values: list[str]) -> None:
    import h5py

    encoded = np.array([value.encode("utf-8") for value in values], dtype=object)
    group.create_dataset(name, (len(values),), h5py.string_dtype(), data=encoded, track_times=False)


def _write_rows(file: Any, table: StateTable, compression: str | None) -> None:
    writer = _RowWriter(compression)
    texts = {text_name(name).encode(): [clean(v).encode() for v in values] for name, values in table.texts.items()}
    states: dict[bytes, dict[bytes, np.ndarray]] = {}
    for representation, values in sorted(table.states.items()):
        if representation.kind not in OLD_KINDS:
            continue
        kind, _, layer = representation.old_path.encode().partition(b"/")
        states.setdefault(kind, {})[layer] = values
    positions = table.positions
    for at, question_id in enumerate(table.question_ids):
        row = writer.group(file.id, row_name(question_id).encode())
        writer.attribute(row, b"question_id", clean(question_id).encode())
        for name, values in positions.items():
            writer.attribute(row, name.encode(), np.asarray(values[at]))
        for name, values in texts.items():
            writer.text(row, name, values[at])
        for kind, layers in states.items():
            inside = row if b"" in layers else writer.group(row, kind)
            for layer, values in layers.items():
                writer.vector(inside, layer or kind, values[at])


class _RowWriter:
    """h5py's calls below its own classes: a row has thirty small data sets, and so they take half as long."""

    def __init__(self, compression: str | None) -> None:
        import h5py

        self._h5: Any = h5py
        h5d, h5p, h5s, h5t = self._h5.h5d, self._h5.h5p, self._h5.h5s, self._h5.h5t
        self._scalar = h5s.create(h5s.SCALAR)
        self._string = h5t.TypeID.copy(h5t.C_S1)
        self._string.set_size(h5t.VARIABLE)
        self._string.set_cset(h5t.CSET_UTF8)
        self._object = h5py.string_dtype()
        self._text_list, self._vector_list = h5p.create(h5p.DATASET_CREATE), h5p.create(h5p.DATASET_CREATE)
        self._group_list = h5p.create(h5p.GROUP_CREATE)
        for creation in (self._text_list, self._vector_list, self._group_list):
            creation.set_obj_track_times(False)
        self._vector_list.set_fill_time(h5d.FILL_TIME_NEVER)
        self._compress = compression is not None
        self._by_width: dict[int, tuple[Any, Any]] = {}

    def group(self, parent: Any, name: bytes) -> Any:
        return self._h5.h5g.create(parent, name, gcpl=self._group_list)

    def attribute(self, group: Any, name: bytes, value: bytes | np.ndarray) -> None:
        h5a, h5s, h5t = self._h5.h5a, self._h5.h5s, self._h5.h5t
        if isinstance(value, bytes):
            made = h5a.create(group, name, self._string, self._scalar)
            made.write(np.array(value, dtype=self._object))
        else:
            space = h5s.create_simple(value.shape) if value.ndim else self._scalar
            made = h5a.create(group, name, h5t.STD_I64LE, space)
            made.write(value)

    def text(self, group: Any, name: bytes, value: bytes) -> None:
        h5d, h5s = self._h5.h5d, self._h5.h5s
        made = h5d.create(group, name, self._string, self._scalar, dcpl=self._text_list)
        made.write(h5s.ALL, h5s.ALL, np.array(value, dtype=self._object))
        self._h5.h5i.dec_ref(made)

    def vector(self, group: Any, name: bytes, value: np.ndarray) -> None:
        h5d, h5s, h5t = self._h5.h5d, self._h5.h5s, self._h5.h5t
        space, creation = self._of_width(len(value))
        made = h5d.create(group, name, h5t.IEEE_F32LE, space, dcpl=creation)
        made.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(value))
        self._h5.h5i.dec_ref(made)  # closed here, a failed write is an error; when dropped, only a line on stderr

    def _of_width(self, width: int) -> tuple[Any, Any]:
        if width not in self._by_width:
            creation = self._vector_list.copy()
            if self._compress and width:
                creation.set_chunk((width,))
                creation.set_shuffle()
                # Optional: a vector that lzf cannot make smaller is kept as it is.
                creation.set_filter(self._h5.h5z.FILTER_LZF, self._h5.h5z.FLAG_OPTIONAL)
            self._by_width[width] = (self._h5.h5s.create_simple((width,)), creation)
        return self._by_width[width]


# Reading.


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """The h5py.File of a local or remote file, to read. Raises UserError, naming it, for one that cannot be read."""
    import h5py

    try:
        if not storage.is_remote(path):
            with h5py.File(path, "r", locking=False) as file:
                yield file
            return
        with storage.open_input(path) as source, h5py.File(source, "r") as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, RuntimeError, KeyError) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be read as HDF5 ({said}). It is damaged, or its writing was cut short: extract it again."
        ) from error


class Hdf5Part:
    """A part that raylib wrote; see `Part`. All is read from /columns."""

    form = "HDF5"

    def __init__(self, path: str) -> None:
        self.path = path
        with opened(path) as file:
            columns = file[COLUMNS]
            check_layout(path, int(columns.attrs["layout"]))
            self.about = from_attributes(dict(file.attrs))
            self.question_ids = _texts(columns["question_id"])
            self._names = {unescape(name): name for name in columns.attrs["texts"]}
            self.text_names = list(self._names)
            self.failed = list(zip(*(_texts(columns[name]) for name in FAILED), strict=True))
            self._widths = _widths(columns)
        self.representations = sorted(self._widths)

    def texts(self, name: str) -> list[str]:
        with opened(self.path) as file:
            return _texts(file[COLUMNS][self._names[name]])

    def positions(self) -> dict[str, np.ndarray]:
        with opened(self.path) as file:
            return {name: file[COLUMNS][name][:] for name in POSITIONS}

    def width(self, representation: Representation) -> int:
        return self._widths[representation]

    def vectors(self, representation: Representation) -> Iterator[np.ndarray | None]:
        with opened(self.path) as file:
            column = file[COLUMNS][representation.path]
            step = column.chunks[0] if column.chunks else max(1, len(column))
            for first in range(0, len(column), step):
                yield from column[first : first + step]

    def read_into(self, representation: Representation, out: np.ndarray) -> list[int]:
        if len(out) == 0:
            return []
        with opened(self.path) as file:
            file[COLUMNS][representation.path].read_direct(out)
        return []

    def row(self, question_id: str) -> StateRow:
        at = self.question_ids.index(question_id) if question_id in self.question_ids else None
        if at is None:
            raise KeyError(question_id)
        with opened(self.path) as file:
            columns = file[COLUMNS]
            texts = {name: columns[there].asstr()[at] for name, there in self._names.items()}
            positions: Mapping[str, Any] = {name: columns[name][at].tolist() for name in POSITIONS}
            states = {representation: columns[representation.path][at] for representation in self.representations}
        return StateRow(self.path, question_id, texts, dict(positions), states)


def _texts(column: Any) -> list[str]:
    return list(column.asstr()[:]) if len(column) else []


def _widths(columns: Any) -> dict[Representation, int]:
    """Every representation that lies there → D. What is none of ours is passed over."""
    import h5py

    found: dict[Representation, int] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 2:
            try:
                found[Representation.parse(name)] = int(item.shape[1])
            except ValueError:
                return

    columns.visititems(visit)
    return found
