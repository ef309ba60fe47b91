"""Scores and their intervals, against scikit-learn and by hand."""

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from raylib.probe.metrics import auroc, interval, resampled_aurocs, score_groups, score_rows

RNG = np.random.default_rng(3)
Y = RNG.integers(0, 2, 60)
TIED = np.round(np.clip(0.3 * Y + RNG.uniform(0, 0.7, 60), 0, 1), 1)
GROUPS = [f"g{at // 3}" for at in range(60)]


def by_hand(y, scores):
    """The share of pairs of a 1 and a 0 that are in order, ties half."""
    pairs = [(a, b) for a in scores[y == 1] for b in scores[y == 0]]
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def test_auroc_is_the_share_of_pairs_in_order():
    assert auroc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8])) == 0.875  # 3 pairs in order, 1 tied
    assert auroc(Y, TIED) == pytest.approx(by_hand(Y, TIED))
    assert auroc(np.ones(3), np.array([0.1, 0.2, 0.3])) is None


def test_each_resample_is_scikit_learns_auroc_of_the_rows_drawn():
    found = resampled_aurocs(Y, TIED, GROUPS, 50, seed=5)
    names = sorted(set(GROUPS))
    members = [[at for at, group in enumerate(GROUPS) if group == name] for name in names]
    draw = np.random.default_rng(5)
    for value in found:
        rows = np.concatenate([members[drawn] for drawn in draw.integers(20, size=20)])
        assert value == pytest.approx(roc_auc_score(Y[rows], TIED[rows]), abs=1e-12)
    assert len(found) == 50


def test_resamples_of_one_class_are_left_out():
    y, scores = np.array([1, 0, 0]), np.array([0.9, 0.2, 0.3])
    draws = np.random.default_rng(1).integers(3, size=(200, 3))
    one_class = sum(len({int(y[at]) for at in draw}) == 1 for draw in draws)
    found = resampled_aurocs(y, scores, ["a", "b", "c"], 200, seed=1)
    assert one_class > 20
    assert len(found) == 200 - one_class
    assert set(found) == {1.0}


def test_blocks_do_not_change_the_resamples(monkeypatch):
    whole = resampled_aurocs(Y, TIED, GROUPS, 37, seed=9)
    monkeypatch.setattr("raylib.probe.metrics._BLOCK", 600)
    assert resampled_aurocs(Y, TIED, GROUPS, 37, seed=9).tolist() == whole.tolist()


def test_an_interval_is_between_percentiles_and_the_same_for_a_seed():
    found = resampled_aurocs(Y, TIED, GROUPS, 300, seed=2)
    assert interval(Y, TIED, GROUPS, 300, 2) == pytest.approx(tuple(np.percentile(found, [2.5, 97.5])))
    assert interval(Y, TIED, GROUPS, 300, 2) != interval(Y, TIED, GROUPS, 300, 3)
    assert interval(Y, TIED, ["one"] * 60) is None
    assert interval(np.ones(60), TIED, GROUPS) is None


def test_rows_of_a_group_are_drawn_together_so_that_copies_narrow_nothing():
    """Ten copies of each row say no more than one; drawn by row they seem to."""
    y, scores = np.repeat(Y, 10), np.repeat(TIED, 10)
    by_row = interval(y, scores, [str(at) for at in range(600)])
    by_group = interval(y, scores, [str(at // 10) for at in range(600)])
    single = interval(Y, TIED, [str(at) for at in range(60)])
    assert by_row[1] - by_row[0] < 0.5 * (by_group[1] - by_group[0])
    assert by_group[1] - by_group[0] == pytest.approx(single[1] - single[0], rel=0.15)


def test_the_interval_holds_the_true_value_as_often_as_it_says():
    """Scores N(1, 1) of label 1, N(0, 1) of label 0: AUROC is Φ(1 / √2) = 0.7602."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        y = rng.integers(0, 2, 200)
        low, high = interval(y, rng.standard_normal(200) + y, [str(at) for at in range(200)], 200)
        held += low <= 0.7602 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_a_thousand_resamples_of_two_thousand_rows_take_a_moment():
    rng = np.random.default_rng(0)
    y, scores = rng.integers(0, 2, 2000), rng.uniform(size=2000)
    start = time.process_time()
    found = resampled_aurocs(y, scores, [str(at // 2) for at in range(2000)], 1000, 0)
    assert len(found) == 1000
    assert time.process_time() - start < 2


def test_scores_at_the_threshold_by_hand():
    y = np.array([0, 0, 0, 1, 1], np.int8)
    found = score_rows(y, np.array([0.1, 0.5, 0.9, 0.6, 0.2]), list("abcde"))
    # above 0.5: rows 2 and 3. One 1 found of two, one 0 taken for a 1.
    assert found.confusion == [[2, 1], [1, 1]]
    assert (found.rows, found.positives, found.accuracy) == (5, 2, 0.6)
    assert (found.precision, found.recall, found.f1) == (0.5, 0.5, 0.5)
    assert found.auroc == 0.5  # 0.6 lies above 0.1 and 0.5, 0.2 above 0.1, of 6 pairs: 2 + 1


def test_what_cannot_be_divided_is_zero():
    found = score_rows(np.zeros(3, np.int8), np.array([0.1, 0.2, 0.3]), list("abc"))
    assert (found.precision, found.recall, found.f1, found.accuracy) == (0, 0, 0, 1)
    assert (found.auroc, found.interval, found.confusion) == (None, None, [[3, 0], [0, 0]])


def test_groups_without_an_auroc_say_why():
    names = ["b", "b", "b", "b", "a", "a", "", "c", "c"]
    y = np.array([0, 1, 0, 1, 1, 1, 0, 0, 1], np.int8)
    scores = np.array([0.1, 0.9, 0.2, 0.15, 0.5, 0.6, 0.7, 0.3, 0.4])
    images = ["1", "2", "3", "4", "5", "6", "7", "8", "8"]
    found = {group.name: group for group in score_groups(names, y, scores, images, 100)}
    assert list(found) == ["(none)", "a", "b", "c"]
    assert found["b"].auroc == 0.75
    assert found["b"].why == ""
    assert found["b"].interval is not None
    assert (found["a"].auroc, found["a"].interval, found["a"].why) == (None, None, "all 2 rows have the label 1")
    assert found["(none)"].why == "the only row has the label 0"
    assert (found["c"].auroc, found["c"].interval) == (1.0, None)
    assert found["c"].why == "the rows are of one image or source, which gives no interval"
    assert (found["b"].rows, found["b"].positives) == (4, 2)
