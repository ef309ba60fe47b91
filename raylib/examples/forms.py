"""Rows of training data in the forms that are in use → one query, its positives and its negatives.

- query, pos, negs: text or the path of an image, or an object {"text", "image"} with either or both; `negs` is a list,
  `pos` may be one.
- query, image: a page that answers the query, as data sets of pages on the hub have it.
- qry, qry_image_path, pos_text, pos_image_path, neg_text, neg_image_path: MMEB's; the positive and the negatives may be
  lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from raylib.evaluate.contents import BadContentError
from raylib.examples.places import Places, TableItem
from raylib.examples.sides import Cell
from raylib.store.unicode import SURROGATE, is_unicode

EXPECTED = "query and pos (and negs); or query and image; or qry, qry_image_path, pos_text and pos_image_path"


@dataclass(frozen=True)
class Embedded:
    """A cell of a column of images. name: the item's, where the table is a data set that has one."""

    item: TableItem
    name: str = ""


@dataclass(frozen=True)
class Row:
    """positives: one or more. negatives: as given, maybe none."""

    query: Cell
    positives: list[Cell]
    negatives: list[Cell]


@lru_cache(64)
def is_known(names: tuple[str, ...]) -> bool:
    """Whether rows of these fields are in one of the forms."""
    have = set(names)
    return bool({"qry", "qry_image_path"} & have and {"pos_text", "pos_image_path"} & have) or (
        "query" in have and bool({"pos", "image"} & have)
    )


def parse_row(row: Mapping[str, Any], places: Places) -> Row:
    """Raises BadContentError, saying what is wrong, for a row in no form, without a query or a positive, or with an
    image that is not there."""
    if not is_known(tuple(row)):
        without = "the query has no positive: " if {"query", "qry", "qry_image_path"} & set(row) else ""
        raise BadContentError(f"{without}its fields are {', '.join(row) or 'none'}; expected {EXPECTED}")
    if "query" in row:
        query = _cells(row["query"], "query", places, may_be_text=True)
        key = "pos" if "pos" in row else "image"
        positives = _cells(row[key], key, places)
        negatives = _cells(row.get("negs", row.get("neg")), "negs", places)
    else:
        query = _paired(row, "qry", "qry_image_path", places)
        positives = _paired(row, "pos_text", "pos_image_path", places)
        negatives = _paired(row, "neg_text", "neg_image_path", places)
    if len(query) != 1:
        raise BadContentError("the query is empty" if not query else f"it has {len(query)} queries; expected one")
    if not positives:
        raise BadContentError("the query has no positive")
    return Row(query[0], list(dict.fromkeys(positives)), list(dict.fromkeys(negatives)))


def parse_name(row: Mapping[str, Any], field: str) -> str:
    """An id, or the name of a data set; "" where the row has none. Raises BadContentError for what is no name."""
    value = row.get(field)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadContentError(f"its {field} is {type(value).__name__}; expected text or a whole number")
    if not is_unicode(str(value)):
        raise BadContentError(f"in its {field}: {SURROGATE}")
    return str(value)


def _cells(value: Any, name: str, places: Places, may_be_text: bool = False) -> list[Cell]:
    """A cell, or a list of them, without the empty ones."""
    values = value if isinstance(value, list) else [value]
    found = [_cell(one, name, places, may_be_text) for one in values]
    return [cell for cell in found if cell is not None]


def _cell(value: Any, name: str, places: Places, may_be_text: bool) -> Cell | None:
    if isinstance(value, str):
        if not places.is_image(value, may_be_text=may_be_text):
            return _made(value, None, name, places)
        known = places.known(value)
        return _made(None, value, name, places) if known is None else Cell("", value, known)
    if isinstance(value, Embedded):
        return Cell("", value.name, value.item)
    if isinstance(value, Mapping) and {"text", "image"} & set(value):
        return _made(value.get("text"), value.get("image"), name, places)
    return _made(value, None, name, places)


def _paired(row: Mapping[str, Any], text: str, image: str, places: Places) -> list[Cell]:
    """Two fields, of one content each or lists of one length; either may be missing."""
    texts, images = row.get(text), row.get(image)
    texts = texts if isinstance(texts, list) else [texts]
    images = images if isinstance(images, list) else [images]
    if len(texts) != len(images):
        # One side may be absent as a whole, written as null or as an empty list.
        texts = [None] * len(images) if not any(texts) else texts
        images = [None] * len(texts) if not any(images) else images
    if len(texts) != len(images):
        raise BadContentError(f"{text} and {image} are {len(texts)} and {len(images)}; expected lists of one length")
    found = [_made(t, i, f"{text} or {image}", places) for t, i in zip(texts, images, strict=True)]
    return [cell for cell in found if cell is not None]


def _made(text: Any, image: Any, name: str, places: Places) -> Cell | None:
    """None for a content of neither."""
    if isinstance(image, Embedded):
        place, image = image.item, image.name
    else:
        for value in (text, image):
            if value is not None and not isinstance(value, str):
                raise BadContentError(f"its {name} is {type(value).__name__}; expected text or the path of an image")
            if value is not None and not is_unicode(value):
                raise BadContentError(f"in its {name}: {SURROGATE}")
        place = places.find(image) if image else None
    text = text if text and not text.isspace() else ""
    return Cell(text, image or "", place) if text or place is not None else None
