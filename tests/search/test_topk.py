"""Top-k against a full sort in plain Python, for blocks of any size."""

import numpy as np
import pytest

from raylib.search.topk import TopK, tie_ranks


def full_sort(scores_QN, ids, k):
    """The k best (id, score) of each row: by score, then by id, both descending."""
    rows = []
    for row in scores_QN:
        ordered = sorted(zip(row.tolist(), ids, strict=True), reverse=True)
        rows.append([(document, score) for score, document in ordered[:k]])
    return rows


def fed(scores_QN, ids, k, blocks):
    """TopK fed with the columns of `blocks`, one after the other."""
    best, ranks = TopK(len(scores_QN), k), tie_ranks(ids)
    for columns in blocks:
        best.add(scores_QN[:, columns], columns, ranks[columns])
    return [
        [(ids[d], s) for d, s in zip(documents, scores, strict=True)]
        for documents, scores in zip(best.documents_QK.tolist(), best.scores_QK.tolist(), strict=True)
    ]


def cut(n, step, seed=0):
    """0 … n - 1, shuffled, in blocks of `step`."""
    order = np.random.default_rng(seed).permutation(n)
    return [order[start : start + step] for start in range(0, n, step)]


IDS = [f"d{i}" for i in range(60)]  # as text, "d9" comes after "d10"


@pytest.mark.parametrize("step", [1, 2, 7, 59, 60])
@pytest.mark.parametrize("k", [1, 5, 14, 60, 100])
def test_any_blocks_give_the_full_sort(step, k):
    scores = np.random.default_rng(1).normal(size=(4, 60)).astype(np.float32)
    assert fed(scores, IDS, k, cut(60, step)) == full_sort(scores, IDS, k)


@pytest.mark.parametrize("step", [1, 3, 8, 60])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 10, 11, 30])
def test_ties_go_to_the_greater_id_at_every_boundary(step, k):
    """Three levels of scores over sixty documents: nearly every boundary of k falls within a tie."""
    scores = np.random.default_rng(2).integers(0, 3, size=(5, 60)).astype(np.float32)
    assert fed(scores, IDS, k, cut(60, step, seed=k)) == full_sort(scores, IDS, k)


def test_when_all_scores_are_equal_the_greatest_ids_win():
    ids = ["10", "9", "2", "b", "a"]
    assert fed(np.zeros((1, 5), np.float32), ids, 3, [np.arange(5)]) == [[("b", 0), ("a", 0), ("9", 0)]]


def test_minus_zero_ties_with_zero():
    scores = np.array([[0.0, -0.0, 0.0]], np.float32)
    assert [d for d, _ in fed(scores, ["a", "c", "b"], 2, [np.arange(3)])[0]] == ["c", "b"]


def test_k_beyond_the_corpus_gives_the_whole_corpus():
    assert fed(np.array([[1, 3, 2]], np.float32), ["a", "b", "c"], 10, [np.arange(3)]) == [
        [("b", 3), ("c", 2), ("a", 1)]
    ]


def test_no_queries_and_no_documents_are_no_error():
    best = TopK(0, 3)
    best.add(np.zeros((0, 20), np.float32), np.arange(20), np.arange(20))
    assert best.documents_QK.shape == (0, 3)
    best = TopK(2, 3)
    best.add(np.zeros((2, 0), np.float32), np.arange(0), np.arange(0))
    assert best.scores_QK.shape == (2, 0)


def test_k_must_be_positive():
    with pytest.raises(ValueError, match="top_k is 0"):
        TopK(1, 0)


def test_ranks_are_places_in_the_sorted_ids():
    assert tie_ranks(["b", "10", "9", "a", "é"]).tolist() == [3, 0, 1, 2, 4]
    assert tie_ranks([]).tolist() == []
