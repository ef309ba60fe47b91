"""VQA rows of every kind of file: what is read, what is bad, and in which order."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.extract.images import open_images
from raylib.extract.rows import read_rows
from tests.encode.made import png

COLOURS = {"a.png": "red", "b.png": "blue", "sub/c.jpg": "lime"}


@pytest.fixture
def images(tmp_path):
    for name, colour in COLOURS.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(colour))
    return open_images(str(tmp_path / "images"))


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return str(path)


def jsonl(path, *rows):
    return write(path, "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


def shown(rows):
    return [(row.question_id, row.image_id, row.question, row.answer, dict(row.carried)) for row in rows]


def bad(table):
    return [(b.source, b.item_id, b.reason) for b in table.bad]


CSV = """question_id,image_id,question,gt_answer,category,count
q1,a.png,Is it red?,yes,colour,1.50
007,sub/c.jpg,"Two
lines, one question?",no,,NaN
q3,b.png,Größe?,None,size,3
"""
EXPECTED = [
    ("q1", "a.png", "Is it red?", "yes", {"category": "colour", "count": "1.50"}),
    ("007", "sub/c.jpg", "Two\nlines, one question?", "no", {"category": "", "count": "NaN"}),
    ("q3", "b.png", "Größe?", "None", {"category": "size", "count": "3"}),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".CSV"])
def test_csv_cells_are_taken_as_they_are_written(tmp_path, images, encoding, suffix):
    text = CSV
    if suffix == ".tsv":
        text = text.replace("lines, one", "lines; one").replace(",", "\t").replace("lines; one", "lines, one")
    table = read_rows(write(tmp_path / f"vqa{suffix}", text, encoding), images)
    assert shown(table.rows) == EXPECTED and table.bad == []
    assert [row.image.read() for row in table.rows] == [png("red"), png("lime"), png("blue")]
    assert table.rows.carried_names == ["category", "count"]
    assert table.rows.question_ids == ["q1", "007", "q3"]
