"""The whole job in this process, on pages of one colour whose scores follow by hand."""

import errno
import json
import math
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raylib
from raylib import api
from raylib.cli import main
from raylib.errors import UnknownNameError, UserError
from raylib.evaluate.config import EvaluateConfig
from raylib.evaluate.score_task import Scorer
from raylib.store.embeddings import Shelf
from tests.evaluate.colours import PAGES, QUERIES, RELEVANT, V1, V2, page, write_v1, write_v2
from tests.evaluate.made import Letters

LETTERS, BROKEN, NAN, UNLOADABLE, READER, TIRED = (
    f"tests.evaluate.made:{name}" for name in ("letters", "broken", "nan", "unloadable", "reader", "tired")
)
SECOND = 1 / math.log2(3)
"""The nDCG of one relevant page in the second place."""

pytestmark = pytest.mark.usefixtures("private_caches")


@pytest.fixture
def place(tmp_path, fresh_factories):
    return Place(tmp_path, fresh_factories)


class Place:
    """Data, an output folder and what was made; `run` is one run of the job in a process of its own, as it were."""

    def __init__(self, folder, made):
        self.data, self.out, self.made = folder / "data", folder / "out", made

    def run(self, *models, tasks=(V1,), **settings):
        self.made.clear()
        settings = {"data_root": str(self.data), "output_folder": str(self.out), "local": True, **settings}
        return raylib.evaluate(list(models or [LETTERS]), tasks=list(tasks), **settings)

    def command(self, *arguments, models=LETTERS, tasks=V1):
        self.made.clear()
        fixed = ["--local", "--data-root", str(self.data), "--output-folder", str(self.out)]
        return main(["evaluate", "--model", models, "--tasks", tasks, *fixed, *arguments])

    def encoded(self, model=LETTERS):
        """Contents that the last run has put through the model."""
        return self.made[model].encoded

    def summaries(self):
        files = sorted((self.out / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return [json.loads(path.read_text()) for path in files]

    def errors(self):
        (path,) = self.out.rglob("errors.parquet")
        return pq.read_table(path).to_pylist()


def score(outcome, model=LETTERS, task=V1):
    (result,) = [result for result in outcome.task_results[model] if result.task_name == task]
    return result.get_score()


def numbers(outcome, model=LETTERS):
    """Every metric of the only task that is defined, rounded as a result file has them."""
    (entry,) = outcome.task_results[model][0].scores["test"]
    return {k: round(v, 6) for k, v in entry.items() if isinstance(v, float) and not math.isnan(v)}


@pytest.fixture
def scored(monkeypatch):
    """The tasks that MTEB was run on, in order."""
    names, score_unit = [], Scorer.__call__
    monkeypatch.setattr(Scorer, "__call__", lambda self, unit: names.append(unit.task.name) or score_unit(self, unit))
    return names


# One run.


def test_scores_and_files_of_a_run(place):
    write_v1(place.data, relevant={0: 0, 1: 1, 2: 3})  # "ccc" finds the blue page first and the white one second
    outcome = place.run()

    assert outcome.ok and score(outcome) == pytest.approx((1 + 1 + SECOND) / 3, abs=1e-5)
    (summary,) = place.summaries()
    assert {"model", "benchmarks", "status", "results", "error", "timestamp"} <= summary.keys(), "the replaced script's"
    assert summary["model"] == LETTERS and summary["status"] == "success" and summary["error"] is None
    assert summary["benchmarks"] == [V1], "what was asked for"
    (result,) = summary["results"]["task_results"]
    assert result["task_name"] == V1 and result["scores"]["test"][0]["ndcg_at_1"] == pytest.approx(2 / 3, abs=1e-5)
    assert summary["config"]["tasks"] == [V1] and summary["config"]["local"] is True
    assert {"raylib", "mteb", "torch", "python"} <= summary["versions"].keys() and len(summary["fingerprint"]) == 64
    assert {"plan", "encode", "score"} <= summary["timings"].keys()
    assert summary["contents"] == {"planned": 7, "reused": 0, "encoded": 7, "failed": 0} and place.encoded() == 7
    assert summary["official"] is False, "a local copy is nobody's published data"
    (folder,) = (place.out / "local__tests.evaluate.made.letters").iterdir()
    assert {path.name for path in folder.iterdir()} >= {f"{V1}.json", "model_meta.json"}
    assert "letters" in (place.out / "leaderboard.md").read_text() and (place.out / "leaderboard.html").exists()


def test_lines_that_a_person_follows(place, capsys):
    write_v1(place.data)
    assert place.command() == 0
    out = capsys.readouterr().out
    assert f"{LETTERS}: encoding 7 contents" in out and f"encode {LETTERS}  7/7 contents (100 %)" in out
    assert f"✓ {LETTERS}  {V1}  ndcg_at_5 1.0000  (" in out and out.count("Traceback") == 0


def test_quiet_prints_the_leaderboard_alone(place, capsys):
    write_v1(place.data)
    assert place.command("--quiet") == 0
    out, err = capsys.readouterr()
    assert "encoding" not in out and "✓" not in out and "100.0" in out and err == ""


# What is not done twice.


def test_a_second_run_encodes_and_scores_nothing(place, scored, capsys):
    write_v1(place.data)
    first = place.run()
    capsys.readouterr()
    second = place.run()

    assert place.encoded() == 0 and scored == [V1]
    assert second.ok and numbers(second) == numbers(first)
    assert place.summaries()[-1]["contents"] == {"planned": 7, "reused": 7, "encoded": 0, "failed": 0}
    out = capsys.readouterr().out
    assert f"{LETTERS}: all 7 contents are in the store" in out and "ndcg_at_5 1.0000  (known)" in out


def test_one_more_task_encodes_only_what_is_new(place, scored, capsys):
    write_v1(place.data)
    write_v2(place.data, pages=[*PAGES, page("#ffff00")])
    place.run()
    outcome = place.run(tasks=[V1, V2])

    assert outcome.ok and scored == [V1, V2]
    assert place.encoded() == 12 + 1, "3 queries in 4 languages and the yellow page"
    assert "encoding 13 contents, 7 of 20 are in the store" in capsys.readouterr().out


@pytest.mark.parametrize("asked", [[V1, V2], [V2, V1]])
def test_results_come_in_the_order_of_the_tasks_whatever_was_scored_first(place, scored, asked):
    write_v1(place.data, pages=PAGES[:2])
    write_v2(place.data)
    outcome = place.run(tasks=asked)

    assert scored == [V2, V1], "the longest first"
    assert [result.task_name for result in outcome.task_results[LETTERS]] == asked
    assert [entry["task_name"] for entry in place.summaries()[-1]["results"]["task_results"]] == asked


def test_a_page_is_encoded_once_for_all_languages(place):
    write_v2(place.data)
    outcome = place.run(tasks=[V2])
    assert score(outcome, task=V2) == 1 and place.encoded() == 4 + 12
    assert outcome.summaries[0].contents["planned"] == 16


def test_another_judgement_scores_again_and_encodes_nothing(place, scored):
    write_v1(place.data)
    assert score(place.run()) == 1
    write_v1(place.data, relevant={**RELEVANT, 0: 3})
    assert score(place.run()) == pytest.approx((SECOND + 2) / 3, abs=1e-5)
    assert place.encoded() == 0 and scored == [V1, V1]


def test_a_new_page_scores_again_and_encodes_that_page(place, scored):
    write_v1(place.data)
    place.run()
    write_v1(place.data, pages=[page("#800000"), *PAGES[1:]])
    assert place.run().ok and place.encoded() == 1 and scored == [V1, V1]


def test_overwrite_scores_again(place, scored):
    write_v1(place.data)
    place.run()
    assert place.run(overwrite=True).ok and scored == [V1, V1] and place.encoded() == 0


def test_two_stores_do_not_meet_and_one_can_be_shared(place, tmp_path):
    write_v1(place.data)
    place.run(store=str(tmp_path / "store"))
    place.run(output_folder=str(tmp_path / "other"))
    assert place.encoded() == 7
    place.run(output_folder=str(tmp_path / "third"), store=str(tmp_path / "store"))
    assert place.encoded() == 0


# Trying things.


def test_a_limit_keeps_the_first_queries_and_what_answers_them(place):
    write_v1(place.data, relevant={0: 3, 1: 1, 2: 2})
    outcome = place.run(limit=1)

    assert place.encoded() == 1 + 2, "the first query, the first page and the relevant one"
    assert score(outcome) == pytest.approx(SECOND, abs=1e-5)
    assert outcome.summaries[0].variant and not outcome.summaries[0].official
    (result,) = place.out.rglob(f"{V1}.json")
    assert "experiments" in result.parts, "it never stands for the whole task's"
    assert f"{V1} (a part of the data)" in (place.out / "leaderboard.md").read_text()


def test_a_dry_run_writes_nothing_and_encodes_nothing(place, capsys):
    write_v1(place.data)
    assert place.command("--dry-run") == 0
    assert capsys.readouterr().out == (
        f"{LETTERS}: 7 distinct contents of 7 asked for; 0 are stored, 7 would be encoded\n"
    )
    assert not place.out.exists() and place.encoded() == 0


def test_a_dry_run_after_a_run_counts_what_is_stored(place):
    write_v1(place.data)
    write_v2(place.data)
    place.run()
    before = {path: path.stat().st_mtime_ns for path in place.out.rglob("*")}

    config = EvaluateConfig(
        [LETTERS, READER, BROKEN], tasks=[V1, V2], data_root=str(place.data), output_folder=str(place.out)
    )
    broken, letters, reader = api.plan(config)

    assert letters["model"] == LETTERS and letters["skipped"] == {} and letters["error"] is None
    counts = {name: letters[name] for name in ("requested", "contents", "stored", "to encode")}
    assert counts == {"requested": 7 + 4 * 7, "contents": 4 + 3 + 12, "stored": 7, "to encode": 12}
    assert reader["error"] == f"{READER} can do none of the tasks" and reader["skipped"].keys() == {V1, V2}
    assert broken["error"].endswith("its factory failed: RuntimeError: no weights today")
    assert {path: path.stat().st_mtime_ns for path in place.out.rglob("*")} == before


# Bad contents.

V1_QUERY = f"{V1}/test/default query"
DOCUMENTS = [f"corpus-test-{i}" for i in range(4, 8)]  # as MTEB numbers them
BAD = [*PAGES, b"no picture", PAGES[3][:50], b"no picture", None]


def test_every_item_that_cannot_be_encoded_is_listed(place, capsys):
    """Two pages share one content that is bad, and four languages share the pages."""
    write_v1(place.data, pages=BAD)
    write_v2(place.data, pages=BAD, queries=["aaa", "bbb", "ccc"])
    assert place.command(tasks=f"{V1},{V2}") == 1

    rows = place.errors()
    assert {row["source"] for row in rows} == {f"{V1}/test/default document"} | {
        f"{V2}/test/{language} document" for language in ("english", "french", "german", "spanish")
    }
    for source in {row["source"] for row in rows}:
        assert [row["item_id"] for row in rows if row["source"] == source] == DOCUMENTS
    reasons = {row["item_id"][-1]: row["reason"] for row in rows}
    assert "no known format" in reasons["4"] == reasons["6"] and "truncated" in reasons["5"] and "None" in reasons["7"]
    assert len({row["key"] for row in rows}) == 3 and all(len(row["key"]) == 64 for row in rows)
    err = capsys.readouterr().err
    assert f"{LETTERS}: 20 contents could not be encoded" in err and "--allow-errors" in err and "Traceback" not in err
    assert place.summaries()[-1]["status"] == "failed"


@pytest.mark.parametrize(("allowed", "ok"), [(0, False), (2, False), (3, True), (9, True)])
def test_errors_are_allowed_up_to_a_number(place, allowed, ok):
    write_v1(place.data, pages=BAD[:7])
    outcome = place.run(allow_errors=allowed)
    assert outcome.ok is ok and len(place.errors()) == 3
    assert outcome.summaries[0].contents == {"planned": 9, "reused": 0, "encoded": 7, "failed": 3}
    if ok:
        assert score(outcome) == 1, "the bad pages are never found"
    else:
        (failed,) = outcome.summaries[0].tasks_failed
        assert failed["task_name"] == V1 and "3 contents could not be encoded" in failed["error"]


@pytest.mark.parametrize(("allowed", "status"), [("0", 1), ("1", 0)])
def test_the_exit_status_says_so(place, allowed, status):
    write_v1(place.data, queries=["aaa", "", "ccc"])
    assert place.command("--allow-errors", allowed) == status
    (row,) = place.errors()
    assert (row["source"], row["item_id"], row["reason"]) == (V1_QUERY, "query-test-1", "the text is empty")


def test_an_empty_query_that_is_allowed_finds_nothing(place):
    write_v1(place.data, queries=["aaa", " ", "ccc"])
    assert score(place.run(allow_errors=1)) == pytest.approx(2 / 3, abs=1e-5)


def test_a_task_without_bad_contents_is_scored_beside_one_with_them(place):
    write_v1(place.data)
    write_v2(place.data, pages=BAD[:5])
    outcome = place.run(tasks=[V1, V2])
    assert not outcome.ok and score(outcome) == 1 and outcome.summaries[0].status == "partial"
    assert [failed["task_name"] for failed in outcome.summaries[0].tasks_failed] == [V2]


def test_mended_data_is_encoded_scored_and_no_longer_complained_about(place):
    write_v1(place.data, pages=BAD[:5])
    assert not place.run().ok and len(place.errors()) == 1
    write_v1(place.data, pages=[*PAGES, page("#123456")])
    assert place.run().ok and place.encoded() == 1
    assert list(place.out.rglob("errors.parquet")) == []


def test_a_score_with_contents_left_out_is_not_taken_for_a_whole_one(place, scored):
    write_v1(place.data, pages=BAD[:5])
    place.run(allow_errors=1)
    place.run(allow_errors=1)
    assert scored == [V1, V1]


def test_a_content_that_succeeds_later_is_scored_again(place, monkeypatch):
    """Its key is the same, so that nothing but the earlier failure tells the two runs apart."""
    write_v1(place.data, queries=["aaa", "bbb", "crash c"])
    assert score(place.run(allow_errors=1)) == pytest.approx(2 / 3, abs=1e-5)
    preprocess = Letters.preprocess

    def mended(self, batch, context):
        texts = {"text": [text.replace("crash", "") for text in batch["text"]]} if "text" in batch else {}
        return preprocess(self, {**batch, **texts}, context)

    monkeypatch.setattr(Letters, "preprocess", mended)
    assert score(place.run(allow_errors=1)) == 1 and place.encoded() == 1


# Failures that stay alone.


def test_one_model_that_fails_does_not_take_the_others_down(place, capsys):
    write_v1(place.data)
    models = [BROKEN, NAN, UNLOADABLE, READER, LETTERS]
    assert place.command(models=",".join(models)) == 1

    by_model = {summary["model"]: summary for summary in place.summaries()}
    assert by_model.keys() == set(models)
    assert {model: summary["status"] for model, summary in by_model.items()} == {
        **dict.fromkeys(models, "failed"),
        LETTERS: "success",
    }
    assert "its factory failed: RuntimeError: no weights today" in by_model[BROKEN]["error"]
    assert by_model[NAN]["error"].startswith(f"{NAN} gave NaN or infinite embeddings for 3 of 3 contents")
    assert by_model[UNLOADABLE]["error"].endswith("its weights cannot be read")
    assert by_model[READER]["error"] == f"{READER} can do none of the tasks"
    (skipped,) = by_model[READER]["tasks_skipped"]
    assert skipped["task_name"] == V1 and "reads text only" in skipped["reason"]
    out, err = capsys.readouterr()
    assert all(f"✗ {model}" in err for model in models[:-1]) and "Traceback" not in out + err
    assert "letters" in (place.out / "leaderboard.md").read_text()


def test_only_models_that_cannot_be_made_are_no_success(place, capsys):
    write_v1(place.data)
    assert place.command(models=BROKEN) == 1
    assert f"✗ {BROKEN}: its factory failed: RuntimeError: no weights today\n" in capsys.readouterr().err
    assert place.summaries()[0]["status"] == "failed"


@pytest.mark.parametrize("damage", ["no folder", "missing", "truncated", "other columns"])
def test_one_task_without_data_does_not_take_the_others_down(place, damage, capsys):
    write_v1(place.data)
    write_v2(place.data)
    (corpus,) = place.data.glob("vidore/*/corpus/test.parquet")
    if damage == "no folder":
        shutil.rmtree(corpus.parent.parent)
    elif damage == "missing":
        corpus.unlink()
    elif damage == "truncated":
        corpus.write_bytes(corpus.read_bytes()[:-100])
    else:
        table = pq.read_table(corpus)
        pq.write_table(table.rename_columns(["number", "picture"]).replace_schema_metadata(None), corpus)

    assert place.command(tasks=f"{V2},{V1}") == 1

    (summary,) = place.summaries()
    assert [result["task_name"] for result in summary["results"]["task_results"]] == [V1]
    (failed,) = summary["tasks_failed"]
    reason = "no local copy" if damage == "no folder" else f"the data of {V2} cannot be loaded"
    assert failed["task_name"] == V2 and reason in failed["error"]
    err = capsys.readouterr().err
    assert f"✗ {V2}: {failed['error']}" in err and "Traceback" not in err


def test_no_task_with_data_is_one_line(place, capsys):
    write_v1(place.data)
    shutil.rmtree(next(place.data.glob("mteb/*/corpus")))
    assert place.command() == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"raylib: no task could be loaded: the data of {V1}")


def test_a_task_that_fails_while_it_is_scored_fails_alone(place, monkeypatch):
    write_v1(place.data)
    write_v2(place.data)
    score_unit = Scorer.__call__

    def fail(self, unit):
        if unit.task.name == V2:
            raise ZeroDivisionError("a metric of its own")
        return score_unit(self, unit)

    monkeypatch.setattr(Scorer, "__call__", fail)
    outcome = place.run(tasks=[V2, V1])
    assert not outcome.ok and score(outcome) == 1
    assert outcome.summaries[0].tasks_failed == [{"task_name": V2, "error": "ZeroDivisionError: a metric of its own"}]


def test_too_little_memory_halves_the_batch_and_says_so(place, capsys):
    write_v1(place.data)
    assert place.command(models=TIRED) == 0
    err = capsys.readouterr().err
    assert f"{TIRED}: out of memory with 4 contents, batch halved to 2 (CUDA out of memory" in err
    assert place.encoded(TIRED) == 7


# Disks.


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_storing_is_one_line_and_what_was_stored_stays_valid(place, monkeypatch, capsys):
    write_v1(place.data)
    write_v2(place.data)
    place.run()
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("raylib.store.embeddings.pq.write_table", full)
        assert place.command(tasks=V2) == 1
    err = capsys.readouterr().err
    assert "No space left on device. What was stored before is intact." in err and "Traceback" not in err
    assert place.summaries()[-1]["status"] == "failed"
    (folder,) = (place.out / "store").iterdir()
    assert not [name for name in os.listdir(folder) if name.endswith(".part")]

    assert place.run(tasks=[V2]).ok and place.encoded() == 12, "the pages were stored before"


def test_a_full_disk_while_writing_results_is_one_line(place, monkeypatch, capsys):
    write_v1(place.data)
    place.run()
    monkeypatch.setattr("raylib.storage.os.replace", full)
    assert place.command("--overwrite") != 0
    err = capsys.readouterr().err
    assert "No space left on device" in err and "Traceback" not in err
    monkeypatch.undo()
    assert json.loads(next(place.out.rglob(f"{V1}.json")).read_text())["task_name"] == V1, "the old result is whole"


@pytest.mark.parametrize("flag", ["--output-folder", "--store"])
def test_a_folder_that_cannot_be_written_to_is_one_line(place, flag, tmp_path, capsys):
    write_v1(place.data)
    (tmp_path / "taken").write_text("a file")
    assert place.command(flag, str(tmp_path / "taken")) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"raylib: cannot write to {tmp_path}/taken: ") and err.count("\n") == 1
    assert not place.made or place.encoded() == 0


def test_a_damaged_part_is_named_and_goes_when_it_is_deleted(place):
    write_v1(place.data)
    place.run()
    (part,) = (place.out / "store").rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:-50])
    (summary,) = place.run().summaries
    assert summary.status == "failed" and str(part) in summary.error and "Delete the file" in summary.error
    part.unlink()
    assert place.run().ok and place.encoded() == 7


# From Python.


def test_settings_are_those_of_the_command_line(place):
    with pytest.raises(UserError, match="evaluate has no setting batchsize"):
        raylib.evaluate(LETTERS, tasks=[V1], batchsize=3)
    with pytest.raises(UserError, match="either an EvaluateConfig or settings"):
        raylib.evaluate(EvaluateConfig(model=[LETTERS]), tasks=[V1])
    with pytest.raises(UserError, match="nothing to evaluate on"):
        raylib.evaluate(LETTERS)
    with pytest.raises(UnknownNameError) as caught:
        raylib.evaluate(LETTERS, tasks=[V1 + "s"], local=True)
    assert V1 in caught.value.nearest


def test_a_config_object_does_the_same(place):
    write_v1(place.data)
    config = EvaluateConfig(
        model=[LETTERS], tasks=[V1], data_root=str(place.data), output_folder=str(place.out), local=True
    )
    assert score(raylib.evaluate(config)) == 1


def test_models_side_by_side_score_as_they_do_one_after_another(place, tmp_path):
    write_v1(place.data, queries=[*QUERIES, "abc"], relevant={**RELEVANT, 3: 0})
    one = place.run(LETTERS, TIRED)
    two = place.run(LETTERS, TIRED, parallel_models=2, output_folder=str(tmp_path / "other"), batch_size=2)
    assert two.ok and [s.model for s in two.summaries] == [LETTERS, TIRED]
    for model in (LETTERS, TIRED):
        assert numbers(two, model) == numbers(one, model)


def test_a_run_that_was_cut_short_continues(place, monkeypatch):
    """The disk fills after the first part; the rest is all that the next run encodes."""
    write_v1(place.data)
    write, calls = Shelf.write, []

    def once(self, keys, embeddings):
        calls.append(len(keys))
        return write(self, keys, embeddings) if len(calls) == 1 else full()

    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "write", once)
        patch.setattr("raylib.evaluate.encode.FLUSH_SECONDS", 0.0)
        assert not place.run(batch_size=2).ok
    outcome = place.run(batch_size=2)
    assert outcome.ok and score(outcome) == 1
    assert calls[0] == 2 and place.encoded() == 7 - 2


def test_paths_may_be_path_objects_or_text(place):
    write_v1(place.data)
    assert place.run(output_folder=f"{Path(place.out)}/").ok
    assert (place.out / "leaderboard.md").exists()


def test_a_gpu_that_is_not_there_is_one_line(place, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    write_v1(place.data)
    assert place.command("--device", "cuda", models="raylib/untrained-clip") == 1
    err = capsys.readouterr().err
    assert "raylib/untrained-clip" in err and "cuda" in err and "Traceback" not in err
