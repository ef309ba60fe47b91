"""MMEB's image subsets through MTEB's own evaluation, with a model whose vectors follow by hand."""

import json
import pickle

import mteb
import numpy as np
import pytest
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta

from raylib.errors import ModelError, UnknownNameError, UserError
from raylib.tasks import mmeb
from raylib.tasks.mmeb_table import META_TASKS, SUBSETS, MmebOptions
from raylib.tasks.selection import list_benchmarks, list_tasks, select_tasks
from tests.tasks.made_mmeb import CLASSIFICATION, IMAGES, write_images, write_subset, zip_images


class Letters(AbsEncoder):
    """As `tests.evaluate.made.Letters`, for MTEB: a, b and c of the text, red, green and blue of the image, a one.

    told: per call, the side and the columns with what they held. nan: texts that get NaN.
    """

    def __init__(self, nan=()):
        self.mteb_model_meta = ModelMeta.create_empty(
            {"name": "test/letters", "revision": "1", "modalities": ["text", "image"]}
        )
        self.told, self.nan = [], nan

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kwargs):
        vectors = []
        for batch in inputs:
            n = len(batch["id"])
            texts, images = batch.get("text", [""] * n), batch.get("image", [None] * n)
            self.told.append((prompt_type.value, sorted(set(batch) - {"id"}), list(texts)))
            vectors += [self.vector(text, image) for text, image in zip(texts, images, strict=True)]
        return np.array(vectors, dtype=np.float32)

    def vector(self, text, image):
        counts = np.array([text.count(letter) for letter in "abc"], dtype=np.float64)
        if image is not None:
            counts += np.asarray(image.convert("RGB")).mean(axis=(0, 1)) / 255
        return [*(counts if text not in self.nan else counts * np.nan), 1.0]


@pytest.fixture
def folder(tmp_path):
    folder = write_subset(tmp_path, "VOC2007", CLASSIFICATION)
    write_images(folder / "images", IMAGES)
    return folder


def task_of(folder, subset, **options):
    (task,) = select_tasks(tasks=[f"MMEB_{subset}"], mmeb=MmebOptions(**options), data_root=str(folder))
    return task


def evaluate(task, model=None):
    result = mteb.evaluate(model or Letters(), task, cache=None, show_progress_bar=False, co2_tracker=False)
    (scores,) = result.task_results[0].scores["test"]
    return scores


def test_hit_at_1_with_ties_shared(folder):
    """Row 0 is right, row 1 ties with one other, row 2 is wrong; see `made_mmeb.CLASSIFICATION`."""
    task = task_of(folder, "VOC2007")
    scores = evaluate(task)
    assert scores["hit_at_1"] == scores["main_score"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert scores["tied_at_1"] == pytest.approx(2 / 3)


def test_files_are_those_of_the_replaced_scripts(folder):
    task = task_of(folder, "VOC2007")
    assert task.result_files() == {} and task.result_file_names() == ("VOC2007_score.json", "VOC2007_pred.txt")
    evaluate(task)
    files = task.result_files()
    assert files["VOC2007_pred.txt"] == "('aa', '')\n('bb', '')\n('cc', '')\n", "of a tie the first in the row"
    expected = '{\n    "acc": 0.5,\n    "num_correct": 1.5,\n    "num_pred": 3,\n    "num_data": 3\n}'
    assert files["VOC2007_score.json"] == expected


def test_counts_are_whole_numbers_without_ties_and_predictions_are_as_in_the_data(tmp_path):
    rows = [("find aa\n", "", [("<|image_1|>\nred\n", "x.png"), ("<|image_1|>\nit's\n", "y.png")])]
    write_images(write_subset(tmp_path, "MSCOCO_t2i", rows) / "images", {"x.png": "red", "y.png": "blue"})
    task = task_of(tmp_path, "MSCOCO_t2i")
    assert evaluate(task)["hit_at_1"] == 1.0
    score, predictions = task.result_files().values()
    assert '"num_correct": 1,' in score
    assert predictions == "('<|image_1|>\\nred\\n', 'x.png')\n", "Python's own writing of a tuple, one line a row"


def test_a_model_that_tells_nothing_apart_gets_what_chance_gets(folder):
    class Constant(Letters):
        def vector(self, text, image):
            return [0.1, 0.2, 0.3, 0.4]

    assert evaluate(task_of(folder, "VOC2007"), Constant())["hit_at_1"] == pytest.approx(1 / 3)
    pool = evaluate(task_of(folder, "VOC2007", candidate_pool="subset"), Constant())
    assert pool["hit_at_1"] == pytest.approx(1 / 5) and pool["tied_at_1"] == 1.0


def test_candidates_of_the_whole_subset(folder):
    """Of all five, with cosines: row 0, (2, 0, 0, 1), has "aa" at 1; row 1, (1, 1, 0, 1), has "aa" and "bb" at 0.775;
    row 2, (1, 0, 1, 1), has "aa" and "cc" at 0.775 and "bb" is the right one."""
    task = task_of(folder, "VOC2007", candidate_pool="subset")
    assert evaluate(task)["hit_at_1"] == pytest.approx(0.5)
    # In its row "cc" is not there; in the subset it wins.
    rows = [("bbb", "", [("bb", ""), ("a", "")]), ("ccc", "", [("b", ""), ("a", "")]), ("cc", "", [("cc", "")])]
    write_subset(folder.parent.parent, "SUN397", [*rows[:1], ("bcc", "", [("b", ""), ("a", "")]), rows[2]])
    assert evaluate(task_of(folder, "SUN397"))["hit_at_1"] == 1.0
    pool = task_of(folder, "SUN397", candidate_pool="subset")
    assert evaluate(pool)["hit_at_1"] == pytest.approx(2 / 3)
    assert pool.result_files()["SUN397_pred.txt"].splitlines()[1] == "('cc', '')"


MIXED = [
    ("red <|image_1|>", "x.png", [("", "x.png"), ("b", ""), ("c", "y.png")]),
    ("bb", "", [("b", ""), ("c", "y.png"), ("", "x.png")]),
]


def test_rows_of_mixed_kinds_reach_any_model_in_their_columns(tmp_path):
    images = {"x.png": "red", "y.png": "blue"}
    zip_images(write_subset(tmp_path, "EDIS", MIXED) / "images.zip", images)
    model = Letters()
    task = task_of(tmp_path, "EDIS")
    assert evaluate(task, model)["hit_at_1"] == 1.0, "red ↔ red, bb ↔ b"
    assert model.told == [
        ("query", ["image", "text"], ["red"]),
        ("query", ["text"], ["bb"]),
        ("document", ["image"], [""]),
        ("document", ["text"], ["b"]),
        ("document", ["image", "text"], ["c"]),
    ]
    task.load_data()
    assert task.metadata.category == "it2it", "what the data holds, not what the table says"


def test_texts_reach_the_model_to_the_blank(tmp_path):
    """MTEB strips documents; models that pool the last token were trained on the line break at the end."""
    rows = [("Find it:\n", "", [("<|image_1|>\nSee it.\n", "x.png")])]
    write_images(write_subset(tmp_path, "VisDial", rows) / "images", {"x.png": "red"})
    model = Letters()
    evaluate(task_of(tmp_path, "VisDial"), model)
    assert [texts for _, _, texts in model.told] == [["Find it:\n"], ["See it.\n"]]


def test_nan_is_an_error_that_names_the_row(folder):
    with pytest.raises(ModelError, match="test/letters gave NaN for 1 of 5 contents: target 3"):
        evaluate(task_of(folder, "VOC2007"), Letters(nan=["bbbb"]))
    with pytest.raises(ModelError, match=r"NaN for 3 of 3 contents: row 0: VOC2007/red\.png; row 1: "):
        evaluate(task_of(folder, "VOC2007"), Letters(nan=["Name it\n"]))


def test_rows_without_their_own_score_in_a_search_are_named(folder):
    """A model with its own search is not looked into; its scores are."""
    task = task_of(folder, "VOC2007")
    task.load_data()
    qrels = task.dataset["default"]["test"]["relevant_docs"]
    results = {query: {candidate: float("nan") for candidate in relevant} for query, relevant in qrels.items()}
    with pytest.raises(UserError, match=r"query row 0: VOC2007/red\.png: the score of target 0 is NaN"):
        task.task_specific_scores({}, qrels, results, hf_split="test", hf_subset="default")


def test_more_candidates_than_mteb_keeps_are_all_ranked(tmp_path):
    words = [("c" * 3, ""), *((f"{'a' * (i % 7 + 1)} {i}", "") for i in range(1200))]
    write_subset(tmp_path, "ImageNet-1K", [("cc", "", words[::-1]), ("cc", "", words)])
    scores = evaluate(task_of(tmp_path, "ImageNet-1K"))
    assert scores["hit_at_1"] == 0.5 and scores["tied_at_1"] == 0.0


def test_a_missing_image_is_named(folder):
    (folder / "images" / "VOC2007" / "green.png").unlink()
    with pytest.raises(Exception, match=r"VOC2007/green\.png"):
        evaluate(task_of(folder, "VOC2007"))


@pytest.mark.parametrize(("subset", "prefix"), [("GQA", "Represent the answer: "), ("CIRR", "")])
def test_target_prefixes_are_an_option(tmp_path, subset, prefix):
    write_subset(tmp_path, subset, [("a", "", [("a", ""), ("b", "")])])
    model = Letters()
    evaluate(task_of(tmp_path, subset, target_prefix=True), model)
    assert model.told[1][2] == [f"{prefix}a", f"{prefix}b"] and model.told[0][2] == ["a"]
    plain = Letters()
    evaluate(task_of(tmp_path, subset), plain)
    assert plain.told[1][2] == ["a", "b"]


# Names.


def test_lists():
    rows = {row.name: row for row in list_benchmarks("MMEB")}
    assert rows["MMEB(eval)"].n_tasks == 36 and rows["MMEB(eval)"].main_score == "hit_at_1"
    assert [row.name for row in list_tasks("MMEB(eval)")] == [f"MMEB_{subset}" for subset in SUBSETS]
    assert len(select_tasks(["MMEB"])) == 36
    kinds = {row.name: row.category for row in list_tasks("MMEB(eval)")}
    assert kinds["MMEB_ChartQA"] == "it2t" and kinds["MMEB_NIGHTS"] == "it2it" and kinds["MMEB_WebQA"] == "t2it"


@pytest.mark.parametrize(
    ("name", "nearest"), [("MMEB_ImageNet1K", "MMEB_ImageNet-1K"), ("ImageNet-1K", "MMEB_ImageNet-1K")]
)
def test_an_unknown_subset_comes_with_the_nearest(name, nearest):
    with pytest.raises(UnknownNameError) as error:
        select_tasks(tasks=[name])
    assert nearest in error.value.nearest


@pytest.mark.parametrize("names", [{"benchmarks": ["MMEB-V2(video)"]}, {"benchmarks": ["MMEB-V2"]}])
def test_benchmarks_with_videos_are_refused(names):
    with pytest.raises(UserError, match=r"holds videos: video is not supported yet.*MMEB\(eval\).*MMEB-V2\(visdoc\)"):
        select_tasks(**names)


@pytest.mark.parametrize("name", ["MMEB2_MSR-VTT", "SmthSmthV2", "Charades-STA"])
def test_subsets_of_videos_are_refused(name):
    with pytest.raises(UserError, match=f"{name} holds videos: video is not supported yet"):
        select_tasks(tasks=[name])


def test_options_without_a_task_that_has_them_are_refused():
    with pytest.raises(UserError, match=r"--target-prefix goes with tasks of MMEB\(eval\), and none is selected"):
        select_tasks(tasks=["StdlibPagesT2T"], mmeb=MmebOptions(target_prefix=True))


def test_tasks_travel_with_their_options(folder):
    task = task_of(folder, "VOC2007", candidate_pool="subset", target_prefix=True)
    task.load_data()
    copy = pickle.loads(pickle.dumps(task))
    assert copy.options == task.options and evaluate(copy) == evaluate(task)
    for cls in mmeb.TASKS:
        assert pickle.loads(pickle.dumps(cls)) is cls
    assert json.dumps(task.result_files()) and {cls.subset for cls in mmeb.TASKS} == set(sum(META_TASKS.values(), ()))
