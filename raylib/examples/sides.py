"""The distinct queries, or the distinct documents, of training data, as a source that a plan encodes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from raylib.evaluate.contents import Source
from raylib.examples.places import Place, TableItem
from raylib.tasks.mmeb_data import clean_text

if TYPE_CHECKING:
    import datasets


class Cell(NamedTuple):
    """One content as the data names it. text: "" for none; image: the path, or the item's name, as written: "" for
    none, and for an image inside of a table that has no name; place: where the image is; None without one."""

    text: str
    image: str
    place: Place | None


@dataclass
class Side:
    """texts, images [m]: of each distinct content, as the data writes them ("" for none). source: the same m contents
    as they are encoded: without the placeholders of images that MMEB's texts hold."""

    texts: list[str]
    images: list[str]
    source: Source

    def __len__(self) -> int:
        return len(self.texts)

    def digests(self) -> list[bytes]:
        """[m]: equal for contents, of either side, that look the same to a model, whatever the data calls them. Every
        image is read once; its digest is kept for the plan."""
        found = [b""] * len(self)
        for fields, rows in self.source.kinds().items():
            by_field = self.source.digests(fields)
            for row in rows:
                found[row] = b"".join(f"{name}:".encode() + by_field[row][name] for name in sorted(fields))
        return found

    def take(self, rows: np.ndarray) -> Side:
        """Some of them, int64. Nothing is read."""
        chosen = rows.tolist()
        return Side([self.texts[i] for i in chosen], [self.images[i] for i in chosen], self.source.take(chosen))


@dataclass
class SideBuilder:
    """Collects distinct contents in the order in which they come, until `finish`. name: of the source, for a person."""

    name: str
    _at: dict[Cell, int] = field(default_factory=dict)
    _ids: list[str] = field(default_factory=list)

    def add(self, cell: Cell, where: str) -> int:
        """The number of a content. where: what its messages call it, if it is new and has no name of its own."""
        number = self._at.setdefault(cell, len(self._at))
        if number == len(self._ids):
            self._ids.append(cell.image or where)
        return number

    def finish(self, tables: list[datasets.Dataset]) -> Side:
        """tables: see `Places.tables`."""
        cells = list(self._at)
        self._at = {}  # what tells contents apart is as large as they are
        # A text without a placeholder is not copied: there may be gigabytes of them.
        texts = [clean_text(cell.text) if "<|image" in cell.text else cell.text for cell in cells]
        present = [_present(text, cell.place) for text, cell in zip(texts, cells, strict=True)]
        kinds = set(present)
        has = {name for names in kinds for name in names}
        columns: dict[str, Any] = {"texts": None, "images": None}
        if "text" in has:
            columns["texts"] = _text_column(texts)
        if "image" in has:
            columns["images"] = image_column([cell.place for cell in cells], tables)
        mixed = present if len(kinds) > 1 else None
        source = Source(self.name, self._ids, present=mixed, **columns)
        return Side([cell.text for cell in cells], [cell.image for cell in cells], source)


def _present(text: str, place: Place | None) -> tuple[str, ...]:
    """A content with neither is a text that is empty: that is reported when it is encoded."""
    if place is None:
        return ("text",)
    return ("text", "image") if text else ("image",)


def _text_column(texts: list[str]) -> datasets.Dataset:
    import datasets

    features = datasets.Features({"text": datasets.Value("large_string")})
    return _column("text", pa.array(texts, pa.large_string()), features)


def _column(name: str, cells: pa.Array, features: datasets.Features) -> datasets.Dataset:
    """Of what Arrow holds already: `Dataset.from_dict` looks at every cell, and a fingerprint that is not given is made
    of a copy of the whole table."""
    import datasets

    table: Any = pa.table({name: cells})
    return datasets.Dataset(table, datasets.DatasetInfo(features=features), fingerprint=uuid.uuid4().hex[:16])


def image_column(places: list[Place | None], tables: list[datasets.Dataset]) -> datasets.Dataset:
    """[m] places → the data set of one column `image`, not decoded: files by their path, items of tables where they
    are. Nothing is copied: a table stays memory-mapped."""
    import datasets

    features = datasets.Features({"image": datasets.Image(decode=False)})
    files = [row for row, place in enumerate(places) if not isinstance(place, TableItem)]
    paths: pa.Array = pa.array([places[row] for row in files], pa.string())
    cells = pa.StructArray.from_arrays(
        [pa.nulls(len(files), pa.binary()), paths], ["bytes", "path"], mask=paths.is_null()
    )
    parts = [_column("image", cells, features)] if files else []
    order = list(files)
    by_table: dict[int, list[tuple[int, int]]] = {}
    for row, place in enumerate(places):
        if isinstance(place, TableItem):
            by_table.setdefault(place.table, []).append((row, place.row))
    for table, found in by_table.items():
        parts.append(tables[table].select([item for _, item in found]))
        order += [row for row, _ in found]
    joined = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    if order == list(range(len(order))):
        return joined
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return joined.select(back)
