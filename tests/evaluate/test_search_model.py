"""The MTEB model with a search of its own choice: options that are reported, rankings that are told, sides that cannot
be searched."""

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.evaluate.encode import encode_locally
from raylib.evaluate.model import StoreModel
from raylib.evaluate.search import Found, search_locally
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.search.options import SearchOptions
from raylib.store.embeddings import Shelf
from tests.evaluate.compare import scores_of
from tests.evaluate.made import Letters, Words
from tests.evaluate.mock_tasks import grown_task
from tests.evaluate.test_store_model import CORPUS, QUERIES, search, table


def made(folder, encoder, **settings):
    return StoreModel(encoder, Shelf(str(folder), encoder.fingerprint), encode_locally, **settings)


def toy(name):
    return resolve(ModelSpec(f"tests.toys:{name}"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dense", SearchOptions(index="IVF8,Flat;nprobe=8")),
        ("late", SearchOptions(candidates="int8")),
        ("late", SearchOptions(candidates="binary")),
        ("late", SearchOptions(token_pooling=2)),
    ],
    ids=str,
)
def test_a_task_is_scored_with_options_and_says_what_they_cost(name, options, tmp_path):
    plain = scores_of(made(tmp_path, toy(name)), grown_task("MockRetrievalTask"), 16)
    model = made(tmp_path, toy(name), search_options=options)
    scores = scores_of(model, grown_task("MockRetrievalTask"), 16)
    assert len(model.quality) == len([where for where in model.quality if where[0] == "MockRetrievalTask"]) >= 1
    for quality in model.quality.values():
        assert 0 < quality["recall_at_100"] <= 1 and quality["bytes_per_document"] > 0
        assert quality["sampled_queries"] == 100
        lossless = options.token_pooling == 1  # a thousand candidates of two hundred documents
        assert (quality["recall_at_10"] == 1) == lossless
    if options.token_pooling == 1:
        assert scores == plain
    else:
        assert scores != plain and scores.keys() == plain.keys()


def test_exact_search_has_nothing_to_report(tmp_path):
    model = made(tmp_path, Letters())
    search(model, CORPUS, QUERIES)
    assert model.quality == {}


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        (Words, {"index": "Flat"}, "--index 'Flat' is for dense vectors"),
        (Letters, {"candidates": "binary"}, "--candidates binary is for late-interaction vectors"),
        (Letters, {"token_pooling": 3}, "--token-pooling is for late-interaction vectors"),
    ],
)
def test_options_of_the_other_kind_are_refused_before_anything_is_encoded(encoder, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        made(tmp_path, encoder(), search_options=SearchOptions(**options))


def test_the_stage_is_asked_for_distinct_contents(tmp_path):
    asked = []

    def stage(request):
        asked.append(request)
        return Found(np.array([[3, 0], [1, -1]]), np.array([[2.5, 1.5], [0.5, -np.inf]], np.float32), {"told": 1})

    model = made(tmp_path, Letters(), search_stage=stage, search_options=SearchOptions(index="Flat"))
    found = search(model, CORPUS, table(["q2", "q1", "q3"], ["a", "bbc", "a"]), top_k=2)
    assert found == {"q2": {"d7": 2.5, "d9": 1.5}, "q1": {"d10": 0.5}, "q3": {"d7": 2.5, "d9": 1.5}}
    (request,) = asked
    assert len(request.query_keys) == 2 and len(request.document_keys) == 3, "d7 and d9 are one content"
    assert request.owners.tolist() == [0, 1, 2, 0] and request.k == 2 and request.options.index == "Flat"
    assert request.ranks.tolist() == [3, 0, 1, 2], "d10, d2, d7, d9"
    assert model.quality == {("NFCorpus", "test", "default"): {"told": 1}}


@pytest.mark.parametrize("candidates", [None, {"q2": ["d10", "d2"], "q1": ["d7", "d9", "d10"]}])
def test_every_ranking_is_told_with_the_keys_of_both_sides(candidates, tmp_path):
    told = []
    model = made(tmp_path, Letters(), on_ranking=lambda *ranking: told.append(ranking))
    results = search(model, CORPUS, QUERIES, top_ranked=candidates)
    ((metadata, split, subset, ranking, queries, documents),) = told
    assert (metadata.name, split, subset) == ("NFCorpus", "test", "default") and ranking == results
    assert queries[0] == ["q2", "q1"] and documents[0] == ["d9", "d10", "d2", "d7"]
    assert documents[1][0] == documents[1][3] != documents[1][1]
    model.shelf.refresh()
    assert model.shelf.contains([*queries[1], *documents[1]]).all()


@pytest.mark.parametrize("candidates", [None, {"q2": ["d10"], "q1": ["d7"]}])
@pytest.mark.parametrize(
    ("corpus", "queries", "message"),
    [
        (table([], []), QUERIES, "no rows in the corpus of NFCorpus/test/default; expected at least one"),
        (CORPUS, table([], []), "no rows in the queries of NFCorpus/test/default"),
        (
            table(["d1", "d2", "d1"], ["a", "b", "c"]),
            QUERIES,
            "3 rows but only 2 ids in the corpus of .*: d1 given twice or more",
        ),
        (table(["d1", "d1"], ["a", "a"]), QUERIES, "2 rows but only 1 ids in the corpus of .*: d1 "),
        (CORPUS, table(["q1", "q1"], ["a", "b"]), "2 rows but only 1 ids in the queries of .*: q1"),
    ],
)
def test_sides_that_cannot_be_searched(corpus, queries, message, candidates, tmp_path):
    with pytest.raises(UserError, match=message):
        search(made(tmp_path, Letters()), corpus, queries, top_ranked=candidates)


def test_a_model_with_options_travels(tmp_path):
    """Ray sends it to the processes that score tasks."""
    import pickle

    model = made(tmp_path, Letters(), search_options=SearchOptions(index="Flat"))
    expected = search(model, CORPUS, QUERIES)
    copy = pickle.loads(pickle.dumps(model))
    assert copy.search_stage is search_locally and search(copy, CORPUS, QUERIES) == expected
