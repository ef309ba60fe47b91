"""Inputs of every kind, written by their own libraries, and toys besides those of `tests.evaluate.made`."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image

from raylib.encode.config import EncodeConfig
from tests.evaluate.made import Letters

COLOURS = {"red": [1.0, 0.0, 0.0, 1.0], "lime": [0.0, 1.0, 0.0, 1.0], "blue": [0.0, 0.0, 1.0, 1.0]}
"""What `Letters` gives for an image of one colour."""


def png(colour: str, size: tuple[int, int] = (6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_pdf(path: Path, colours: list[str], size: tuple[int, int] = (36, 72)) -> None:
    """One page a colour; `size` in points, which Pillow makes of pixels at 72 dpi."""
    pages = [Image.new("RGB", size, colour) for colour in colours]
    pages[0].save(path, "PDF", save_all=True, append_images=pages[1:], resolution=72, quality=100)


def encrypted_pdf() -> bytes:
    """A PDF that asks for a password: the digests of its security handler fit none."""
    digest = b"<" + b"00" * 32 + b">"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>",
        b"<</Filter/Standard/V 1/R 2/P -4/O " + digest + b"/U " + digest + b">>",
    ]
    data, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    table = b"0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"<</Size 5/Root 1 0 R/Encrypt 4 0 R/ID[<00><00>]>>"
    return data + b"xref\n0 5\n%strailer\n%s\nstartxref\n%d\n%%%%EOF\n" % (table, trailer, len(data))


def config(folder: Path, *inputs: Path | str, model: str = "tests.evaluate.made:letters", **settings) -> EncodeConfig:
    """A local run of `letters` into folder/out."""
    settings = {"output": str(folder / "out"), "local": True, "quiet": True, **settings}
    return EncodeConfig(model=[model], input=[str(path) for path in inputs], **settings)


def fuser() -> Letters:
    return Letters("tests.encode.made:fuser", fuses=True)


class Killed(Letters):
    """Ends its process with the third batch, where RAYLIB_KILL is set."""

    def forward(self, tensors):
        if len(self.batches) == 2 and os.environ.get("RAYLIB_KILL"):
            os.kill(os.getpid(), 9)
        return super().forward(tensors)


def killed() -> Letters:
    return Killed("tests.encode.made:killed")
