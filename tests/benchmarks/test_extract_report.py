"""The benchmark of extract: what it makes of hand-made measurements, and the rows that it measures on."""

import csv
import json
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from benchmarks.extract import Case, Way, cases_of, compare
from benchmarks.extract_inputs import questions, write_rows
from benchmarks.extract_old import PerSample
from benchmarks.extract_report import summary, table
from raylib.store.hidden_states import StateTable, write_part
from raylib.store.representations import Representation


def test_a_way_is_told_by_its_ratio_to_the_first_round_by_round():
    found = summary("other", [2.0, 1.0, 4.0], [1.0, 1.0, 2.0], [8.0, 5.0, 8.0], [3.0, 4.0, 4.0], rows=10)
    assert found["rows per second"] == 5.0
    assert (found["ratio"], found["ratio min to max"]) == (4.0, [2.0, 5.0])
    assert (found["cpu ratio"], found["cpu ratio min to max"]) == (3.0, [2.0, 4.0])


def test_the_table_has_a_line_per_way_and_says_how_it_was_measured():
    first = summary("one sample at a time", [8.0], [4.0], [8.0], [4.0], 16)
    other = summary("raylib, 8", [2.0], [1.0], [8.0], [4.0], 16)
    case = {
        "model": "tiny Gemma 3",
        "parameters": 900_000,
        "rows": 16,
        "lengths": "short",
        "new tokens": 200,
        "largest difference": 3.2e-7,
        "answers that differ": 1,
        "ways": [first, other],
    }
    record = {"date": "2026-01-02", "device": "P", "dtype": "float32", "threads": 1, "cores": 2, "torch": "2"}
    record |= {"transformers": "5", "rounds": 1, "minutes": 0.5, "load average": {"start": [1.0], "end": [2.0]}}
    lines = table({**record, "cases": [case]})
    told = "| tiny Gemma 3 (0.9 M) | 16 short | 200 | one sample at a time | 2.0 | 1× | 4.00 | 1× | 3e-07 | 1 |"
    assert told in lines
    assert "|  |  |  | raylib, 8 | 8.0 | 4.00× (4.00 to 4.00) | 1.00 | 4.00× |  |  |" in lines
    assert lines[-1].startswith("2026-01-02; P, float32, 1 torch thread(s) on 2 cores")
    assert json.loads(json.dumps(record)) == record


def _part(folder, ids, vectors, answers):
    states = {Representation("query_token", 0): vectors, Representation("vision_token", 0): 2 * vectors}
    n = len(ids)
    zeros = np.zeros(n, np.int64)
    texts = {"image_id": [""] * n, "question": [""] * n, "ground_truth_answer": [""] * n, "answer": answers}
    table = StateTable(ids, texts, states, np.zeros((n, 2), np.int64), zeros, zeros, zeros)
    write_part(table, str(folder / "model_part_001.h5"), "hdf5", None)


def test_vectors_are_compared_by_row_and_the_true_vision_token_is_taken_from_the_hooks(tmp_path):
    vectors = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    moved = vectors[::-1] + np.array([[0, 0.004], [0, 0]], np.float32)  # b, by a thousandth of the largest
    old = PerSample(None, None, None, [], (0,), 8, 7, "cpu")
    old.vision_tokens = {"a": {0: 2 * vectors[0]}, "b": {0: 2 * vectors[1]}}
    ways = [
        Way("old", lambda folder: _part(folder, ["a", "b"], vectors, ["yes", "no"])),
        Way("same", lambda folder: _part(folder, ["b", "a"], vectors[::-1], ["no", "yes"])),
    ]
    case = Case("m", 2, "short", 8, (1,))
    assert compare(old, ways, case, tmp_path) == (0.0, 0)
    ways.append(Way("off", lambda folder: _part(folder, ["b", "a"], moved, ["yes", "yes"])))
    difference, answers = compare(old, ways, case, tmp_path)
    assert difference == pytest.approx(1e-3, rel=1e-3) and answers == 1


def test_rows_share_images_of_both_formats_and_are_the_same_every_time(tmp_path):
    table, images = write_rows(tmp_path / "one", 6, "mixed")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_name"] for row in rows] == ["0000.png", "0001.jpg", "0002.png"] * 2
    assert all(224 <= side <= 640 for path in images.iterdir() for side in Image.open(path).size)
    again, _ = write_rows(tmp_path / "two", 6, "mixed")
    assert again.read_bytes() == table.read_bytes()


def test_short_questions_are_alike_in_length_and_mixed_ones_are_not():
    short, mixed = ([len(text.split()) for text in questions(400, kind)] for kind in ("short", "mixed"))
    assert min(short) >= 5 and max(short) <= 12
    assert min(mixed) <= 5 and max(mixed) >= 60 and 13 < np.median(mixed) < 19


def test_a_model_by_name_is_measured_without_and_with_answers():
    options = Namespace(model="some/model", quick=False, rows=100, new_tokens=50)
    assert [(c.model, c.rows, c.new_tokens) for c in cases_of(options)] == [
        ("some/model", 100, None),
        ("some/model", 100, 50),
    ]
