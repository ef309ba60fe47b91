"""What the header of an image says that a client sent: no pixel is decoded before this was looked at."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True)
class ImageHeader:
    """pixels: width × height; None for so many that Pillow takes it for a decompression bomb. frames: those that are to
    be shown one after another."""

    pixels: int | None
    frames: int = 1


def read_header(data: bytes) -> ImageHeader | None:
    """None for what is none of `FORMATS`, or has a damaged header."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                # MPO: a camera's JPEG with a preview, of which the first frame is the picture.
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
                return ImageHeader(image.width * image.height, frames)
    except Image.DecompressionBombError:
        return ImageHeader(None)
    except Exception:  # damaged headers raise anything
        return None
