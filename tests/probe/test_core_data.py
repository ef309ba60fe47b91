"""Labels as files have them, and the rows they name."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.probe.data import NO_LABEL, NO_STATES, join
from raylib.probe.labels import Labels, read_labels
from raylib.store.hidden_states import HiddenStates
from raylib.store.representations import Representation
from tests.probe.made import QUERY, write_states

VISION = Representation("vision_only")


def csv_file(folder, text):
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def labels_of(ids, y, **columns):
    return Labels("labels.csv", "wrong", list(ids), np.array(y, np.int8), columns)


def test_every_spelling_of_a_label_is_read(tmp_path):
    cells = ["True", "1", "YES", "true", " yes ", "1.0", "False", "0", "No", "FALSE", "0.0"]
    path = csv_file(tmp_path, "question_id,wrong\n" + "".join(f"q{at},{cell}\n" for at, cell in enumerate(cells)))
    labels = read_labels(path, "wrong")
    assert labels.y.tolist() == [1] * 6 + [0] * 5
    assert labels.y.dtype == np.int8
    assert labels.ids == [f"q{at}" for at in range(11)]


@pytest.mark.parametrize(
    "column", [pa.array([True, False]), pa.array([1, 0]), pa.array([1.0, 0.0]), pa.array(["yes", "no"])]
)
def test_parquet_labels_of_any_type(tmp_path, column):
    path = str(tmp_path / "labels.parquet")
    pq.write_table(pa.table({"question_id": [7, 8], "wrong": column, "category": ["a", None], "n": [1, 2]}), path)
    labels = read_labels(path, "wrong")
    assert (labels.ids, labels.y.tolist()) == (["7", "8"], [1, 0])
    assert labels.columns == {"category": ["a", ""], "n": ["1", "2"]}


def test_jsonl_labels(tmp_path):
    rows = [{"question_id": "a", "wrong": True}, {"question_id": "b", "wrong": 0, "source": "VQA"}]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = read_labels(str(path), "wrong")
    assert (labels.ids, labels.y.tolist(), labels.columns) == (["a", "b"], [1, 0], {"source": ["", "VQA"]})


def test_columns_by_other_names(tmp_path):
    path = csv_file(tmp_path, "id,wrong,topic,category\nq1,1,cats,x\nq2,0,dogs,y\n")
    labels = read_labels(path, "wrong", {"question_id": "id", "category": "topic", "source": None})
    assert labels.ids == ["q1", "q2"]
    assert labels.columns["category"] == ["cats", "dogs"]
    assert "source" not in labels.columns
    with pytest.raises(UserError, match="has no column subject; its columns are id, wrong, topic, category"):
        read_labels(path, "wrong", {"question_id": "id", "category": "subject"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("question_id,wrong\na,1\nb,maybe\n", r"a line that cannot be used: line 3: wrong is 'maybe'\. Expected true"),
        ("question_id,wrong\na,1\nb,\n", r"line 3: wrong is empty"),
        ("question_id,wrong\na,1\nb,2\n", r"line 3: wrong is '2'"),
        ("question_id,wrong\na,1\nb,0\na,0\n", r"line 4: question_id 'a' is that of line 2 too"),
        ("question_id,wrong\na,1\n ,0\n", r"line 3: question_id is empty"),
        ("question_id,wrong\na,1\nb,0,x\n", r"line 3: the line has 3 fields"),
        ("question_id,right\na,1\n", r"has no column wrong; its columns are question_id, right\."),
        ("id,wrong\na,1\n", r"has no column question_id; its columns are id, wrong"),
        ("question_id,wrong\n", "has a header, but no rows"),
        ("question_id,wrong\n" + "".join(f"q{at},?\n" for at in range(8)), r"8 lines that .*; and 3 more\. Expected"),
    ],
)
def test_labels_that_cannot_be_used_are_named(tmp_path, text, says):
    with pytest.raises(UserError, match=says):
        read_labels(csv_file(tmp_path, text), "wrong")


def test_rows_are_joined_by_id_in_the_order_of_the_states(tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    states = write_states(tmp_path, ["d", "a", "c", "b"], {QUERY: x})
    data = join(
        states,
        labels_of(["a", "b", "x", "d"], [1, 0, 1, 0], image_id=["1", "2", "3", ""], dataset=["A", "B", "C", "D"]),
    )
    assert data.ids == ["d", "a", "b"]
    assert data.y.tolist() == [0, 1, 0]
    assert data.rows.tolist() == [0, 1, 3]
    assert data.matrix(states, QUERY).tolist() == x[[0, 1, 3]].tolist()
    assert data.dropped == {NO_LABEL: 1, NO_STATES: 1}
    assert data.images[1:] == ["1", "2"]
    assert data.images[0] not in ("", "1", "2")
    assert data.image_column == "image_id"
    assert data.columns == {"source": ["D", "A", "B"]}
    assert data.sources == ["D", "A", "B"]


def test_what_the_labels_do_not_tell_is_taken_from_the_states(tmp_path):
    texts = {"image_id": ["i1", "i1"], "category": ["state", "state"], "source": ["s", "t"], "domain_type": ["x", "y"]}
    states = write_states(tmp_path, ["a", "b"], {QUERY: np.zeros((2, 3))}, **texts)
    data = join(states, labels_of(["b", "a"], [1, 0], category=["of b", "of a"]))
    assert data.images == ["i1", "i1"]
    assert data.columns == {"category": ["of a", "of b"], "source": ["s", "t"], "domain": ["x", "y"]}
    assert data.dropped == {}


def test_without_images_each_row_is_its_own(tmp_path):
    states = write_states(tmp_path, ["a", "b"], {QUERY: np.zeros((2, 3))})
    data = join(states, labels_of(["a", "b"], [1, 0]))
    assert data.image_column is None
    assert len(set(data.images)) == 2


def test_no_common_row_is_an_error_that_shows_both(tmp_path):
    states = write_states(tmp_path, ["a", "b"], {QUERY: np.zeros((2, 3))})
    with pytest.raises(UserError, match=r"no question_id of labels.csv .* '1', '2' there, 'a', 'b' here"):
        join(states, labels_of(["1", "2"], [1, 0]))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_broken_vectors_are_named(tmp_path, broken):
    x = np.zeros((4, 3), np.float32)
    x[1, 2] = broken
    x[2] = broken
    states = write_states(tmp_path, list("abcd"), {QUERY: x, VISION: np.zeros((4, 2))})
    data = join(states, labels_of("abcd", [1, 0, 1, 0]))
    with pytest.raises(UserError, match="query_token/layer_4 holds NaN or infinity in 2 of 4 rows: b, c"):
        data.matrix(states, QUERY)
    assert data.matrix(states, VISION).shape == (4, 2)
    without = join(states, labels_of("ad", [1, 0]))  # broken rows without a label are no matter
    assert without.matrix(states, QUERY).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_vector_that_an_old_file_lacks_is_nan_and_no_error(tmp_path):
    import h5py

    path = str(tmp_path / "old_part_001.h5")
    with h5py.File(path, "w") as file:
        for id in ("a", "b", "c"):
            group = file.create_group(id)
            group["image_id"] = f"{id}.jpg"
            if id != "b":
                group["query_token_representation/layer_4"] = np.ones(3, np.float32)
            group["vision_only_representation"] = np.full(2, np.nan if id == "c" else 1, np.float32)
    from raylib.store.hidden_states import open_states

    states: HiddenStates = open_states(path)
    data = join(states, labels_of("abc", [1, 0, 1]))
    x = data.matrix(states, QUERY)
    assert np.isnan(x).all(axis=1).tolist() == [False, True, False]
    with pytest.raises(UserError, match="vision_only holds NaN or infinity in 1 of 3 rows: c"):
        data.matrix(states, VISION)
    assert data.images == ["a.jpg", "b.jpg", "c.jpg"]
