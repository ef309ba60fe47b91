"""A plan is read back as it was written, by others too; what is none is said to be none."""

import json

import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.examples import batch_plan
from raylib.examples.batch_plan import ids_digest, read_plan, write_plan

IDS = [f"e{i}" for i in range(6)]
BATCHES = np.array([[4, 1], [0, 3], [5, -1]])
HARD = np.array([[3, 1], [4, -1], [-1, -1], [0, 4], [1, 2], [2, -1]])
SETTINGS = {"method": "metis", "seed": 3, "skip_top": {"DocVQA": 70}}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "plan.parquet")


def write(path, batches=BATCHES, ids=IDS, settings=SETTINGS, **more):
    write_plan(path, np.array(batches), ids, settings=settings, teacher="abc", **more)


@pytest.mark.parametrize("cells", [1, 1 << 20])
def test_a_plan_reads_back(path, monkeypatch, cells):
    monkeypatch.setattr(batch_plan, "_GROUP_CELLS", cells)
    write(path)
    assert pq.ParquetFile(path).num_row_groups == (3 if cells == 1 else 1)
    plan = read_plan(path, IDS, with_ids=True)
    assert plan.ids is not None
    assert plan.batches.tolist() == BATCHES.tolist()
    assert plan.ids.to_pylist() == [["e4", "e1"], ["e0", "e3"], ["e5", None]]
    assert (plan.settings, plan.teacher) == (SETTINGS, "abc")
    assert (plan.hard_negatives, plan.negative_ids) == (None, None)
    assert str(plan.ids.type) == "fixed_size_list<element: string>[2]"


@pytest.mark.parametrize("cells", [1, 1 << 20])
def test_hard_negatives_stand_beside_their_examples(path, monkeypatch, cells):
    monkeypatch.setattr(batch_plan, "_GROUP_CELLS", cells)
    write(path, hard_negatives=HARD)
    plan = read_plan(path, IDS, with_ids=True)
    # Of the examples 4, 1 | 0, 3 | 5, none: the rows of HARD in that order.
    assert plan.hard_negatives is not None
    assert plan.negative_ids is not None
    assert plan.hard_negatives.tolist() == [[[1, 2], [4, -1]], [[3, 1], [0, 4]], [[2, -1], [-1, -1]]]
    assert plan.negative_ids.to_pylist() == [
        [["e1", "e2"], ["e4", None]],
        [["e3", "e1"], ["e0", "e4"]],
        [["e2", None], [None, None]],
    ]


def test_another_reader_understands_it(path):
    write(path, hard_negatives=HARD)
    rows = polars.read_parquet(path).to_dicts()
    assert rows[2] == {
        "step": 2,
        "example_ids": ["e5", None],
        "examples": [5, -1],
        "negative_ids": [["e2", None], [None, None]],
        "negative_examples": [[2, -1], [-1, -1]],
    }


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_ids_of_arrow_are_the_ids_of_a_list(path, kind):
    names = pa.array(["x", *IDS], kind).slice(1)  # an offset of its own
    chunked = pa.chunked_array([IDS[:2], IDS[2:]], kind)
    assert ids_digest(names) == ids_digest(IDS) == ids_digest(chunked)
    write(path, ids=names)
    assert pq.read_table(path).column("example_ids").to_pylist()[0] == ["e4", "e1"]
    plan = read_plan(path, chunked)
    assert (plan.batches.tolist(), plan.ids) == (BATCHES.tolist(), None)


def test_the_digest_tells_ids_apart():
    assert len({ids_digest(ids) for ids in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab", "c", ""], [])}) == 5


def test_a_plan_of_other_examples(path):
    write(path)
    with pytest.raises(UserError, match="was made of 6 other examples than these 6"):
        read_plan(path, IDS[::-1])
    with pytest.raises(UserError, match="was made of 6 other examples than these 5"):
        read_plan(path, IDS[:5])


def test_foreign_files(path, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_plan(path)
    (tmp_path / "plan.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        read_plan(path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(UserError, match="is no plan of batches"):
        read_plan(path)


def test_a_cut_file(path, tmp_path):
    write(path)
    whole = (tmp_path / "plan.parquet").read_bytes()
    (tmp_path / "plan.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        read_plan(path)


def _twice(table):
    return pa.concat_tables([table, table])


def _set(name, values, kind):
    return lambda t: t.set_column(t.column_names.index(name), name, pa.array(values, kind))


PAIR = pa.list_(pa.int64(), 2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_twice, "it holds the example 0 2 times"),
        (_set("examples", [[4, 1], [0, 3], [6, -1]], PAIR), "it holds the example 6; there are 6"),
        (_set("examples", [[4, 1], [0, 3], [-1, -1]], PAIR), "the step 2 holds no example"),
        (_set("examples", [[4, 1], [0, 3], [5]], pa.list_(pa.int64())), "expected lists of one length"),
        (_set("examples", [[4, 1], [0, 3], None], PAIR), "expected lists of one length"),
        (_set("examples", [[4, 1], [0, 3], [5, None]], PAIR), "1 nulls, expected int64"),
        (_set("step", [0, 2, 1], pa.int64()), "its steps are not numbered from 0"),
        (_set("negative_examples", [[[9]] * 2] * 3, pa.list_(pa.list_(pa.int64(), 1), 2)), "it holds the example 9"),
        (_set("negative_examples", [[[1]]] * 3, pa.list_(pa.list_(pa.int64(), 1), 1)), "of 1 examples in batches of 2"),
        (lambda t: t.slice(0, 0), "batches have the shape"),
    ],
)
def test_damaged_files(path, change, why):
    write(path, hard_negatives=HARD)
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(UserError, match=f"is damaged: .*{why}"):
        read_plan(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "is a plan of version 2; this raylib reads version 1"),
        ({"settings": 3, "examples": None}, "it does not say its settings, examples"),
        (None, "is damaged: what it says of itself is b'null'"),
    ],
)
def test_what_a_file_says_of_itself_is_not_trusted(path, change, why):
    write(path)
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"raylib.batches"])
    written = json.dumps(about | change if change else None)
    pq.write_table(table.replace_schema_metadata({b"raylib.batches": written}), path)
    with pytest.raises(UserError, match=why):
        read_plan(path)


@pytest.mark.parametrize(
    ("batches", "why"),
    [
        ([[0, 6]], "it holds the example 6; there are 6"),
        ([[-2, 0]], "it holds the example -2"),
        ([[0, 0]], "it holds the example 0 2 times"),
        ([[0, 1], [-1, -1]], "the step 1 holds no example"),
        ([0, 1], "shape"),
        ([[], []], "shape"),
    ],
)
def test_a_plan_that_is_none_is_not_written(path, tmp_path, batches, why):
    with pytest.raises(ValueError, match=why):
        write(path, batches)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("hard", "why"),
    [
        (HARD[:5], r"have the shape \(5, 2\); expected \[6, 1 or more\]"),
        (HARD[:, :0], "expected"),
        (np.where(HARD == 4, 6, HARD), "it holds the example 6"),
        (np.where(HARD == 3, 0, HARD), "the example 0 is a hard negative of itself"),
    ],
)
def test_hard_negatives_that_are_none(path, hard, why):
    with pytest.raises(ValueError, match=why):
        write(path, hard_negatives=hard)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "have no method and no seed"),
        ({"method": "metis"}, "have no seed"),
        ({**SETTINGS, "x": np.int64(3)}, "cannot be written as JSON"),
        ({**SETTINGS, "x": float("nan")}, "JSON"),
    ],
)
def test_settings_must_be_enough_to_make_it_again(path, settings, why):
    with pytest.raises(ValueError, match=why):
        write(path, settings=settings)
