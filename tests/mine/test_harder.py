"""Hard negatives of a cluster: what may be none is left out, and the rest is shared out by the stated rule."""

import numpy as np
import pytest

from raylib.mine import harder
from raylib.mine.harder import cluster_negatives

NONE = -1


def table(rows, width=None):
    width = max(map(len, rows)) if width is None else width
    return np.array([[*row, *[NONE] * (width - len(row))] for row in rows], dtype=np.int32)


def negatives(clusters, windows, n_negatives, *, excluded=None, positives=None, same=None, seed=0):
    """Document i is the positive of example i, nothing is excluded, and nothing is a duplicate, where nothing is said.
    Examples whose windows are not given have none, and are in no cluster."""
    n = len(windows)
    positives = np.arange(n) if positives is None else np.array(positives)
    return cluster_negatives(
        np.array([*clusters, *[NONE] * (n - len(clusters))]),
        table(windows),
        table([[]] * n if excluded is None else [*excluded, *[[]] * (n - len(excluded))]),
        positives,
        np.arange(n) if same is None else np.array(same),
        n_negatives,
        seed=seed,
    ).tolist()


def test_an_examples_own_window_in_rank_order():
    # The windows of 0 and 1 have nothing in common.
    found = negatives([7, 7], [[4, 2, 6], [3, 5], [], [], [], [], []], 2)
    assert found[:2] == [[4, 2], [3, 5]]
    assert found[2:] == [[NONE, NONE]] * 5


def test_the_first_ranks_of_any_member_are_left_out():
    windows = [[4, 2, 6], [3, 5], [], [], [], [], []]
    assert negatives([0, 0], windows, 2, excluded=[[], [4]])[0] == [2, 6]
    assert negatives([0, 1], windows, 2, excluded=[[], [4]])[0] == [4, 2]  # another cluster's


def test_positives_of_any_member_are_left_out():
    windows = [[1, 2, 3], [3], [], [], []]
    assert negatives([0, 0], windows, 1)[0] == [2]
    assert negatives([0, 1], windows, 1)[0] == [1]
    # 0 wants its own document: without exclusion it would get it.
    assert negatives([0], [[0, 2], [], []], 1)[0] == [2]


def test_a_positive_that_a_member_shares_with_another_example_is_left_out():
    # Document 0 is that of the examples 0 and 2, and is named by 0. Labels do not tell.
    windows = [[], [0, 1], [], []]
    clusters = [NONE, 5, 5, NONE]
    assert negatives(clusters, windows, 1, positives=[0, 2, 0, 1])[1] == [3]
    assert negatives([NONE, 5, NONE, NONE], windows, 1, positives=[0, 2, 0, 1])[1] == [0]


def test_duplicates_of_any_member_are_left_out():
    windows = [[3, 2], [4], [], [], []]
    assert negatives([0, 0], windows, 1, same=[8, 9, 7, 9, 6])[0] == [2]
    assert negatives([0, 1], windows, 1, same=[8, 9, 7, 9, 6])[0] == [3]


def test_labels_of_duplicates_are_any_numbers():
    windows = [[3, 2], [4], [], [], []]
    assert negatives([0, 0], windows, 1, same=[-5, 2**62, 1, 2**62, 0])[0] == [2]


def test_documents_that_are_nobodys_positive_do_not_occur():
    found = negatives([0], [[9, 2, 1], [], []], 3, positives=[0, 1, 2])
    assert found[0] == [2, 1, NONE]


def test_a_document_of_several_examples_goes_by_the_first():
    found = negatives([3], [[1], [], [], []], 1, positives=[0, 2, 1, 1])
    assert found[0] == [2]


@pytest.mark.parametrize("seed", range(4))
def test_members_get_different_documents(seed):
    # Both want 2, 3, 4, 5 in this order. Who has the first turn gets 2; the other comes first in the next turn.
    found = negatives([0, 0], [[2, 3, 4, 5], [2, 3, 4, 5], [], [], [], []], 2, seed=seed)
    assert sorted(found[:2]) == [[2, 5], [3, 4]]


def test_who_lost_a_turn_comes_first_in_the_next():
    # Both want 2 first. Where 0 has it, 1 takes 3; then both want 4, and 1 has it.
    windows = [[2, 4, 5], [2, 3, 4, 6], *[[]] * 5]
    found = {str(negatives([0, 0], windows, 2, seed=seed)[:2]) for seed in range(20)}
    assert found == {"[[2, 5], [3, 4]]", "[[4, 5], [2, 3]]"}


def test_who_comes_first_depends_on_the_seed():
    found = {negatives([0, 0], [[2, 3], [2, 3], [], []], 1, seed=seed)[0][0] for seed in range(20)}
    assert found == {2, 3}


def test_what_most_members_want_comes_before_the_rest():
    # 0 wants nothing. 7 is in three windows, 6 in two, 5 in one; who wants them has enough of its own before.
    windows = [[], [10, 11, 7], [12, 13, 7, 6], [14, 15, 7, 6, 5], *[[]] * 12]
    assert negatives([0] * 4, windows, 2)[0] == [7, 6]
    assert negatives([0] * 4, windows, 3)[1][:2] == [10, 11]


def test_ties_are_by_chance():
    windows = [[], [4, 2, 3], *[[]] * 3]
    assert {negatives([0, 0], windows, 1, seed=seed)[0][0] for seed in range(20)} == {2, 3}


def test_members_share_where_the_set_is_too_small():
    # The set is {3, 4}: every member gets both, those of its own window in its order.
    found = negatives([0] * 3, [[3, 4], [4, 3], [], [], []], 3)
    assert [sorted(row) for row in found[:3]] == [[NONE, 3, 4]] * 3
    assert [row[2] for row in found[:3]] == [NONE] * 3


def test_shared_documents_come_in_the_order_of_the_own_window():
    # Three of the four have 7, 5 and 6 for themselves; what is shared after that is 7, then 5.
    found = negatives([0] * 4, [*[[7, 5, 6]] * 4, *[[]] * 4], 2)
    assert sorted(found[:4]) == [[5, 7], [6, 7], [7, 5], [7, 5]]


@pytest.mark.parametrize("block", [1, 300, 1 << 20])
def test_rules_hold_for_many_clusters(monkeypatch, block):
    monkeypatch.setattr(harder, "_BLOCK", block)
    rng = np.random.default_rng(3)
    n, n_documents, k = 400, 150, 4
    clusters = rng.integers(-1, 30, n)
    positives = rng.integers(0, n_documents - 5, n)
    same = np.where(rng.random(n) < 0.05, 0, 1 + positives)
    ranked = np.array([rng.permutation(n_documents)[:12] for _ in range(n)], dtype=np.int32)
    ranked[rng.random(ranked.shape) < 0.1] = NONE
    window, excluded = ranked[:, 3:], ranked[:, :3]
    found = cluster_negatives(clusters, window, excluded, positives, same, k)
    assert np.array_equal(found, cluster_negatives(clusters, window, excluded, positives, same, k))
    assert (found[clusters < 0] == NONE).all()
    first = {int(d): i for i, d in reversed(list(enumerate(positives)))}
    lengths = set()
    for cluster in range(30):
        members = np.flatnonzero(clusters == cluster)
        labels = set(same[members].tolist())
        never = {*excluded[members].ravel().tolist(), *positives[members].tolist()}
        wanted = {d for d in window[members].ravel().tolist() if d in first and d not in never}
        allowed = {first[d] for d in wanted if same[first[d]] not in labels}
        given = [[e for e in row if e != NONE] for row in found[members].tolist()]
        for row, all_places in zip(given, found[members].tolist(), strict=True):
            assert all_places == [*row, *[NONE] * (k - len(row))]
            assert len(set(row)) == len(row) == min(k, len(allowed))
            assert set(row) <= allowed
        every = [e for row in given for e in row]
        assert len(set(every)) == min(len(allowed), k * len(members))  # nothing twice before all is used
        lengths.add(len(set(every)) < k * len(members))
    assert lengths == {True, False}


def test_blocks_do_not_change_what_is_found(monkeypatch):
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 5)
    window = np.array([rng.permutation(100)[:10] for _ in range(100)], dtype=np.int32)
    arguments = (clusters, window, window[:, :0], np.arange(100), np.arange(100), 3)
    whole = cluster_negatives(*arguments)
    monkeypatch.setattr(harder, "_BLOCK", 50)
    assert np.array_equal(cluster_negatives(*arguments), whole)


def test_nothing_to_choose_from():
    none = np.full((3, 2), NONE, dtype=np.int32)
    where = np.array([0, 0, NONE])
    for window in (none, none[:, :0]):
        assert (cluster_negatives(where, window, none, np.arange(3), np.arange(3), 2) == NONE).all()
