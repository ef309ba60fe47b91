"""Rows of questions about images, of every length, shape and colour mode."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from tests.models.tiny_vlm import page


@dataclass(frozen=True)
class Row:
    """One row of a VQA table; image: as its file holds it, in its own mode."""

    question_id: str
    image_name: str
    question: str
    gt_answer: str
    category: str
    image: Image.Image


def _palette(width: int, height: int, seed: int) -> Image.Image:
    """A palette image of which one colour is transparent."""
    image = page(width, height, seed).quantize(8)
    image.info["transparency"] = 0
    return image


_LONG = (
    "In the picture shown here, which of the dark blocks is the largest one, is it left or right of the middle, and "
    "how many others touch its lower edge?"
)


def rows() -> list[Row]:
    """Eight rows, the same every time: questions of 1 to 30 words; images square, wide and tall, grey, with an alpha
    channel and with a palette. The first and the last row share an image."""
    square = page(40, 40, 1)
    named = {
        "square.png": square,
        "wide.png": page(90, 30, 2),
        "tall.png": page(30, 90, 3),
        "large.png": page(200, 120, 4),
        "grey.png": page(64, 48, 5, "L"),
        "clear.png": page(50, 100, 6, "RGBA"),
        "palette.png": _palette(120, 60, 7),
    }
    asked = [
        ("q1", "square.png", "Why?", "yes", "short"),
        ("q2", "wide.png", "Which page describes the figure on the left?", "the first", "short"),
        ("set/q3", "tall.png", "How many blocks are there, in all?", "12", "count"),
        ("q4", "large.png", _LONG, "left, none", "long"),
        ("q5", "grey.png", "Is it grey?", "yes", "colour"),
        ("q6", "clear.png", "Welche Größe hat das “Bild” — 小さい?", "klein", "language"),
        ("q7", "palette.png", "Is there a socket, a thread or a process in this image, or none of them?", "no", "long"),
        ("q8", "square.png", "What does the table show?", "nothing", "short"),
    ]
    return [Row(*texts, image=named[texts[1]]) for texts in asked]


def images_folder(folder: Path) -> tuple[Path, Path]:
    """Write the rows into `folder`; gives the path of the table, vqa.csv, and that of the folder of PNGs."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    table = folder / "vqa.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question_id", "image_name", "question", "gt_answer", "category"])
        for row in rows():
            row.image.save(images / row.image_name)
            writer.writerow([row.question_id, row.image_name, row.question, row.gt_answer, row.category])
    return table, images


def columns(path: Path) -> dict[str, object]:
    """Every data set of every file in a folder, by its bytes."""
    found = {}
    for part in sorted(path.glob("*.h5")):
        with h5py.File(part) as file:

            def keep(name, item, part=part):
                if isinstance(item, h5py.Dataset):
                    text = h5py.check_string_dtype(item.dtype) is not None
                    value = np.asarray(item[()])
                    found[part.name + item.name] = value.tolist() if text else value.tobytes()

            file.visititems(keep)
    return found
