"""MMEB through `raylib evaluate`: hand-made scores, old-format files, options that never mix, and a tiny CLIP."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import raylib
from raylib import api
from raylib.cli import main
from raylib.errors import UserError
from raylib.evaluate.config import EvaluateConfig
from raylib.evaluate.task_data import load_task
from raylib.models.untrained import build_clip
from raylib.tasks.mmeb_table import MmebOptions
from raylib.tasks.selection import select_tasks
from tests.evaluate.colours import write_v1
from tests.tasks.made_mmeb import CLASSIFICATION, FUSER, IMAGES, write_images, write_subset, zip_images
from tests.tasks.test_mmeb import MIXED, Letters

pytestmark = pytest.mark.usefixtures("private_caches")
READER = "tests.evaluate.made:reader"


class Place:
    def __init__(self, folder, made):
        self.data, self.out, self.made = folder / "data", folder / "out", made
        self.mmeb = write_subset(self.data, "VOC2007", CLASSIFICATION)
        write_images(self.mmeb / "images", IMAGES)

    def run(self, *tasks, model=FUSER, **settings):
        self.made.clear()
        settings = {"data_root": str(self.data), "output_folder": str(self.out), "local": True, **settings}
        return raylib.evaluate(model, tasks=[f"MMEB_{task}" for task in tasks or ["VOC2007"]], **settings)

    def hit(self, outcome, model=FUSER):
        return outcome.task_results[model][0].get_score()

    def read(self, pattern):
        (path,) = self.out.glob(pattern)
        return path.read_text()


@pytest.fixture
def place(tmp_path, fresh_factories):
    return Place(tmp_path, fresh_factories)


def test_scores_files_and_summary(place):
    outcome = place.run()
    assert outcome.ok and place.hit(outcome) == 0.5, "(1 + 1/2 + 0) / 3, see made_mmeb.CLASSIFICATION"
    assert place.made[FUSER].encoded == 3 + 5, "every content once"
    assert place.read("local__*/*/mmeb/VOC2007_pred.txt") == "('aa', '')\n('bb', '')\n('cc', '')\n"
    score = json.loads(place.read("local__*/*/mmeb/VOC2007_score.json"))
    assert score == {"acc": 0.5, "num_correct": 1.5, "num_pred": 3, "num_data": 3}
    result = json.loads(place.read("local__*/*/MMEB_VOC2007.json"))
    assert result["dataset_revision"] == "local" and result["scores"]["test"][0]["hit_at_1"] == 0.5
    (summary,) = outcome.summaries
    groups = {"classification": {"score": 0.5, "scored": 1, "total": 10}}
    assert summary.groups == {"MMEB(eval)": {**groups, "overall": {"score": 0.5, "scored": 1, "total": 36}}}
    assert not summary.official
    markdown, html = place.read("leaderboard.md"), place.read("leaderboard.html")
    assert "| Model | classification | VQA | retrieval | grounding | overall |" in markdown
    assert "| 50.00 (1/10) | – | – | – | 50.00 (1/36) |" in markdown
    assert "50.00 (1/10)" in html and '<th scope="col">grounding</th>' in html


def test_mteb_reads_the_results_and_takes_no_other_file_for_one(place):
    import mteb

    place.run(output_folder=str(place.out / "results"))
    found = mteb.ResultCache(str(place.out)).load_results()
    assert [result.task_name for model in found.model_results for result in model.task_results] == ["MMEB_VOC2007"]


def test_the_whole_image_benchmark_is_asked_for_by_name(place):
    """The subsets that the folder lacks are failures, with their names; the one that is there is scored."""
    arguments = ["--local", "--data-root", str(place.data), "--output-folder", str(place.out)]
    assert main(["evaluate", "--model", FUSER, "--benchmarks", "MMEB(eval)", *arguments]) == 1
    summary = json.loads(place.read("runs/*.json"))
    assert [result["task_name"] for result in summary["results"]["task_results"]] == ["MMEB_VOC2007"]
    failed = {entry["task_name"]: entry["error"] for entry in summary["tasks_failed"]}
    assert len(failed) == 35 and "no Parquet file of MMEB's ImageNet-1K" in failed["MMEB_ImageNet-1K"]


def test_options_never_mix_with_the_plain_scores(place):
    plain = place.run()
    prefixed = place.run(target_prefix=True)
    assert place.made[FUSER].encoded == 5, "the queries are in the store; the targets are other texts"
    pool = place.run(candidate_pool="subset")
    assert place.made[FUSER].encoded == 0
    folders = {path.parent.name for path in place.out.rglob("MMEB_VOC2007.json")}
    assert len(folders) == 3 and any("target_prefix" in name for name in folders)
    told = {summary.variant for outcome in (plain, prefixed, pool) for summary in outcome.summaries}
    assert "" in told and len(told) == 3
    vectors = {
        text: np.add(counts("Represent the class label: "), counts(text)) for text in ("aa", "bb", "", "bbbb", "cc")
    }
    assert place.hit(prefixed) == pytest.approx(by_hand(vectors))


def counts(text):
    return np.array([text.count(letter) for letter in "abc"], float)


def by_hand(vectors):
    """The mean expected hit of `CLASSIFICATION` where a target's counts are `vectors`."""
    total = 0.0
    for number, (text, _, targets) in enumerate(CLASSIFICATION):
        query = [*(counts(text.removeprefix("<|image_1|>")) + np.eye(3)[number]), 1.0]
        scores = []
        for target, _ in targets:
            candidate = np.array([*vectors[target], 1.0])
            scores.append(np.dot(query, candidate) / np.linalg.norm(query) / np.linalg.norm(candidate))
        best = [i for i, score in enumerate(scores) if score > max(scores) - 1e-9]
        total += 1 / len(best) if 0 in best else 0.0
    return total / len(CLASSIFICATION)


def test_a_known_result_is_taken_while_its_files_are_there(place):
    place.run()
    (path,) = place.out.glob("local__*/*/mmeb/VOC2007_pred.txt")
    before = path.stat().st_mtime_ns
    place.run()
    assert path.stat().st_mtime_ns == before, "not scored again"
    path.unlink()
    place.run()
    assert path.exists() and place.made[FUSER].encoded == 0


def test_images_in_a_zip_anywhere(place, tmp_path):
    expected = place.hit(place.run())
    for path in (place.mmeb / "images" / "VOC2007").iterdir():
        path.unlink()
    zip_images(tmp_path / "mine.zip", IMAGES)
    outcome = place.run(image_dir=str(tmp_path / "mine.zip"), overwrite=True)
    assert outcome.ok and place.hit(outcome) == expected
    assert place.made[FUSER].encoded == 0, "the same bytes are the same contents"


def test_a_missing_image_is_named_and_can_be_allowed(place):
    (place.mmeb / "images" / "VOC2007" / "red.png").unlink()
    assert not place.run().ok
    (error,) = pq.read_table(next(place.out.rglob("errors.parquet"))).to_pylist()
    assert error["source"] == "MMEB_VOC2007/test/default query" and error["item_id"] == "row 0: VOC2007/red.png"
    allowed = place.run(allow_errors=1)
    assert allowed.ok and place.hit(allowed) == pytest.approx(0.5 / 3), "row 0 finds nothing"
    assert place.read("local__*/*/mmeb/VOC2007_pred.txt").startswith("('', '')\n")


def test_rows_of_mixed_kinds_are_the_same_for_raylib_and_for_mteb(place):
    import mteb

    zip_images(write_subset(place.data, "EDIS", MIXED) / "images.zip", {"x.png": "red", "y.png": "blue"})
    for path in (place.mmeb / "images" / "VOC2007").iterdir():
        path.unlink()
    (place.mmeb / "images" / "VOC2007").rmdir()
    (place.mmeb / "images").rmdir()
    for pool in ("row", "subset"):
        outcome = place.run("EDIS", candidate_pool=pool)
        (task,) = select_tasks(tasks=["MMEB_EDIS"], data_root=str(place.data), mmeb=MmebOptions(candidate_pool=pool))
        theirs = mteb.evaluate(Letters(), task, cache=None, show_progress_bar=False, co2_tracker=False)
        (ours,), (expected,) = (r[0].scores["test"] for r in (outcome.task_results[FUSER], theirs.task_results))
        names = [name for name in expected if isinstance(expected[name], float) and not np.isnan(expected[name])]
        assert {n: ours[n] for n in names} == {n: pytest.approx(expected[n], abs=1e-6) for n in names}
        assert ours["hit_at_1"] == 1.0


def test_a_model_that_cannot_fuse_is_told_so(place):
    outcome = place.run(model="tests.evaluate.made:letters")
    (skipped,) = outcome.summaries[0].tasks_skipped
    assert "contents hold text and image together; tests.evaluate.made:letters reads one" in skipped["reason"]


def test_a_limit_cuts_rows(place):
    outcome = place.run(limit=1)
    assert place.hit(outcome) == 1.0
    assert json.loads(place.read("local__*/*/experiments/*/mmeb/VOC2007_score.json"))["num_data"] == 1


def test_a_planned_task_travels_without_its_contents(place):
    (task,) = select_tasks(tasks=["MMEB_VOC2007"], data_root=str(place.data))
    slim = load_task(task, official=False).parcel(contents=False, by_value=True)
    data = slim.task.dataset["default"]["test"]  # pyright: ignore
    assert data["corpus"].column_names == data["queries"].column_names == ["id"] and len(data["top_ranked"]) == 3


def test_options_are_checked_before_anything_runs(place):
    with pytest.raises(UserError, match="--candidate-pool is 'all'; expected row or subset"):
        EvaluateConfig(["m"], candidate_pool="all")
    v1 = write_v1(place.data)
    with pytest.raises(UserError, match=r"--target-prefix goes with tasks of MMEB\(eval\)"):
        api.plan(EvaluateConfig([FUSER], tasks=[v1], data_root=str(place.data), target_prefix=True))


def test_a_tiny_clip_scores_what_transformers_says(place, tmp_path):
    """Queries are the sum of text and image features, targets text features; cosines by hand."""
    from transformers import AutoModel, AutoProcessor

    build_clip(tmp_path / "clip")
    name = str(tmp_path / "clip")
    outcome = place.run(model=name)
    assert outcome.ok

    model, processor = AutoModel.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)

    def features(text, image=None):
        with torch.inference_mode():
            found = model.get_text_features(**processor.tokenizer([text], return_tensors="pt")).pooler_output[0]
            if image is not None:
                pixels = processor(images=[Image.open(place.mmeb / "images" / image)], return_tensors="pt")
                found = found + model.get_image_features(**pixels).pooler_output[0]
        return (found / found.norm()).numpy()

    hits = []
    for text, image, targets in CLASSIFICATION:
        query = features(text.removeprefix("<|image_1|>\n"), image)
        hits.append(int(np.argmax([query @ features(target) for target, _ in targets]) == 0))
    assert place.hit(outcome, name) == pytest.approx(np.mean(hits))
    score = json.loads(place.read("local__clip/*/mmeb/VOC2007_score.json"))
    assert score["num_correct"] == sum(hits) and isinstance(score["num_correct"], int)


def test_a_page_shows_what_the_model_was_given(place, tmp_path):
    """inspect-run reads the task with the options of the run."""
    zip_images(tmp_path / "mine.zip", IMAGES)
    place.run(target_prefix=True, image_dir=str(tmp_path / "mine.zip"))
    assert main(["inspect-run", str(place.out), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Represent the class label: aa" in page and "Name it" in page
