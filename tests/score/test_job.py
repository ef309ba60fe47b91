"""The score job: vectors and judgements in, ranking, measures and summary out."""

import json
import math

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from raylib.cli import main
from raylib.errors import UserError
from raylib.metrics.runs import read_run
from raylib.score.config import ScoreConfig
from raylib.score.job import score
from tests.score.files import DENSE, LATE, id_file, write_dense, write_late

QUERIES = {"q1": [1.0, 0.0], "q2": [0.0, 2.0], "q3": [3.0, 4.0]}
DOCUMENTS = {"a": [1.0, 0.0], "b": [0.0, 5.0], "c": [2.0, 2.0], "d": [-1.0, 0.0]}
ROOT = 1 / math.sqrt(2)
COSINES = {
    "q1": {"a": 1.0, "c": ROOT, "b": 0.0, "d": -1.0},
    "q2": {"b": 1.0, "c": ROOT, "d": 0.0, "a": 0.0},
    "q3": {"c": 7 / 5 * ROOT, "b": 0.8, "a": 0.6, "d": -0.6},
}
DOTS = {
    "q1": {"c": 2.0, "a": 1.0, "b": 0.0, "d": -1.0},
    "q2": {"b": 10.0, "c": 4.0, "d": 0.0, "a": 0.0},
    "q3": {"b": 20.0, "c": 14.0, "a": 3.0, "d": -3.0},
}
QRELS = "q1 0 c 1\nq1 0 b 0\nq2 0 b 1\nq2 0 d 2\nq3 0 d 1\n"
NDCG_5 = {  # of the cosines; gains 1 and 2, discount log2(rank + 1)
    "q1": 1 / math.log2(3),
    "q2": (1 + 2 / math.log2(4)) / (2 + 1 / math.log2(3)),
    "q3": 1 / math.log2(5),
}


def settings(tmp_path, form="npz", qrels=QRELS, queries=QUERIES, documents=DOCUMENTS, **more):
    paths = {}
    for role, side in (("query", queries), ("document", documents)):
        vectors = np.array(list(side.values()), dtype=np.float32)
        path, ids = write_dense(form, tmp_path, role, list(side), vectors)
        paths["queries" if role == "query" else "documents"] = path
        paths |= {f"{role}_ids": ids} if ids is not None else {}
    (tmp_path / "qrels.txt").write_text(qrels)
    return {**paths, "qrels": str(tmp_path / "qrels.txt"), "output_folder": str(tmp_path / "out"), **more}


def run_of(outcome):
    return {
        query: [(d, pytest.approx(s, rel=1e-6, abs=1e-7)) for d, s in docs.items()] for query, docs in outcome.items()
    }


@pytest.mark.parametrize("form", DENSE)
def test_the_same_ranking_from_every_form(form, tmp_path):
    outcome = score(ScoreConfig(**settings(tmp_path, form)))
    found = {q: list(outcome.run[q].items()) for q in sorted(outcome.run)}
    assert found == run_of(COSINES), "ties go to the greater id"
    assert outcome.search["similarity"] == "cosine"


def test_the_files_that_are_written(tmp_path):
    outcome = score(ScoreConfig(**settings(tmp_path, run_name="mine", metrics=["ndcg_at_5,recall_at_1", "mrr_at_10"])))
    assert read_run(str(tmp_path / "out" / "run.trec")) == outcome.run
    assert (tmp_path / "out" / "run.trec").read_text().startswith("q1 Q0 a 1 1.0 mine\n")
    table = pq.read_table(tmp_path / "out" / "queries.parquet")
    assert table.column_names == ["split", "subset", "query_id", "n_relevant", "ndcg_at_5", "recall_at_1", "mrr_at_10"]
    rows = {row["query_id"]: row for row in table.to_pylist()}
    assert {q: row["n_relevant"] for q, row in rows.items()} == {"q1": 1, "q2": 2, "q3": 1}
    assert {q: row["ndcg_at_5"] for q, row in rows.items()} == {q: pytest.approx(v) for q, v in NDCG_5.items()}
    assert [rows[q]["mrr_at_10"] for q in ("q1", "q2", "q3")] == [0.5, 1.0, 0.25]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["measures"] == {
        "ndcg_at_5": pytest.approx(sum(NDCG_5.values()) / 3),
        "recall_at_1": pytest.approx((0 + 1 / 2 + 0) / 3),
        "mrr_at_10": pytest.approx(1.75 / 3),
    }
    assert summary["counts"] == {
        "queries": 3,
        "documents": 4,
        "queries_judged": 3,
        "queries_scored": 3,
        "unknown_queries": 0,
        "unknown_documents": 0,
        "queries_without_judgements": 0,
    }
    assert summary["read"]["documents"]["dim"] == 2 and summary["read"]["qrels"].endswith("qrels.txt")
    assert summary["search"]["top_k"] == 1000 and summary["notes"] == []


def test_dot_product_and_top_k(tmp_path):
    outcome = score(ScoreConfig(**settings(tmp_path, similarity="dot", top_k=2)))
    assert {q: list(docs.items()) for q, docs in outcome.run.items()} == {q: p[:2] for q, p in run_of(DOTS).items()}


@pytest.mark.parametrize("form", LATE)
def test_late_interaction(form, tmp_path):
    """MaxSim by hand: the sum over query vectors of the best document vector; real vectors only, or x would get 0."""
    queries = [np.array([[1, 0], [0, 1]], np.float32), np.array([[1, 1]], np.float32)]
    documents = [np.array([[-1, -1]], np.float32), np.array([[3, 0], [1, 1], [0, 2]], np.float32)]
    (tmp_path / "qrels.txt").write_text("p 0 y 1\nq 0 x 1\n")
    sides = {}
    for name, ids, side in (("queries", ["p", "q"], queries), ("documents", ["x", "y"], documents)):
        path, id_path = write_late(form, tmp_path, name, ids, side)
        sides |= {name: path, **({"query_ids" if name == "queries" else "document_ids": id_path} if id_path else {})}
    folder = str(tmp_path / "out")
    outcome = score(ScoreConfig(**sides, qrels=str(tmp_path / "qrels.txt"), output_folder=folder, metrics=["mrr_at_5"]))
    assert outcome.search["similarity"] == "maxsim"
    assert outcome.run == {"p": {"y": 5.0, "x": -2.0}, "q": {"y": 3.0, "x": -2.0}}
    assert outcome.values == {"mrr_at_5": {"p": 1.0, "q": 0.5}}
    with pytest.raises(UserError, match="has several vectors a content, cosine compares one; use --similarity maxsim"):
        score(ScoreConfig(**sides, qrels=str(tmp_path / "qrels.txt"), output_folder=folder, similarity="cosine"))


def test_ids_that_only_one_side_knows_are_counted_and_named(tmp_path):
    strange = "".join(f"x{i} 0 a 1\n" for i in range(7)) + "q1 0 gone 1\nq1 0 c 1\n"
    outcome = score(ScoreConfig(**settings(tmp_path, qrels=strange, metrics=["recall_at_5", "ndcg_at_5"])))
    assert outcome.counts["unknown_queries"] == 7 and outcome.counts["unknown_documents"] == 1
    assert outcome.counts["queries_without_judgements"] == 2 and outcome.counts["queries_scored"] == 1
    assert outcome.notes == [
        "queries of the qrels without a vector, left out: 7 (x0, x1, x2, x3, x4 and 2 more)",
        "documents of the qrels without a vector, counted as not found: 1 (gone)",
        "queries without judgements, ranked and not scored: 2 (q2, q3)",
    ]
    assert outcome.values["recall_at_5"] == {"q1": 0.5}, "a relevant document that nothing can find is missed"
    assert sorted(outcome.run) == ["q1", "q2", "q3"]


def test_an_id_that_a_run_file_cannot_hold_is_noted(tmp_path):
    given = settings(tmp_path)
    score(ScoreConfig(**given))
    documents = {f"page {name}": vector for name, vector in DOCUMENTS.items()}
    qrels = "query-id\tcorpus-id\tscore\nq1\tpage c\t1\n"
    outcome = score(ScoreConfig(**settings(tmp_path, documents=documents, qrels=qrels)))
    assert outcome.values["mrr_at_10"] == {"q1": 0.5}
    assert not (tmp_path / "out" / "run.trec").exists(), "that of the first run is not this one's"
    assert outcome.notes[-1].startswith("run.trec is not written: the id 'page ")


# A run file.


def test_a_run_file_is_scored_as_the_vectors_were(tmp_path):
    first = score(ScoreConfig(**settings(tmp_path)))
    again = score(
        ScoreConfig(
            run=str(tmp_path / "out" / "run.trec"), qrels=str(tmp_path / "qrels.txt"), output_folder=str(tmp_path / "2")
        )
    )
    assert again.values == first.values and again.run == first.run
    assert (tmp_path / "2" / "run.trec").read_bytes() == (tmp_path / "out" / "run.trec").read_bytes()


def test_a_run_file_with_other_queries_than_the_judgements(tmp_path):
    (tmp_path / "run").write_text("q1 Q0 a 1 2 x\nu1 Q0 a 1 1 x\nu2 Q0 a 1 1 x\n")
    (tmp_path / "qrels").write_text("q1 0 a 1\nq2 0 a 1\nq3 0 a 1\n")
    given = {"run": str(tmp_path / "run"), "qrels": str(tmp_path / "qrels"), "output_folder": str(tmp_path / "out")}
    outcome = score(ScoreConfig(**given, metrics=["mrr_at_5"]))
    assert outcome.values == {"mrr_at_5": {"q1": 1.0}} and outcome.means == {"mrr_at_5": 1.0}
    assert outcome.counts["run_queries_without_judgements"] == 2
    assert outcome.counts["judged_queries_without_results"] == 2
    assert outcome.notes == [
        "queries of the run without judgements, left out: 2 (u1, u2)",
        "judged queries without a result in the run, left out (--complete counts them as 0): 2 (q2, q3)",
    ]
    complete = score(ScoreConfig(**given, metrics=["mrr_at_5"], complete=True))
    assert complete.values == {"mrr_at_5": {"q1": 1.0, "q2": 0.0, "q3": 0.0}}
    assert complete.means == {"mrr_at_5": pytest.approx(1 / 3)} and "counted as 0" in complete.notes[1]


# What cannot be scored.

WRONG = {
    "other dims": (
        {"documents": {"a": [1.0, 0.0, 0.0]}},
        r"queries \(.*\) have 2 dimensions, documents \(.*\) 3; encode",
    ),
    "no query known": ({"qrels": "x 0 a 1\n"}, r"none of the 1 queries of .*qrels\.txt \(x\) is in .* \(q1, q2, q3\)"),
    "no document known": (
        {"qrels": "q1 0 x 1\n"},
        r"none of the 1 documents that .* judge \(x\) is in .* \(a, b, c, d\)",
    ),
    "nan": ({"documents": {"a": [1.0, 0.0], "b": [math.nan, 1.0]}, "qrels": "q1 0 a 1"}, "document b: NaN or infinity"),
    "inf query": ({"queries": {"q1": [math.inf, 0.0]}}, "query q1: NaN or infinity"),
    "measure": ({"metrics": ["ndgc_at_5"]}, "unknown measure 'ndgc_at_5'. Did you mean ndcg_at_5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_scored_is_one_line_and_writes_nothing(case, tmp_path, capsys):
    more, message = WRONG[case]
    given = settings(tmp_path, **more)
    with pytest.raises(UserError, match=message):
        score(ScoreConfig(**given))
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert main(["score", *(v if isinstance(v, str) else v[0] for v in flags)]) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith("raylib: ") and "\n" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"queries": "q", "documents": "d"}, "no judgements were given; add --qrels FILE"),
        ({"qrels": "r"}, "no vectors were given; add --queries FILE and --documents FILE, or --run FILE"),
        ({"qrels": "r", "queries": "q"}, "add --documents FILE, or --run FILE"),
        ({"qrels": "r", "queries": "q", "run": "x"}, "--run scores a ranking that is there, --queries make one"),
        ({"top_k": 0}, "--top-k is 0; expected at least 1"),
        ({"run_name": "my run"}, "--run-name is 'my run'; expected one word"),
        ({"candidates": "int4"}, "--candidates is 'int4'; expected one of"),
    ],
)
def test_settings_that_cannot_be(given, message):
    with pytest.raises(UserError, match=message):
        score(ScoreConfig(**given))


def test_on_the_terminal(tmp_path, capsys):
    given = settings(tmp_path, "npy", qrels=QRELS + "x 0 a 1\n")
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert main(["score", *flags, "--metrics", "ndcg_at_5"]) == 0
    out = capsys.readouterr().out
    assert "3 of 3 queries scored · 4 documents · cosine, top 1000" in out
    assert f"ndcg_at_5  {sum(NDCG_5.values()) / 3:.5f}" in out
    assert "note: queries of the qrels without a vector, left out: 1 (x)" in out and str(tmp_path / "out") in out


def test_vectors_are_read_from_the_file_in_blocks(tmp_path, monkeypatch):
    """The ranking does not depend on how a file is cut, and a file is never read as a whole."""
    from raylib.score import formats

    rng = np.random.default_rng(0)
    documents = rng.normal(size=(40, 8)).astype(np.float32)
    documents[20:] = documents[:20]  # every document has a twin: ties everywhere
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["ids"], file["vectors"] = [f"d{i}" for i in range(40)], documents
    np.save(tmp_path / "q.npy", rng.normal(size=(5, 8)).astype(np.float32))
    ids = id_file(tmp_path, "q", [f"q{i}" for i in range(5)])
    (tmp_path / "qrels").write_text("q0 0 d0 1\n")
    given = {"queries": str(tmp_path / "q.npy"), "query_ids": ids, "documents": str(tmp_path / "d.h5"), "top_k": 7}
    given |= {"qrels": str(tmp_path / "qrels"), "output_folder": str(tmp_path / "out")}
    whole = score(ScoreConfig(**given)).run
    sizes = []
    real = formats._embeddings
    monkeypatch.setattr(
        formats, "_embeddings", lambda values, offsets: sizes.append(len(values)) or real(values, offsets)
    )
    monkeypatch.setattr(formats, "BLOCK_BYTES", 3 * 8 * 4)
    assert score(ScoreConfig(**given)).run == whole
    assert max(sizes) == 3
    for found in whole.values():
        best = list(found)
        for first, second in zip(best[0:6:2], best[1:6:2], strict=True):
            assert abs(int(first[1:]) - int(second[1:])) == 20 and found[first] == found[second]
            assert first > second, "of twins the greater id, as text, is first"
