"""VQA rows of every kind of file: what is read, what is bad, and in which order."""

import hashlib
import json
import os
import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.evaluate.contents import BadContentError
from raylib.extract.images import open_images
from raylib.extract.rows import read_rows, sample
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


def test_jsonl_numbers_are_text_as_written_and_ids_have_no_point(tmp_path, images):
    path = jsonl(
        tmp_path / "vqa.jsonl",
        '{"question_id": 17, "image_id": "a.png", "question": "Is it red?", "answer": 1.50, "deep": {"x": [1, null]}}',
        "",
        '{"answer": true, "question_id": 18.0, "question": "", "image_id": "a.png"}',
        '{"answer": 3, "question_id": 19.0, "question": "Größe?", "image_id": "b.png", "late": 2.0, "none": NaN}',
    )
    table = read_rows(path, images)
    assert shown(table.rows) == [
        ("17", "a.png", "Is it red?", "1.50", {"deep": '{"x": [1, null]}', "late": "", "none": ""}),
        ("19", "b.png", "Größe?", "3", {"deep": "", "late": "2.0", "none": ""}),
    ]
    assert bad(table) == [("vqa.jsonl#line=3", "18", "its question is empty; expected text")]


@pytest.mark.parametrize("suffix", [".ndjson", ".json"])
def test_json_lines_by_other_names(tmp_path, images, suffix):
    path = jsonl(tmp_path / f"vqa{suffix}", {"question_id": "x", "image_name": "a.png", "question": "?"})
    assert shown(read_rows(path, images).rows) == [("x", "a.png", "?", "", {})]


def test_parquet_numbers_become_text_and_whole_ones_have_no_point(tmp_path, images):
    path = parquet(
        tmp_path / "vqa.parquet",
        question_id=pa.array([17.0, None, 123456789012.0, 19.5], pa.float64()),
        image_name=pa.array(["a.png"] * 4).dictionary_encode(),
        question=pa.array(["one", "two", "three", "four"], pa.large_string()),
        ground_truth_answer=[1, 2, 3, None],
        score=pa.array([0.5, 1.0, float("nan"), None]),
        seen=[True, False, None, True],
        half=pa.array(np.array([0.5, 1, 2, 3], np.float16)),
        **{"half.dotted": ["x"] * 4},
        tags=[["a", "ü"], [], None, None],
        raw=pa.array([b"x"] * 4),
        many=pa.array([[b"x"]] * 4),
    )
    dotted = [{"half": "0.5", "half.dotted": "x"}, {"half": "2", "half.dotted": "x"}]
    table = read_rows(path, images)
    assert shown(table.rows) == [
        ("17", "a.png", "one", "1", {"score": "0.5", "seen": "true", **dotted[0], "tags": '["a", "ü"]'}),
        ("123456789012", "a.png", "three", "3", {"score": "", "seen": "", **dotted[1], "tags": ""}),
    ]
    assert bad(table) == [
        ("vqa.parquet#row=2", "vqa.parquet#row=2", "its question_id is empty; expected an id"),
        ("vqa.parquet#row=4", "19.5", "its ground_truth_answer is empty; expected an answer, for the file has answers"),
    ]
    assert table.left_out == ["raw", "many"]


def test_every_bad_row_has_its_first_reason_and_the_others_are_read(tmp_path, images):
    rows = [
        "question_id,image_id,question,answer,note",
        "good,a.png,what?,x,",
        ",a.png,what?,x,",
        "nan,a.png,what?,x,",
        "good,a.png,again?,x,",
        "blank,a.png, \u3000 ,x,",
        "nanq,a.png,NaN,x,",
        "noanswer,a.png,what?,,",
        "nananswer,a.png,what?,nan,",
        "none,a.png,what?,None,",
        "short,a.png",
        "",
        "long,a.png,what?,x,,,",
        "noimage,,what?,x,",
        "missing,z.png,what?,x,",
        "nul,a.png,wh\0at?,x,",
        "i\0d,a.png,what?,x,",
        "nulnote,a.png,what?,x,\0",
        "blank,a.png,what?,x,",
        "last,a,what?,x,",
    ]
    table = read_rows(write(tmp_path / "v.csv", "\r\n".join(rows)), images)
    assert table.rows.question_ids == ["good", "none", "last"]
    assert [row.question for row in table.rows] == ["what?"] * 3
    assert all(source.startswith("v.csv#line=") for source, _, _ in bad(table))
    assert [row.number for row in table.rows] == [0, 8, 17], "bad rows and bad lines count, blank lines do not"
    assert [(int(source.removeprefix("v.csv#line=")), *rest) for source, *rest in bad(table)] == [
        (3, "v.csv#line=3", "its question_id is empty; expected an id"),
        (4, "v.csv#line=4", "its question_id is empty; expected an id"),
        (5, "good", "line 2 has this question_id already; only the first row of an id is used"),
        (6, "blank", "its question is empty; expected text"),
        (7, "nanq", "its question is empty; expected text"),
        (8, "noanswer", "its answer is empty; expected an answer, for the file has answers"),
        (9, "nananswer", "its answer is empty; expected an answer, for the file has answers"),
        (11, "v.csv#line=11", "the line has 2 fields; the header has 5"),
        (13, "v.csv#line=13", "the line has 7 fields; the header has 5"),
        (14, "noimage", "its image_id is empty; expected the name of an image"),
        (15, "missing", f"there is no image z.png in {tmp_path}/images"),
        (16, "nul", "its question holds a NUL character, which HDF5 cannot hold"),
        (17, "v.csv#line=17", "its question_id holds a NUL character, which HDF5 cannot hold"),
        (18, "nulnote", "its note holds a NUL character, which HDF5 cannot hold"),
        (19, "blank", "line 6 has this question_id already; only the first row of an id is used"),
    ]


def test_a_bad_line_is_named_by_where_it_begins(tmp_path, images):
    text = 'question_id,image_id,question\n1,a.png,"a\nb\nc"\n2,"x\ny"\n3,a.png,d\n'
    table = read_rows(write(tmp_path / "v.csv", text), images)
    assert table.rows.question_ids == ["1", "3"]
    assert bad(table) == [("v.csv#line=5", "v.csv#line=5", "the line has 2 fields; the header has 3")]


def test_bytes_that_are_no_text_spoil_their_row_only(tmp_path, images):
    head, good = b"question_id,image_id,question\n", b"1,a.png,gr\xc3\xbcn?\n"
    table = read_rows(write(tmp_path / "v.csv", head + b"0,a.png,gr\xfcn?\n" + good), images)
    no_utf8 = "it holds bytes that are no UTF-8 text; save the file as UTF-8"
    assert [row.question for row in table.rows] == ["grün?"]
    assert bad(table) == [("v.csv#line=2", "v.csv#line=2", no_utf8)]
    path = jsonl(
        tmp_path / "v.jsonl",
        r'{"question_id": "1", "image_id": "a.png", "question": "half \ud83d"}',
        r'{"question_id": "2", "image_id": "a.png", "question": "whole \ud83d\ude00"}',
        r'{"question_id": "3", "image_id": "a.png", "question": "?", "\udc80": 1}',
    )
    table = read_rows(path, images)
    half = "it holds half of a surrogate pair, which is no character"
    assert [row.question for row in table.rows] == ["whole \U0001f600"]
    assert [reason for _, _, reason in bad(table)] == [half, f"in the name of a field: {half}"]


def test_lines_that_are_no_json_objects(tmp_path, images):
    good = {"question_id": "1", "image_id": "a.png", "question": "?"}
    deep = '{"a":' * 100_000
    path = jsonl(tmp_path / "v.jsonl", "{broken", good, "[1]", deep, '{"a": ' + "9" * 5000 + "}", '{"question": "?"}')
    table = read_rows(path, images)
    assert table.rows.question_ids == ["1"]
    reasons = {b.item_id.removeprefix("v.jsonl#line="): b.reason for b in table.bad}
    assert list(reasons) == ["1", "3", "4", "5", "6"]
    assert reasons["1"].startswith("the line is no JSON: Expecting property name")
    assert reasons["3"] == "the line is a list; expected an object"
    assert reasons["4"].startswith("the line is no JSON that can be read: maximum recursion")
    assert reasons["5"].startswith("the line is no JSON that can be read: Exceeds the limit")
    assert reasons["6"] == "its question_id is empty; expected an id"


def test_the_first_answer_column_is_used_and_names_of_the_output_are_not_taken(tmp_path, images):
    text = "question_id,image_name,ground_truth_answer,answer,question,image_id,gt_answer\n1,x.png,g,a,?,a.png,t\n"
    (row,) = read_rows(write(tmp_path / "v.csv", text), images).rows
    assert (row.answer, row.image_id) == ("a", "a.png"), "in the order of names, not of columns"
    assert row.carried == {"image_name": "x.png", "input_ground_truth_answer": "g", "gt_answer": "t"}


def test_columns_without_a_name_go_by_their_position(tmp_path, images):
    text = ", question_id ,image_id,question\n0,q,a.png,?\n"
    (row,) = read_rows(write(tmp_path / "v.csv", text), images).rows
    assert row.question_id == "q" and row.carried == {"unnamed_0": "0"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "v.csv",
            "id,image,question\n1,a,b\n",
            r"no column question_id, image_id or image_name; its columns are id",
        ),
        ("v.csv", "question_id,image_id\n1,a\n", r"no column question; .*expected question_id, question, image_id or"),
        ("v.csv", "", r"v\.csv is empty; expected a header and rows"),
        ("v.csv", '"question_id,image_id\n1,a\n', r"a quote in the row of line 1 is never closed"),
        ("v.csv", "\n\r\n", r"v\.csv is empty; expected a header and rows"),
        ("v.csv", CSV + '4,a.png,"What is,x,y,z\n5,a.png,a,b,c,d', r"a quote in the row of line 6 is never closed"),
        ("v.csv", CSV + '4,a.png,a,b,c,"d', r"a quote in the row of line 6 is never closed; close it, or double it"),
        ("v.csv", "question_id,question,question,image_id\n", r"several columns are named question; expected one name"),
        ("v.csv", b"\xff\xfeq\0u\0x", r"v\.csv cannot be read beyond line 0: .*utf-16"),
        ("v.csv", b"caf\xe9,question\n", r"the header is no UTF-8 text; save the file as UTF-8"),
        ("v.csv", "question\0,x\n", r"the name of a column holds a NUL character"),
        ("v.jsonl", '[{"question_id": 1}]', r"is one JSON value over all its lines; expected one JSON object per line"),
        ("v.json", '[\n {"question_id": 1}\n]', r"is one JSON value over all its lines"),
        ("v.jsonl", "", r"no column question_id, question, image_id or image_name; its columns are none"),
        ("v.xlsx", "", r"this kind of file is not read; expected \.csv, \.tsv, \.parquet"),
        ("v.parquet", "no parquet at all", r"v\.parquet cannot be read: "),
        ("v.parquet", "", r"v\.parquet cannot be read: "),
    ],
)
def test_files_that_cannot_be_used_say_what_was_found(tmp_path, images, name, text, message):
    with pytest.raises(UserError, match=message):
        read_rows(write(tmp_path / name, text), images)


def test_a_file_that_is_not_there(tmp_path, images):
    with pytest.raises(UserError, match=r"v\.csv cannot be read: No such file"):
        read_rows(str(tmp_path / "v.csv"), images)


def test_a_table_without_rows_has_none(tmp_path, images):
    table = read_rows(write(tmp_path / "v.csv", "question_id,image_id,question\n"), images)
    assert len(table.rows) == 0 and list(table.rows) == [] and table.bad == []
    assert len(sample(table.rows)) == 0


def test_text_of_a_parquet_file_that_is_no_utf8(tmp_path, images):
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    path = parquet(tmp_path / "v.parquet", question_id=["1"], image_id=["a.png"], question=broken)
    with pytest.raises(UserError, match=r"v\.parquet cannot be read: .*UTF8"):
        read_rows(path, images)


# Rows.


def many(tmp_path, images, n=20_000):
    text = "question_id,image_id,question,n\n" + "".join(f"q{i},{'ab'[i % 2]}.png,is {i}?,{i}\n" for i in range(n))
    return read_rows(write(tmp_path / "many.csv", text), images).rows


def test_rows_are_a_sequence_in_the_order_of_the_file(tmp_path, images):
    rows = many(tmp_path, images)
    assert len(rows) == 20_000
    everything = list(rows)
    assert [row.question_id for row in everything] == [f"q{i}" for i in range(20_000)]
    assert rows[5000] == everything[5000] == rows[-15_000] and rows[5000].carried == {"n": "5000"}
    assert [row.number for row in everything] == list(range(20_000)) and rows[100:][5000].number == 5100
    assert everything[0].mark == everything[2].mark != everything[1].mark, "by image"
    part = rows[9000:9003]
    assert list(part) == everything[9000:9003] and part[1].image.read() == png("blue")
    assert list(rows[::-5000]) == everything[::-5000] and list(rows[5:2]) == []
    assert list(rows.take([7, 3])) == [everything[7], everything[3]]
    with pytest.raises(IndexError):
        rows[20_000]


def test_a_sample_is_the_same_every_time_and_in_order(tmp_path, images):
    rows = many(tmp_path, images, 50)
    ids = sample(rows).question_ids
    assert ids == sample(rows).question_ids == ["q1", "q7", "q40"], "random.Random(42).sample(range(50), 3) is 40, 7, 1"
    assert sample(rows, seed=1).question_ids != ids
    assert sample(rows[:2]).question_ids == ["q0", "q1"]


def test_rows_carry_their_images_to_a_machine_without_the_files(tmp_path, images):
    rows = many(tmp_path, images, 4)
    carried = pickle.loads(pickle.dumps(rows[:3].carried()))
    (tmp_path / "images" / "a.png").unlink()
    assert [row.image.read() for row in carried] == [png("red"), png("blue"), png("red")]
    assert carried[0].image is carried[2].image, "one image travels once"
    assert [row.question_id for row in carried] == ["q0", "q1", "q2"]
    with pytest.raises(BadContentError, match=r"a\.png cannot be read: No such file"):
        rows[:1].carried()[0].image.read()


def digest(tmp_path, text, images):
    return read_rows(write(tmp_path / "d.csv", text), images).digest


def test_the_digest_is_of_texts_order_and_images(tmp_path, images):
    head = "question_id,image_id,question,answer,x\n"
    first, second = "1,a.png,one,a,b\n", "2,b.png,two,,\n2,b.png,two,a,b\n3,b.png,three,c,d\n"
    whole = digest(tmp_path, head + first + second, images)
    assert whole == digest(tmp_path, head + first + "bad line\n" + second, images), "bad rows decide nothing"
    other = [
        head + second + first,
        head + first,
        head.replace("x", "y") + first + second,
        head + first.replace("one", "on") + second,
        head + first.replace("a,b", "ab,") + second,
        head + first.replace("a,b", ",ab") + second,
        head + first.replace("a.png", "b.png") + second,
        head.replace("answer", "note") + first + second,
    ]
    found = {whole, *(digest(tmp_path, text, images) for text in other)}
    assert len(found) == len(other) + 1 and all(len(name) == 64 for name in found)
    (tmp_path / "images" / "a.png").write_bytes(png("red", (5, 4)))
    assert digest(tmp_path, head + first + second, images) not in found, "another image under the same name"


def test_a_digest_does_not_depend_on_how_rows_are_held(tmp_path, images):
    rows = many(tmp_path, images, 9000)
    assert rows[100:].digest() == rows.take(range(100, 9000)).digest() != rows.digest()


def test_a_table_of_an_object_store(tmp_path, images):
    import fsspec

    folder = f"bucket-{uuid.uuid4().hex}"
    filesystem = fsspec.filesystem("memory")
    for name, colour in COLOURS.items():
        filesystem.pipe_file(f"/{folder}/images/{name}", png(colour))
    filesystem.pipe_file(f"/{folder}/vqa.csv", CSV.encode())
    pq.write_table(pa.table({"question_id": ["1"], "question": ["?"], "image": [png("red")]}), tmp_path / "v.parquet")
    filesystem.pipe_file(f"/{folder}/vqa.parquet", (tmp_path / "v.parquet").read_bytes())
    try:
        table = read_rows(f"memory://{folder}/vqa.csv", open_images(f"memory://{folder}/images"))
        assert shown(table.rows) == EXPECTED
        assert [row.image.read() for row in table.rows] == [png("red"), png("lime"), png("blue")]
        (row,) = read_rows(f"memory://{folder}/vqa.parquet").rows
        assert row.image.read() == png("red")
    finally:
        filesystem.rm(f"/{folder}", recursive=True)


# Images inside of Parquet.


def embedded(tmp_path, cells, type=None, **columns):
    n = len(cells)
    ids = {"question_id": [str(i) for i in range(n)], "question": [f"q{i}" for i in range(n)]}
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({**ids, "image": pa.array(cells, type), **columns}), path, row_group_size=3)
    return str(path)


def test_images_are_read_from_a_column_of_bytes(tmp_path):
    colours = ["red", "blue", "lime", "red", "black", "white", "navy"]
    table = read_rows(embedded(tmp_path, [png(c) for c in colours], kind=["k"] * 7))
    assert table.bad == [] and table.left_out == []
    assert [row.image.read() for row in table.rows] == [png(c) for c in colours]
    assert [table.rows[i].image.read() for i in (6, 0, 4, 3, 5)] == [png(colours[i]) for i in (6, 0, 4, 3, 5)]
    assert {row.image.pixels() for row in table.rows} == {24}
    ids = [row.image_id for row in table.rows]
    assert ids[0] == ids[3] == f"sha256:{hashlib.sha256(png('red')).hexdigest()[:16]}" and len(set(ids)) == 6
    assert table.rows[0].carried == {"kind": "k"}


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_structs_of_bytes_and_path(tmp_path, images):
    cells = [
        {"bytes": png("red"), "path": "whatever.png"},
        {"bytes": None, "path": "b.png"},
        {"bytes": None, "path": "../b.png"},
        None,
        {"bytes": b"", "path": None},
        {"bytes": b"no image", "path": None},
    ]
    path = embedded(tmp_path, cells, STRUCT, image_id=list("xxyyzz"))
    table = read_rows(path, images, image_column="image")
    assert [row.image_id for row in table.rows] == ["x", "x", "z"]
    assert [row.image.read() for row in table.rows] == [png("red"), png("blue"), b"no image"]
    assert [row.image.pixels() for row in table.rows] == [24, 24, 0], "a broken image is found where it is decoded"
    assert [(b.item_id, b.reason) for b in table.bad] == [
        ("2", "the image name '../b.png' leads out of its folder by ..; expected a path relative to --images-dir"),
        ("3", "its image is empty; expected an image"),
        ("4", "its image is empty; expected an image"),
    ]
    alone = read_rows(path)
    assert alone.rows.question_ids == ["0", "5"]
    assert alone.bad[0].reason == (
        "its image holds the path 'b.png' and no bytes; pass --images-dir, or write the bytes into the file"
    )
    beside = read_rows(embedded(tmp_path, cells, STRUCT), images, image_column="image")
    assert [row.image_id for row in beside.rows][1] == "b.png"


def test_the_digest_is_of_the_bytes_of_embedded_images(tmp_path):
    first = read_rows(embedded(tmp_path, [png("red"), png("blue")])).digest
    assert read_rows(embedded(tmp_path, [png("red"), png("blue")])).digest == first
    ids = {"image_id": ["a", "b"]}
    named = read_rows(embedded(tmp_path, [png("red"), png("blue")], **ids)).digest
    assert read_rows(embedded(tmp_path, [png("red"), png("lime")], **ids)).digest != named


def test_an_embedded_image_is_never_taken_for_what_replaced_it(tmp_path):
    path = embedded(tmp_path, [png("red"), png("blue")])
    rows = read_rows(path).rows
    os.unlink(path)
    embedded(tmp_path, [png("red"), png("lime")])
    assert rows[0].image.read() == png("red")
    with pytest.raises(BadContentError, match=r"row 2 of .*e\.parquet has changed since the run began; run again"):
        rows[1].image.read()
    embedded(tmp_path, [png("red"), png("blue")])
    assert rows[1].image.read() == png("blue")
    held = rows[1].image.carried()
    os.unlink(path)
    assert pickle.loads(pickle.dumps(held)).read() == png("blue") and held.pixels() == 24


def test_which_column_and_folder_the_images_are_in(tmp_path, images):
    path = embedded(tmp_path, [png("red")], image_id=["b.png"], photo=[png("navy")], file=["sub/c.jpg"])
    assert read_rows(path).rows[0].image.read() == png("red")
    assert read_rows(path).left_out == ["photo"]
    assert read_rows(path, image_column="photo").rows[0].image.read() == png("navy")
    assert read_rows(path, images).rows[0].image.read() == png("blue"), "a folder that is given is used"
    (row,) = read_rows(path, images, image_column="file").rows
    assert (row.image.read(), row.image_id, row.carried) == (png("lime"), "b.png", {"file": "sub/c.jpg"})
    with pytest.raises(UserError, match=r"file, which --image-column names, holds no bytes but text; pass"):
        read_rows(path, image_column="file")
    with pytest.raises(UserError, match=r"no column picture, which --image-column names; its columns are q"):
        read_rows(path, image_column="picture")


def test_a_file_without_images_asks_for_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"nothing says where the images are; pass --images-dir"):
        read_rows(write(tmp_path / "v.csv", CSV))
    path = parquet(tmp_path / "v.parquet", question_id=["1"], question=["?"], photo=[b"x"])
    with pytest.raises(UserError, match=r"it has images in photo: name one with --image-column"):
        read_rows(path)


def test_embedded_images_are_read_from_many_threads(tmp_path):
    colours = ["red", "blue", "lime", "black"] * 25
    rows = read_rows(embedded(tmp_path, [png(c) for c in colours])).rows
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: rows[i].image.read(), [*range(99, -1, -1)]))
    assert found == [png(c) for c in reversed(colours)]
