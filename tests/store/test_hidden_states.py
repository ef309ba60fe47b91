"""Hidden states on disk: what is written is read again, by raylib and by readers of the old scripts' files."""

import json
import pickle
import re
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib import storage
from raylib.errors import UnknownNameError, UserError
from raylib.store.hidden_states import StateTable, open_states, part_name, write_part
from raylib.store.representations import Representation
from raylib.store.state_table import row_name, text_name, unescape

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
    assert {name: values.tolist() for name, values in found.positions().items()} == {
        "image_span": [[4, 9], [5, 10], [6, 11]],
        "vision_position": [8, 9, 10],
        "query_position": [20, 21, 22],
        "image_tokens": [5, 6, 7],
    }
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
    assert (tmp_path / "x.h5").read_bytes()[8] == 0, "the first version of the format, for readers of any age"
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
        }.items():
            assert row[path].dtype == np.float32 and np.array_equal(row[path][:], written.states[one][1])
            assert row[path].compression == compression
        assert not [name for name in row if name.startswith(("multimodal", "image_mean", "text_mean"))]
        assert np.array_equal(file["columns/multimodal/layer_3"][:], written.states[BOTH3]), "what is new lies there"
        assert row.attrs["question_id"] == "q2" and row.attrs["image_span"].tolist() == [5, 10]
        assert (row.attrs["vision_position"], row.attrs["query_position"], row.attrs["image_tokens"]) == (9, 21, 6)
        column = file["columns/query_token/layer_10"]
        assert np.array_equal(column[:], written.states[QUERY10]) and column.compression == compression
        assert file["columns/question_id"].asstr()[:].tolist() == ["q1", "q2", "q3"]
        assert file["columns/category"].asstr()[:].tolist() == ["x"] * 3


# Names.

IDS = ["a/b", "a", "", ".", "..", "%2F", "a%2Fb", "columns", "ж 猫", "x" * 300, "100%", "/", "a/", "layout"]


@FORMS
def test_every_id_is_one_row_and_comes_back(form, compression, tmp_path):
    path = tmp_path / part_name("ids", 1, form)
    written = table(IDS)
    write_part(written, path, form, compression)
    found = open_states(path)
    assert found.question_ids == IDS
    for at, question_id in enumerate(IDS):
        assert np.array_equal(found.row(question_id).states[QUERY3], written.states[QUERY3][at])
        assert unescape(row_name(question_id)) == question_id
    if form == "hdf5":
        with h5py.File(path) as file:
            assert len(file) == len(IDS) + 1, "one group a row, and the columns"
            assert {group.attrs["question_id"] for name, group in file.items() if name != "columns"} == set(IDS)
            assert np.array_equal(file["a%2Fb/vision_only_representation"][:], written.states[VISION][0])


TAKEN = [
    "question_id",
    "vision_only",
    "query_token/layer_3",
    "vision_token_representation",
    "image_span",
    "failed_reason",
]


@FORMS
def test_a_carried_column_may_have_any_name(form, compression, tmp_path):
    texts = {name: [f"{name} {at}" for at in range(3)] for name in [*TAKEN, "a/b", "", "answer", "100%"]}
    path = tmp_path / part_name("x", 1, form)
    written = table(texts=texts)
    write_part(written, path, form, compression)
    found = open_states(path)
    assert {name: found.texts(name) for name in found.text_names} == texts
    assert found.row("q3").texts == {name: values[2] for name, values in texts.items()}
    assert np.array_equal(found.matrix(QUERY3), written.states[QUERY3])
    assert all(unescape(text_name(name)) == name for name in texts)


@FORMS
def test_texts_that_no_file_can_hold_are_mended_and_such_ids_refused(form, compression, tmp_path):
    path = tmp_path / part_name("x", 1, form)
    answers = ["a\0b", "half \ud83d", "whole \U0001f600"]
    write_part(table(texts={"answer": answers}), path, form, compression)
    assert open_states(path).texts("answer") == ["a\ufffdb", "half \ufffd", "whole \U0001f600"]
    for wrong in ("a\0", "\ud83d"):
        with pytest.raises(UserError, match="has characters that no file can hold; give the row another"):
            write_part(table([wrong]), path, form, compression)


# What a part may be.


@FORMS
def test_a_part_may_have_no_rows_or_a_great_many_failures(form, compression, tmp_path):
    failed = [(f"q{i}", "the image is broken: " + "x" * 200) for i in range(1000)]
    empty = table((), failed=failed, image_spans=np.array([]))
    write_part(empty, tmp_path / part_name("x", 1, form), form, compression)
    write_part(table(), tmp_path / part_name("x", 2, form), form, compression)
    found = open_states(tmp_path)
    assert found.question_ids == ["q1", "q2", "q3"] and found.failed == failed + table().failed
    assert found.matrix(VISION).shape == (3, 5) and found.texts("answer") == ["ja, “schön”"] * 3
    with pytest.raises(UserError, match=r"row 'q77' has no hidden states: the image is broken"):
        found.row("q77")


def test_attributes_of_every_kind_and_size_come_back(tmp_path):
    about = {
        "long": list(range(20_000)),
        "text": "x" * 100_000,
        "flag": True,
        "number": np.float32(0.5),
        "mixed": [1, "a"],
    }
    about |= {"nested": {"a": [1, {"b": None}]}, "looks like JSON": '{"a": 1}'}
    write_part(table(about=about), tmp_path / "x_part_001.h5", "hdf5")
    write_part(table(about=about), tmp_path / "y_part_001.parquet", "parquet")
    assert open_states(tmp_path / "x_part_001.h5").about == about == open_states(tmp_path / "y_part_001.parquet").about


@FORMS
def test_the_same_rows_give_the_same_bytes_and_memory_maps_serve(form, compression, tmp_path):
    written = table()
    maps = {}
    for one, values in written.states.items():
        mapped = np.memmap(tmp_path / f"{one.path.replace('/', '-')}.raw", np.float32, "w+", shape=values.shape)
        mapped[:] = values
        maps[one] = mapped
    write_part(written, tmp_path / "a", form, compression)
    write_part(table(states=dict(reversed(maps.items()))), tmp_path / "b", form, compression)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    if form == "hdf5":  # two writes within a second would hide a time
        times = []
        with h5py.File(tmp_path / "a") as file:
            file.visititems(lambda _, item: times.append(h5py.h5g.get_objinfo(item.id).mtime))
        assert len(times) > 40 and not any(times)


@FORMS
def test_writing_and_reading_hold_little_more_than_is_asked(form, compression, tmp_path):
    n, width = 400, 1000
    one_matrix = 4 * n * width
    kinds = [Representation("query_token", layer) for layer in range(10)]
    rows = np.memmap(tmp_path / "raw", np.float32, "w+", shape=(len(kinds), n, width))
    rows[:] = np.random.default_rng(0).standard_normal(rows.shape, np.float32)
    big = table([f"q{i}" for i in range(n)], states=dict(zip(kinds, rows, strict=True)))
    path = tmp_path / part_name("x", 1, form)
    tracemalloc.start()
    try:
        write_part(big, path, form, compression)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * one_matrix, "of ten that are written"
        found = open_states(path)
        tracemalloc.reset_peak()
        matrix = found.matrix(kinds[7])
        assert tracemalloc.get_traced_memory()[1] < 2.5 * one_matrix
    finally:
        tracemalloc.stop()
    assert np.array_equal(matrix, rows[7])


def test_what_the_documentation_reads_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layer = Representation("query_token", 24)
    written = table(states={layer: states(3)[QUERY3]})
    for form in ("hdf5", "parquet"):
        write_part(written, part_name("output/gemma3_12b_embeddings", 1, form), form)
    text = (Path(__file__).parents[2] / "docs" / "hidden-states.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        if "open_states" in block:
            Path("output/gemma3_12b_embeddings_part_001.parquet").rename("aside.parquet")
        names = {}
        exec(block, names)
        assert np.array_equal(names["vectors"], written.states[layer])
        if "open_states" in block:
            assert names["questions"] == written.texts["question"] and names["spans"].tolist() == [
                [4, 9],
                [5, 10],
                [6, 11],
            ]
            Path("aside.parquet").rename("output/gemma3_12b_embeddings_part_001.parquet")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"question_ids": ["a", "a", "b"]}, "not distinct"),
        ({"question_ids": ["a", "b"], "image_spans": [[1, 2], [3, 4]]}, "2 question_ids, but other numbers of rows in"),
        ({"states": {VISION: np.zeros((3, 2))}}, "vision_only is float64"),
        ({"states": {VISION: np.zeros(3, np.float32)}}, r"vision_only is float32 \(3,\)"),
        ({"image_spans": np.zeros((3, 3), int)}, "image_spans has shape"),
    ],
)
def test_a_table_whose_parts_do_not_fit_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        table(**changes)


def test_lzf_is_no_compression_of_parquet(tmp_path):
    with pytest.raises(UserError, match="lzf is a compression of HDF5"):
        write_part(table(), tmp_path / "x.parquet", "parquet", "lzf")


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 2 * sum(4 * 3 * width for width in WIDTHS.values()) - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"cannot write .*x.h5: No space left on device"):
        write_part(table(), tmp_path / "x.h5", "hdf5")
    assert list(tmp_path.iterdir()) == []
    usage.free += 1
    write_part(table(), tmp_path / "x.h5", "hdf5")
    assert len(open_states(tmp_path)) == 3


# Folders.


@FORMS
@pytest.mark.parametrize("where", ["{tmp}", "memory://folder-{tmp}"])
def test_a_folder_is_the_parts_of_one_run_by_number(form, compression, where, tmp_path):
    folder = where.format(tmp=tmp_path)
    parts = {number: table([f"{number}-a", f"{number}-b"], number) for number in (1, 2, 999, 1000)}
    for number in (1000, 2, 999, 1):
        write_part(parts[number], storage.join(folder, part_name("run", number, form)), form, compression)
    storage.write_text(storage.join(folder, "manifest.json"), "{}")
    storage.write_text(storage.join(folder, "errors.parquet"), "something else")
    storage.write_text(storage.join(folder, ".run_part_003.h5.0123.part"), "being written")
    for path in (folder, folder + "/", storage.join(folder, "run")):
        found = open_states(path)
        assert found.question_ids == [f"{number}-{row}" for number in parts for row in "ab"]
        assert found.about == {**ABOUT, "num_samples": 8}
        expected = np.concatenate([part.states[TOKEN3] for part in parts.values()])
        assert np.array_equal(found.matrix(TOKEN3), expected)
        assert found.texts("image_id") == [f"image {question_id}" for question_id in found.question_ids]
        assert found.row("999-b").path.endswith(part_name("run", 999, form))


def test_several_runs_in_one_folder_must_be_told_apart(tmp_path):
    for prefix in ("gemma", "qwen"):
        write_part(table(), tmp_path / part_name(prefix, 1, "hdf5"), "hdf5")
    with pytest.raises(
        UserError, match=r"hidden states of several runs: gemma \(h5\), qwen \(h5\)\. Name one file, or"
    ):
        open_states(tmp_path)
    assert len(open_states(tmp_path / "qwen")) == 3
    write_part(table(), tmp_path / part_name("qwen", 1, "parquet"), "parquet")
    with pytest.raises(
        UserError, match=r"qwen holds one run in several forms: .h5, .parquet. Move all but one form away"
    ):
        open_states(tmp_path / "qwen")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ids": ("q3", "q4")}, r"row 'q3' is in .*x_part_001.h5 and in .*x_part_002.h5; expected each row once"),
        ({"about": {**ABOUT, "model_name": "other"}}, "model_name is 'org/tiny' in .*x_part_001.h5 and 'other' in"),
        ({"about": {**ABOUT, "layers": [3, 9]}}, r"layers is \[3, 10\] in .*x_part_001.h5 and \[3, 9\] in"),
        (
            {"states": {VISION: np.ones((2, 5), np.float32)}},
            "different representations: only one of them has multimodal",
        ),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(changes, said, tmp_path):
    write_part(table(), tmp_path / "x_part_001.h5", "hdf5")
    write_part(table(**{"ids": ("q4", "q5"), **changes}), tmp_path / "x_part_002.h5", "hdf5")
    with pytest.raises(UserError, match=said):
        open_states(tmp_path)


def test_parts_of_different_widths_are_refused_when_they_are_asked(tmp_path):
    write_part(table(), tmp_path / "x_part_001.h5", "hdf5")
    other = {**states(2), VISION: np.ones((2, 7), np.float32)}
    write_part(table(("q4", "q5"), states=other), tmp_path / "x_part_002.h5", "hdf5")
    with pytest.raises(UserError, match=r"vision_only has 5 dimensions in .*x_part_001.h5 and 7 in .*x_part_002.h5"):
        open_states(tmp_path).matrix(VISION)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no hidden states; expected files named like"):
        open_states(tmp_path)
    with pytest.raises(UserError, match="holds no hidden states"):
        open_states(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"gone.h5 does not exist"):
        open_states(tmp_path / "gone.h5")
    write_part(table(), tmp_path / "x.h5", "hdf5")
    found = open_states(tmp_path)
    with pytest.raises(UnknownNameError, match=r"unknown column 'anwser'. Did you mean answer"):
        found.texts("anwser")
    with pytest.raises(
        UnknownNameError, match=r"unknown representation 'query_token/layer_4'.*There are: multimodal/lay"
    ):
        found.matrix(Representation("query_token", 4))
    with pytest.raises(UnknownNameError, match=r"unknown row 'q11'. Did you mean q1"):
        found.row("q11")


@pytest.mark.parametrize("form", ["hdf5", "parquet"])
@pytest.mark.parametrize("keep", [0, 50, 0.5, 0.99])
@pytest.mark.parametrize("where", ["{tmp}", "memory://damaged-{tmp}"])
def test_a_damaged_file_is_named(form, keep, where, tmp_path):
    write_part(table(), tmp_path / "whole", form)
    whole = (tmp_path / "whole").read_bytes()
    folder = where.format(tmp=tmp_path)
    path = storage.join(folder, part_name("x", 1, form))
    with storage.atomic_write(path) as stream:
        stream.write(whole[: int(keep * len(whole)) if keep < 1 else keep])
    said = rf"{part_name('x', 1, form)} cannot be read as .*It is damaged, or its writing was cut short"
    with pytest.raises(UserError, match=said):
        open_states(folder)


def test_parquet_of_something_else_and_a_later_layout_are_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x_part_001.parquet")
    with pytest.raises(UserError, match="is Parquet, but holds no hidden states"):
        open_states(tmp_path)
    write_part(table(), tmp_path / "y.h5", "hdf5")
    with h5py.File(tmp_path / "y.h5", "a") as file:
        file["columns"].attrs["layout"] = 2
    with pytest.raises(UserError, match="has layout 2, and this raylib reads up to 1"):
        open_states(tmp_path / "y.h5")


# Files of the old scripts.


def old_file(path, rows, *, text=True, attributes=True):
    """As the old scripts wrote it. rows: id → (vision_only or None, {layer: vision token}, {layer: query token})."""
    with h5py.File(path, "w") as file:
        if attributes:
            file.attrs["model_name"] = "org/old"
            file.attrs["num_samples"] = len(rows)
        for question_id, (vision, *tokens) in rows.items():
            group = file.create_group(question_id)
            for name in ("image_id", "question", "ground_truth_answer", "answer"):
                value = f"{name} é of {question_id}"
                if text:
                    group.create_dataset(name, data=value, dtype=h5py.string_dtype())
                else:
                    group.create_dataset(name, data=value.encode())
            if vision is not None:
                group.create_dataset("vision_only_representation", data=vision, compression="gzip")
            for name, layers in zip(("vision_token", "query_token"), tokens, strict=True):
                inside = group.create_group(f"{name}_representation")
                for layer, vector in layers.items():
                    inside.create_dataset(f"layer_{layer}", data=vector, chunks=True, compression="gzip")


def vector(*values):
    return np.array(values, np.float32)


OLD = {
    "q1": (vector(1, 2, 3), {0: vector(4, 5)}, {0: vector(6, 7), 12: vector(8, 9)}),
    "dir/q2": (vector(10, 20, 30), {0: vector(40, 50)}, {0: vector(60, 70), 12: vector(80, 90)}),
}
OLD_VISION, OLD_QUERY = Representation("vision_only"), Representation("query_token", 12)


@pytest.mark.parametrize("text", [True, False], ids=["text", "bytes"])
@pytest.mark.parametrize("attributes", [True, False], ids=["attributes", "none"])
def test_files_of_the_old_scripts_are_read(text, attributes, tmp_path):
    old_file(tmp_path / "gemma_part_001.h5", OLD, text=text, attributes=attributes)
    old_file(tmp_path / "gemma_part_002.h5", {"q3": OLD["q1"]}, text=text, attributes=attributes)
    found = open_states(tmp_path)
    assert found.question_ids == ["dir/q2", "q1", "q3"], "as the old readers go through a file: by name"
    assert found.about == ({"model_name": "org/old", "num_samples": 3} if attributes else {})
    paths = ["query_token/layer_0", "query_token/layer_12", "vision_only", "vision_token/layer_0"]
    assert [one.path for one in found.representations] == paths
    assert found.matrix(OLD_VISION).tolist() == [[10, 20, 30], [1, 2, 3], [1, 2, 3]]
    assert found.matrix(OLD_QUERY).tolist() == [[80, 90], [8, 9], [8, 9]]
    assert found.text_names == ["image_id", "question", "ground_truth_answer", "answer"]
    assert found.texts("answer") == [f"answer é of {question_id}" for question_id in found.question_ids]
    row = found.row("dir/q2")
    assert row.texts["question"] == "question é of dir/q2"
    assert row.positions == {} == found.positions()
    assert row.states[OLD_QUERY].tolist() == [80, 90]


def test_a_row_of_an_old_file_may_lack_a_vector(tmp_path):
    old_file(tmp_path / "x.h5", {**OLD, "q0": (None, {0: vector(0, 0)}, {0: vector(0, 0)})})
    found = open_states(tmp_path)
    with pytest.raises(UserError, match=r"1 of 3 rows have no query_token/layer_12: q0. Leave these rows out"):
        found.matrix(OLD_QUERY)
    matrix = found.matrix(OLD_QUERY, missing="nan")
    assert found.question_ids == ["dir/q2", "q0", "q1"]
    assert np.isnan(matrix[1]).all() and matrix[[0, 2]].tolist() == [[80, 90], [8, 9]]
    assert [vector is None for _, vector in found.vectors(OLD_VISION)] == [False, True, False]


def test_rows_of_an_old_file_with_other_widths_are_named(tmp_path):
    old_file(tmp_path / "x.h5", {**OLD, "q9": (vector(1, 2), *OLD["q1"][1:])})
    found = open_states(tmp_path)
    with pytest.raises(UserError, match=r"vision_only of 'q9' has shape \(2,\), and of the first row \(3,\)"):
        found.matrix(OLD_VISION)
    assert [len(vector) for _, vector in found.vectors(OLD_VISION)] == [3, 3, 2]
