"""Small pictures of pages, as text that an HTML page can hold."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass

LONGEST_SIDE = 320
"""Pixels: a page's layout can be seen, a headline read; about 10 kB."""


@dataclass(frozen=True)
class Thumbnail:
    """name: the same for equal pages. width, height: of the page itself, in pixels. url: a data: URL."""

    name: str
    width: int
    height: int
    url: str


def thumbnail(image: bytes) -> Thumbnail | str:
    """The page as WebP of at most `LONGEST_SIDE` pixels, over white, upright; a reason for an image that cannot be
    read: one bad page is no reason to show none."""
    from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

    try:
        page = Image.open(io.BytesIO(image))
        sideways = page.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        width, height = reversed(page.size) if sideways else page.size
        page.draft("RGB", (2 * LONGEST_SIDE, 2 * LONGEST_SIDE))  # a JPEG is decoded at a smaller size
        page = ImageOps.exif_transpose(page).convert("RGBA")
        page.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        over_white = Image.alpha_composite(Image.new("RGBA", page.size, "white"), page).convert("RGB")
    except UnidentifiedImageError:
        return "the image cannot be read"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow's decoders raise
        return f"the image cannot be read: {' '.join(str(error).split())}"
    stream = io.BytesIO()
    over_white.save(stream, format="WEBP", quality=55, method=4)
    return Thumbnail(hashlib.sha256(image).hexdigest()[:16], width, height, data_url("image/webp", stream.getvalue()))


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
