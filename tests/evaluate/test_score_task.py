"""One model on one whole task: a fresh random state for each, and what is kept of its rankings."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from raylib.evaluate.encode import encode_locally
from raylib.evaluate.model import StoreModel
from raylib.evaluate.score_task import Scorer, ScoreUnit
from raylib.evaluate.task_data import LoadedTask, load_task
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.store.embeddings import Shelf
from tests import toys
from tests.evaluate.compare import differences, flatten, scores_of
from tests.evaluate.mock_tasks import grown_task

BATCH_SIZE = 32


def scored(loaded: LoadedTask, name: str, folder: Any) -> dict[str, Any]:
    encoder: Any = resolve(ModelSpec(f"tests.toys:{name}"))
    model = StoreModel(encoder, Shelf(str(folder), encoder.fingerprint), encode_locally)
    return flatten(Scorer()(ScoreUnit(model, loaded, BATCH_SIZE)).result.scores)


@pytest.mark.parametrize(
    "task", ["MockMultilingualClusteringFastTask", "MockMultilabelClassification", "MockMultilingualRetrievalTask"]
)
def test_every_model_gets_the_scores_that_mteb_gives_it_alone(task, tmp_path):
    """MTEB draws from a random state of the task, which is another one after the first model."""
    loaded = load_task(grown_task(task), official=True)

    for _ in range(2):
        got = scored(loaded, "dense", tmp_path)
        assert differences(got, scores_of(toys.dense(), grown_task(task), BATCH_SIZE), tolerance=0) == []
    if not loaded.ranks:
        used = grown_task(task)
        scores_of(toys.dense(), used, BATCH_SIZE)
        assert differences(got, scores_of(toys.dense(), used, BATCH_SIZE)) != [], "the task shows the difference"


def test_a_task_that_was_scored_still_starts_fresh_in_another_process(tmp_path):
    loaded = load_task(grown_task("MockMultilabelClassification"), official=True)
    first = scored(loaded, "dense", tmp_path)

    sent = pickle.loads(pickle.dumps(loaded.parcel(contents=True, by_value=True)))

    assert differences(scored(sent, "dense", tmp_path), first, tolerance=0) == []


# What travels.


def test_a_planned_task_travels_without_its_contents(tmp_path):
    loaded = load_task(grown_task("MockAny2AnyRetrievalT2ITask"), official=True)

    slim = loaded.parcel(contents=False, by_value=False)

    (data,) = [data for subsets in slim.task.dataset.values() for data in subsets.values()]  # pyright: ignore
    assert data["corpus"].column_names == data["queries"].column_names == ["id"] and len(data["corpus"]) == 200
    assert len(pickle.dumps(slim)) < 60_000 < len(pickle.dumps(loaded)), "the pictures stay"
    assert [len(side.source) for side in loaded.sides] == [200, 200], "the task that stays is whole"
    assert "image" in loaded.task.dataset["default"]["test"]["corpus"].column_names  # pyright: ignore


@pytest.mark.parametrize(("task", "slim"), [("MockInstructionReranking", True), ("MockSTSTask", False)])
def test_contents_that_mteb_asks_for_travel(task, slim):
    """Those of tasks that search nothing; candidates are scored by the vectors that are stored under planned keys."""
    loaded = load_task(grown_task(task), official=True)
    sent = pickle.loads(pickle.dumps(loaded.parcel(contents=False, by_value=False)))
    assert {"text", "sentence1"} & columns(loaded)
    assert columns(sent) == ({"id"} if slim else columns(loaded))


def columns(loaded: LoadedTask) -> set[str]:
    def of(data: Any) -> set[str]:
        if hasattr(data, "column_names") and isinstance(data.column_names, list):
            return set(data.column_names)
        return {name for value in data.values() for name in of(value)} if hasattr(data, "values") else set()

    return of(loaded.task.dataset)


def test_rows_travel_by_value_where_files_are_not_shared(tmp_path):
    import datasets
    from PIL import Image

    Image.new("RGB", (4, 4), "red").save(tmp_path / "page.png")
    made = datasets.Dataset.from_dict({"image": [str(tmp_path / "page.png")], "label": [1]})
    made.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "data"))
    task = grown_task("MockImageClassificationTask")
    task.dataset = datasets.DatasetDict(test=datasets.load_from_disk(str(tmp_path / "data")))
    loaded = LoadedTask(task, True, [])

    sent = pickle.dumps(loaded.parcel(contents=True, by_value=True))
    (tmp_path / "page.png").unlink()
    for path in (tmp_path / "data").glob("*.arrow"):
        path.write_bytes(b"")

    (row,) = pickle.loads(sent).task.dataset["test"]
    assert row["image"].getpixel((1, 1)) == (255, 0, 0) and row["label"] == 1


def test_long_tasks_come_first():
    costs = {name: load_task(grown_task(name), official=True).cost for name in ("MockRetrievalTask", "MockSTSTask")}
    assert costs == {"MockRetrievalTask": 2 * 200.0 * 200, "MockSTSTask": 200.0}, "two splits of 200 × 200"
