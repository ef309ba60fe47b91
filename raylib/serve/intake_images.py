"""Images that clients send: what their header says is checked before a pixel is decoded, and then that they decode."""

from __future__ import annotations

import io
import warnings

from raylib.errors import UserError
from raylib.evaluate.contents import BadContentError, decode_image

_FORMATS = ("PNG", "JPEG", "WEBP")


def check_image(data: bytes, most_bytes: int, most_pixels: int) -> None:
    """Raises UserError for what is no PNG, JPEG or WebP, has too many bytes or pixels, moves, or cannot be decoded to
    its end. The bytes stay as they are: jobs and servers turn an image upright by its EXIF tag when they decode it."""
    if len(data) > most_bytes:
        raise UserError(f"the image has {len(data)} bytes; at most {most_bytes}. Scale it down, or save it as JPEG")
    pixels, frames, kind = _header(data)
    if pixels > most_pixels:
        raise UserError(f"the image has {pixels} pixels; at most {most_pixels}. Scale it down")
    if frames > 1 and kind != "MPO":  # a camera's JPEG with a preview: the first is the picture
        raise UserError(f"the image has {frames} frames; expected one. Send a still image")
    try:
        decode_image(data)
    except BadContentError as error:
        raise UserError(f"the image cannot be used: {error}. Save it anew as PNG or JPEG") from None


def _header(data: bytes) -> tuple[int, int, str]:
    """(pixels, frames, format), without decoding."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                return image.width * image.height, getattr(image, "n_frames", 1), image.format or ""
    except Image.DecompressionBombError:
        raise UserError("the image has far too many pixels (decompression bomb). Scale it down") from None
    except Exception:  # damaged headers raise anything
        raise UserError(
            f"the image is in none of the formats {', '.join(_FORMATS)}, or its header is damaged; save it anew"
        ) from None
