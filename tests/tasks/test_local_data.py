"""The real ViDoRe tasks on local copies, through their own `load_data` and MTEB's evaluation."""

import os
import shutil

import mteb
import numpy as np
import pytest
from PIL import Image

from raylib.errors import UserError
from raylib.tasks import synthetic
from raylib.tasks.local_data import is_official, local_folder, redirect
from raylib.tasks.selection import select_tasks
from tests.tasks.local_vidore import EXAMPLES
from tests.tasks.test_stdlib_tasks import HashModel

V2 = ["french", "spanish", "english", "german"]
SUBSETS = {"v1": ["default"], "v2": V2, "v3": [*V2, "italian", "portuguese"], "v3.1": [*V2, "italian", "portuguese"]}


def load(layout, root):
    (task,) = select_tasks(tasks=[EXAMPLES[layout][0]], data_root=str(root))
    task.load_data()
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    return task


@pytest.mark.parametrize("layout", ["v1", "v2", "v3", "v3.1"])
def test_every_layout_loads_whole(layout, local_copies):
    task = load(layout, local_copies)

    assert sorted(task.dataset) == sorted(SUBSETS[layout])
    drawn = synthetic.draw_pages(10, (48, 64))
    for subset in SUBSETS[layout]:
        data = task.dataset[subset]["test"]
        assert len(data["corpus"]) == 10 and len(data["queries"]) == 6
        assert isinstance(data["corpus"][3]["image"], Image.Image) and data["corpus"][3]["image"].size == (48, 64)
        assert (data["corpus"]["text"][:] == [page.text for page in drawn]) if layout == "v3.1" else True
        assert ("text" in data["corpus"].column_names) == (layout == "v3.1")
        language = "english" if subset == "default" else subset
        assert data["queries"]["text"][:] == [synthetic.question(page, language) for page in drawn[:6]]
        for number, query in enumerate(data["queries"]["id"]):
            graded = sorted(data["relevant_docs"][query].items(), key=lambda item: -item[1])
            assert [int(page.split("-")[-1]) for page, _ in graded] == (
                [number] if layout == "v1" else [number, number + 1]
            )
            assert [grade for _, grade in graded] == ([1] if layout == "v1" else [2, 1])


class OracleModel(HashModel):
    """Sees the number that the test put on each content: retrieval through MTEB must then be perfect."""

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kwargs):
        pages = synthetic.draw_pages(10, (48, 64))
        by_text = {synthetic.question(page, lang): n for n, page in enumerate(pages) for lang in synthetic.OPENINGS}
        rows = []
        for batch in inputs:
            if prompt_type.value == "query":
                rows += [self.vector(f"page{by_text[text]}", None) for text in batch["text"]]
            else:
                rows += [self.vector(f"page{identifier.split('-')[-1]}", None) for identifier in batch["id"]]
        return np.stack(rows)


@pytest.mark.parametrize("layout", ["v1", "v2", "v3", "v3.1"])
def test_mteb_evaluates_a_redirected_task(layout, local_copies):
    (task,) = select_tasks(tasks=[EXAMPLES[layout][0]], data_root=str(local_copies))

    result = mteb.evaluate(OracleModel(), task, cache=None, show_progress_bar=False, co2_tracker=False)

    scores = {entry["hf_subset"]: entry for entry in result.task_results[0].scores["test"]}
    assert sorted(scores) == sorted(SUBSETS[layout])
    assert {entry["hit_rate_at_1"] for entry in scores.values()} == {1.0}


def test_languages_reach_the_evaluation(local_copies):
    (task,) = select_tasks(tasks=[EXAMPLES["v3"][0]], languages=["deu"], data_root=str(local_copies))

    result = mteb.evaluate(OracleModel(), task, cache=None, show_progress_bar=False, co2_tracker=False)

    assert [entry["hf_subset"] for entry in result.task_results[0].scores["test"]] == ["german"]


def test_only_the_redirected_object_is_touched_and_marked(local_copies):
    name, hub_path = EXAMPLES["v2"]
    task, other = mteb.get_task(name), mteb.get_task(name)

    assert redirect(task, str(local_copies)) is task

    assert os.path.samefile(task.metadata.dataset["path"], local_copies / hub_path)
    assert local_folder(task) == str(local_copies / hub_path)
    assert task.metadata.dataset["revision"] == other.metadata.dataset["revision"]
    assert not is_official(task)
    for untouched in (other, mteb.get_task(name)):
        assert untouched.metadata.dataset["path"] == hub_path
        assert is_official(untouched) and local_folder(untouched) is None


def test_redirecting_again_after_unload(local_copies):
    task = load("v1", local_copies)
    task.unload_data()
    assert task.metadata.dataset["path"] == EXAMPLES["v1"][1], "MTEB restores the class's metadata"

    redirect(redirect(task, str(local_copies)), str(local_copies))

    assert local_folder(task) == str(local_copies / EXAMPLES["v1"][1])
    task.load_data()
    assert os.path.samefile(task.metadata.dataset["path"], local_copies / EXAMPLES["v1"][1])


def test_a_folder_without_the_organisation_is_found_too(tmp_path):
    name, hub_path = EXAMPLES["v1"]
    folder = synthetic.write("v1", str(tmp_path / hub_path.split("/")[1]), pages=3, queries=2, size=(48, 64))

    task = redirect(mteb.get_task(name), str(tmp_path))

    assert local_folder(task) == folder


def test_missing_and_empty_folders_say_where_was_looked(tmp_path):
    name, hub_path = EXAMPLES["v2"]
    with pytest.raises(UserError) as error:
        redirect(mteb.get_task(name), str(tmp_path))
    assert str(tmp_path / hub_path) in str(error.value) and str(tmp_path / "esg_reports_v2") in str(error.value)

    (tmp_path / hub_path).mkdir(parents=True)
    with pytest.raises(UserError, match="holds no data file"):
        redirect(mteb.get_task(name), str(tmp_path))


def test_an_edited_file_is_read_again(tmp_path):
    hub_path = EXAMPLES["v1"][1]
    folder = str(tmp_path / hub_path)
    synthetic.write("v1", folder, pages=4, queries=2, size=(48, 64), seed=1)
    before = load("v1", tmp_path).dataset["default"]["test"]["queries"]["text"][:]
    shutil.rmtree(folder)
    synthetic.write("v1", folder, pages=5, queries=2, size=(48, 64), seed=2)

    task = load("v1", tmp_path)

    after = task.dataset["default"]["test"]
    assert after["queries"]["text"][:] != before and len(after["corpus"]) == 5
    assert after["queries"]["text"][:] == [
        synthetic.question(p, "english") for p in synthetic.draw_pages(2, (48, 64), 2)
    ]


def test_two_roots_with_the_same_names_are_told_apart(tmp_path):
    for seed in (1, 2):
        synthetic.write_example("v1", str(tmp_path / str(seed)), pages=3, queries=2, size=(48, 64), seed=seed)

    texts = [load("v1", tmp_path / str(seed)).dataset["default"]["test"]["queries"]["text"][:] for seed in (1, 2)]

    assert texts[0] != texts[1]


def test_the_built_in_benchmark_needs_no_data_root(tmp_path):
    (task,) = select_tasks(tasks=["StdlibPagesT2T"], data_root=str(tmp_path))
    assert is_official(task)
