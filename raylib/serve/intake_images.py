"""Images that clients send: what their header says is checked before a pixel is decoded, and then that they decode."""

from __future__ import annotations

from raylib.errors import UserError
from raylib.evaluate.contents import BadContentError, decode_image
from raylib.serve.image_header import FORMATS, read_header


def check_image(data: bytes, most_bytes: int, most_pixels: int) -> None:
    """Raises UserError for what is no PNG, JPEG or WebP, has too many bytes or pixels, moves, or cannot be decoded to
    its end. The bytes stay as they are: jobs and servers turn an image upright by its EXIF tag when they decode it."""
    if len(data) > most_bytes:
        raise UserError(f"the image has {len(data)} bytes; at most {most_bytes}. Scale it down, or save it as JPEG")
    header = read_header(data)
    if header is None:
        raise UserError(
            f"the image is in none of the formats {', '.join(FORMATS)}, or its header is damaged; save it anew"
        )
    if header.pixels is None:
        raise UserError("the image has far too many pixels (decompression bomb). Scale it down")
    if header.pixels > most_pixels:
        raise UserError(f"the image has {header.pixels} pixels; at most {most_pixels}. Scale it down")
    if header.frames > 1:
        raise UserError(f"the image has {header.frames} frames; expected one. Send a still image")
    try:
        decode_image(data)
    except BadContentError as error:
        raise UserError(f"the image cannot be used: {error}. Save it anew as PNG or JPEG") from None
