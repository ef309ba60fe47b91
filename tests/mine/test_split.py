"""A graph that is cut in pieces: exact sizes, every node once, little lost against the whole."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from raylib.mine import b3_plan
from raylib.mine.graph import either_graph, mutual_graph
from raylib.mine.neighbours import nearest
from raylib.mine.partition import METHODS, partition
from raylib.mine.plans import cluster_sizes
from raylib.mine.split import coarse_pieces, cut_pieces, pieces_of
from tests.mine.planted import unit


def _regions(n, seed=0):
    """(graph of the ten nearest, vectors) of points all over a few regions: no cut of them is free."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, 4))
    vectors = unit(np.pad(centres[rng.integers(12, size=n)] + 0.5 * rng.normal(size=(n, 4)), [(0, 0), (0, 12)]))
    return mutual_graph(nearest(vectors, vectors, 11)[1], np.arange(n)), vectors


GRAPH, VECTORS = _regions(1500)


def test_pieces_are_of_about_one_size_and_seldom_torn():
    pieces = coarse_pieces(GRAPH, VECTORS, 400, seed=0)
    assert np.array_equal(np.sort(np.concatenate(pieces)), np.arange(1500)) and len(pieces) == 4
    assert all(300 <= len(rows) <= 450 and np.all(np.diff(rows) > 0) for rows in pieces)
    label = np.empty(1500, dtype=int)
    for number, rows in enumerate(pieces):
        label[rows] = number
    assert GRAPH.cut(label) < 0.3 * GRAPH.cut(np.random.default_rng(0).integers(4, size=1500))


@pytest.mark.parametrize("method", METHODS)
def test_sizes_are_exact_and_the_seed_decides(method):
    about: dict[str, Any] = {"method": method, "seed": 3, "vectors": VECTORS, "split_above": 400}
    about["avoided"] = either_graph(nearest(VECTORS, VECTORS, 3)[1], np.arange(1500))
    part = partition(GRAPH, 16, **about)
    assert np.bincount(part).min() > 0 and sorted(np.bincount(part)) == sorted(cluster_sizes(1500, 16))
    assert np.array_equal(part, partition(GRAPH, 16, **about))


def test_little_is_lost_against_the_whole_graph():
    whole = partition(GRAPH, 16)
    split = partition(GRAPH, 16, vectors=VECTORS, split_above=400)
    assert GRAPH.cut(split) < GRAPH.cut(whole) + 0.05


def test_pieces_may_be_cut_elsewhere_in_any_order():
    def in_threads(function, tasks):
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(function, tasks))

    split = partition(GRAPH, 16, vectors=VECTORS, split_above=400)
    assert np.array_equal(split, partition(GRAPH, 16, vectors=VECTORS, split_above=400, run=in_threads))


def test_what_pieces_leave_over_is_cut_together():
    """Pieces of 5, 4 and 2 make one, one and no whole clusters of 3; what is left makes one more, and one of 2."""
    pieces = [np.array([0, 2, 4, 6, 8]), np.array([1, 3, 5, 7]), np.array([9, 10])]
    asked = []

    def cut(rows_of_pieces):
        asked.append([rows.tolist() for rows in rows_of_pieces])
        return [np.arange(len(rows)) // 3 for rows in rows_of_pieces]

    part = cut_pieces(pieces, 3, cut)
    assert asked[1] == [[6, 7, 8, 9, 10]]
    assert sorted(np.bincount(part)) == [2, 3, 3, 3]
    assert len({part[0], part[2], part[4]}) == len({part[1], part[3], part[5]}) == 1


def test_rows_of_labels():
    assert [rows.tolist() for rows in pieces_of(np.array([3, 1, 3, 0, 1]))] == [[3], [1, 4], [0, 2]]


def test_a_plan_splits_above_a_size():
    about: dict[str, Any] = {"batch_size": 64, "cluster_size": 16, "skip_top": 2, "neighbours": 12}
    tasks = []

    def counted(function, given):
        for task in given:
            tasks.append(len(task[0]))
            yield function(task)

    whole = b3_plan(VECTORS, VECTORS, duplicate_similarity=None, run=counted, **about)
    assert not tasks
    split = b3_plan(VECTORS, VECTORS, duplicate_similarity=None, split_above=500, run=counted, **about)
    assert len(tasks) == 4 and sum(tasks[:3]) == 1500 and max(tasks) < 1500
    assert sorted(split.batches[split.batches >= 0].tolist()) == list(range(1500))
    assert split.graph.cut(split.clusters) < whole.graph.cut(whole.clusters) + 0.05
