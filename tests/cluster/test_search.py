"""A search that is spread over the cluster is the search in one process, bit by bit, and fails in the same words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from raylib.cluster import search as sharded
from raylib.cluster.search import RaySearch, share_out
from raylib.cluster.session import MAX_ATTEMPTS, Workers
from raylib.errors import RaylibError, StoreError, UserError
from raylib.evaluate.search import search_locally
from raylib.search.options import SearchOptions
from raylib.store.embeddings import PartRows
from tests.cluster.deaths import DIE_ONCE
from tests.evaluate.test_search_stage import ask, dense_sides, late_sides, stored

pytestmark = pytest.mark.cluster


@pytest.fixture
def every_search_is_large(monkeypatch):
    """Also one of a few thousand products goes to the cluster, and everything waits for it."""
    monkeypatch.setattr(sharded, "_WORTH_A_TASK", 1.0)
    monkeypatch.setattr(sharded, "_POOLED_TOKENS", 1)


@pytest.fixture
def ties(tmp_path):
    """A store of dense vectors, a quarter of them copies of one, in five parts."""
    queries, documents = dense_sides()
    documents.values[::4] = documents.values[7]
    return stored(tmp_path / "dense", queries, documents)


def assert_same(one, other):
    assert np.array_equal(one.documents_QK, other.documents_QK)
    assert np.array_equal(one.scores_QK.view(np.int32), other.scores_QK.view(np.int32))
    assert one.quality == other.quality


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_dense_shards_give_the_same_bits(workers, ties, cluster, every_search_is_large, monkeypatch):
    request = ask(ties, "cosine", k=40)
    expected = search_locally(request)
    monkeypatch.setattr(sharded, "search_locally", None)
    assert_same(RaySearch(Workers(workers))(request), expected)


@pytest.mark.parametrize("settings", [{}, {"candidates": "binary"}, {"token_pooling": 2}], ids=str)
def test_late_interaction_shards_give_the_same_bits(settings, tmp_path, cluster, every_search_is_large, monkeypatch):
    options = SearchOptions(**settings)
    shelf = stored(tmp_path / "one", *late_sides())
    expected = search_locally(ask(stored(tmp_path / "other", *late_sides()), "maxsim", options=options))
    monkeypatch.setattr(sharded, "search_locally", None)
    monkeypatch.setattr(sharded, "pool_rows", None)
    assert_same(RaySearch(Workers(3))(ask(shelf, "maxsim", options=options)), expected)


def test_an_actor_can_ask(ties, cluster, every_search_is_large):
    """Even one that holds every CPU of the cluster."""

    @cluster.remote(num_cpus=4)
    class Asking:
        def ask(self, request):
            sharded._WORTH_A_TASK = 1.0
            return RaySearch(Workers(2))(request)

    request = ask(ties, "cosine")
    actor = Asking.remote()
    assert_same(cluster.get(actor.ask.remote(request), timeout=100), search_locally(request))
    cluster.kill(actor)


def test_small_searches_and_indexes_stay_here(ties, cluster, monkeypatch):
    monkeypatch.setattr(RaySearch, "_run", None)
    for options in (SearchOptions(), SearchOptions(index="Flat")):
        request = ask(ties, "cosine", options=options)
        assert_same(RaySearch(Workers(2))(request), search_locally(request))


def test_a_corrupt_part_is_named(ties, cluster, every_search_is_large):
    part = sorted(Path(ties.folder).glob("part-*.parquet"))[2]
    request = ask(ties, "cosine", query_keys=ask(ties, "cosine").query_keys[:3])
    ties.refresh()
    data = bytearray(part.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    part.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=f"{part.name} cannot be read"):
        RaySearch(Workers(2))(request)


def test_a_vector_that_cannot_be_compared_is_named_by_id(tmp_path, cluster, every_search_is_large):
    queries, documents = dense_sides()
    documents.values[417, 3] = np.nan
    with pytest.raises(UserError, match=r"^document d417 has NaN or infinite numbers"):
        RaySearch(Workers(3))(ask(stored(tmp_path, queries, documents), "cosine"))


def test_a_worker_that_does_not_see_the_store_says_so(ties, cluster, every_search_is_large, monkeypatch):
    monkeypatch.setattr(sharded, "store_marker", lambda shelf: "/not/on/this/machine/encoder.json")
    with pytest.raises(StoreError, match="does not see the store at /not/on/this/machine"):
        RaySearch(Workers(2))(ask(ties, "cosine"))


def test_a_killed_worker_costs_time_only(ties, tmp_path, cluster, every_search_is_large, monkeypatch):
    died = str(tmp_path / "died")
    monkeypatch.setattr(sharded, "_search_shard", dying(DIE_ONCE.format(path=died)))
    request = ask(ties, "cosine")
    assert_same(RaySearch(Workers(2))(request), search_locally(request))
    assert os.path.exists(died)


def test_documents_that_kill_their_worker_end_the_search(ties, tmp_path, cluster, every_search_is_large, monkeypatch):
    tries = str(tmp_path / "tries")
    text = f"import os\nopen({tries!r}, 'a').write('x')\nos.kill(os.getpid(), 9)"
    monkeypatch.setattr(sharded, "_search_shard", dying(text))
    with pytest.raises(RaylibError, match=f"search: a worker process died {MAX_ATTEMPTS} times"):
        RaySearch(Workers(1))(ask(ties, "cosine"))
    assert Path(tries).read_text() == "x" * MAX_ATTEMPTS


def dying(text):
    """A shard's search after `text`; it travels by value, so that workers need nothing of this module."""
    plain = sharded._search_shard

    def search_shard(queries, job, marker):
        exec(text)
        return plain(queries, job, marker)

    return search_shard


def test_shards_are_even_in_tokens_and_keep_parts_together():
    rng = np.random.default_rng(0)
    sizes = [40, 3, 200, 17, 60]
    starts = np.cumsum([0, *sizes[:-1]])
    parts = [
        PartRows(f"p{i}", np.arange(a, a + n), np.arange(n)) for i, (a, n) in enumerate(zip(starts, sizes, strict=True))
    ]
    tokens = [rng.integers(1, 50, n) for n in sizes]
    shards = share_out(parts, tokens, 4)
    assert sorted(np.concatenate([p.positions for s in shards for p in s]).tolist()) == list(range(320))
    of = np.concatenate(tokens)
    totals = [sum(int(of[p.positions].sum()) for p in shard) for shard in shards]
    assert max(totals) - min(totals) <= 2 * 50
    assert sum(len(shard) for shard in shards) <= len(parts) + 3
