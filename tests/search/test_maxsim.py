"""MaxSim against one pair at a time in float64."""

import numpy as np
import pytest

from raylib.search import maxsim as module
from raylib.search.maxsim import maxsim
from raylib.types import Embeddings


def ragged(counts, dim=16, seed=0, shift=0.0, dtype=np.float32):
    """Unit rows around `shift`, so that a large shift makes every similarity positive."""
    rng = np.random.default_rng(seed)
    items = [rng.normal(size=(n, dim)) + shift for n in counts]
    return Embeddings.from_list([(i / np.linalg.norm(i, axis=1, keepdims=True)).astype(dtype) for i in items], dim)


def pair_by_pair(queries, documents):
    """[n_queries, n_documents] float64: for each query token the best document token, summed."""
    scores = np.zeros((len(queries), len(documents)))
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            scores[i, j] = sum(max(float(q.astype(np.float64) @ d.astype(np.float64)) for d in document) for q in query)
    return scores


QUERIES, DOCUMENTS = ragged([5, 1, 12, 3], seed=1), ragged([1, 30, 2, 7, 1, 1, 19], seed=2)


def test_scores_of_a_small_case_by_hand():
    queries = Embeddings.from_list([np.array([[1, 0], [0, 1]], np.float32), np.array([[1, 1]], np.float32)])
    documents = Embeddings.from_list([np.array([[2, 0], [0, 3]], np.float32), np.array([[1, -4]], np.float32)])
    # q0 on d0: 2 + 3; q0 on d1: 1 - 4; q1 on d0: max(2, 3); q1 on d1: 1 - 4.
    assert maxsim(queries, documents).tolist() == [[5, -3], [3, -3]]


def test_ragged_sizes_agree_with_one_pair_at_a_time():
    scores = maxsim(QUERIES, DOCUMENTS)
    assert scores.shape == (4, 7) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, pair_by_pair(QUERIES, DOCUMENTS), atol=2e-6)


@pytest.mark.parametrize(("query_tokens", "n_documents"), [(1, 1), (6, 2), (13, 3), (17, 100), (10_000, 7)])
def test_blocks_of_any_size_agree(query_tokens, n_documents, monkeypatch):
    monkeypatch.setattr(module, "_QUERY_TOKENS", query_tokens)
    monkeypatch.setattr(module, "_DOCUMENTS", n_documents)
    np.testing.assert_allclose(maxsim(QUERIES, DOCUMENTS), pair_by_pair(QUERIES, DOCUMENTS), atol=2e-6)


def test_many_query_tokens_are_cut_too():
    queries = ragged([700, 700, 700, 700, 2500, 3], seed=3, dim=4)
    documents = ragged([2, 3], seed=4, dim=4)
    expected = [[(q.astype(np.float64) @ d.T.astype(np.float64)).max(1).sum() for d in documents] for q in queries]
    np.testing.assert_allclose(maxsim(queries, documents), expected, rtol=2e-6, atol=2e-4)


def test_whole_numbers_are_exact_in_every_block(monkeypatch):
    """Small integers have no rounding: every cut must give the same bits."""
    rng = np.random.default_rng(5)
    queries, documents = (
        Embeddings.from_list([rng.integers(-9, 9, size=(n, 8)).astype(np.float32) for n in counts])
        for counts in ([3, 1, 8], [4, 1, 6, 2, 9])
    )
    expected = pair_by_pair(queries, documents)
    for query_tokens, n_documents in ((1, 1), (4, 2), (9, 5), (10**6, 10**6)):
        monkeypatch.setattr(module, "_QUERY_TOKENS", query_tokens)
        monkeypatch.setattr(module, "_DOCUMENTS", n_documents)
        assert (maxsim(queries, documents) == expected).all()


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_any_number_of_threads_gives_the_same_bits_and_is_left_as_it_was(threads):
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = maxsim(QUERIES, DOCUMENTS)
        torch.set_num_threads(threads)
        together = maxsim(QUERIES, DOCUMENTS)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (together == alone).all()


def test_negative_similarities_stay_negative():
    """Zero padding would make them zero."""
    queries = ragged([4, 2], shift=3.0, seed=6)
    documents = ragged([1, 5, 2], shift=-3.0, seed=7)
    scores = maxsim(queries, documents)
    assert (scores < -0.5).all()
    np.testing.assert_allclose(scores, pair_by_pair(queries, documents), atol=2e-6)


def test_a_short_document_beside_a_long_one_scores_as_it_does_alone():
    queries = ragged([4, 6], shift=2.0, seed=8)
    short, long = ragged([1], shift=-2.0, seed=9), ragged([50], shift=-2.0, seed=10)
    together = maxsim(queries, Embeddings.concatenate([short, long, short]))
    np.testing.assert_allclose(together[:, 0], maxsim(queries, short)[:, 0], atol=1e-6)
    np.testing.assert_allclose(together[:, 0], together[:, 2], atol=1e-6)


def test_half_precision_is_multiplied_in_single():
    queries, documents = ragged([5, 2], seed=11, dtype=np.float16), ragged([9, 1, 30], seed=12, dtype=np.float16)
    scores = maxsim(queries, documents)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, pair_by_pair(queries, documents), atol=2e-6)


def test_one_side_may_be_half_precision():
    queries, documents = ragged([5, 2], seed=11), ragged([9, 1], seed=12, dtype=np.float16)
    np.testing.assert_allclose(maxsim(queries, documents), pair_by_pair(queries, documents), atol=2e-6)


def test_mteb_agrees_where_all_documents_have_one_length():
    """MTEB pads with zeros; without padding both compute the same."""
    torch = pytest.importorskip("torch")
    from mteb.similarity_functions import max_sim

    queries, documents = ragged([6, 6, 6], seed=13), ragged([11, 11], seed=14)
    theirs = max_sim(torch.tensor(np.stack(list(queries))), torch.tensor(np.stack(list(documents))))
    np.testing.assert_allclose(maxsim(queries, documents), theirs.numpy(), atol=2e-6)


def test_no_documents_give_no_scores():
    assert maxsim(QUERIES, Embeddings.from_list([], dim=16)).shape == (4, 0)
    assert maxsim(Embeddings.from_list([], dim=16), DOCUMENTS).shape == (0, 7)


def test_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="queries have 16 dimensions, documents 8"):
        maxsim(QUERIES, ragged([2], dim=8))


@pytest.mark.parametrize("side", [0, 1])
def test_a_content_without_tokens_is_refused(side):
    sides = [ragged([2, 2]), ragged([3, 3])]
    sides[side] = ragged([2, 0])
    with pytest.raises(ValueError, match="no tokens; expected at least one each"):
        maxsim(*sides)
