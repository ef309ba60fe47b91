"""Parts of exact sizes that find planted communities, by every method."""

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.mine.graph import either_graph, from_pairs, mutual_graph
from raylib.mine.growth import grow
from raylib.mine.neighbours import nearest
from raylib.mine.partition import METHODS, partition
from raylib.mine.plans import cluster_sizes
from raylib.mine.repair import exact_sizes, swap_members
from tests.mine.planted import communities


def planted(n, size, seed=0):
    queries, documents, community = communities(n, size, seed=seed)
    graph = mutual_graph(nearest(queries, documents, size)[1], np.arange(n))
    return graph, documents, community


def purity(part, community):
    """Share of members that belong to the commonest community of their part."""
    return sum(np.bincount(community[part == p]).max() for p in np.unique(part)) / len(part)


def path(n):
    return from_pairs(np.arange(n - 1), np.arange(1, n), n)


def test_sizes_are_all_the_same_but_for_what_remains():
    assert cluster_sizes(96, 32).tolist() == [32, 32, 32] and cluster_sizes(70, 32).tolist() == [32, 32, 6]


@pytest.mark.parametrize("method", METHODS)
def test_planted_communities_are_recovered(method):
    graph, documents, community = planted(512, 16)
    part = partition(graph, 16, method=method, seed=1, vectors=documents)
    assert np.bincount(part).tolist() == [16] * 32
    assert purity(part, community) >= (0.85 if method == "balanced-kmeans" else 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [5, 16, 17, 203])
def test_sizes_are_exact_where_they_do_not_divide(method, n):
    graph, documents, _ = planted(n, 5)
    part = partition(graph, 16, method=method, seed=1, vectors=documents)
    assert sorted(np.bincount(part)) == sorted(cluster_sizes(n, 16))


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides(method):
    rng = np.random.default_rng(3)
    graph = from_pairs(rng.integers(300, size=3000), rng.integers(300, size=3000), 300)
    documents = rng.normal(size=(300, 8)).astype(np.float32)
    first, again, other = (partition(graph, 8, method=method, seed=s, vectors=documents) for s in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_an_unknown_method_names_those_there_are():
    with pytest.raises(UserError, match=r"unknown method 'metiss'.*metis"):
        partition(path(4), 2, method="metiss")  # type: ignore[arg-type]


def test_no_edges_at_all_still_give_exact_sizes():
    lonely = from_pairs(np.zeros(0, int), np.zeros(0, int), 50)
    for method in ("metis-swaps", "growth-swaps", "signed-growth"):
        assert sorted(np.bincount(partition(lonely, 8, method=method))) == [2, 8, 8, 8, 8, 8, 8]


def test_repair_moves_the_cheapest_members():
    # 0-1-2-3 and 4-5-6 are closely joined; 7 hangs on 4 and was put to the first.
    pairs = [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (4, 5), (5, 6), (4, 6), (4, 7)]
    left, right = np.array(pairs).T
    graph = from_pairs(left, right, 8)
    assert exact_sizes(graph, np.array([0, 0, 0, 0, 1, 1, 1, 0]), np.array([4, 4])).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_surplus_far_from_room_goes_through_the_parts_between():
    part = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])  # a path: the middle part passes one on
    assert exact_sizes(path(9), part, np.array([3, 3, 3])).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_repair_reaches_exact_sizes_from_anything():
    graph, _, _ = planted(400, 10)
    rng = np.random.default_rng(0)
    for part in (np.zeros(400, int), rng.integers(40, size=400), np.full(400, 39)):
        assert np.bincount(exact_sizes(graph, part, np.full(40, 10))).tolist() == [10] * 40


def test_swaps_mend_two_members_in_each_others_place():
    graph, _, community = planted(64, 16)
    part = community.copy()
    v, w = np.flatnonzero(community == 0)[0], np.flatnonzero(community == 1)[0]
    part[[v, w]] = part[[w, v]]
    assert np.array_equal(swap_members(graph, part), community)


@pytest.mark.parametrize("seed", range(4))
def test_swaps_never_cut_more(seed):
    rng = np.random.default_rng(seed)
    graph = from_pairs(rng.integers(200, size=1500), rng.integers(200, size=1500), 200)
    part = rng.permutation(np.arange(200) // 8)
    after = swap_members(graph, part)
    assert graph.cut(after) < graph.cut(part) and np.bincount(after).tolist() == [8] * 25


def test_signed_growth_meets_fewer_of_the_excluded():
    queries, documents, _ = communities(1200, 60, seed=2)
    ranked = nearest(queries, documents, 40)[1]
    graph, avoided = mutual_graph(ranked[:, 10:], np.arange(1200)), either_graph(ranked[:, :10], np.arange(1200))
    plain, signed = (partition(graph, 16, method=m, avoided=avoided) for m in ("growth", "signed-growth"))
    assert avoided.cut(signed) > avoided.cut(plain) + 0.05


def test_growth_goes_on_elsewhere_where_a_part_has_no_more_edges():
    pairs = from_pairs(np.array([0, 2, 4]), np.array([1, 3, 5]), 6)
    part = grow(pairs, np.array([4, 2]), seed=0)
    assert np.bincount(part).tolist() == [4, 2] and pairs.cut(part) == 0
