"""Items → sources that a plan takes: ids in input order, texts and embedded images on disk, other images by place."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raylib.encode.image_files import FileImages
from raylib.encode.readers import Item
from raylib.errors import UserError
from raylib.evaluate.contents import Source

if TYPE_CHECKING:
    import datasets

_FLUSH_BYTES = 16 * 2**20
_FLUSH_ROWS = 4096


@dataclass
class Group:
    """A source, and where its rows are among all contents."""

    source: Source
    positions: Sequence[int]


@dataclass
class Contents:
    """All that was named by --input. ids, sources [n]: of every content, in input order; sources are indices into
    `files`. errors: position → why that content cannot be encoded, known without a model. Every other position is in
    one group, and contents of a group have the same fields."""

    ids: list[str] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)

    def source_of(self, position: int) -> str:
        return self.files[self.sources[position]]

    def check_ids(self) -> None:
        """Raises UserError, naming them, where an id stands for two contents."""
        if len(set(self.ids)) == len(self.ids):
            return
        twice = [name for name, count in Counter(self.ids).items() if count > 1]
        first = twice[0]
        where = dict.fromkeys(self.source_of(i) for i, name in enumerate(self.ids) if name == first)
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        raise UserError(
            f"{len(twice)} ids name two or more contents: {', '.join(twice[:5])}{more} ({first} is in "
            f"{', '.join(list(where)[:3])}). Files in different folders have different ids where --input is the folder "
            "above them; rows of tables need ids of their own in --id-column"
        )


def gather(items: Iterable[Item], folder: str, dpi: int) -> Contents:
    """Read all items. folder: an existing local one for what is read from tables and text files; the sources are good
    as long as it is there. Raises UserError for ids that stand for two contents."""
    contents = Contents()
    files: dict[str, int] = {}
    open_groups: dict[tuple[bool, str], _GroupWriter] = {}
    for position, item in enumerate(items):
        contents.ids.append(item.id)
        contents.sources.append(files.setdefault(item.source, len(files)))
        has_text = bool(item.text and not item.text.isspace())
        if item.error is not None or not (has_text or item.image is not None):
            contents.errors[position] = item.error or "it has no text and no image"
            continue
        image = "" if item.image is None else "bytes" if isinstance(item.image, bytes) else "file"
        kind = (has_text, image)
        if kind not in open_groups:
            open_groups[kind] = _GroupWriter(os.path.join(folder, f"{len(open_groups)}.arrow"), has_text, image)
        open_groups[kind].add(position, item)
    contents.files = list(files)
    contents.check_ids()
    contents.groups = [group.finish(dpi) for group in open_groups.values()]
    return contents


class _GroupWriter:
    """Contents of one kind, written to disk as they come. image: "", "bytes" or "file"."""

    def __init__(self, path: str, has_text: bool, image: str) -> None:
        self._image = image
        self._positions: list[int] = []
        self._ids: list[str] = []
        self._places: list[Any] = []
        names = [*(["text"] if has_text else []), *(["image"] if image == "bytes" else [])]
        self._table = _ArrowFile(path, names) if names else None

    def add(self, position: int, item: Item) -> None:
        self._positions.append(position)
        self._ids.append(item.id)
        if self._image == "file":
            self._places.append(item.image)
        if self._table is not None:
            self._table.add({"text": item.text, "image": item.image})

    def finish(self, dpi: int) -> Group:
        columns = self._table.finish() if self._table is not None else {}
        texts, images = columns.get("text"), columns.get("image")
        if self._image == "file":
            source: Source = FileImages.of("input", self._ids, texts, self._places, dpi)
        else:
            source = Source("input", self._ids, texts, images)
        return Group(source, self._positions)


class _ArrowFile:
    """Rows on disk, as a memory-mapped data set once all are there."""

    _TYPES = {"text": pa.string(), "image": pa.binary()}  # noqa: RUF012

    def __init__(self, path: str, names: list[str]) -> None:
        self._path = path
        self._schema = pa.schema([(name, self._TYPES[name]) for name in names])
        self._writer = pa.ipc.new_stream(path, self._schema)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        row = {name: row[name] for name in self._schema.names}
        self._rows.append(row)
        self._bytes += sum(map(len, row.values()))
        if self._bytes >= _FLUSH_BYTES or len(self._rows) >= _FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._bytes = [], 0

    def finish(self) -> dict[str, datasets.Dataset]:
        """A data set per column."""
        import datasets

        self._flush()
        self._writer.close()
        table = datasets.Dataset.from_file(self._path)
        return {name: table.select_columns([name]) for name in self._schema.names}
