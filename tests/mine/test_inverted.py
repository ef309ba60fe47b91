"""Lists that are visited together: what lies in them is found exactly, whatever their sizes."""

import numpy as np
import pytest

from raylib.mine import inverted
from raylib.mine.inverted import InvertedFile
from raylib.mine.vectors import Vectors
from tests.mine.planted import unit


def _clustered(n, seed, spread=0.4):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(30, 16))
    return unit(
        centres[np.minimum(rng.geometric(0.1, n), 30) - 1] + spread * rng.normal(size=(n, 16))
    )  # of uneven sizes


def _built(documents):
    return InvertedFile(Vectors.of(documents, "document"))


def _in_visited(file, queries, documents, visits, k):
    """By hand: the best documents whose centroid is among the nearest `visits` of a query."""
    near = np.argsort(-(queries @ file.centroids_LD.T), axis=1)[:, :visits]
    table = queries.astype(np.float64) @ documents.T.astype(np.float64)
    table[~(file.list_of[None, :, None] == near[:, None, :]).any(axis=2)] = -np.inf
    order = np.argsort(-table, axis=1)[:, :k]
    return np.take_along_axis(table, order, axis=1), order


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("visits", "k"), [(1, 3), (2, 40), (7, 100), (20, 5), (37, 9)])
def test_the_best_of_the_visited_lists_are_found(visits, k, threads, monkeypatch):
    import torch

    monkeypatch.setattr(inverted, "_PRODUCT_ROWS", 13)
    monkeypatch.setattr(inverted, "_MERGED_ROWS", 17)
    queries, documents = _clustered(150, 0), _clustered(1500, 1)
    file = _built(documents)
    assert file.n_lists == 37 and len(np.unique(np.bincount(file.list_of))) > 5
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scores, found = file.search(queries, k, visits)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    expected_scores, expected = _in_visited(file, queries, documents, visits, k)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    there = np.isfinite(expected_scores)
    assert np.array_equal(found[there], expected[there]) and np.all(found[~there] == -1)


def test_so_many_lists_are_visited_that_the_share_is_reached():
    queries, documents = _clustered(200, 0, 0.8), _clustered(3000, 1, 0.8)
    file = _built(documents)
    exact = np.argsort(-(queries @ documents.T), axis=1)[:, :20]

    def share(visits):
        found = file.search(queries, 20, visits)[1]
        return np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(found, exact, strict=True)])

    visits, told = file.lists_to_visit(queries, exact, 0.9)
    assert told == pytest.approx(share(visits)) and told >= 0.9 > share(visits - 1)
    everything, all_of_it = file.lists_to_visit(queries, exact, 1.0)
    assert all_of_it == 1.0 and share(everything) == 1.0


def test_the_seed_decides():
    documents = _clustered(1500, 1)
    lists = [InvertedFile(Vectors.of(documents, "document"), seed).list_of for seed in (3, 3, 4)]
    assert np.array_equal(lists[0], lists[1]) and not np.array_equal(lists[0], lists[2])
