"""StdlibPages through MTEB's own evaluation, with a model that hashes what it sees."""

import hashlib

import mteb
import numpy as np
import pytest
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta

from raylib.tasks import docstrings, stdlib_pages, stdlib_tasks
from tests.tasks.test_stdlib_pages import FEW


@pytest.fixture
def few_modules(monkeypatch):
    modules = docstrings.collect(names=FEW)
    monkeypatch.setattr(docstrings, "collect", lambda: modules)


class HashModel(AbsEncoder):
    """Counts of hashed words, and one hashed bucket an image: text finds text, nothing finds an image."""

    def __init__(self):
        self.mteb_model_meta = ModelMeta.create_empty(
            {"name": "test/hash", "revision": "1", "modalities": ["text", "image"]}
        )
        self.seen = {"query": set(), "document": set()}
        self.contents = {"query": 0, "document": 0}

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kwargs):
        rows = []
        for batch in inputs:
            self.seen[prompt_type.value] |= set(batch)
            texts = batch.get("text", [""] * len(batch.get("image", ())))
            images = batch.get("image", [None] * len(texts))
            self.contents[prompt_type.value] += len(texts)
            rows += [self.vector(text, image) for text, image in zip(texts, images, strict=True)]
        return np.stack(rows)

    @staticmethod
    def vector(text, image):
        vector = np.full(4096, 1e-6, dtype=np.float32)
        for word in text.lower().split():
            vector[int(hashlib.md5(word.encode()).hexdigest()[:3], 16)] += 1
        if image is not None:
            assert image.mode == "RGB" and image.size == (827, 1170)
            vector[int(hashlib.md5(image.tobytes()).hexdigest()[:3], 16)] += 1
        return vector


def evaluate(task):
    model = HashModel()
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    (scores,) = result.task_results[0].scores["test"]
    return model, scores


def test_three_tasks_give_a_model_exactly_their_modalities(few_modules):
    tasks = list(stdlib_tasks.benchmark().tasks)
    assert [task.metadata.name for task in tasks] == ["StdlibPagesT2I", "StdlibPagesT2T", "StdlibPagesT2IT"]

    (image, image_scores), (text, text_scores), (both, both_scores) = (evaluate(task) for task in tasks)

    assert image.seen["document"] == {"id", "image"}
    assert text.seen["document"] == {"id", "text", "body"}
    assert both.seen["document"] == {"id", "image", "text", "body"}
    assert image.contents == text.contents == both.contents
    pages, queries = stdlib_pages.build("test")
    assert text.contents == {"query": len(queries), "document": len(pages)}
    assert all(scores["main_score"] == scores["ndcg_at_5"] for scores in (image_scores, text_scores, both_scores))
    assert text_scores["ndcg_at_5"] > 0.5 and both_scores["ndcg_at_5"] > 0.5, "shared words find the page"
    assert image_scores["ndcg_at_5"] < text_scores["ndcg_at_5"] - 0.2, "hashed pixels do not"


def test_the_score_of_a_text_search_is_what_numpy_computes(few_modules):
    _, scores = evaluate(stdlib_tasks.StdlibPagesT2T())

    pages, queries = stdlib_pages.build("test")
    vectors = np.stack([HashModel.vector(page.text, None) for page in pages.values()]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gains = []
    for query in queries:
        order = np.argsort(-(vectors @ HashModel.vector(query.text, None).astype(np.float64)), kind="stable")
        rank = [list(pages)[index] for index in order].index(query.page_id)
        gains.append(1 / np.log2(rank + 2) if rank < 5 else 0.0)
    assert scores["ndcg_at_5"] == pytest.approx(np.mean(gains), abs=1e-3)


def test_metadata_is_complete_and_says_which_python():
    for task in stdlib_tasks.TASKS:
        assert task.metadata.dataset["revision"] == stdlib_pages.revision()
        assert task.metadata.main_score == "ndcg_at_5" and task.metadata.eval_splits == ["test"]
        assert not [name for name in ("description", "type", "category", "license") if not getattr(task.metadata, name)]


def test_training_pages_are_a_split_of_their_own(few_modules):
    task = stdlib_tasks.StdlibPagesT2T()
    task.filter_eval_splits(["train"])
    task.load_data()

    train = set(task.dataset["default"]["train"]["corpus"]["id"])
    test = set(stdlib_pages.build("test")[0])
    assert train and test and not train & test
