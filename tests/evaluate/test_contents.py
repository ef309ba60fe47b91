"""Contents: every way an image or a text can be bad, and that good ones arrive as they are."""

import io
import pickle
import struct
import zlib

import datasets
import numpy as np
import pytest
from PIL import ExifTags, Image

from raylib.evaluate import contents
from raylib.evaluate.contents import BadContentError, Source, decode_image, decode_row, encoded_image
from raylib.store.keys import field_digest

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_claiming(width, height):
    """A PNG of a few dozen bytes whose header promises width × height pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, r"^the image is missing \(None\)$"),
        (b"", "^the image file is empty"),
        (encoded(NOISE)[:-200], "^unreadable image: .*truncated"),
        (encoded(NOISE, "JPEG")[:-400], "^unreadable image: .*truncated"),
        (encoded(NOISE)[:20], "^unreadable image: "),
        (encoded(NOISE, "TIFF")[:30], "^unreadable image: "),
        (b"This is no picture.\n", "^unreadable image: the bytes are no known format, or have no pixels$"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "^unreadable image: the bytes are no known format"),
        (png_claiming(0, 5), "^unreadable image: .*have no pixels"),
        (png_claiming(5, 0), "^unreadable image: .*have no pixels"),
        (png_claiming(60_000, 60_000), "^decompression bomb: .*3600000000 pixels"),
    ],
    ids=["None", "empty", "cut PNG", "cut JPEG", "header", "cut TIFF", "text", "SVG", "no width", "no height", "bomb"],
)
def test_an_image_that_cannot_be_used_says_why(data, reason):
    with pytest.raises(BadContentError, match=reason) as caught:
        decode_image(data)
    assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


def test_the_limit_for_bombs_holds_where_another_library_switched_pillows_own_off(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(BadContentError, match="decompression bomb: 20000×20000 pixels; at most 180,000,000"):
        decode_image(png_claiming(20_000, 20_000))


def test_an_image_at_the_limit_is_no_bomb(monkeypatch):
    monkeypatch.setattr(contents, "MAX_IMAGE_PIXELS", 1200)
    assert decode_image(encoded(NOISE)).size == (30, 40)
    monkeypatch.setattr(contents, "MAX_IMAGE_PIXELS", 1199)
    with pytest.raises(BadContentError, match="30×40"):
        decode_image(encoded(NOISE))


def test_an_opened_image_without_pixels_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "open", lambda stream: Image.new("RGB", (0, 7)))
    with pytest.raises(BadContentError, match=r"the image has no pixels \(0×7\)"):
        decode_image(b"some format that knows empty images")


@pytest.mark.parametrize("error", [RuntimeError("Failed to decode\nframe 0"), struct.error("unpack"), KeyError("mode")])
def test_whatever_a_decoder_raises_is_the_images_fault(monkeypatch, error):
    def fail(self):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(BadContentError, match=r"unreadable image: .*(decode frame 0|unpack|mode)"):
        decode_image(encoded(NOISE))


def test_too_little_memory_is_not_the_images_fault(monkeypatch):
    def fail(self):
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(MemoryError):
        decode_image(encoded(NOISE))


def test_an_image_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was held upright: turn by 90° clockwise
    decoded = decode_image(encoded(NOISE, exif=exif))
    assert (np.asarray(decoded) == np.rot90(np.asarray(NOISE), -1)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB"])
def test_every_mode_survives_encoding(mode):
    empty = Image.new(mode, (30, 40))
    noise = np.random.default_rng(1).bytes(len(empty.tobytes()))
    image = NOISE.convert("P") if mode == "P" else Image.frombytes(mode, (30, 40), noise)
    decoded = decode_image(encoded_image(image))
    assert (decoded.mode, decoded.size) == (mode, (30, 40))
    assert decoded.tobytes() == image.tobytes()


def test_an_image_in_memory_without_pixels_is_reported_when_it_is_decoded():
    assert encoded_image(Image.new("RGB", (0, 0))) == b""
    with pytest.raises(BadContentError, match="empty"):
        decode_image(encoded_image(Image.new("RGB", (0, 0))))


def test_image_cells_of_every_kind_become_their_file(tmp_path):
    (tmp_path / "page.png").write_bytes(encoded(NOISE))
    assert encoded_image({"bytes": b"png", "path": "gone.png"}) == b"png"
    assert encoded_image({"bytes": None, "path": str(tmp_path / "page.png")}) == encoded(NOISE)
    assert encoded_image({"bytes": None, "path": str(tmp_path / "gone.png")}) == b""
    assert encoded_image({"bytes": None, "path": None}) is None
    assert encoded_image(None) is None and encoded_image(b"png") == b"png"


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0"])
def test_an_empty_query_is_refused_and_an_empty_document_is_not(text):
    with pytest.raises(BadContentError, match=r"^the text is empty$"):
        decode_row({"text": text}, "text")
    assert decode_row({"text": text}, None) == {"text": text}


@pytest.mark.parametrize(("value", "name"), [(None, "NoneType"), (3, "int"), (["a"], "list")])
@pytest.mark.parametrize("required", ["text", None])
def test_a_text_that_is_none_is_refused(value, name, required):
    with pytest.raises(BadContentError, match=f"^the text is {name}, expected str$"):
        decode_row({"text": value}, required)


def test_a_row_is_decoded_and_the_raw_one_left_alone():
    raw = {"text": "a", "image": encoded(NOISE), "body": "a"}
    decoded = decode_row(raw, "text")
    assert (np.asarray(decoded["image"]) == np.asarray(NOISE)).all()
    assert decoded["text"] == decoded["body"] == "a" and isinstance(raw["image"], bytes)


def images(*cells):
    data = datasets.Dataset.from_dict({"image": list(cells)}, datasets.Features({"image": datasets.Image()}))
    return data.cast_column("image", datasets.Image(decode=False))


def source(n=5):
    texts = datasets.Dataset.from_dict({"id": [f"d{i}" for i in range(n)], "text": [f"text {i}" for i in range(n)]})
    return Source("T/test/default document", texts["id"], texts, images(*[{"bytes": b"%d" % i} for i in range(n)]))


def test_rows_come_in_the_order_asked_for_with_images_still_encoded():
    assert source().fields == ["text", "image"]
    assert source().rows([3, 0]) == [{"text": "text 3", "image": b"3"}, {"text": "text 0", "image": b"0"}]
    assert source().rows([1], ["image"]) == [{"image": b"1"}]
    assert source().rows([1], ["text", "title"]) == [{"text": "text 1"}]


def test_digests_are_those_of_the_fields_and_each_field_is_read_once(monkeypatch):
    made, read = source(), []
    rows = Source.rows
    monkeypatch.setattr(Source, "rows", lambda self, i, f=None: read.append((len(i), tuple(f))) or rows(self, i, f))
    monkeypatch.setattr(contents, "_READ_ROWS", 2)

    assert made.digests(["image"]) == [{"image": field_digest(b"%d" % i)} for i in range(5)]
    assert made.digests(["text", "image"])[4] == {"text": field_digest("text 4"), "image": field_digest(b"4")}
    assert made.text_lengths() == [6] * 5

    assert read == [(2, ("image",)), (2, ("image",)), (1, ("image",)), (2, ("text",)), (2, ("text",)), (1, ("text",))]


def test_a_missing_text_has_length_zero():
    texts = datasets.Dataset.from_dict({"text": ["abc", None]})
    assert Source("T", ["a", "b"], texts).text_lengths() == [3, 0]


def test_a_piece_holds_its_rows_in_memory():
    piece = pickle.loads(pickle.dumps(source().piece(2, 4)))
    assert len(piece) == 2 and piece.ids == ["d2", "d3"] and piece.name == "T/test/default document"
    assert piece.rows([1, 0]) == [{"text": "text 3", "image": b"3"}, {"text": "text 2", "image": b"2"}]


def test_a_pickled_source_leaves_its_digests_at_home():
    made = source()
    plain = len(pickle.dumps(made))
    made.digests(["text", "image"])
    assert len(pickle.dumps(made)) == plain
    assert pickle.loads(pickle.dumps(made)).digests(["text"]) == made.digests(["text"])
