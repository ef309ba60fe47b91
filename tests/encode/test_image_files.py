"""Image files and pages of PDFs as a source: named without being drawn, drawn where they are read, carried by value."""

import os
import pickle

import numpy as np
import pytest

from raylib.encode import pdf
from raylib.encode.image_files import FileImages
from raylib.evaluate.contents import BadContentError, decode_row
from raylib.evaluate.pixel_files import PixelFile
from raylib.store.keys import field_digest
from tests.encode.made import png, write_pdf


@pytest.fixture
def pages(tmp_path):
    """An image file, and a PDF of two pages."""
    (tmp_path / "lime.png").write_bytes(png("lime"))
    write_pdf(tmp_path / "a.pdf", ["red", "blue"])
    image, document = (PixelFile.at(str(tmp_path / name)) for name in ("lime.png", "a.pdf"))
    return FileImages.of("input", ["i", "p1", "p2"], None, [(image, None), (document, 0), (document, 1)], 144)


def drawn(source, *rows):
    return [decode_row(row, None)["image"] for row in source.rows(rows)]


def colours(images):
    return [tuple(np.asarray(image).mean(axis=(0, 1)).round().astype(int)) for image in images]


EXPECTED = [(0, 255, 0), (254, 0, 0), (0, 0, 254)]


def test_pages_are_drawn_at_the_resolution_that_was_asked_for(pages):
    images = drawn(pages, 0, 2, 1)
    assert [image.size for image in images] == [(6, 4), (72, 144), (72, 144)]
    assert {image.mode for image in images} == {"RGB"}
    assert colours(images) == [EXPECTED[0], EXPECTED[2], EXPECTED[1]]
    assert len(pages.files) == 2 and pages.fields == ["image"]


def test_contents_are_named_by_bytes_page_and_resolution_and_never_drawn(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "_draw", None)

    def names(source):
        return [row["image"] for row in source.digests(["image"])]

    found = names(pages)
    assert found[0] == field_digest(png("lime")), "as the same bytes in a table"
    assert len(set(found)) == 3
    (tmp_path / "copy.pdf").write_bytes((tmp_path / "a.pdf").read_bytes())
    copy = PixelFile.at(str(tmp_path / "copy.pdf"))
    assert names(FileImages.of("input", ["x"], None, [(copy, 1)], 144)) == found[2:], "the same file elsewhere"
    assert names(FileImages.of("input", ["x"], None, [(copy, 1)], 72)) != found[2:]


def test_pixels_are_told_without_drawing(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(pdf, "_draw", None)
    pages.places.append((1, 7))
    pages.ids.append("none")
    assert pages.pixels() == [6 * 4, 72 * 144, 72 * 144, 0]
    (tmp_path / "lime.png").unlink()
    assert pages.piece(0, 3).pixels() == [0, 72 * 144, 72 * 144]


def test_a_piece_needs_none_of_the_files(pages, tmp_path):
    assert pages.nbytes == sum(os.path.getsize(tmp_path / name) for name in ("lime.png", "a.pdf"))
    piece = pages.piece(1, 3)
    assert [file.path for file in piece.files] == [str(tmp_path / "a.pdf")]
    whole = pickle.loads(pickle.dumps(pages.piece(0, 3)))
    pdf._close_all()
    for name in ("lime.png", "a.pdf"):
        os.unlink(tmp_path / name)
    assert piece.ids == ["p1", "p2"] and colours(drawn(piece, 0, 1)) == EXPECTED[1:]
    assert colours(drawn(whole, 0, 1, 2)) == EXPECTED


def test_a_file_that_changed_or_went_is_bad_and_is_never_taken_for_the_old_one(pages, tmp_path):
    (tmp_path / "lime.png").write_bytes(png("red", (9, 9)))
    os.unlink(tmp_path / "a.pdf")
    for row, reason in ((0, "lime.png has changed since the run began"), (1, "a.pdf cannot be read: No such")):
        with pytest.raises(BadContentError, match=reason):
            drawn(pages, row)
    assert [len(row["image"]) for row in pages.digests(["image"])] == [32] * 3, "and can still be named"


def test_a_page_that_is_too_large_names_the_flag(pages, monkeypatch):
    monkeypatch.setattr(pdf, "MAX_IMAGE_PIXELS", 72 * 144 - 1)
    with pytest.raises(BadContentError, match="would have 72×144 pixels, at most 10,367 are drawn; lower --dpi"):
        drawn(pages, 1)


def test_a_page_that_is_not_there_is_bad(pages):
    pages.places[1] = (1, 7)
    with pytest.raises(BadContentError, match="the page cannot be drawn: "):
        drawn(pages, 1)


def test_few_documents_stay_open(tmp_path):
    pdf._close_all()
    for i in range(12):
        write_pdf(tmp_path / f"{i}.pdf", ["red"])
    files = [PixelFile.at(str(tmp_path / f"{i}.pdf")) for i in range(12)]
    source = FileImages.of("input", [str(i) for i in range(12)], None, [(file, 0) for file in files], 72)
    assert len(drawn(source, *range(12))) == 12 and len(pdf._open) == pdf._MAX_OPEN
    pdf._close_all()
    assert not pdf._open
