"""`raylib evaluate --local` in every mode of BGE-M3, whose scores follow from the published formulas; and what cannot
be done with token weights."""

from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pyarrow.parquet as pq
import pytest
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

import raylib
from raylib.errors import UnsupportedOptionError, UserError
from raylib.evaluate.encode import encode_locally
from raylib.evaluate.exact_models import exact_source
from raylib.evaluate.model import StoreModel
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.score.config import ScoreConfig
from raylib.score.job import score
from raylib.store.embeddings import Shelf
from tests.evaluate.mock_tasks import grown_task
from tests.evaluate.test_store_model import encode, search, table
from tests.models.tiny_m3 import ByHand, save_m3

MODES = ("dense", "sparse", "multi-vector", "hybrid")
WEIGHTS = (2.0, 0.1, 1.0)
"""Of which no single score decides alone, over these random weights."""

QUERIES = {"q1": "open a file and read the lines", "q2": "sort a list by key", "q3": "<unk>"}
CORPUS = {
    "d1": "Open a file for reading; close the stream at the end.",
    "d2": "A list of items, sorted by key",
    "d3": "the the the",
    "d4": "Parse and format dates, times and numbers of the annual report",
    "d5": "socket",
    "d6": "Read the lines of the file, then the key of the list",
    "d7": "socket",
    "d8": "<unk><unk>",
}
RELEVANT = {"q1": {"d1": 1, "d6": 1}, "q2": {"d2": 1}, "q3": {"d8": 1}}

pytestmark = pytest.mark.usefixtures("private_caches")


class Toy(AbsTaskRetrieval):
    metadata = mteb.get_task("NFCorpus").metadata.model_copy(
        update={"name": "ToyTexts", "dataset": {"path": "x", "revision": "1"}}
    )

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        split = RetrievalSplitData(
            corpus=table(CORPUS, CORPUS.values()),
            queries=table(QUERIES, QUERIES.values()),
            relevant_docs=RELEVANT,
            top_ranked=None,
        )
        self.dataset, self.data_loaded = {"default": {"test": split}}, True


@pytest.fixture(scope="module")
def m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_m3(tmp_path_factory.mktemp("m3"))


@pytest.fixture(scope="module")
def by_hand(m3: Path) -> dict[str, dict[tuple[str, str], float]]:
    """Mode → (query, document) → score."""
    sides = {**QUERIES, **CORPUS}
    one = {name: ByHand(m3, text) for name, text in sides.items()}
    found: dict[str, dict[tuple[str, str], float]] = {mode: {} for mode in MODES}
    for pair in ((q, d) for q in QUERIES for d in CORPUS):
        parts = one[pair[0]].scores(one[pair[1]])
        found["dense"][pair], found["sparse"][pair], mean = parts
        found["multi-vector"][pair] = mean * len(one[pair[0]].vectors)
        found["hybrid"][pair] = float(np.dot(WEIGHTS, parts) / sum(WEIGHTS))
    return found


@pytest.fixture
def evaluate(m3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(mode: str, *tasks: Any, **settings: Any):
        monkeypatch.setattr("raylib.tasks.selection.select_tasks", lambda *a, **k: list(tasks) or [Toy()])
        if mode == "hybrid":
            settings.setdefault("mode_weights", ",".join(map(str, WEIGHTS)))
        fixed = {"tasks": ["ToyTexts"], "local": True, "quiet": True, "output_folder": str(tmp_path / "out")}
        return raylib.evaluate([str(m3)], mode=mode, **{**fixed, **settings})

    return run


def rankings(folder: Path) -> dict[str, list[tuple[str, float]]]:
    (path,) = folder.rglob("rankings.parquet")
    found: dict[str, list[tuple[str, float]]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault(row["query_id"], []).append((row["document_id"], row["score"]))
    return found


def in_order(scores: dict[tuple[str, str], float], query: str) -> list[str]:
    """Ties by id, descending; equal texts tie."""
    text = {d: min(other for other in CORPUS if CORPUS[other] == CORPUS[d]) for d in CORPUS}
    return sorted(CORPUS, key=lambda d: (scores[query, text[d]], d), reverse=True)


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_scored_as_published(mode, evaluate, by_hand, tmp_path):
    assert evaluate(mode).ok
    for query, found in rankings(tmp_path / "out").items():
        assert [d for d, _ in found] == in_order(by_hand[mode], query)
        for document, value in found:
            assert value == pytest.approx(by_hand[mode][query, document], rel=2e-6, abs=2e-6)


def test_a_hybrid_ranking_is_none_of_its_parts(by_hand):
    """So that the test above would show a part left out."""
    orders = {mode: [in_order(by_hand[mode], query) for query in ("q1", "q2")] for mode in MODES}
    assert all(orders["hybrid"] != orders[mode] for mode in MODES[:3])
    assert len({str(order) for order in orders.values()}) == 4


def test_other_weights_reuse_what_is_stored_and_file_their_results_apart(evaluate, by_hand, tmp_path):
    assert evaluate("hybrid").ok
    outcome = evaluate("hybrid", mode_weights="0,1,0")
    assert outcome.ok and outcome.summaries[0].contents["encoded"] == 0
    folders = {path.parents[2].name: path for path in (tmp_path / "out").rglob("rankings.parquet")}
    assert sorted(folders) == ["mode_hybrid__mode_weights_0,1,0", "mode_hybrid__mode_weights_2.0,0.1,1.0"]
    found = rankings(folders["mode_hybrid__mode_weights_0,1,0"].parent)
    assert [d for d, _ in found["q1"]] == in_order(by_hand["sparse"], "q1")


@pytest.mark.parametrize("mode", ["sparse", "hybrid"])
def test_the_store_scores_again_without_the_model(mode, evaluate, tmp_path):
    assert evaluate(mode).ok
    details = next((tmp_path / "out").rglob("contents.parquet")).parent
    qrels = tmp_path / "qrels"
    qrels.write_text("".join(f"{q} 0 {d} {g}\n" for q, documents in RELEVANT.items() for d, g in documents.items()))
    given = {"queries": str(details), "documents": str(details), "qrels": str(qrels)}
    outcome = score(ScoreConfig(**given, output_folder=str(tmp_path / "score")))
    assert {q: list(found.items()) for q, found in outcome.run.items()} == rankings(tmp_path / "out")
    assert outcome.search["similarity"] == {"sparse": "sparse", "hybrid": "hybrid:2.0,0.1,1.0"}[mode]
    for asked in ({"similarity": "maxsim"}, {"similarity": "cosine"}):
        with pytest.raises(UserError, match=f"holds token weights, compared by {mode}.*; leave --similarity"):
            score(ScoreConfig(**given, **asked, output_folder=str(tmp_path / "score")))
    with pytest.raises(UserError, match="--index 'Flat' is for vectors, and this model gives token weights"):
        score(ScoreConfig(**given, index="Flat", output_folder=str(tmp_path / "score")))


@pytest.mark.parametrize("mode", ["sparse", "hybrid"])
def test_tasks_that_need_vectors_are_skipped_with_the_reason(mode, evaluate):
    outcome = evaluate(mode, Toy(), grown_task("MockSTSTask"))
    (summary,) = outcome.summaries
    assert outcome.ok and [entry["task_name"] for entry in summary.task_results] == ["ToyTexts"]
    ((skipped),) = summary.tasks_skipped
    assert (
        skipped["task_name"] == "MockSTSTask" and "gives token weights, which only rank documents" in skipped["reason"]
    )


@pytest.mark.parametrize("settings", [{"index": "Flat"}, {"candidates": "int8"}, {"token_pooling": 2}], ids=str)
def test_ways_to_search_vectors_faster_fail_in_a_line(settings, evaluate):
    outcome = evaluate("sparse", **settings)
    assert not outcome.ok and "is for vectors, and this model gives token weights" in outcome.summaries[0].error


def test_multi_vector_is_late_interaction_with_all_its_options(evaluate):
    for settings in ({"candidates": "int8"}, {"token_pooling": 2}):
        assert evaluate("multi-vector", **settings).ok


# The MTEB model by itself.


def store_model(m3: Path, mode: str, folder: Path) -> StoreModel:
    options = {"mode_weights": ",".join(map(str, WEIGHTS))} if mode == "hybrid" else {}
    encoder: Any = resolve(ModelSpec(str(m3), mode=mode, **options))
    return StoreModel(encoder, Shelf(str(folder), encoder.fingerprint), encode_locally)


@pytest.mark.parametrize("mode", ["sparse", "hybrid"])
def test_candidates_are_ranked_as_a_search_ranks_them(mode, m3, by_hand, tmp_path):
    model = store_model(m3, mode, tmp_path)
    sides = table(CORPUS, CORPUS.values()), table(QUERIES, QUERIES.values())
    candidates = {"q1": ["d5", "d7", "d1", "d6"], "q2": ["d3", "none"]}
    found = search(model, *sides, top_k=3, top_ranked=candidates)
    whole = search(model, *sides, top_k=99)
    expected = [d for d in in_order(by_hand[mode], "q1") if d in candidates["q1"]][:3]
    assert list(found["q1"]) == expected and found["q1"] == {d: whole["q1"][d] for d in expected}
    assert found["q2"] == {"d3": whole["q2"]["d3"]} and found["q3"] == {}


@pytest.mark.parametrize("mode", ["sparse", "hybrid"])
def test_mteb_is_given_no_token_weights(mode, m3, tmp_path):
    model = store_model(m3, mode, tmp_path)
    with pytest.raises(UserError, match=rf"gives token weights \(--mode {mode}\), which only rank.* Use --mode dense"):
        encode(model, ["a"])


@pytest.mark.parametrize("mode", ["sparse", "hybrid", "multi-vector"])
def test_exact_mteb_knows_no_modes(mode, m3):
    with pytest.raises(UnsupportedOptionError, match="--exact-mteb"):
        exact_source(ModelSpec(str(m3), mode=mode))
