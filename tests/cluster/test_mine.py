"""Neighbours found by shares of the documents are those of one process, though a worker dies; and `map` on Ray."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from raylib.cluster import neighbours as sharded
from raylib.cluster import shares
from raylib.cluster.encode import RayDataStage
from raylib.cluster.mine import mine_place, ray_map
from raylib.cluster.neighbours import RayNeighbours, best_of
from raylib.cluster.search import RaySearch
from raylib.cluster.session import MAX_ATTEMPTS, Workers
from raylib.errors import RaylibError, StoreError, UserError
from raylib.mine import neighbours as one_process
from raylib.mine.neighbours import SearchFacts, neighbours
from raylib.mine.vectors import Vectors
from raylib.placement import Placement
from raylib.types import Embeddings
from tests.cluster.deaths import DIE_ONCE
from tests.evaluate.test_search_stage import clustered, key, stored

pytestmark = pytest.mark.cluster

QUERIES, DOCUMENTS = clustered(1, 90), clustered(2, 501)


@pytest.fixture(autouse=True)
def every_search_is_large(monkeypatch):
    """Also one of a few thousand products goes to the cluster, forty queries at a time."""
    monkeypatch.setattr(sharded, "_WORTH_AN_ACTOR", 1.0)
    monkeypatch.setattr(one_process, "_QUERIES", 40)
    monkeypatch.setattr(one_process, "_JOINED", 40)


class Untouched:
    """An array whose rows nobody may read."""

    def __init__(self, values):
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self):
        return self.shape[0]


def in_store(folder, documents, name="document", **settings):
    """Vectors in five parts of a store, and nowhere else."""
    shelf = stored(folder, Embeddings.from_dense(QUERIES), Embeddings.from_dense(documents))
    shelf.refresh()
    keys = [key("d", i) for i in range(len(documents))]
    return Vectors(Untouched(documents), name, shelf=shelf, keys=keys, **settings)  # pyright: ignore[reportArgumentType]


def all_of(search):
    blocks = list(search.blocks())
    assert [first for first, _, _ in blocks] == np.cumsum([0, *(len(found) for _, _, found in blocks[:-1])]).tolist()
    return np.concatenate([scores for _, scores, _ in blocks]), np.concatenate([found for _, _, found in blocks])


def whole_numbers(n, seed):
    """Products of so few small whole numbers are exact, and tie often."""
    return np.random.default_rng(seed).integers(-2, 3, (n, 6)).astype(np.float32)


def by_sort(queries, documents, k):
    table = queries.astype(np.int64) @ documents.astype(np.int64).T
    order = np.argsort(-table, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(table, order, axis=1), order


@pytest.mark.parametrize("where", ["array", "store"])
def test_ties_of_all_shares_go_by_position(where, tmp_path, cluster):
    """Three actors of uneven shares; some of some documents, in an order of their own and one of them twice."""
    queries, documents = whole_numbers(90, 0), whole_numbers(501, 1)
    chosen = np.random.default_rng(2).permutation(501)[:400]
    chosen[50] = chosen[7]
    among = np.r_[3:40, 60:400:2]
    held = in_store(tmp_path, documents, unit=False) if where == "store" else Vectors(documents, "document", unit=False)
    search = RayNeighbours(Workers(3))(queries, held.take(chosen), 70, among=among)
    scores, found = all_of(search)
    expected_scores, expected = by_sort(queries, documents[chosen[among]], 70)
    assert np.array_equal(found, among[expected]) and np.array_equal(scores, expected_scores)
    assert (search.k, search.facts) == (70, SearchFacts("exact"))
    assert scores.dtype == np.float32 and found.dtype == np.int64


def test_documents_of_the_store_are_read_by_the_workers(tmp_path, cluster):
    """At length 1; and no row of them exists where the search is asked for."""
    scores, found = all_of(RayNeighbours(Workers(2))(Vectors.of(QUERIES, "query"), in_store(tmp_path, DOCUMENTS), 20))
    expected_scores, expected = all_of(neighbours(Vectors.of(QUERIES, "query"), Vectors.of(DOCUMENTS, "document"), 20))
    assert np.array_equal(found, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_shares_visit_the_lists_of_one_file(cluster):
    """The same lists and the same recall as in one process, and what is found has that recall."""
    queries, documents = Vectors.of(clustered(3, 300), "query"), Vectors.of(clustered(4, 4000), "document")
    asked = {"k": 15, "method": "ivf", "recall": 0.9, "seed": 3}
    search, expected = RayNeighbours(Workers(3))(queries, documents, **asked), neighbours(queries, documents, **asked)
    assert search.facts == expected.facts and 1 < search.facts.visited < search.facts.lists
    scores, found = all_of(search)
    assert np.array_equal(found, all_of(expected)[1])
    np.testing.assert_allclose(scores, np.vecdot(queries[:][:, None], documents[:][found]), atol=1e-6)
    nearest = np.argsort(-(queries[:].astype(np.float64) @ documents[:].T.astype(np.float64)), axis=1)[:, :15]
    share = np.mean([len(np.intersect1d(a, b)) / 15 for a, b in zip(found, nearest, strict=True)])
    assert share == pytest.approx(search.facts.recall, abs=1e-3) and share >= 0.9


def test_a_few_blocks_are_on_their_way(cluster):
    """Of three blocks that are searched and one that is next, however many there are."""
    read = []

    class Counted(Vectors):
        def __getitem__(self, rows):
            read.append(rows.start)  # pyright: ignore[reportAttributeAccessIssue]
            return super().__getitem__(rows)

    queries = Counted(np.tile(QUERIES, (10, 1)), "query")
    blocks = RayNeighbours(Workers(1))(queries, DOCUMENTS, 5).blocks()
    for taken in itertools.count():
        if next(blocks, None) is None:
            break
        assert len(read) <= taken + 4
    assert read == list(range(0, 900, 40))


def dying(monkeypatch, text, number):
    """Shards that run `text` before they search for the number-th time; they travel by value."""

    class Dying(sharded.Shard):
        searches = 0

        def search(self, query_QD, lists_QV):
            self.searches += 1
            if self.searches == number:
                exec(text)
            return super().search(query_QD, lists_QV)

    monkeypatch.setattr(sharded, "Shard", Dying)


@pytest.mark.parametrize("method", ["exact", "ivf"])
def test_a_killed_worker_costs_time_only(method, tmp_path, cluster, monkeypatch):
    dying(monkeypatch, DIE_ONCE.format(path=str(tmp_path / "died")), 2)
    search = RayNeighbours(Workers(2))(
        QUERIES, in_store(tmp_path, DOCUMENTS) if method == "exact" else DOCUMENTS, 10, method=method
    )
    found = all_of(search)[1]
    assert (tmp_path / "died").exists()
    documents = Vectors.of(DOCUMENTS, "document", unit=method == "exact")
    assert np.array_equal(found, all_of(neighbours(QUERIES, documents, 10, method=method))[1])


def test_documents_that_kill_their_worker_end_the_search(tmp_path, cluster, monkeypatch):
    tries = tmp_path / "tries"
    dying(monkeypatch, f"import os\nopen({str(tries)!r}, 'a').write('x')\nos.kill(os.getpid(), 9)", 1)
    with pytest.raises(RaylibError, match=rf"a worker process died {MAX_ATTEMPTS} times .* 501 documents in 1 workers"):
        all_of(RayNeighbours(Workers(1))(QUERIES, DOCUMENTS, 10))
    assert tries.read_text() == "x" * MAX_ATTEMPTS


@pytest.mark.parametrize("method", ["exact", "ivf"])
def test_a_document_that_cannot_be_compared_is_named(method, tmp_path, cluster, monkeypatch):
    """By its number among all documents, of which some are searched; a worker sees it first."""
    monkeypatch.setattr(sharded, "list_centroids", lambda documents, seed: DOCUMENTS[:7])
    documents = DOCUMENTS.copy()
    documents[417, 3] = np.nan
    held = in_store(tmp_path, documents).take(np.arange(500)[::-1])
    with pytest.raises(UserError, match=r"^document 417 has a vector that is zero or not finite"):
        all_of(RayNeighbours(Workers(2))(QUERIES, held, 5, method=method))


def test_a_query_that_cannot_be_compared_is_named(cluster):
    queries = QUERIES.copy()
    queries[61] = np.inf
    with pytest.raises(UserError, match=r"^query 61 has a vector that is not finite"):
        all_of(RayNeighbours(Workers(1))(queries, DOCUMENTS, 5))


def test_a_worker_that_does_not_see_the_store_says_so(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(shares, "store_marker", lambda shelf: "/not/on/this/machine/encoder.json")
    with pytest.raises(StoreError, match="does not see the store at /not/on/this/machine"):
        all_of(RayNeighbours(Workers(1))(QUERIES, in_store(tmp_path, DOCUMENTS), 5))


def test_small_searches_stay_here(monkeypatch):
    monkeypatch.setattr(sharded, "_WORTH_AN_ACTOR", 2e11)
    monkeypatch.setattr(sharded, "_Fleet", None)
    found = all_of(RayNeighbours(Workers(2))(QUERIES, DOCUMENTS, 5))[1]
    assert np.array_equal(found, all_of(neighbours(QUERIES, DOCUMENTS, 5))[1])


def test_what_cannot_be_searched():
    with pytest.raises(UserError, match="16 dimensions and documents 8"):
        RayNeighbours(Workers(2))(QUERIES, DOCUMENTS[:, :8], 5)


def test_the_best_of_shares_that_found_little():
    """Nothing is -1 at -inf, and comes last."""
    nothing = (np.full((1, 3), -np.inf, dtype=np.float32), np.full((1, 3), -1))
    some = (np.array([[0.5, 0.25, -np.inf]], dtype=np.float32), np.array([[9, 4, -1]]))
    tied = (np.array([[0.5]], dtype=np.float32), np.array([[2]]))
    scores, found = best_of(4, nothing, some, tied)
    assert found.tolist() == [[2, 9, 4, -1]] and scores.tolist() == [[0.5, 0.5, 0.25, -np.inf]]
    assert best_of(1, some, tied)[1].tolist() == [[2]]


def test_map_gives_results_in_order_and_runs_little_ahead(cluster):
    asked = []

    def tasks():
        for i in range(12):
            asked.append(i)
            yield i

    def slower_first(i):
        import time

        time.sleep(0.02 * (i == 0))
        return i * i, os.getpid()

    ran = ray_map(Workers(2))(slower_first, tasks())
    assert not asked
    found = []
    for result in ran:
        found.append(result)
        assert len(asked) <= len(found) + 4
    assert [square for square, _ in found] == [i * i for i in range(12)]
    assert os.getpid() not in {pid for _, pid in found}


def test_map_raises_at_its_place_what_a_task_raised(cluster):
    def fail_at_two(i):
        if i == 2:
            raise UserError("piece 2 is bad")
        return i

    ran = iter(ray_map(Workers(2))(fail_at_two, range(9)))
    assert [next(ran), next(ran)] == [0, 1]
    with pytest.raises(UserError, match=r"^piece 2 is bad$"):
        next(ran)


def test_map_runs_again_what_was_killed(tmp_path, cluster):
    """Once is made good; each time ends it, in words that say what to do."""

    def die_once(i):
        if i == 1:
            exec(DIE_ONCE.format(path=str(tmp_path / "died")))
        return i

    def die(i):
        with open(tmp_path / "tries", "a") as stream:
            stream.write("x")
        os.kill(os.getpid(), 9)

    assert list(ray_map(Workers(2))(die_once, range(3))) == [0, 1, 2] and (tmp_path / "died").exists()
    with pytest.raises(RaylibError, match=f"died {MAX_ATTEMPTS} times over the same piece"):
        list(ray_map(Workers(1))(die, [0]))
    assert Path(tmp_path / "tries").read_text() == "x" * MAX_ATTEMPTS


def test_the_place_is_the_cluster_with_the_workers_of_the_flags(cluster):
    place = mine_place(Placement(workers=2, cpus_per_worker=2))
    assert place.find == RayNeighbours(Workers(2, cpus=2)) and place.search == RaySearch(Workers(2, cpus=2))
    assert list(place.run(abs, [-3, 2])) == [3, 2]
    stage = place.encode.stage_with(lambda done, bad=0: None)
    assert isinstance(stage, RayDataStage) and stage.workers == Workers(2, cpus=2)
    assert stage.workers.resolve() == Workers(2, gpus=0.0, cpus=2)  # this machine has no GPU
