"""Hidden states in Parquet: one row a question, one column of float lists per representation, named by its path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from raylib import storage
from raylib.errors import UserError
from raylib.store.representations import Representation
from raylib.store.state_table import (
    LAYOUT,
    POSITIONS,
    StateRow,
    StateTable,
    check_layout,
    clean,
    from_attributes,
    text_name,
    to_attributes,
    unescape,
)

_KEY = b"raylib.hidden_states"
_GROUP_BYTES = 64 << 20


def write_parquet(table: StateTable, stream: IO[bytes]) -> None:
    """Write `table`, uncompressed, in row groups of some 64 MiB: of the states no more is held at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    n, schema = len(table.question_ids), _schema(table)
    bytes_a_row = 4 * sum(values.shape[1] for values in table.states.values())
    step = max(1, _GROUP_BYTES // max(bytes_a_row, 1))
    words = [field.name for field in schema if pa.types.is_string(field.type)]
    settings: dict[str, Any] = {"compression": "none", "use_dictionary": words, "write_statistics": False}
    with pq.ParquetWriter(stream, schema, **settings) as writer:
        for first in range(0, n, step):
            columns = _columns(table, slice(first, min(first + step, n)))
            writer.write_table(pa.table(columns, schema), row_group_size=step)


def _schema(table: StateTable) -> Any:
    import pyarrow as pa

    fields = [pa.field("question_id", pa.string())]
    fields += [pa.field(text_name(name), pa.string()) for name in table.texts]
    fields += [pa.field(name, pa.list_(pa.int64(), 2) if name == "image_span" else pa.int64()) for name in POSITIONS]
    fields += [
        pa.field(representation.path, pa.list_(pa.field("element", pa.float32(), nullable=False), values.shape[1]))
        for representation, values in sorted(table.states.items())
    ]
    about = {"layout": LAYOUT, "about": to_attributes(table.about), "failed": table.failed}
    about["texts"] = [text_name(name) for name in table.texts]
    return pa.schema(fields, {_KEY: json.dumps(about).encode()})


def _columns(table: StateTable, rows: slice) -> list[Any]:
    import pyarrow as pa

    columns: list[Any] = [pa.array(table.question_ids[rows], pa.string())]
    columns += [pa.array([clean(value) for value in values[rows]], pa.string()) for values in table.texts.values()]
    for name in POSITIONS:
        values = np.ascontiguousarray(table.positions[name][rows])
        flat = pa.array(values.reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, 2) if name == "image_span" else flat)
    for _, states in sorted(table.states.items()):
        values = np.ascontiguousarray(states[rows])
        kind = pa.list_(pa.field("element", pa.float32(), nullable=False), values.shape[1])
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind))
    return columns


class ParquetPart:
    """A part that raylib wrote; see `Part`."""

    form = "Parquet"

    def __init__(self, path: str) -> None:
        self.path = path
        with _opened(path) as file:
            schema = file.schema_arrow
            told = (schema.metadata or {}).get(_KEY)
            if told is None:
                raise UserError(f"{path} is Parquet, but holds no hidden states; expected a file of raylib extract")
            notes = json.loads(told)
            check_layout(path, notes["layout"])
            self.about = from_attributes(notes["about"])
            self.failed = [(question_id, reason) for question_id, reason in notes["failed"]]
            self._names = {unescape(name): name for name in notes["texts"]}
            self.text_names = list(self._names)
            others = {"question_id", *POSITIONS, *notes["texts"]}
            self._widths = {Representation.parse(f.name): f.type.list_size for f in schema if f.name not in others}
            self.question_ids = file.read(["question_id"]).column(0).to_pylist()
        self.representations = sorted(self._widths)

    def texts(self, name: str) -> list[str]:
        with _opened(self.path) as file:
            return file.read([self._names[name]]).column(0).to_pylist()

    def positions(self) -> dict[str, np.ndarray]:
        with _opened(self.path) as file:
            table = file.read(list(POSITIONS)).combine_chunks()
        columns = {name: table.column(name).combine_chunks() for name in POSITIONS}
        flat = {name: c.flatten() if name == "image_span" else c for name, c in columns.items()}
        return {name: c.to_numpy().reshape(-1, 2) if name == "image_span" else c.to_numpy() for name, c in flat.items()}

    def width(self, representation: Representation) -> int:
        return self._widths[representation]

    def vectors(self, representation: Representation) -> Iterator[np.ndarray | None]:
        for block in self._blocks(representation):
            yield from block

    def read_into(self, representation: Representation, out: np.ndarray) -> list[int]:
        at = 0
        for block in self._blocks(representation):
            out[at : at + len(block)] = block
            at += len(block)
        return []

    def _blocks(self, representation: Representation) -> Iterator[np.ndarray]:
        """float32 [rows of a group, D], one after the other."""
        width = self._widths[representation]
        with _opened(self.path) as file:
            for group in range(file.num_row_groups):
                column = file.read_row_group(group, columns=[representation.path]).column(0).combine_chunks()
                yield column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)

    def row(self, question_id: str) -> StateRow:
        if question_id not in self.question_ids:
            raise KeyError(question_id)
        at = self.question_ids.index(question_id)
        with _opened(self.path) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if at < rows:
                    found = file.read_row_group(group).slice(at, 1).to_pylist()[0]
                    break
                at -= rows
            else:
                raise KeyError(question_id)
        texts = {name: found[there] for name, there in self._names.items()}
        states = {one: np.array(found[one.path], np.float32) for one in self.representations}
        return StateRow(self.path, question_id, texts, {name: found[name] for name in POSITIONS}, states)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The pyarrow.parquet.ParquetFile. Raises UserError, naming it, for a file that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with storage.open_input(path) as source:
            yield pq.ParquetFile(source, pre_buffer=False)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be read as Parquet ({said}). It is damaged, or its writing was cut short: extract it again."
        ) from error
