"""Vectors of the store, as `raylib evaluate` left them: the same scores again, without the model."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.score.config import ScoreConfig
from raylib.score.job import score
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings
from tests.score.files import opened
from tests.tasks.local_vidore import private_datasets_cache, write_local_vidore

MODELS = ("tests.toys:dense", "tests.toys:late")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(details folders by model, task) of an evaluate run: four languages over one corpus of 24 pages."""
    import raylib

    folder = tmp_path_factory.mktemp("evaluated")
    (task,) = write_local_vidore(str(folder / "data"), ["v2"])
    given = {"data_root": str(folder / "data"), "output_folder": str(folder / "out"), "local": True, "quiet": True}
    with pytest.MonkeyPatch.context() as patch, private_datasets_cache(str(folder / "datasets")):
        patch.setenv("RAYLIB_CACHE", str(folder / "cache"))
        assert raylib.evaluate(list(MODELS), tasks=[task], **given).ok
    return {model: next(folder.glob(f"out/*{model.split(':')[1]}*/**/details/{task}")) for model in MODELS}, task


@pytest.mark.parametrize("subset", ["english", "german"])
@pytest.mark.parametrize("model", MODELS)
def test_the_scores_of_evaluate_again(model, subset, evaluated, tmp_path):
    folders, task = evaluated
    details = folders[model]
    ranked = [r for r in pq.read_table(details / "rankings.parquet").to_pylist() if r["subset"] == subset]
    judged = [r for r in ranked if r["relevance"] is not None]  # all 24 pages are ranked
    lines = [f"{r['query_id']} 0 {r['document_id']} {r['relevance']}\n" for r in judged]
    (tmp_path / "qrels").write_text("".join(lines))
    given = {"queries": str(details), "documents": str(details / "contents.parquet"), "subset": subset}
    outcome = score(ScoreConfig(**given, qrels=str(tmp_path / "qrels"), output_folder=str(tmp_path / "out")))
    results = json.loads((details.parent.parent / f"{task}.json").read_text())["scores"]["test"]
    (theirs,) = [entry for entry in results if entry["hf_subset"] == subset]
    assert outcome.search["similarity"] == ("cosine" if model.endswith("dense") else "maxsim")
    assert 0 < theirs["main_score"] < 1 and theirs["main_score"] == theirs["ndcg_at_5"]
    for measure, value in outcome.means.items():
        assert value == pytest.approx(theirs[measure], abs=6e-6), f"{measure}: MTEB rounds to 5 places"
    expected = [r for r in pq.read_table(details / "queries.parquet").to_pylist() if r["subset"] == subset]
    assert {r["query_id"]: r["ndcg_at_5"] for r in expected} == outcome.values["ndcg_at_5"]
    pairs = [(q, d, s) for q, documents in outcome.run.items() for d, s in documents.items()]
    assert pairs == [(r["query_id"], r["document_id"], r["score"]) for r in ranked], "to the bit, in order"
    assert outcome.where == (task, "test", subset)
    assert outcome.read["documents"]["model"] == model and outcome.counts["unknown_documents"] == 0


FINGERPRINT = "ab" * 32


def contents(folder, rows, similarity="cosine", fingerprint=FINGERPRINT, **changed):
    """contents.parquet: rows of (split, subset, role, id, key)."""
    schema = pa.schema([("split", pa.string()), ("subset", pa.string()), ("role", pa.string()), ("id", pa.string())])
    schema = schema.append(pa.field("key", pa.binary(32)))
    about = {
        "store": str(folder / "store"),
        "fingerprint": fingerprint,
        "model": "m",
        "similarity": similarity,
        **changed,
    }
    columns = [pa.array(list(c), f.type) for c, f in zip(zip(*rows, strict=True), schema, strict=True)]
    path = folder / "details" / "T" / "contents.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_arrays(columns, schema=schema.with_metadata(about)), path)
    return str(path)


def key(number):
    return bytes([number]) * 32


@pytest.fixture
def stored(tmp_path):
    """Three vectors under the keys 1, 2 and 3, in two parts; document c has the content of document a."""
    shelf = Shelf(str(tmp_path / "store"), FINGERPRINT)
    shelf.write([key(2), key(1)], Embeddings.from_dense(np.array([[0, 1], [1, 0]], np.float32)))
    shelf.write([key(3)], Embeddings.from_dense(np.array([[1, 1]], np.float32)))
    rows = [("test", "eng", "document", i, key(k)) for i, k in (("a", 2), ("b", 1), ("c", 2))]
    rows += [("test", s, "query", f"{s}-q", key(k)) for s, k in (("eng", 1), ("fra", 3))]
    return [*rows, ("test", "fra", "document", "a", key(1))]


def test_documents_that_share_a_content(stored, tmp_path):
    path = contents(tmp_path, stored)
    found = opened(path, subset="eng")
    assert found.ids == ["a", "b", "c"] and found.n_contents == 2 and found.owners[0] == found.owners[2]
    (tmp_path / "qrels").write_text("eng-q 0 c 1\n")
    given = {
        "queries": path,
        "documents": path,
        "qrels": str(tmp_path / "qrels"),
        "output_folder": str(tmp_path / "out"),
    }
    outcome = score(ScoreConfig(**given, subset="eng"))
    assert list(outcome.run["eng-q"].items()) == [("b", 1.0), ("c", 0.0), ("a", 0.0)], "ties by id, descending"
    assert outcome.where == ("T", "test", "eng")
    assert pq.read_table(tmp_path / "out" / "queries.parquet").to_pylist()[0]["subset"] == "eng"


def test_which_side_and_which_subset(stored, tmp_path):
    path = contents(tmp_path, stored)
    assert opened(path, role="query", subset="fra").ids == ["fra-q"]
    for told, message in [
        ({}, r"has 2 sets of contents; choose one of: --split test --subset eng, --split test --subset fra"),
        ({"subset": "deu"}, r"has no split any with subset deu; it has: --split test --subset eng, "),
        ({"split": "dev", "subset": "eng"}, "has no split dev with subset eng"),
    ]:
        with pytest.raises(UserError, match=message):
            opened(path, **told)


def test_a_store_that_has_moved(stored, tmp_path):
    path = contents(tmp_path, stored)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with pytest.raises(
        UserError, match=r"2 of 2 contents of role document are not in the store .*store; name .*--store"
    ):
        opened(path, subset="eng")
    assert len(opened(path, subset="eng", store=str(tmp_path / "elsewhere")).load()) == 2


def test_sides_of_two_models(stored, tmp_path):
    (tmp_path / "other").mkdir()
    first, second = contents(tmp_path, stored), contents(tmp_path / "other", stored, fingerprint="cd" * 32)
    shelf = Shelf(str(tmp_path / "other" / "store"), "cd" * 32)
    shelf.write([key(1), key(2), key(3)], Embeddings.from_dense(np.ones((3, 2), np.float32)))
    (tmp_path / "qrels").write_text("eng-q 0 c 1\n")
    with pytest.raises(UserError, match="hold vectors of two models; give both sides of one model"):
        score(ScoreConfig(queries=first, documents=second, subset="eng", qrels=str(tmp_path / "qrels")))


def test_late_interaction_by_the_models_own_word(stored, tmp_path):
    assert not opened(contents(tmp_path, stored), subset="eng").late
    late = opened(contents(tmp_path, stored, similarity="maxsim"), subset="eng")
    assert late.late and late.similarity == "maxsim"


def test_a_corrupt_part_names_itself(stored, tmp_path):
    path = contents(tmp_path, stored)
    found = opened(path, subset="eng")
    for part in (tmp_path / "store").rglob("part-*.parquet"):
        data = part.read_bytes()
        part.write_bytes(data.replace(np.float32(1).tobytes(), np.float32(2).tobytes()))
    with pytest.raises(UserError, match=r"part-\w+\.parquet cannot be read"):
        found.load()


def test_what_is_no_contents_file(stored, tmp_path):
    pq.write_table(pa.table({"id": ["a"], "key": [b"x"]}), tmp_path / "x.parquet")
    with pytest.raises(
        UserError, match=r"is no contents\.parquet of `raylib evaluate`: without split, subset, role, meta"
    ):
        opened(tmp_path / "x.parquet")
    only_queries = contents(tmp_path, [row for row in stored if row[2] == "query"])
    with pytest.raises(UserError, match="names no contents of role document"):
        opened(only_queries)
    with pytest.raises(UserError, match="has its own ids; leave --document-ids out"):
        opened(contents(tmp_path, stored), str(tmp_path / "ids.txt"), subset="eng")
    twice = contents(tmp_path, [*stored, ("test", "eng", "document", "a", key(3))])
    with pytest.raises(UserError, match="1 document ids occur more than once: a"):
        opened(twice, subset="eng")
