"""Exact search against float64 and against MTEB's and scikit-learn's similarities."""

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.search import blocks
from raylib.search.canonical import normalise
from raylib.search.exact import score, search
from raylib.search.topk import tie_ranks
from raylib.types import Embeddings

RNG = np.random.default_rng(0)
QUERIES = Embeddings.from_dense(RNG.normal(size=(5, 24)).astype(np.float32))
CORPUS = Embeddings.from_dense(RNG.normal(size=(40, 24)).astype(np.float32))
ALL = np.arange(40)


def found(queries, documents, similarity, k, ids, owners=None):
    owners = np.arange(len(documents)) if owners is None else np.asarray(owners)
    best, scores = search(queries, documents, similarity, k, tie_ranks(ids), owners)
    return [[ids[d] for d in row] for row in best], scores


def test_cosine_is_scikit_learns_in_float64():
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    expected = pairwise.cosine_similarity(QUERIES.values.astype(np.float64), CORPUS.values.astype(np.float64))
    np.testing.assert_allclose(score(QUERIES, CORPUS, "cosine"), expected, atol=1e-6)


def test_dot_does_not_normalise():
    expected = QUERIES.values.astype(np.float64) @ CORPUS.values.T.astype(np.float64)
    np.testing.assert_allclose(score(QUERIES, CORPUS, "dot"), expected, atol=1e-5)


def test_half_precision_is_scored_in_single():
    halves = QUERIES.astype(np.float16), CORPUS.astype(np.float16)
    expected = halves[0].values.astype(np.float64) @ halves[1].values.T.astype(np.float64)
    scores = score(*halves, "dot")
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_zero_vector_has_cosine_zero_with_everything():
    zero = Embeddings.from_dense(np.zeros((1, 24), np.float32))
    assert score(zero, CORPUS, "cosine").tolist() == [[0.0] * 40]
    assert normalise(zero.values).tolist() == [[0.0] * 24]


def test_late_interaction_goes_to_maxsim():
    query = Embeddings.from_list([np.array([[1, 0], [0, 1]], np.float32)])
    document = Embeddings.from_list([np.array([[2, 0], [0, 3]], np.float32)])
    assert score(query, document, "maxsim").tolist() == [[5]]


def test_late_interaction_vectors_have_no_cosine():
    tokens = Embeddings.from_list([np.ones((3, 24), np.float32)])
    with pytest.raises(ValueError, match="expected one vector per content"):
        score(QUERIES, tokens, "cosine")


@pytest.mark.parametrize("similarity", ["cosine", "dot", "maxsim"])
def test_vectors_of_two_models_are_not_compared(similarity):
    with pytest.raises(UserError, match="queries have 24 dimensions, documents 3"):
        score(QUERIES, Embeddings.from_dense(np.ones((2, 3), np.float32)), similarity)


def test_what_makes_fused_contents_twice_as_wide_is_said():
    wide = Embeddings.from_dense(np.ones((2, 48), np.float32))
    with pytest.raises(
        UserError, match=r"queries have 24 dimensions, documents 48; .*--fusion concat.*take sum or mean"
    ):
        score(QUERIES, wide, "cosine")
    with pytest.raises(UserError, match=r"documents have 24 and 48 dimensions; .*take sum or mean"):
        list(blocks.blocks([(np.arange(2), wide), (np.arange(2, 3), QUERIES.take(np.arange(1)))], "cosine"))


def test_best_documents_are_those_of_a_full_sort():
    ids = [f"d{i}" for i in range(40)]
    expected = QUERIES.values.astype(np.float64) @ CORPUS.values.T.astype(np.float64)
    names, scores = found(QUERIES, CORPUS, "dot", 7, ids)
    for row, name, value in zip(expected, names, scores, strict=True):
        order = np.argsort(-row)[:7]
        assert name == [ids[i] for i in order]
        np.testing.assert_allclose(value, row[order], atol=1e-5)


def test_k_beyond_the_corpus_gives_all():
    names, scores = found(QUERIES, CORPUS, "cosine", 1000, [f"d{i}" for i in range(40)])
    assert all(sorted(row) == sorted(f"d{i}" for i in range(40)) for row in names) and scores.shape == (5, 40)


def whole_numbers(n, seed):
    return Embeddings.from_dense(np.random.default_rng(seed).integers(-2, 3, size=(n, 3)).astype(np.float32))


@pytest.mark.parametrize("held", [1, 20, 33, 10**6])
def test_blocks_of_any_size_give_the_same_bits(held, monkeypatch):
    """Small whole numbers: no rounding and many ties."""
    queries, documents = whole_numbers(6, 1), whole_numbers(50, 2)
    ids = [f"d{i}" for i in range(50)]
    monkeypatch.setattr(blocks, "BLOCK_BYTES", held)
    names, scores = found(queries, documents, "dot", 8, ids)
    table = (queries.values.astype(int) @ documents.values.T.astype(int)).tolist()
    for row, name, value in zip(table, names, scores.tolist(), strict=True):
        best = sorted(zip(row, ids, strict=True), reverse=True)[:8]
        assert name == [document for _, document in best] and value == [s for s, _ in best]


def test_documents_of_one_content_share_its_score_and_go_by_id():
    contents = Embeddings.from_dense(np.array([[1, 0], [3, 0], [2, 0]], np.float32))
    query = Embeddings.from_dense(np.array([[1, 0]], np.float32))
    names, scores = found(query, contents, "dot", 4, ["a", "b", "c", "d", "e"], owners=[1, 0, 1, 2, 1])
    assert names == [["e", "c", "a", "d"]] and scores.tolist() == [[3, 3, 3, 2]]


@pytest.mark.parametrize("held", [1, 4, 10**6])
def test_copies_are_found_in_whatever_block_their_content_is(held, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", held)
    contents = whole_numbers(9, 3)
    owners = np.random.default_rng(4).integers(0, 9, size=30)
    ids = [f"d{i}" for i in range(30)]
    names, scores = found(whole_numbers(2, 5), contents, "dot", 12, ids, owners)
    table = whole_numbers(2, 5).values @ contents.values[owners].T
    for row, name, value in zip(table.tolist(), names, scores.tolist(), strict=True):
        best = sorted(zip(row, ids, strict=True), reverse=True)[:12]
        assert name == [document for _, document in best] and value == [s for s, _ in best]


def test_contents_that_no_document_has_are_never_found():
    contents = Embeddings.from_dense(np.array([[9, 0], [1, 0]], np.float32))
    query = Embeddings.from_dense(np.array([[1, 0]], np.float32))
    names, scores = found(query, contents, "dot", 5, ["only"], owners=[1])
    assert names == [["only"]] and scores.tolist() == [[1]]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "maxsim"])
def test_a_score_does_not_depend_on_the_neighbours(similarity):
    alone = score(QUERIES, CORPUS.take([3]), similarity)[:, 0]
    for beside in ([3, 4], [9, 3, 3], list(range(40))):
        scores = score(QUERIES, CORPUS.take(beside), similarity)
        np.testing.assert_allclose(scores[:, beside.index(3)], alone, atol=2e-6)
