"""The graph of mutual neighbours, by hand and by a double loop."""

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.mine.graph import either_graph, from_pairs, joined_graphs, mutual_graph, wanted_window


def edges(graph):
    return set(zip(graph.sources.tolist(), graph.indices.tolist(), strict=True))


def test_edges_are_kept_from_both_ends_once_and_sorted():
    graph = from_pairs(np.array([3, 0, 1, 2]), np.array([0, 3, 1, 3]), 4)  # 3-0 twice, a loop at 1, 2-3
    assert graph.indptr.tolist() == [0, 1, 1, 2, 4] and graph.indices.tolist() == [3, 3, 0, 2]
    assert graph.n_edges == 2 and len(graph) == 4


def test_an_edge_needs_both_lists():
    window = np.array([[1, 2], [0, 3], [3, -1], [2, 0]])  # 0 and 1 name each other, 2 and 3 too; 0 to 2 is one-sided
    assert edges(mutual_graph(window, np.arange(4))) == {(0, 1), (1, 0), (2, 3), (3, 2)}
    assert edges(either_graph(window, np.arange(4))) == {
        pair for i, j in [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)] for pair in [(i, j), (j, i)]
    }


def test_duplicates_are_never_joined():
    window = np.array([[1, 2], [0, 2], [0, 1]])
    assert edges(mutual_graph(window, np.arange(3), same=np.array([7, 7, 1]))) == {(0, 2), (2, 0), (1, 2), (2, 1)}


@pytest.mark.parametrize("width", [1, 2, 7, 8, 20])
def test_it_is_what_a_double_loop_finds(width):
    rng = np.random.default_rng(width)
    n = 60
    window = np.stack([rng.permutation(n)[:width] for _ in range(n)])
    lists = [set(row) for row in window.tolist()]
    expected = {(i, j) for i in range(n) for j in range(n) if i != j and j in lists[i] and i in lists[j]}
    assert edges(mutual_graph(window, np.arange(n))) == expected


def test_examples_that_share_a_document_are_all_joined_to_its_neighbours():
    positives = np.array([0, 0, 1])
    graph = mutual_graph(np.array([[1], [1], [0]]), positives, same=positives)
    assert edges(graph) == {(0, 2), (2, 0), (1, 2), (2, 1)}


def test_a_document_of_many_examples_keeps_the_graph_sparse_and_leaves_no_example_out():
    n = 400
    positives = np.arange(n) % 2  # two classes, each in the window of the other
    graph = mutual_graph(1 - positives[:, None], positives, same=positives)
    degrees = np.diff(graph.indptr)
    assert degrees.min() >= 4 and degrees.max() <= 16
    assert np.all(positives[graph.sources] != positives[graph.indices])


def test_graphs_of_groups_become_one():
    whole = from_pairs(np.array([0, 2, 1]), np.array([2, 4, 3]), 5)
    even, odd = from_pairs(np.array([0, 1]), np.array([1, 2]), 3), from_pairs(np.array([0]), np.array([1]), 2)
    joined = joined_graphs([(np.array([0, 2, 4]), even), (np.array([1, 3]), odd)], 5)
    assert joined.indptr.tolist() == whole.indptr.tolist() and joined.indices.tolist() == whole.indices.tolist()


def test_the_cut_is_the_share_of_edges_between_parts():
    graph = from_pairs(np.array([0, 1, 2]), np.array([1, 2, 3]), 4)
    assert graph.cut(np.array([0, 0, 1, 1])) == pytest.approx(1 / 3)
    assert from_pairs(np.zeros(0, int), np.zeros(0, int), 3).cut(np.arange(3)) == 0


def test_the_window_follows_the_first_ranks():
    assert wanted_window(np.arange(10)[None], 3, 4).tolist() == [[3, 4, 5, 6]]
    with pytest.raises(UserError, match="skip_top is 10 and there are 10 documents"):
        wanted_window(np.arange(10)[None], 10, 4)
