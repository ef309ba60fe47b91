"""What clients send: taken where it is right, refused with what to change where it is not. Nothing hangs or falls."""

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from raylib.encode.pdf import draw_page
from raylib.errors import OverloadedError, UserError
from raylib.evaluate.contents import decode_image
from raylib.serve import pdf_process
from raylib.serve.intake import IntakeLimits, document, image_document, pdf_documents, text_document
from raylib.serve.protocol import Content
from tests.encode.made import encrypted_pdf, png, write_pdf


def saved(form, image=None, **options):
    stream = io.BytesIO()
    (image or Image.new("RGB", (6, 4), "red")).save(stream, form, **options)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height, pixels):
    """A PNG that says so of itself, whatever lies in it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def pdf_of(*objects):
    """A PDF of these objects, the first of which is the catalog."""
    data, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    table = b"0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return data + b"xref\n0 %d\n%strailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (
        size,
        table,
        size,
        len(data),
    )


def one_page(box=b"[0 0 72 72]", rest=b"", *more):
    page = b"<</Type/Page/Parent 2 0 R/MediaBox" + box + rest + b">>"
    return pdf_of(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page, *more)


def test_documents_of_every_kind(tmp_path):
    assert text_document("a text", "../../etc/passwd", {"n": 1, "ok": True, "x": "y"}).id == "../../etc/passwd"
    found = image_document(png("red"), None, "beside", {})
    assert found.content == Content("beside", png("red")) and found.metadata == {}
    assert found.id == document(Content("beside", png("red"))).id != image_document(png("red")).id
    for data in (saved("JPEG"), saved("WEBP"), saved("PNG", Image.new("L", (3, 3)))):
        assert image_document(data, "x").content.image == data


def test_pages_of_a_pdf_are_those_that_encode_draws(tmp_path):
    write_pdf(tmp_path / "a.pdf", ["red", "blue"], size=(36, 72))
    data = (tmp_path / "a.pdf").read_bytes()
    first, second = pdf_documents(data, "../a b.pdf", {"year": 2024})
    assert (first.id, second.id) == ("../a b.pdf#page=1", "../a b.pdf#page=2")
    assert (first.metadata, second.metadata) == ({"page": 1, "year": 2024}, {"page": 2, "year": 2024})
    for number, one in enumerate((first, second)):
        drawn = decode_image(one.content.image)
        assert drawn.size == (72, 144)  # 144 dpi
        assert np.array_equal(np.asarray(drawn), np.asarray(draw_page(str(tmp_path), data, number, 144)))
    assert pdf_documents(data, "a", {"page": "mine"}, dpi=72)[1].metadata == {"page": "mine"}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: text_document(" \n"), "text is empty"),
        (lambda: text_document("x" * 11, limits=IntakeLimits(text_characters=10)), "11 characters; at most 10"),
        (lambda: text_document("a\ud800"), "surrogate"),
        (lambda: text_document("a\0b"), "NUL"),
        (lambda: text_document(7), "text is int"),
        (lambda: text_document("a", ""), "id of a document is empty"),
        (lambda: text_document("a", "x" * 2000), "2000 characters"),
        (lambda: text_document("a", "\udfff"), "surrogate"),
        (lambda: document(Content()), "neither text nor image"),
        (lambda: text_document("a", metadata=["b"]), "metadata is list"),
        (lambda: text_document("a", metadata={"b": None}), "'b' is neither text"),
        (lambda: text_document("a", metadata={"b": {"c": 1}}), "'b' is neither text"),
        (lambda: text_document("a", metadata={"b": float("inf")}), "finite"),
        (lambda: text_document("a", metadata={"b": 10**400}), "finite"),
        (lambda: text_document("a", metadata={"": 1}), "has no name"),
        (lambda: text_document("a", metadata={f"{i}": i for i in range(65)}), "65 fields"),
        (lambda: text_document("a", metadata={"b": "x" * 20_000}), "as JSON"),
    ],
)
def test_texts_ids_and_metadata_that_are_refused(make, match):
    with pytest.raises(UserError, match=match):
        make()


_BOMB = png_of(30_000, 30_000, bytes(1000))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (_BOMB, "too many pixels|900000000 pixels"),
        (png_of(7000, 7000, bytes(1000)), "49000000 pixels; at most 40000000"),
        (png_of(2_000_000_000, 2_000_000_000, b""), "pixels"),
        (png_of(5, 5, b"\0" * 20), "cannot be used"),
        (png("red")[:-30], "cannot be used|damaged"),
        (saved("JPEG", Image.effect_noise((200, 200), 90))[:4000], "cannot be used"),
        (b"", "damaged"),
        (b"GIF89a" + bytes(50), "none of the formats"),
        (saved("GIF"), "PNG, JPEG, WEBP"),
        (saved("TIFF"), "none of the formats"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "none of the formats"),
        (saved("PNG", save_all=True, append_images=[Image.new("RGB", (6, 4))]), "2 frames; expected one"),
        (saved("WEBP", save_all=True, append_images=[Image.new("RGB", (6, 4))]), "2 frames"),
        (bytes(33 * 2**20), "bytes; at most"),
    ],
)
def test_images_that_are_refused(data, match):
    start = time.perf_counter()
    with pytest.raises(UserError, match=match) as caught:
        image_document(data)
    assert "/" not in str(caught.value).replace("×", ""), "nothing of the inside"
    assert time.perf_counter() - start < 2, "nothing large was decoded"


def test_a_photograph_lying_on_its_side_is_taken_and_turned_where_it_is_decoded():
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[274] = 6
    found = image_document(saved("JPEG", image, exif=exif))
    assert decode_image(found.content.image).size == (4, 6)


def test_a_picture_with_a_preview_is_taken():
    data = saved("MPO", save_all=True, append_images=[Image.new("RGB", (3, 2))])
    assert image_document(data).content.image == data


def nested_forms(depth, times):
    """Each form draws the next one many times: times ** depth squares."""
    objects = []
    for level in range(depth):
        drawn = b"/F Do " * times if level < depth - 1 else b"0 0 9 9 re f "
        inner = b"/Resources<</XObject<</F %d 0 R>>>>" % (5 + level) if level < depth - 1 else b""
        head = b"<</Type/XObject/Subtype/Form/BBox[0 0 72 72]%s/Length %d>>" % (inner, len(drawn))
        objects.append(head + b"stream\n" + drawn + b"\nendstream")
    contents = b"<</Length 5>>stream\n/F Do\nendstream"
    return one_page(
        b"[0 0 72 72]",
        b"/Resources<</XObject<</F 4 0 R>>>>/Contents %d 0 R" % (4 + depth),
        *objects,
        contents,
    )


def test_the_nested_forms_do_draw_what_they_say():
    (page,) = pdf_documents(nested_forms(3, 2), "a", dpi=72)
    assert decode_image(page.content.image).getpixel((2, 70)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("data", "limits", "match"),
    [
        (b"no pdf", {}, "it is no PDF, or damaged"),
        (b"", {}, "no PDF, or damaged"),
        (b"%PDF-1.7\n" + bytes(1000), {}, "no PDF, or damaged"),
        (encrypted_pdf(), {}, "encrypted: save it without a password"),
        (
            pdf_of(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[]/Count 0>>"),
            {},
            "it has no pages",
        ),
        (one_page(b"[0 0 14400 14400]"), {}, "page 1 would have 829440000 pixels"),
        (nested_forms(2, 2), {"pdf_bytes": 100}, "bytes; at most 100"),
        (nested_forms(2, 2), {"pdf_pixels": 20_000}, "20736 pixels"),
        (nested_forms(2, 2), {"pdf_drawn_bytes": 10}, "more than 10 bytes"),
        (nested_forms(25, 20), {"pdf_seconds": 3}, "takes longer than 3 s"),
        (nested_forms(2, 2), {"pdf_memory_bytes": 2**20}, "drawing it failed"),
    ],
)
def test_pdfs_that_are_refused(data, limits, match):
    start = time.perf_counter()
    with pytest.raises(UserError, match=match) as caught:
        pdf_documents(data, "a.pdf", limits=IntakeLimits(**limits))
    assert "raylib" not in str(caught.value) and "File" not in str(caught.value)
    assert time.perf_counter() - start < 30


def test_too_many_pages_are_not_drawn(tmp_path):
    write_pdf(tmp_path / "a.pdf", ["red"] * 3)
    with pytest.raises(UserError, match="has 3 pages, at most 2"):
        pdf_documents((tmp_path / "a.pdf").read_bytes(), "a.pdf", limits=IntakeLimits(pdf_pages=2))


def test_a_pdf_whose_drawing_crashes_takes_only_its_process(monkeypatch):
    monkeypatch.setattr(pdf_process.sys, "executable", "/bin/false" if os.path.exists("/bin/false") else "false")
    with pytest.raises(UserError, match="drawing it failed"):
        pdf_documents(nested_forms(2, 2), "a.pdf")


def test_pdfs_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(pdf_process, "_turns", pdf_process.BoundedSemaphore(1))
    with pdf_process._turn(1), pytest.raises(OverloadedError, match="too many PDFs"):
        pdf_documents(nested_forms(2, 2), "a.pdf", limits=IntakeLimits(pdf_seconds=0.05))
