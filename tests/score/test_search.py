"""Searches that look at less than everything: what they find, and what they say of themselves."""

import numpy as np
import pytest

from raylib.cli import main
from raylib.errors import UserError
from raylib.score.config import ScoreConfig
from raylib.score.job import score
from tests.score.files import write_dense, write_late

N, DIM = 600, 16


def given(tmp_path, late=False, **more):
    """20 queries and 600 documents in 12 clusters; late interaction has 1 to 6 vectors each."""
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(12, DIM))

    def vectors(n):
        found = centres[rng.integers(0, 12, n)] + 0.7 * rng.normal(size=(n, DIM))
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    sides = {}
    for name, n in (("queries", 20), ("documents", N)):
        ids = [f"{name[0]}{i}" for i in range(n)]
        if late:
            path, _ = write_late("npz offsets", tmp_path, name, ids, [vectors(rng.integers(1, 7)) for _ in range(n)])
        else:
            path, _ = write_dense("npz", tmp_path, name, ids, vectors(n))
        sides[name] = path
    (tmp_path / "qrels").write_text("".join(f"q{i} 0 d{i} 1\n" for i in range(20)))
    folder = {"qrels": str(tmp_path / "qrels"), "output_folder": str(tmp_path / "out")}
    return {**sides, **folder, "top_k": 20, **more}


def shared(run, exact, k):
    """The share of the exact best k that a run has among its best k, the mean over queries."""
    return np.mean([len({*list(run[q])[:k]} & {*list(exact[q])[:k]}) / k for q in exact])


@pytest.mark.parametrize(
    ("late", "options", "complete"),
    [
        (False, {"index": "IVF8,Flat;nprobe=8"}, True),
        (False, {"index": "IVF32,Flat;nprobe=1"}, False),
        (False, {"index": "PQ4x4", "oversample": 2}, False),
        (True, {"candidates": "bfloat16"}, True),
        (True, {"candidates": "int8"}, True),
        (True, {"candidates": "binary", "oversample": 1}, False),
        (True, {"token_pooling": 3}, False),
    ],
    ids=str,
)
def test_recall_is_measured_and_scores_are_exact(late, options, complete, tmp_path):
    exact = score(ScoreConfig(**given(tmp_path, late, top_k=N)))
    assert exact.search["quality"] == {}
    found = score(ScoreConfig(**given(tmp_path, late, **options)))
    quality = found.search["quality"]
    assert quality["sampled_queries"] == 20
    for k in (10, 20):
        assert quality[f"recall_at_{k}"] == pytest.approx(shared(found.run, exact.run, k), abs=1e-12)
    assert (quality["recall_at_10"] == 1) is complete and quality["recall_at_10"] > 0.2
    assert all(len(documents) == 20 for documents in found.run.values()) or "index" in options
    if "token_pooling" not in options:  # what is found has the score that exact search gives it, to the bit
        assert all(exact.run[q][d] == s for q, documents in found.run.items() for d, s in documents.items())
    if options.get("index", "").endswith("nprobe=1"):
        assert min(map(len, found.run.values())) < 20, "an index that looks at one list may find fewer than k"


def test_bytes_of_a_document(tmp_path):
    def sizes(**options):
        quality = score(ScoreConfig(**given(tmp_path, True, **options))).search["quality"]
        return quality["bytes_per_document"], quality["bytes_per_document_float32"]

    offsets = np.load(given(tmp_path, True)["documents"])["offsets"]
    plain = pytest.approx(offsets[-1] * DIM * 4 / N, abs=0.1)
    assert sizes(candidates="int8") == (pytest.approx(offsets[-1] * DIM / N, abs=0.1), plain)
    assert sizes(candidates="binary") == (pytest.approx(offsets[-1] * DIM / 8 / N, abs=0.1), plain)
    pooled = sum(max(1, n // 3) for n in np.diff(offsets))  # one cluster in three vectors
    assert sizes(token_pooling=3) == (pytest.approx(pooled * DIM * 4 / N, abs=0.1), plain)


def test_pooling_by_hand(tmp_path):
    """Of the vectors x, x, y, y every second one is kept: x and y; a third query sees that nothing else is there."""
    x, y = [1.0, 0.0], [0.0, 1.0]
    documents = [np.array([x, x, y, y], np.float32), np.array([x, x], np.float32)]
    queries = [np.array([x, y], np.float32)]
    paths = {"queries": write_late("npz offsets", tmp_path, "q", ["q"], queries)[0]}
    paths |= {"documents": write_late("npz offsets", tmp_path, "d", ["both", "one"], documents)[0]}
    (tmp_path / "qrels").write_text("q 0 both 1\n")
    folder = {"qrels": str(tmp_path / "qrels"), "output_folder": str(tmp_path / "out")}
    outcome = score(ScoreConfig(**paths, **folder, token_pooling=2))
    assert outcome.run == {"q": {"both": 2.0, "one": 1.0}}
    assert outcome.search["quality"]["bytes_per_document"] == 1.5 * 2 * 4


def test_what_is_lost_is_on_the_terminal(tmp_path, capsys):
    flags = given(tmp_path, index="IVF32,Flat;nprobe=1", metrics="ndcg_at_5", top_k="20")
    assert main(["score", *(p for name, v in flags.items() for p in (f"--{name.replace('_', '-')}", v))]) == 0
    assert " · recall at 10 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("late", "options", "message"),
    [
        (False, {"index": "IVF8,what"}, "--index 'IVF8,what' is no FAISS index for vectors of 16 dimensions"),
        (False, {"index": "IVF1000,Flat"}, "cannot be trained on 600 vectors: it needs at least 1000"),
        (True, {"index": "IVF8,Flat"}, "--index 'IVF8,Flat' is for dense vectors"),
        (False, {"candidates": "int8"}, "--candidates int8 is for late-interaction vectors"),
    ],
)
def test_options_that_the_vectors_do_not_have(late, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        score(ScoreConfig(**given(tmp_path, late, **options)))
    assert not (tmp_path / "out").exists()


def test_a_vector_too_long_for_float32_scores_is_named(tmp_path):
    vectors = np.array([[1.0, 2.0], [1e30, 1.0]], np.float32)
    paths = {name: write_dense("npz", tmp_path, name, ["a", "b"], vectors)[0] for name in ("queries", "documents")}
    (tmp_path / "qrels").write_text("a 0 a 1\n")
    with pytest.raises(UserError, match=r"queries\.npz: query b is too long a vector"):
        score(ScoreConfig(**paths, qrels=str(tmp_path / "qrels"), similarity="dot"))
