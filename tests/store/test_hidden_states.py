"""Hidden states on disk: what is written is read again, by raylib and by readers of the old scripts' files."""

import json
import pickle

import h5py
import numpy as np
import pytest

from raylib import storage
from raylib.store.hidden_states import StateTable, open_states, part_name, write_part
from raylib.store.representations import Representation

VISION, QUERY3, QUERY10 = (
    Representation("vision_only"),
    Representation("query_token", 3),
    Representation("query_token", 10),
)
TOKEN3, BOTH3 = Representation("vision_token", 3), Representation("multimodal", 3)
WIDTHS = {VISION: 5, QUERY3: 4, QUERY10: 4, TOKEN3: 4, BOTH3: 4}
ABOUT = {
    "model_name": "org/tiny",
    "num_samples": 3,
    "layers": [3, 10],
    "layer_fractions": [0.25, 1.0],
    "boundary": "exact",
    "names": ["a", "b"],
    "versions": {"torch": "2.9", "raylib": "0.1"},
    "nothing": None,
    "empty": [],
}


def states(n, seed=0):
    rng = np.random.default_rng(seed)
    return {one: rng.standard_normal((n, width)).astype(np.float32) for one, width in WIDTHS.items()}


def table(ids=("q1", "q2", "q3"), seed=0, **changes):
    n = len(ids)
    settings = {
        "question_ids": list(ids),
        "texts": {
            "image_id": [f"image {i}" for i in ids],
            "question": [f"What is {i}?" for i in ids],
            "ground_truth_answer": ["yes"] * n,
            "answer": ["ja, “schön”"] * n,
            "category": ["x"] * n,
        },
        "states": states(n, seed),
        "image_spans": np.array([[4 + i, 9 + i] for i in range(n)], np.int64).reshape(n, 2),
        "vision_positions": np.arange(n) + 8,
        "query_positions": np.arange(n) + 20,
        "image_tokens": np.arange(n) + 5,
        "about": ABOUT,
        "failed": [("bad/1", "no such image"), ("bad2", "empty question")],
    }
    return StateTable(**{**settings, **changes})


FORMS = pytest.mark.parametrize(
    ("form", "compression"), [("hdf5", None), ("hdf5", "lzf"), ("parquet", None)], ids=["hdf5", "lzf", "parquet"]
)


@FORMS
@pytest.mark.parametrize("where", ["{tmp}", "memory://states-{tmp}"])
def test_what_is_written_is_read_again(form, compression, where, tmp_path):
    path = storage.join(where.format(tmp=tmp_path), part_name("tiny", 1, form))
    written = table()
    write_part(written, path, form, compression)
    found = open_states(path)
    assert found.question_ids == ["q1", "q2", "q3"] and len(found) == 3
    assert found.about == ABOUT and found.failed == written.failed
    assert found.representations == sorted(WIDTHS)
    assert found.text_names == list(written.texts)
    for name, values in written.texts.items():
        assert found.texts(name) == values
    for one, values in written.states.items():
        matrix = found.matrix(one)
        assert matrix.dtype == np.float32 and np.array_equal(matrix, values)
        assert [question_id for question_id, _ in found.vectors(one)] == ["q1", "q2", "q3"]
        assert np.array_equal([vector for _, vector in found.vectors(one)], values)
    row = pickle.loads(pickle.dumps(found)).row("q2")
    assert (row.path, row.question_id) == (path, "q2")
    assert row.texts == {name: values[1] for name, values in written.texts.items()}
    assert row.positions == {"image_span": [5, 10], "vision_position": 9, "query_position": 21, "image_tokens": 6}
    assert row.states.keys() == WIDTHS.keys()
    assert all(np.array_equal(row.states[one], values[1]) for one, values in written.states.items())


@pytest.mark.parametrize("compression", [None, "lzf"])
def test_a_reader_of_the_old_files_finds_its_names(compression, tmp_path):
    written = table()
    write_part(written, tmp_path / "x.h5", "hdf5", compression)
    with h5py.File(tmp_path / "x.h5") as file:
        assert set(file) == {"q1", "q2", "q3", "columns"}
        assert file.attrs["model_name"] == "org/tiny" and file.attrs["num_samples"] == 3
        assert file.attrs["layers"].tolist() == [3, 10]
        assert json.loads(file.attrs["versions"]) == {"torch": "2.9", "raylib": "0.1"}
        row = file["q2"]
        assert row["answer"][()].decode() == "ja, “schön”" and row["answer"].shape == ()
        assert set(row["query_token_representation"]) == {"layer_3", "layer_10"}
        for path, one in {
            "vision_only_representation": VISION,
            "vision_token_representation/layer_3": TOKEN3,
            "query_token_representation/layer_10": QUERY10,
            "multimodal_representation/layer_3": BOTH3,
        }.items():
            assert row[path].dtype == np.float32 and np.array_equal(row[path][:], written.states[one][1])
            assert row[path].compression == compression
        assert row.attrs["question_id"] == "q2" and row.attrs["image_span"].tolist() == [5, 10]
        assert (row.attrs["vision_position"], row.attrs["query_position"], row.attrs["image_tokens"]) == (9, 21, 6)
        column = file["columns/query_token/layer_10"]
        assert np.array_equal(column[:], written.states[QUERY10]) and column.compression == compression
        assert file["columns/question_id"].asstr()[:].tolist() == ["q1", "q2", "q3"]
        assert file["columns/category"].asstr()[:].tolist() == ["x"] * 3
