"""Result files, checked by reading them back with MTEB's own loaders."""

import json
import os
from datetime import UTC, datetime

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.evaluate.results import (
    RunSummary,
    read_records,
    result_folder,
    save_task_result,
    software_versions,
    stored_result,
    task_entry,
)
from raylib.storage import read_text

mteb = pytest.importorskip("mteb")
from mteb.models.model_meta import ModelMeta  # noqa: E402
from mteb.results import TaskResult  # noqa: E402


def model(name="org/model", revision="abc123", **experiment):
    return ModelMeta.create_empty({"name": name, "revision": revision, "experiment_kwargs": experiment or None})


def result(task="VidoreArxivQARetrieval", subsets=(("default", 0.25), ("french", 0.75)), **extra):
    entries = [
        {"main_score": score, "ndcg_at_5": score, "hf_subset": subset, "languages": ["eng-Latn"], **extra}
        for subset, score in subsets
    ]
    return TaskResult(
        task_name=task,
        dataset_revision="data-revision",
        mteb_version="2.26.24",
        scores={"test": entries},
        evaluation_time=1.5,
        date=datetime(2025, 3, 4, tzinfo=UTC),
    )


def strict_json(text):
    """json.loads, but NaN and Infinity, which JSON does not have, are errors."""

    def refuse(literal):
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "results"


def test_mteb_reads_what_was_saved(output):
    path = save_task_result(output, result(), model(), official=True, digest="d")
    save_task_result(output, result("VidoreDocVQARetrieval", [("default", 0.5)]), model(), official=True, digest="d")
    RunSummary(model="org/model", benchmarks=[]).write(output)  # must not confuse MTEB's loader

    assert path == str(output / "org__model" / "abc123" / "VidoreArxivQARetrieval.json")
    loaded = mteb.ResultCache(output.parent).load_results()
    assert [(m.model_name, m.model_revision) for m in loaded.model_results] == [("org/model", "abc123")]
    scores = {task.task_name: task.get_score() for task in loaded.model_results[0].task_results}
    assert scores == {"VidoreArxivQARetrieval": 0.5, "VidoreDocVQARetrieval": 0.5}


def test_deprecated_load_results_reads_it_too(output, monkeypatch):
    save_task_result(output, result(), model(), official=True, digest="d")
    RunSummary(model="org/model", benchmarks=[]).write(output)
    monkeypatch.setenv("MTEB_CACHE", str(output.parent))

    loaded = mteb.load_results(download_latest=False, validate_and_filter=False)

    (task,) = next(m for m in loaded.model_results if m.model_name == "org/model").task_results
    assert task.scores["test"][1]["main_score"] == 0.75
    assert task.dataset_revision == "data-revision"


def test_options_of_a_model_are_an_experiment(output):
    meta = model(embedding_dim=256, pooling="last")
    path = save_task_result(output, result(), meta, official=True, digest="d")
    save_task_result(output, result(subsets=[("default", 1.0)]), model(), official=True, digest="d")

    folder = output / "org__model" / "abc123" / "experiments" / "embedding_dim_256__pooling_last"
    assert path == str(folder / "VidoreArxivQARetrieval.json")
    assert json.loads((folder / "model_meta.json").read_text())["experiment_kwargs"]["embedding_dim"] == 256
    plain, variant = sorted(
        mteb.ResultCache(output.parent).load_results(load_experiments="match_name").model_results,
        key=lambda m: m.experiment_name or "",
    )
    assert variant.experiment_name == "embedding_dim_256__pooling_last"
    assert (plain.task_results[0].get_score(), variant.task_results[0].get_score()) == (1.0, 0.5)


def test_a_result_on_local_data_cannot_pass_for_an_official_one(output):
    original = result()
    path = save_task_result(output, original, model(), official=False, digest="d", untrained=True, fingerprint="f")

    assert json.loads(read_text(path))["dataset_revision"] == "local"
    assert original.dataset_revision == "data-revision"
    record = read_records(result_folder(output, model()))["VidoreArxivQARetrieval"]
    assert (record.official, record.untrained, record.fingerprint, record.digest) == (False, True, "f", "d")


def test_stored_result_needs_the_same_digest(output):
    save_task_result(output, result(), model(), official=True, digest="first")

    found = stored_result(output, model(), "VidoreArxivQARetrieval", "first")
    assert found is not None
    assert [entry["main_score"] for entry in found.scores["test"]] == [0.25, 0.75]
    assert stored_result(output, model(), "VidoreArxivQARetrieval", "second") is None
    assert stored_result(output, model(), "VidoreDocVQARetrieval", "first") is None
    assert stored_result(output, model(revision="other"), "VidoreArxivQARetrieval", "first") is None
    assert stored_result(output, model(pooling="cls"), "VidoreArxivQARetrieval", "first") is None


def test_stored_result_refuses_a_file_that_something_else_wrote(output):
    """A driver killed between the result and its record leaves a new result under an old record."""
    path = save_task_result(output, result(), model(), official=True, digest="d")
    mteb.ResultCache(output.parent).save_to_cache(result(subsets=[("default", 0.9)]), model())
    assert stored_result(output, model(), "VidoreArxivQARetrieval", "d") is None
    with open(path, "w") as stream:
        stream.write('{"task_name": ')
    assert stored_result(output, model(), "VidoreArxivQARetrieval", "d") is None


def test_a_broken_record_costs_only_its_own_task(output, caplog):
    save_task_result(output, result(), model(), official=True, digest="d")
    records = output / "org__model" / "abc123" / "raylib.jsonl"
    records.write_text('{"task_name"\n{"unknown": 1}\n' + records.read_text())

    assert stored_result(output, model(), "VidoreArxivQARetrieval", "d") is not None
    assert "line 1" in caplog.text
    assert "line 2" in caplog.text


def test_saving_again_replaces(output):
    save_task_result(output, result(), model(), official=True, digest="d1")
    save_task_result(output, result(subsets=[("default", 0.125)]), model(), official=True, digest="d2")

    assert stored_result(output, model(), "VidoreArxivQARetrieval", "d1") is None
    found = stored_result(output, model(), "VidoreArxivQARetrieval", "d2")
    assert found is not None
    assert found.get_score() == 0.125
    assert len((output / "org__model" / "abc123" / "raylib.jsonl").read_text().splitlines()) == 1


def test_run_settings_of_all_tasks_are_kept(output):
    save_task_result(output, result(), model(), official=True, digest="d", encode_kwargs={"batch_size": 8})
    save_task_result(output, result("VidoreDocVQARetrieval"), model(), official=True, digest="d")

    lines = (output / "org__model" / "abc123" / "run_settings.jsonl").read_text().splitlines()
    settings = {line["task"]: line for line in map(json.loads, lines)}
    assert settings["VidoreArxivQARetrieval"]["encode_kwargs"] == {"batch_size": 8}
    assert settings["VidoreArxivQARetrieval"]["subsets"] == ["default", "french"]
    assert settings["VidoreDocVQARetrieval"]["encode_kwargs"] == {}


def test_undefined_metrics_are_written_as_mteb_writes_them(output):
    save_task_result(output, result(nauc_ndcg_at_5_std=float("nan")), model(), official=True, digest="d")
    found = stored_result(output, model(), "VidoreArxivQARetrieval", "d")
    assert found is not None
    assert np.isnan(found.scores["test"][0]["nauc_ndcg_at_5_std"])


def test_a_full_disk_leaves_the_earlier_result(output, monkeypatch):
    path = save_task_result(output, result(), model(), official=True, digest="d")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_task_result(output, result(subsets=[("default", 0.9)]), model(), official=True, digest="d2")
    monkeypatch.undo()
    assert stored_result(output, model(), "VidoreArxivQARetrieval", "d") is not None
    assert [name for name in os.listdir(os.path.dirname(path)) if name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "revision", "folder"),
    [
        ("org/model", None, "org__model/no_revision_available"),
        ("org/model", "refs/pr/3", "org__model/refs__pr__3"),
        ("../../evil", "main", "..__..__evil/main"),
        ("/data/my model", "main", "__data__my_model/main"),
    ],
)
def test_names_become_one_folder_each(output, name, revision, folder):
    meta = ModelMeta.create_empty({"name": name}).model_copy(update={"revision": revision})
    path = save_task_result(output, result(), meta, official=True, digest="d")
    assert path == str(output / folder / "VidoreArxivQARetrieval.json")
    assert stored_result(output, meta, "VidoreArxivQARetrieval", "d") is not None
    (found,) = mteb.ResultCache(output.parent).load_results().model_results
    assert found.model_name == name


@pytest.mark.parametrize(("name", "revision", "task"), [("..", "main", "T"), ("m", "..", "T"), ("m", "main", "a/../b")])
def test_names_that_leave_the_folder_are_refused(output, name, revision, task):
    with pytest.raises(UserError, match="cannot name"):
        save_task_result(output, result(task), model(name, revision), official=True, digest="d")
    assert not output.exists()


def test_run_summary_has_the_keys_of_the_replaced_script(output):
    summary = RunSummary(
        model="org/model",
        benchmarks=["ViDoRe(v1)"],
        task_results=[task_entry(result(nauc=float("nan")))],
        timings={"encode": np.float32(1.25), "search": float("inf")},
        contents={"planned": np.int64(4), "reused": 1, "encoded": 3, "failed": 0},
        config={"output_folder": output, "tasks": {"b", "a"}},
        started=datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC),
    )
    path = summary.write(output)

    assert path == str(output / "runs" / "local_org_model_20250304_050607.json")
    data = strict_json(read_text(path))
    assert {"model", "benchmarks", "status", "results", "error", "timestamp"} <= data.keys()
    assert (data["model"], data["status"], data["error"]) == ("org/model", "success", None)
    assert data["timestamp"] == "2025-03-04T05:06:07+00:00"
    (task,) = data["results"]["task_results"]
    assert task["task_name"] == "VidoreArxivQARetrieval"
    assert [entry["main_score"] for entry in task["scores"]["test"]] == [0.25, 0.75]
    assert task["scores"]["test"][0]["nauc"] is None
    assert data["config"]["tasks"] == ["a", "b"]
    assert data["contents"] == {"planned": 4, "reused": 1, "encoded": 3, "failed": 0}
    assert data["timings"] == {"encode": 1.25, "search": None}
    assert data["versions"].keys() == {"raylib", "mteb", "torch", "transformers", "ray", "python"}


def test_status_tells_what_failed():
    failed_task = [{"task_name": "T", "error": "no"}]
    done = [{"task_name": "U", "scores": {}}]
    assert RunSummary("m", [], task_results=done).status == "success"
    assert RunSummary("m", [], task_results=done, tasks_failed=failed_task).status == "partial"
    assert RunSummary("m", [], tasks_failed=failed_task).status == "failed"
    assert RunSummary("m", [], error="no weights").status == "failed"


def test_two_summaries_of_one_second_are_both_kept(output):
    started = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
    first = RunSummary("m", [], started=started).write(output)
    second = RunSummary("m", [], error="later", started=started).write(output)
    assert [strict_json(read_text(path))["error"] for path in (first, second)] == [None, "later"]


def test_versions_are_those_of_the_packages():
    assert software_versions()["mteb"] == mteb.__version__
    assert software_versions(["no-such-package"])["no-such-package"] == "not installed"
