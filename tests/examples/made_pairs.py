"""Small training data: images of one colour, JSONL, and data sets in the hub's layout."""

import io
import json
from pathlib import Path

from PIL import Image

from raylib.tasks.hub_layout import HubFolder

COLOURS = ("red", "green", "blue", "white")


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(stream, "PNG")
    return stream.getvalue()


def write_images(folder: Path) -> None:
    """red.png, … and again.png, which has the bytes of red.png."""
    folder.mkdir(parents=True)
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(png(colour))
    (folder / "again.png").write_bytes(png("red"))


def write_jsonl(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_pages(folder: Path) -> str:
    """A data set of pages: query and image, three rows, in the split train."""
    hub = HubFolder(str(folder), "train")
    hub.add("default", {"query": ["q0", "q1", "q2"], "image": [png(c) for c in COLOURS[:3]]})
    hub.finish("Pages.")
    return str(folder)
