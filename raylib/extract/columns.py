"""Which columns of a table of VQA rows are what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raylib.errors import UserError
from raylib.store.text_tables import TextTable

ANSWER_COLUMNS = ("answer", "gt_answer", "ground_truth_answer")
IMAGE_COLUMNS = ("image_id", "image_name")
EMBEDDED_COLUMN = "image"

OWN_NAMES = ("question_id", "image_id", "question", "answer", "ground_truth_answer")
"""What the output calls its own; a carried column of such a name becomes input_<name>."""

_EXPECTED = f"question_id, question, {' or '.join(IMAGE_COLUMNS)}, and for answers {', '.join(ANSWER_COLUMNS)}"


@dataclass(frozen=True)
class ColumnNames:
    """image_id: None where it is made of the image. answer: None without answers. image: the column of names that are
    looked up, or None. embedded: the column that holds images, or None. carried: column → its name in the output.
    left_out: columns of bytes that are not used."""

    question_id: str
    question: str
    image_id: str | None
    answer: str | None
    image: str | None
    embedded: str | None
    carried: Mapping[str, str]
    left_out: list[str]


def choose_columns(path: str, table: TextTable, with_images: bool, image_column: str | None) -> ColumnNames:
    """See `rows.read_rows`. Raises UserError, naming what there is, where a column is missing, and where nothing says
    where the images are."""
    names = table.columns.column_names
    have = ", ".join([*names, *table.images, *table.left_out]) or "none"
    image, embedded = _image(path, table, with_images, image_column, have)
    image_id = next((name for name in IMAGE_COLUMNS if name in names), image)
    absent = [name for name in ("question_id", "question") if name not in names]
    if image_id is None and embedded is None:
        absent.append(" or ".join(IMAGE_COLUMNS))
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)}; its columns are {have}; expected {_EXPECTED}")
    answer = next((name for name in ANSWER_COLUMNS if name in names), None)
    used = {"question_id", "question", image_id, answer}
    carried: dict[str, str] = {}
    for name in (name for name in names if name not in used):
        out = name
        while out in OWN_NAMES or (out != name and out in names):
            out = f"input_{out}"
        carried[name] = out
    left_out = [*(name for name in table.images if name != embedded), *table.left_out]
    return ColumnNames("question_id", "question", image_id, answer, image or image_id, embedded, carried, left_out)


def _image(
    path: str, table: TextTable, with_images: bool, image_column: str | None, have: str
) -> tuple[str | None, str | None]:
    """(column of names, column of images): what --image-column says, at most one of them."""
    if image_column is None:
        if with_images:
            return None, None
        if EMBEDDED_COLUMN in table.images:
            return None, EMBEDDED_COLUMN
        inside = f"; it has images in {', '.join(table.images)}: name one with --image-column" if table.images else ""
        raise UserError(f"{path}: nothing says where the images are{inside or '; pass --images-dir'}")
    if image_column in table.images:
        return None, image_column
    if image_column not in table.columns.column_names:
        raise UserError(f"{path} has no column {image_column}, which --image-column names; its columns are {have}")
    if not with_images:
        raise UserError(
            f"{path}: {image_column}, which --image-column names, holds no bytes but text; pass --images-dir to have "
            "it read as paths from there"
        )
    return image_column, None
