"""What is mined is written as training data, and read back as what it was."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.examples.examples import read_examples
from raylib.examples.writers import Mined, write_mined
from tests.examples.made_pairs import png, write_images, write_jsonl, write_pages

MINED = Mined(np.array([0, 2, 3]), np.array([1, 2, 0]), np.array([0.75, 0.5, 0.25], np.float32), np.array([4, 9, 31]))


@pytest.fixture
def examples(tmp_path):
    write_images(tmp_path / "img")
    rows = [
        {"query": "a", "pos": "img/red.png", "negs": []},
        {"query": {"text": "b", "image": "img/blue.png"}, "pos": {"text": "ends in.png"}, "negs": ["third"]},
    ]
    return read_examples(write_jsonl(tmp_path / "train.jsonl", rows), root=str(tmp_path))


def test_jsonl(examples, tmp_path):
    write_mined(str(tmp_path / "out.jsonl"), examples, MINED)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "query": "a",
        "pos": "img/red.png",
        "negs": [{"text": "ends in.png"}, "third"],
        "id": "train.jsonl#line=1",
        "dataset": "train",
        "neg_scores": [0.75, 0.5],
        "neg_ranks": [4, 9],
    }
    assert lines[1]["query"] == {"text": "b", "image": "img/blue.png"}
    assert lines[1]["negs"] == ["img/red.png"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_what_is_written_reads_back(examples, tmp_path, name):
    write_mined(str(tmp_path / name), examples, MINED)
    again = read_examples(str(tmp_path / name), root=str(tmp_path))
    assert (again.ids, again.datasets) == (examples.ids, examples.datasets)
    for side in ("queries", "documents"):
        old, new = getattr(examples, side), getattr(again, side)
        assert (new.texts, new.images) == (old.texts, old.images)
    assert again.positive.tolist() == examples.positive.tolist()
    assert (again.offsets.tolist(), again.negatives.tolist()) == (MINED.offsets.tolist(), MINED.documents.tolist())


def test_parquet_has_the_columns_of_mmeb(examples, tmp_path):
    write_mined(str(tmp_path / "out.parquet"), examples, MINED)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert rows[1] == {
        "id": "train.jsonl#line=2",
        "dataset": "train",
        "qry": "b",
        "qry_image_path": "img/blue.png",
        "pos_text": "ends in.png",
        "pos_image_path": "",
        "neg_text": [""],
        "neg_image_path": ["img/red.png"],
        "neg_scores": [0.25],
        "neg_ranks": [31],
    }


def test_pages_of_a_data_set_go_by_their_items(tmp_path):
    write_pages(tmp_path / "owner" / "pages")
    pages = read_examples(hub_name="owner/pages", root=str(tmp_path))
    mined = Mined(np.array([0, 1, 1, 1]), np.array([2]), np.array([0.5], np.float32), np.array([1]))
    write_mined(str(tmp_path / "out.jsonl"), pages, mined)
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert (first["pos"], first["negs"]) == ("owner/pages/train/doc_0.png", ["owner/pages/train/doc_2.png"])
    again = read_examples(str(tmp_path / "out.jsonl"), root=str(tmp_path))
    assert again.documents.source.rows(again.given_negatives(0).tolist()) == [{"image": png("blue")}]


def test_an_image_without_a_name_is_not_lost_unseen(tmp_path):
    cell = pa.array([{"bytes": png("red"), "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"query": ["a"], "pos": cell}), tmp_path / "t.parquet")
    examples = read_examples(str(tmp_path / "t.parquet"), root=str(tmp_path))
    assert examples.documents.source.rows([0]) == [{"image": png("red")}]
    none = Mined(np.array([0, 0]), np.array([], np.int64), np.array([], np.float32), np.array([], np.int64))
    with pytest.raises(UserError, match=r"t\.parquet#row=1, positive: its image lies inside of a table"):
        write_mined(str(tmp_path / "out.jsonl"), examples, none)
    assert not (tmp_path / "out.jsonl").exists()


def test_arrays_that_do_not_fit(examples, tmp_path):
    with pytest.raises(UserError, match=r"expected \.jsonl or \.parquet"):
        write_mined(str(tmp_path / "out.txt"), examples, MINED)
    for wrong in (
        Mined(MINED.offsets, MINED.documents, MINED.scores[:1], MINED.ranks),
        Mined(np.array([0, 4, 3]), MINED.documents, MINED.scores, MINED.ranks),
        Mined(MINED.offsets, MINED.documents + 1, MINED.scores, MINED.ranks),
    ):
        with pytest.raises(ValueError, match=r"offsets|documents"):
            write_mined(str(tmp_path / "out.jsonl"), examples, wrong)
