"""Hard negatives against sentence-transformers on made vectors, the traps of false negatives, and what was removed."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from raylib.errors import UserError
from raylib.mine import neighbours as blocks
from raylib.mine.negatives import hard_negatives


def _unit(shape, seed):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class _Vectors:
    """What mine_hard_negatives asks of a model; texts are positions: "q3", "d7"."""

    device = torch.device("cpu")

    def __init__(self, queries, documents):
        self.queries, self.documents = queries, documents

    def encode_query(self, texts, **_):
        return self.queries[[int(text[1:]) for text in texts]]

    def encode_document(self, texts, **_):
        return self.documents[[int(text[1:]) for text in texts]]

    def similarity(self, left, right):
        return torch.as_tensor(left) @ torch.as_tensor(right).T

    def similarity_pairwise(self, left, right):
        return (torch.as_tensor(left) * torch.as_tensor(right)).sum(-1)


N, M, DIM = 60, 150, 12
QUERIES = _unit((N, DIM), 0)
DOCUMENTS = _unit((M, DIM), 1)
POSITIVES = np.random.default_rng(2).permutation(M)[:N]
DOCUMENTS[POSITIVES[:45]] += 0.9 * QUERIES[:45]  # the others have positives of any score, negative ones too
DOCUMENTS /= np.linalg.norm(DOCUMENTS, axis=1, keepdims=True)
POSITIVES[50:55] = POSITIVES[40:45]  # documents that two queries share
TWICE = np.arange(N)
TWICE[30:40], TWICE[20:25] = TWICE[:10], TWICE[:5]  # queries asked two and three times, with different positives
REPEATED = QUERIES[TWICE]


def _theirs(queries, capsys, **settings):
    """(per query, its negatives and their scores; what it printed)."""
    from sentence_transformers.util import mine_hard_negatives

    names = [f"q{i}" for i in TWICE] if queries is REPEATED else [f"q{i}" for i in range(N)]
    data = Dataset.from_dict({"query": names, "pos": [f"d{i}" for i in POSITIVES]})
    model: Any = _Vectors(QUERIES, DOCUMENTS)
    mined: Any = mine_hard_negatives(
        data,
        model,
        corpus=[f"d{i}" for i in range(M)],
        output_format="labeled-list",
        output_scores=True,
        **settings,
    )
    found = {(row["query"], row["pos"][0]): (row["pos"][1:], row["scores"]) for row in mined}
    return [found.get((name, f"d{p}"), ([], [])) for name, p in zip(names, POSITIVES, strict=True)], capsys.readouterr()


SETTINGS = [
    {},
    {"range_min": 4},
    {"range_min": 3, "range_max": 20},
    {"max_score": 0.4},
    {"max_score": 0.5, "min_score": 0.3, "range_max": 40},
    {"absolute_margin": 0.1},
    {"absolute_margin": 0.0, "range_min": 2},
    {"relative_margin": 0.05},
    {"relative_margin": 0.4, "absolute_margin": 0.05, "max_score": 0.45, "range_min": 1, "range_max": 30},
    {"range_max": 1000},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("asked", ["once", "repeatedly"])
def test_the_negatives_of_sentence_transformers(asked, settings, capsys):
    queries = QUERIES if asked == "once" else REPEATED
    expected, _ = _theirs(queries, capsys, num_negatives=5, **settings)
    ours = hard_negatives(
        queries,
        DOCUMENTS,
        POSITIVES,
        k=5,
        query_contents=None if asked == "once" else [f"q{i}" for i in TWICE],
        **settings,
    )
    for i, (names, scores) in enumerate(expected):
        kept = ours.indices[i] >= 0
        assert [f"d{j}" for j in ours.indices[i][kept]] == names
        if names:
            np.testing.assert_allclose([ours.positive_scores[i], *ours.scores[i][kept]], scores, atol=1e-6)
    assert any(names for names, _ in expected)


@pytest.mark.parametrize("name", ["absolute_margin", "relative_margin", "max_score"])
def test_removals_are_counted_as_sentence_transformers_does(name, capsys):
    _, printed = _theirs(QUERIES, capsys, num_negatives=5, **{name: 0.3})
    counted = re.search(r"Skipped ([\d,]+) potential", printed.out)
    assert counted is not None
    limit: dict[str, Any] = {name: 0.3}
    ours = hard_negatives(QUERIES, DOCUMENTS, POSITIVES, k=5, **limit)
    assert ours.removed[name] == int(counted.group(1).replace(",", "")) > 0


def test_a_fraction_of_the_positive_is_the_relative_margin_that_is_left():
    ours = hard_negatives(QUERIES, DOCUMENTS, POSITIVES, k=5, positive_fraction=0.75)
    same = hard_negatives(QUERIES, DOCUMENTS, POSITIVES, k=5, relative_margin=0.25)
    assert np.array_equal(ours.indices, same.indices)
    assert ours.removed["positive_fraction"] == same.removed["relative_margin"]


LINE = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.0], [0.7, 0.0], [0.6, 0.0], [0.5, 0.0]], dtype=np.float32)
"""Documents whose scores with ASKED are their first numbers."""
ASKED = np.array([[1.0, 0.0]], dtype=np.float32)


def test_every_number_by_hand():
    """The positive is third; .9 · .8 = .72 lets .7 stay."""
    ours = hard_negatives(ASKED, LINE, np.array([2]), k=3, positive_fraction=0.9, range_min=1)
    assert ours.indices.tolist() == [[4, 5, -1]]
    assert ours.scores.tolist() == [[np.float32(0.6), 0.5, -np.inf]]
    assert ours.ranks.tolist() == [[5, 6, -1]]
    assert ours.positive_scores.tolist() == [np.float32(0.8)]
    assert ours.removed == {"positive": 1, "same_content": 0, "same_query": 0, "positive_fraction": 2, "range_min": 1}
    assert (ours.short, ours.duplicates, ours.search.method) == (1, 0, "exact")


def test_a_negative_score_has_its_threshold_below():
    """-.5 less a tenth of .5: -.52 goes, -.6 stays."""
    documents = np.array([[-0.5, 0], [-0.52, 0], [-0.6, 0]], dtype=np.float32)
    assert hard_negatives(ASKED, documents, np.array([0]), k=1, positive_fraction=0.9).indices.tolist() == [[2]]


def test_equal_contents_are_one_and_never_their_own_negatives():
    """Documents 1 and 3 are the positive again under other vectors, 4 and 5 are one content."""
    ours = hard_negatives(ASKED, LINE, np.array([2]), k=4, document_contents=["a", "p", "p", "p", "b", "b"])
    assert ours.indices.tolist() == [[0, 4, -1, -1]]
    assert ours.removed == {"positive": 1, "same_content": 2, "same_query": 0}
    assert ours.duplicates == 3


def test_the_query_itself_is_no_negative():
    ours = hard_negatives(ASKED, LINE, np.array([2]), k=2, query_contents=["a"], document_contents=list("abcdef"))
    assert ours.indices.tolist() == [[1, 3]]
    assert ours.removed == {"positive": 1, "same_content": 1, "same_query": 0}


def test_answers_to_the_same_query_are_no_negatives():
    queries, positives = np.repeat(ASKED, 3, axis=0), np.array([2, 0, 1])
    ours = hard_negatives(queries, LINE, positives, k=2, query_contents=[b"x", b"x", b"y"])
    assert ours.indices.tolist() == [[1, 3], [1, 3], [0, 2]]
    assert ours.removed == {"positive": 3, "same_content": 0, "same_query": 2}


def test_a_shared_positive_is_removed_by_its_position_alone():
    ours = hard_negatives(np.repeat(ASKED, 2, axis=0), LINE, np.array([0, 0]), k=1)
    assert ours.indices.tolist() == [[1], [1]]


def test_random_takes_any_of_the_best_k_and_the_same_again(monkeypatch):
    def mined(**more):
        return hard_negatives(QUERIES, DOCUMENTS, POSITIVES, k=12, num_negatives=4, sampling="random", **more)

    pool = hard_negatives(QUERIES, DOCUMENTS, POSITIVES, k=12)
    drawn, again, other = mined(seed=7), mined(seed=7), mined(seed=8)
    monkeypatch.setattr(blocks, "_QUERIES", 7)
    assert np.array_equal(drawn.indices, again.indices)
    assert np.array_equal(drawn.indices, mined(seed=7).indices)  # however queries are cut
    assert not np.array_equal(drawn.indices, other.indices)
    assert (np.diff(drawn.scores, axis=1) <= 0).all()
    chosen = (pool.indices[:, :, None] == drawn.indices[:, None]).any(axis=2)
    assert (chosen.sum(axis=1) == 4).all()
    assert chosen.sum(axis=0).min() > 5  # 20 expected at each of 12 places


def test_random_never_takes_fewer_than_there_are():
    ours = hard_negatives(ASKED, LINE, np.array([0]), k=5, num_negatives=4, sampling="random", max_score=0.65)
    assert ours.indices.tolist() == [[4, 5, -1, -1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positives": np.array([-1])}, "query 0 has no positive: -1 is no position among 6"),
        ({"positives": np.array([6])}, "query 0 has no positive: 6"),
        ({"positives": np.array([0.0])}, "whole numbers, one for each of the 1 queries"),
        ({"positives": np.array([0, 1])}, "whole numbers, one for each of the 1 queries"),
        ({"k": 0}, "0 negatives were asked for"),
        ({"k": 3, "num_negatives": 4}, "4 negatives were asked for of the best 3"),
        ({"range_min": -1}, "lower range_min"),
        ({"range_min": 5, "range_max": 6}, "hold 1 candidates and 2 negatives"),
        ({"sampling": "best"}, "'best'; expected one of top, random"),
        ({"positive_fraction": 95}, "positive_fraction is 95"),
        ({"relative_margin": -0.1}, "relative_margin is -0.1"),
        ({"min_score": 0.5, "max_score": 0.4}, "min_score 0.5 is above max_score 0.4"),
        ({"document_contents": ["a"]}, "expected one digest for each of 6"),
        ({"query_contents": [["a"]]}, "expected one digest for each of 1"),
    ],
)
def test_settings_that_cannot_be(change, message):
    settings = {"positives": np.array([0]), "k": 2, **change}
    with pytest.raises(UserError, match=message):
        hard_negatives(ASKED, LINE, settings.pop("positives"), **settings)
