"""A task's data: loaded, cut to a limit, planned, and named by a digest that changes with whatever decides a score."""

import datasets
import mteb
import pytest
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

from raylib.errors import UserError
from raylib.evaluate.plan import Plan
from raylib.evaluate.task_data import load_task
from tests.evaluate.made import Letters


def table(ids, texts):
    kinds = datasets.Features({"id": datasets.Value("string"), "text": datasets.Value("string")})
    return datasets.Dataset.from_dict({"id": list(ids), "text": list(texts)}, kinds)


def retrieval(judged=None, documents=None, queries=None, top_ranked=None):
    """A real task with its data in memory: queries q0 … q3, documents d0 … d5."""
    documents = documents or {f"d{i}": f"page {i} a" for i in range(6)}
    queries = queries or {f"q{i}": f"question {i} b" for i in range(4)}
    task = mteb.get_task("NFCorpus")
    judged = judged or {"q0": {"d5": 1}, "q2": {"d1": 2, "d4": 0}, "q3": {"d3": 1}}
    data = RetrievalSplitData(
        corpus=table(documents, documents.values()),
        queries=table(queries, queries.values()),
        relevant_docs=judged,
        top_ranked=top_ranked,
    )
    task.dataset = {"default": {"test": data}}
    task.data_loaded = True
    return task


def side(loaded, role):
    (found,) = [side for side in loaded.sides if side.role == role]
    return found


def digest(task, encoder=None, limit=None):
    loaded = load_task(task, official=True, limit=limit)
    encoder = encoder or Letters()
    return loaded.digest(encoder.fingerprint, loaded.plan(Plan(encoder)))


def test_the_sides_are_the_corpus_and_the_judged_queries():
    loaded = load_task(retrieval(), official=True)
    assert loaded.name == "NFCorpus" and loaded.official
    query, document = side(loaded, "query"), side(loaded, "document")
    assert query.source.ids == ["q0", "q2", "q3"], "MTEB never asks for the query without judgements"
    assert document.source.ids == [f"d{i}" for i in range(6)]
    assert query.source.name == "NFCorpus/test/default query" and query.source.required == "text"


def test_the_plan_names_every_item_by_its_place():
    loaded = load_task(retrieval(documents={"x": "same", "y": "same", "z": "other"}), official=True)
    plan = Plan(Letters())
    planned = loaded.plan(plan)
    ids, keys = planned[("NFCorpus", "test", "default", "document")]
    assert ids == ["x", "y", "z"] and keys[0] == keys[1] != keys[2]
    assert len(plan.keys()) == 2 + 3 and plan.n_requested == 6


def test_a_limit_keeps_judged_queries_and_everything_that_answers_them():
    task = retrieval()
    loaded = load_task(task, official=True, limit=2)
    assert side(loaded, "query").source.ids == ["q0", "q2"]
    assert side(loaded, "document").source.ids == ["d0", "d1", "d5"], "the first two, and the relevant d5"
    assert task.dataset["default"]["test"]["relevant_docs"].keys() == {"q0", "q2"}
    assert not loaded.official


def test_a_limit_keeps_the_candidates_of_a_reranking():
    ranked = {"q0": ["d5", "d3"], "q2": ["d1"], "q3": ["d4"]}
    task = retrieval(top_ranked=ranked)
    loaded = load_task(task, official=True, limit=1)
    assert side(loaded, "document").source.ids == ["d0", "d3", "d5"]
    assert task.dataset["default"]["test"]["top_ranked"] == {"q0": ["d5", "d3"]}


def test_a_generous_limit_changes_nothing_but_the_standing():
    loaded = load_task(retrieval(), official=True, limit=100)
    assert len(side(loaded, "document").source) == 6 and not loaded.official
    assert not load_task(retrieval(), official=False).official


def test_a_limit_is_refused_where_it_has_no_meaning():
    task = mteb.get_task("Banking77Classification")
    task.data_loaded = True
    assert load_task(task, official=True).sides == []
    with pytest.raises(UserError, match="--limit works for retrieval tasks; Banking77Classification is Classification"):
        load_task(task, official=True, limit=3)


def test_tasks_without_sides_have_no_digest():
    task = mteb.get_task("Banking77Classification")
    task.data_loaded = True
    assert load_task(task, official=True).digest("f", {}) == ""


OTHER_WORDS = {f"d{i}": f"page {i} {'a' if i else 'changed'}" for i in range(6)}
OTHER_NAMES = {f"D{i}": f"page {i} a" for i in range(6)}


@pytest.mark.parametrize(
    "changed",
    [
        {"judged": {"q0": {"d5": 1}, "q2": {"d1": 1, "d4": 0}, "q3": {"d3": 1}}},
        {"judged": {"q0": {"d4": 1}, "q2": {"d1": 2, "d4": 0}, "q3": {"d3": 1}}},
        {"documents": OTHER_WORDS},
        {"documents": OTHER_NAMES},
        {"queries": {f"q{i}": f"question {i}" for i in range(4)}},
        {"top_ranked": {"q0": ["d1"], "q2": ["d1"], "q3": ["d1"]}},
    ],
    ids=["grade", "answer", "document", "document id", "query", "candidates"],
)
def test_whatever_decides_a_score_changes_the_digest(changed):
    assert digest(retrieval(**changed)) != digest(retrieval())


def test_the_digest_is_that_of_the_encoder_too_and_of_nothing_else():
    assert digest(retrieval()) == digest(retrieval())
    assert digest(retrieval(), Letters("made/other")) != digest(retrieval())
    assert digest(retrieval(), limit=2) != digest(retrieval())
    loaded, planned = load_task(retrieval(), official=True), {("t", "s", "d", "query"): (["q"], [b"k"])}
    by_options = {loaded.digest("f", planned, options) for options in (None, {}, {"index": "Flat"}, {"index": "PQ4"})}
    assert len(by_options) == 3, "how it was searched decides too"
    one_more = {"q0": {"d5": 1}, "q2": {"d1": 2, "d4": 0}, "q3": {"d3": 1}}
    assert digest(retrieval(judged=dict(reversed(one_more.items())))) == digest(retrieval())


def test_a_model_that_cannot_read_a_side_is_told_why():
    loaded = load_task(retrieval(), official=True)
    assert loaded.refusal(Letters(), ["text", "image"]) is None
    assert (
        loaded.refusal(Letters(modalities=["image"]), ["image"]) == "contents are text; made/letters reads image only"
    )


class OwnSearch:
    spec = Letters("made/search").spec


@pytest.mark.parametrize(
    ("modalities", "reason"), [(["text"], None), (["audio"], "contents are text; made/search reads audio only")]
)
def test_a_model_with_its_own_search_is_asked_for_its_modalities(modalities, reason):
    assert load_task(retrieval(), official=True).refusal(OwnSearch(), modalities) == reason


def test_data_that_cannot_be_had_names_the_task_and_the_way_out(monkeypatch):
    task = mteb.get_task("NFCorpus")

    def fail(*args, **kwargs):
        raise ConnectionError("offline mode\nis enabled")

    monkeypatch.setattr(task, "load_data", fail)
    with pytest.raises(
        UserError, match=r"^the data of NFCorpus cannot be loaded: ConnectionError: offline mode is enabled"
    ):
        load_task(task, official=True)


def test_data_of_another_layout_names_the_task():
    task = retrieval()
    task.dataset["default"]["test"]["corpus"] = datasets.Dataset.from_dict({"number": [1]})
    with pytest.raises(UserError, match="the data of NFCorpus cannot be loaded: "):
        load_task(task, official=True)


def test_a_failure_of_the_cache_keeps_its_own_words(monkeypatch):
    task = mteb.get_task("NFCorpus")

    def fail(*args, **kwargs):
        raise UserError("set RAYLIB_CACHE")

    monkeypatch.setattr(task, "load_data", fail)
    with pytest.raises(UserError, match=r"^set RAYLIB_CACHE$"):
        load_task(task, official=True)
