"""Thumbnails of pages drawn for the purpose."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from raylib.inspect.thumbnails import Thumbnail, thumbnail
from tests.inspect.made import png


def pixels(found) -> np.ndarray:
    assert isinstance(found, Thumbnail)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found.url.removeprefix("data:image/webp;base64,")))))


@pytest.mark.parametrize(
    ("size", "small"), [((1000, 2000), (160, 320)), ((2000, 1000), (320, 160)), ((90, 40), (90, 40))]
)
def test_the_longest_side_is_320_pixels_at_most(size, small):
    found = thumbnail(png(Image.new("RGB", size, "red")))
    assert isinstance(found, Thumbnail) and (found.width, found.height) == size
    assert pixels(found).shape == (small[1], small[0], 3)


def test_transparency_is_over_white():
    page = np.asarray(pixels(thumbnail(png(Image.new("RGBA", (20, 20), (255, 0, 0, 0))))))
    assert page.min() > 250


def test_a_photo_that_lies_on_its_side_is_turned():
    """Orientation 6: turn a quarter to the right. The stored left edge becomes the top."""
    stored = Image.new("RGB", (60, 40), "white")
    stored.paste((0, 0, 0), (0, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    stored.save(stream, format="JPEG", quality=95, exif=exif)
    found = thumbnail(stream.getvalue())
    assert isinstance(found, Thumbnail) and (found.width, found.height) == (40, 60)
    page = pixels(found)
    assert page.shape[:2] == (60, 40) and page[:25].mean() < 20 and page[35:].mean() > 235


def test_grey_and_palette_pages():
    for mode in ("L", "1", "P", "LA"):
        assert pixels(thumbnail(png(Image.new(mode, (30, 30))))).shape == (30, 30, 3)


def test_equal_pages_have_one_name():
    one, same, other = (thumbnail(png(Image.new("RGB", (9, 9), colour))) for colour in ("red", "red", "blue"))
    assert one == same and isinstance(one, Thumbnail) and isinstance(other, Thumbnail) and one.name != other.name


@pytest.mark.parametrize("image", [b"", b"no picture", png(Image.new("RGB", (300, 300), "red"))[:200]])
def test_an_image_that_cannot_be_read_has_a_reason(image):
    found = thumbnail(image)
    assert isinstance(found, str) and found.startswith("the image cannot be read")


def test_a_decompression_bomb_is_not_opened(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    found = thumbnail(png(Image.new("RGB", (30, 30))))
    assert isinstance(found, str) and "decompression bomb" in found
