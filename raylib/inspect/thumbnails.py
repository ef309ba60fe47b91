"""Small pictures of pages, as text that an HTML page can hold."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

LONGEST_SIDE = 320
"""Pixels: a page's layout can be seen, a headline read; about 10 kB."""


@dataclass(frozen=True)
class Thumbnail:
    """name: the same for equal pages. width, height: of the page itself, in pixels. url: a data: URL."""

    name: str
    width: int
    height: int
    url: str


@dataclass(frozen=True)
class Picture:
    """content: a WebP image. width, height: of the page it was made from, upright, in pixels."""

    content: bytes
    width: int
    height: int


def thumbnail(image: bytes) -> Thumbnail | str:
    """The page as WebP of at most `LONGEST_SIDE` pixels, see `picture`."""
    found = picture(image, LONGEST_SIDE, quality=55)
    if isinstance(found, str):
        return found
    return Thumbnail(name_of(image), found.width, found.height, data_url("image/webp", found.content))


def name_of(image: bytes) -> str:
    """16 hex digits, the same for equal images."""
    return hashlib.sha256(image).hexdigest()[:16]


def upright_size(image: bytes) -> tuple[int, int] | None:
    """(width, height) as a person sees it, of which only the head is read; None for what is no image."""
    from PIL import Image

    try:
        return _upright_size(Image.open(io.BytesIO(image)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _upright_size(page: Image.Image) -> tuple[int, int]:
    from PIL import ExifTags

    sideways = page.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (page.height, page.width) if sideways else page.size


def picture(image: bytes, longest_side: int, quality: int) -> Picture | str:
    """The page as WebP whose longer side has at most so many pixels, over white, upright; a reason for an image that
    cannot be read: one bad page is no reason to show none. quality: of WebP, 1 to 100."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        page = Image.open(io.BytesIO(image))
        width, height = _upright_size(page)
        page.draft("RGB", (2 * longest_side, 2 * longest_side))  # a JPEG is decoded at a smaller size
        page = ImageOps.exif_transpose(page).convert("RGBA")
        page.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
        over_white = Image.alpha_composite(Image.new("RGBA", page.size, "white"), page).convert("RGB")
    except UnidentifiedImageError:
        return "the image cannot be read"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow's decoders raise
        return f"the image cannot be read: {' '.join(str(error).split())}"
    stream = io.BytesIO()
    over_white.save(stream, format="WEBP", quality=quality, method=4)
    return Picture(stream.getvalue(), width, height)


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
