"""Measures per query: MTEB's values on random runs, and values worked out by hand."""

import math

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.metrics.measures import DEFAULT_MEASURES, means, per_query

K = (1, 3, 5, 10, 20, 100)
PYTREC = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}


def random_case(seed):
    """A run with many ties and rankings of every length, and graded judgements of which some name other documents."""
    rng = np.random.default_rng(seed)
    run, qrels = {}, {}
    for q in range(60):
        documents = [f"d{i}" for i in rng.permutation(150)[: rng.integers(1, 150)]]
        run[f"q{q}"] = {d: float(np.float32(s)) for d, s in zip(documents, rng.integers(0, 12, 150) / 7, strict=False)}
        judged = rng.choice(200, rng.integers(1, 30), replace=False)
        qrels[f"q{q}"] = {f"d{i}": int(g) for i, g in zip(judged, rng.integers(-1, 4, 30), strict=False)}
    return run, qrels


@pytest.mark.parametrize("seed", range(3))
def test_every_value_is_mtebs(seed):
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, mrr

    run, qrels = random_case(seed)
    names = [f"{family}_at_{k}" for family in (*PYTREC, "mrr") for k in K]
    found = per_query(run, qrels, names)
    assert list(found) == names
    theirs = calculate_retrieval_scores(run, qrels, list(K))
    for family, name in PYTREC.items():
        for k in K:
            expected = {q: scores[f"{name}_{k}"] for q, scores in theirs.all_scores.items()}
            assert found[f"{family}_at_{k}"] == expected
    for k in K:
        assert list(found[f"mrr_at_{k}"].values()) == mrr(qrels, run, list(K))[f"MRR@{k}"]
    averages = means(found)
    assert all(round(averages[f"ndcg_at_{k}"], 5) == theirs.ndcg[f"NDCG@{k}"] for k in K)
    assert any(len(set(run[q].values())) < len(run[q]) for q in run), "the case has ties"


def test_values_by_hand():
    """The ranking is b (grade 0), c and a tied, c first (1), a (3), x (unjudged); d (2) was not found."""
    run = {"q": {"a": 0.5, "b": 0.9, "c": 0.5, "x": 0.1}}
    qrels = {"q": {"a": 3, "b": 0, "c": 1, "d": 2}}
    found = per_query(run, qrels, ["ndcg_at_3", "map_at_3", "recall_at_3", "precision_at_3", "mrr_at_3", "mrr_at_1"])
    ideal = 3 + 2 / math.log2(3) + 1 / 2
    assert found["ndcg_at_3"]["q"] == pytest.approx((1 / math.log2(3) + 3 / 2) / ideal, abs=1e-15)
    assert found["map_at_3"]["q"] == pytest.approx((1 / 2 + 2 / 3) / 3, abs=1e-15)
    assert found["recall_at_3"]["q"] == pytest.approx(2 / 3, abs=1e-15)
    assert found["precision_at_3"]["q"] == pytest.approx(2 / 3, abs=1e-15)
    assert (found["mrr_at_3"]["q"], found["mrr_at_1"]["q"]) == (0.5, 0.0)


def test_the_two_gains_of_ndcg():
    """The ranking is b (grade 1), a (2), c (not relevant); d (3) was not found. Gains: 1, 2, 0 or 2 − 1, 4 − 1, 0."""
    run = {"q": {"b": 0.9, "a": 0.5, "c": 0.1}, "binary": {"x": 0.5, "y": 0.9}}
    qrels = {"q": {"a": 2, "b": 1, "c": 0, "d": 3}, "binary": {"x": 1}}
    found = per_query(run, qrels, ["ndcg_linear_at_5", "ndcg_exponential_at_5", "ndcg_at_5"])
    second, third = 1 / math.log2(3), 1 / 2
    linear = (1 + 2 * second) / (3 + 2 * second + 1 * third)  # 2.2619 / 4.7619
    exponential = (1 + 3 * second) / (7 + 3 * second + 1 * third)  # 2.8928 / 9.3928
    assert found["ndcg_linear_at_5"]["q"] == found["ndcg_at_5"]["q"] == pytest.approx(linear, abs=1e-15)
    assert found["ndcg_exponential_at_5"]["q"] == pytest.approx(exponential, abs=1e-15)
    assert round(linear, 4) == 0.475 and round(exponential, 4) == 0.308
    assert {round(values["binary"], 12) for values in found.values()} == {round(second, 12)}, "one gain for 0 and 1"


def test_ties_go_to_the_greater_document_id():
    found = per_query({"q": {"d1": 1.0, "d2": 1.0}}, {"q": {"d1": 1}}, ["mrr_at_5", "precision_at_1", "hit_rate_at_2"])
    assert {name: v["q"] for name, v in found.items()} == {"mrr_at_5": 0.5, "precision_at_1": 0.0, "hit_rate_at_2": 1.0}


def test_which_queries_count():
    """A query that is not judged has no value; one without results, or without a relevant document, has 0."""
    run = {"unjudged": {"a": 1.0}, "empty": {}, "nothing relevant": {"a": 1.0}, "found": {"a": 1.0}}
    qrels = {"empty": {"a": 1}, "nothing relevant": {"a": 0}, "found": {"a": 1}, "not asked": {"a": 1}}
    found = per_query(run, qrels)
    assert list(found) == list(DEFAULT_MEASURES)
    for name in DEFAULT_MEASURES:
        assert list(found[name]) == ["empty", "nothing relevant", "found"]
        assert list(found[name].values()) == [0.0, 0.0, 0.1 if name == "precision_at_10" else 1.0]
    assert means(found)["mrr_at_10"] == pytest.approx(1 / 3)
    assert math.isnan(means(per_query({}, qrels))["mrr_at_10"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndgc_at_10", r"unknown measure 'ndgc_at_10'. Did you mean ndcg_at_10.* There are ndcg_at_K, ndcg_line"),
        ("ndcg@10", "unknown measure 'ndcg@10'"),
        ("ndcg_at_0", "the cutoff is '0'; expected a positive number, as in ndcg_at_10"),
        ("ndcg_at_x", "the cutoff is 'x'"),
    ],
)
def test_a_measure_there_is_not(name, message):
    with pytest.raises(UserError, match=message):
        per_query({}, {}, [name])


def test_the_reciprocal_rank_tells_scores_apart_in_double_precision():
    """As MTEB's does; trec_eval, and with it every other measure, takes these two for a tie."""
    run, qrels = {"q": {"a": 1.0 + 1e-12, "b": 1.0}}, {"q": {"a": 1}}
    found = per_query(run, qrels, ["mrr_at_1", "hit_rate_at_1"])
    assert (found["mrr_at_1"]["q"], found["hit_rate_at_1"]["q"]) == (1.0, 0.0)
