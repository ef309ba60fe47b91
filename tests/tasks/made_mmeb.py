"""Tiny subsets of MMEB-eval in the hub's layout, and an encoder that reads their texts and images together."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raylib.tasks.mmeb_table import HUB_PATH
from tests.evaluate.made import Letters

Row = tuple[str, str, Sequence[tuple[str, str]]]
"""A query's text and image path, and its candidates': (text, image path), the right one first."""

COLOURS = {"red": "#ff0000", "green": "#00ff00", "blue": "#0000ff"}
FUSER = "tests.tasks.made_mmeb:fuser"


def fuser() -> Letters:
    """Counts of a, b and c in the text, and red, green and blue of the image, added up; and a one."""
    return Letters(FUSER, fuses=True)


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), COLOURS[colour]).save(stream, "PNG")
    return stream.getvalue()


def write_subset(root: Path | str, subset: str, rows: Sequence[Row]) -> Path:
    """The Parquet file of one subset under root/TIGER-Lab/MMEB-eval → that folder."""
    folder = Path(root) / HUB_PATH
    (folder / subset).mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "qry_text": [text for text, _, _ in rows],
            "qry_img_path": [image for _, image, _ in rows],
            "tgt_text": [[text for text, _ in targets] for _, _, targets in rows],
            "tgt_img_path": [[image for _, image in targets] for _, _, targets in rows],
        }
    )
    pq.write_table(table, folder / subset / "test-00000-of-00001.parquet")
    return folder


def write_images(folder: Path | str, images: Mapping[str, str]) -> None:
    """images: path → colour."""
    for name, colour in images.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(colour))


def zip_images(path: Path | str, images: Mapping[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, colour in images.items():
            archive.writestr(name, png(colour))


IMAGES = {"VOC2007/red.png": "red", "VOC2007/green.png": "green", "VOC2007/blue.png": "blue"}

CLASSIFICATION: list[Row] = [
    ("<|image_1|>\nName it\n", "VOC2007/red.png", [("aa", ""), ("bb", ""), ("", "")]),
    ("<|image_1|>\nName it\n", "VOC2007/green.png", [("bb", ""), ("aa", ""), ("bbbb", "")]),
    ("<|image_1|>\nName it\n", "VOC2007/blue.png", [("bb", ""), ("cc", ""), ("aa", "")]),
]
"""Queries point along (1, 0, 0, 1), (0, 1, 0, 1) and (0, 0, 1, 1) in `Letters` ("Name it" has an a: one more on the
first). To row 0 "aa" is nearest; to row 1, which is (1, 1, 0, 1), "aa" and "bb" are equally near (0.775) and "bbbb" is
further away (0.700); to row 2, (1, 0, 1, 1), "cc" and "aa" are equally near and the right one, "bb", is not among them.
"""
