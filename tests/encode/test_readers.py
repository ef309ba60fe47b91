"""Each kind of file, item by item: ids, texts, images, and what is wrong."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.encode.inputs import find_inputs
from raylib.encode.readers import read_items
from raylib.errors import UserError
from tests.encode.made import config, encrypted_pdf, png, write_pdf


def read(path, **settings):
    (file,) = find_inputs([str(path)]).files
    return list(read_items(file, config(path.parent, path, **settings)))


def texts(items):
    return [(item.id, item.text, item.error) for item in items]


def jsonl(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_every_line_of_a_text_file_that_is_not_blank(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\n\n  two \r\n \nthree\u2028still three".encode())
    found = texts(read(path))
    assert found == [
        ("a.txt#line=1", "one", None),
        ("a.txt#line=3", "  two ", None),
        ("a.txt#line=5", "three\u2028still three", None),
    ]


def test_whole_files(tmp_path):
    for name in ("a.txt", "a.md"):
        (tmp_path / name).write_text("one\n\ntwo\n")
    assert texts(read(tmp_path / "a.txt", whole_files=True)) == [("a.txt", "one\n\ntwo\n", None)]
    assert texts(read(tmp_path / "a.md")) == [("a.md", "one\n\ntwo\n", None)]


def test_bytes_that_are_no_utf8_are_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\nb\xe9d\ngood")
    (tmp_path / "a.md").write_bytes(b"b\xe9d")
    assert [item.error for item in read(tmp_path / "a.txt")] == [None, "it is no UTF-8 text (byte 1 is 233)", None]
    assert [(item.id, item.error) for item in read(tmp_path / "a.md")] == [
        ("a.md", "it is no UTF-8 text (byte 1 is 233)")
    ]


def test_jsonl_takes_usual_names_and_says_what_is_wrong_with_a_line(tmp_path):
    path = jsonl(
        tmp_path / "a.jsonl",
        {"_id": "x", "title": "T", "text": "t"},
        {"id": 7, "text": None},
        {"text": "t"},
        "",
        "{",
        "[1]",
        {"id": "y"},
        {"id": "z", "text": 5},
        {"id": None, "text": "t"},
        {"id": "w", "text": "\ud800"},
    )
    with open(path, "ab") as stream:
        stream.write(b'{"text": "b\xe9d"}')
    assert texts(read(path)) == [
        ("x", "t", None),
        ("7", None, None),
        ("a.jsonl#line=3", "t", None),
        (
            "a.jsonl#line=5",
            None,
            "the line is no JSON: Expecting property name enclosed in double quotes (character 2)",
        ),
        ("a.jsonl#line=6", None, "the line is a list; expected an object"),
        (
            "a.jsonl#line=7",
            None,
            "neither text nor image among the fields id; name one with --text-column or --image-column",
        ),
        ("z", None, "its text is int, expected text"),
        ("a.jsonl#line=9", None, "its id is empty; expected an id"),
        ("w", None, "it holds half of a surrogate pair, which is no character"),
        ("a.jsonl#line=11", None, "it is no UTF-8 text (byte 11 is 233)"),
    ]


def test_columns_are_those_of_the_flags(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"id": "no", "key": "k", "title": "T", "body": "b", "text": "no"}, {"key": "l"})
    found = texts(read(path, id_column="key", text_column=["title,body"]))
    assert found == [
        ("k", "T b", None),
        ("a.jsonl#line=2", None, "no field title, body; the fields are key"),
    ]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_csv_with_quotes_and_line_breaks(suffix, tmp_path):
    comma = "," if suffix == "csv" else "\t"
    rows = [["id", "text"], ["1", '"two\nlines, ""quoted"""'], ["2", "x" * 200_000], ["3"]]
    path = tmp_path / f"a.{suffix}"
    path.write_text("\ufeff" + "\n".join(comma.join(row) for row in rows) + "\n")
    assert texts(read(path)) == [("1", 'two\nlines, "quoted"', None), ("2", "x" * 200_000, None), ("3", None, None)]
    assert next(iter(read(path, id_column="text"))).id == 'two\nlines, "quoted"'
    with pytest.raises(UserError, match=r"a.[ct]sv: no field body; the fields are id, text"):
        read(path, text_column=["body"])


def test_parquet_images_as_bytes_as_datasets_stores_them_and_by_path(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "red.png").write_bytes(png("red"))
    cells = {
        "image": pa.array([png("red"), None, b""], pa.binary()),
        "struct": [{"bytes": png("red"), "path": "gone.png"}, {"bytes": None, "path": "pages/red.png"}, None],
        "path": ["pages/red.png", "pages/gone.png", None],
    }
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"], **cells}), path, row_group_size=2)

    both = read(path)
    assert [(i.id, i.text, i.image) for i in both] == [
        ("a.parquet#row=1", "a", png("red")),
        ("a.parquet#row=2", "b", None),
        ("a.parquet#row=3", "c", b""),
    ]
    assert [item.image for item in read(path, text_column=["text"])] == [None] * 3, "only what was asked for"
    assert [(i.text, i.image) for i in read(path, image_column="image")][:2] == [(None, png("red")), (None, None)]
    stored, by_path, absent = read(path, image_column="struct")
    assert stored.image == png("red") and absent.image is None
    assert by_path.image[0].read() == png("red")
    found, gone, _ = read(path, image_column="path")
    assert found.image[0].path == str(tmp_path / "pages" / "red.png")
    assert gone.error.endswith("pages/gone.png cannot be read: No such file or directory")


def test_a_damaged_table_is_an_item_with_an_error(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (item,) = read(tmp_path / "a.parquet")
    assert item.id == "a.parquet" and item.error.startswith("it cannot be read beyond row 0: ")


def test_pdf_pages_are_items_and_nothing_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("raylib.encode.pdf._draw", None)
    write_pdf(tmp_path / "a.pdf", ["red", "blue"])
    assert [(item.id, item.image[1]) for item in read(tmp_path / "a.pdf")] == [("a.pdf#page=1", 0), ("a.pdf#page=2", 1)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the PDF cannot be opened: it is no PDF, or damaged"),
        (b"%PDF-1.7\nnot much", "the PDF cannot be opened: it is no PDF, or damaged"),
        (encrypted_pdf(), "the PDF cannot be opened: it is encrypted: save it without a password"),
    ],
    ids=["empty", "broken", "encrypted"],
)
def test_a_pdf_that_cannot_be_opened_is_an_item_with_an_error(data, reason, tmp_path):
    (tmp_path / "a.pdf").write_bytes(data)
    assert [(item.id, item.error) for item in read(tmp_path / "a.pdf")] == [("a.pdf", reason)]
