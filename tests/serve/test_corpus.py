"""What clients add to a corpus and take out of it: searched, durable, and the same after whatever happens."""

import asyncio
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from raylib.errors import OverloadedError, StoreError, UserError
from raylib.serve import corpus_index, corpus_state
from raylib.serve.coalesce import Coalescer
from raylib.serve.corpus import open_corpus
from raylib.serve.corpus_base import Base
from raylib.serve.corpus_log import ChangeLog
from raylib.serve.corpus_state import State
from raylib.serve.protocol import Content, Document
from raylib.types import Embeddings
from tests.evaluate.made import Letters, Words


def run(coroutine):
    return asyncio.run(coroutine)


def opened(folder, encoder=None, name="empty:mine", **options):
    return open_corpus(name, str(folder), encoder or Letters(), **options)


def dense(*rows):
    return Embeddings.from_dense(np.array(rows, dtype=np.float32))


def texts(*names, **metadata):
    return [Document(name, Content(f"text of {name}"), metadata) for name in names]


def names(hits):
    return [hit.id for hit in hits]


def parts(folder):
    return sorted(folder.rglob("part-*.parquet"))


def test_added_replaced_deleted_and_added_again(tmp_path):
    corpus = opened(tmp_path)
    assert run(corpus.search(dense([1, 0, 0, 0]), 3)) == [[]]
    run(corpus.add(texts("a", "b"), dense([1, 0, 0, 0], [0, 1, 0, 0])))
    run(corpus.add([Document("a", Content("new", b"image"), {"n": 1})], dense([0.6, 0.8, 0, 0])))
    (hits,) = run(corpus.search(dense([2, 0, 0, 0]), 3))  # cosine
    assert [(hit.id, round(hit.score, 6), hit.metadata) for hit in hits] == [("a", 0.6, {"n": 1}), ("b", 0.0, {})]
    assert run(corpus.delete(["b", "b", "c"])) == ["b"]
    assert run(corpus.delete(["b"])) == []
    assert (run(corpus.count()), run(corpus.ids()), run(corpus.documents(["b"]))) == (1, ["a"], [None])
    run(corpus.add(texts("b"), dense([1, 0, 0, 0])))
    for _ in range(2):
        (hits,) = run(corpus.search(dense([2, 0, 0, 0]), 1))
        assert names(hits) == ["b"]
        found = run(corpus.documents(["a", "b"]))
        assert found == [Document("a", Content("new", b"image"), {"n": 1}), *texts("b")]
        assert run(corpus.vectors(["b", "a"])).values == pytest.approx(np.array([[1, 0, 0, 0], [0.6, 0.8, 0, 0]]))
        corpus.close()
        corpus = opened(tmp_path)
    corpus.close()


def test_late_interaction_counts_every_token(tmp_path):
    corpus = opened(tmp_path, Words())
    rows = [np.array(tokens, np.float32) for tokens in ([[1, 0, 0]], [[0, 1, 0], [0, 0, 2], [1, 1, 0]])]
    run(corpus.add(texts("one", "three"), Embeddings.from_list(rows)))
    query = Embeddings.from_list([np.array([[1, 0, 0], [0, 0, 3]], np.float32)])
    (hits,) = run(corpus.search(query, 5))
    assert [(hit.id, hit.score) for hit in hits] == [("three", 7.0), ("one", 1.0)]
    assert [tokens.tolist() for tokens in run(corpus.vectors(["three", "one"]))] == [rows[1].tolist(), rows[0].tolist()]
    corpus.close()


def test_ties_go_to_the_greater_id_whenever_it_was_added(tmp_path):
    corpus = opened(tmp_path)
    for name in ("m", "z", "a", "é"):
        run(corpus.add(texts(name), dense([1, 0, 0, 0])))
    assert names(run(corpus.search(dense([1, 0, 0, 0]), 3))[0]) == ["é", "z", "m"]
    corpus.close()


def test_filters_by_hand(tmp_path):
    corpus = opened(tmp_path)
    about = [
        {"year": 2020, "lang": "en", "ok": True},
        {"year": 2021.5, "lang": "fr"},
        {"year": "2021", "lang": "en"},
        {"year": 1, "ok": False},
        {},
    ]
    documents = [Document(f"d{i}", Content("x"), metadata) for i, metadata in enumerate(about)]
    run(corpus.add(documents[:2], dense(*[[1, 0, 0, 0]] * 2)))

    def found(filters):
        return sorted(names(run(corpus.search(dense([1, 0, 0, 0]), 9, filters))[0]))

    assert found({"lang": "en"}) == ["d0"]  # a column that grows afterwards
    run(corpus.add(documents[2:], dense(*[[1, 0, 0, 0]] * 3)))
    assert found({"lang": "en"}) == ["d0", "d2"]
    assert found({"lang": ["fr", "de"]}) == ["d1"]
    assert found({"year": {"gte": 2020}}) == ["d0", "d1"]
    assert found({"year": {"gte": 1, "lte": 2020.0}}) == ["d0", "d3"]
    assert found({"year": {"lte": "2022"}}) == ["d2"]
    assert found({"ok": True}) == ["d0"] and found({"year": 1.0}) == ["d3"], "true is no 1"
    assert found({"lang": "en", "year": {"gte": 0}}) == ["d0"]
    assert found({"nothing": 1}) == [] and found({}) == found(None) == ["d0", "d1", "d2", "d3", "d4"]
    run(corpus.delete(["d0"]))
    assert found({"lang": "en"}) == ["d2"]
    corpus.close()


@pytest.mark.parametrize(
    ("filters", "match"),
    [
        ({"a": {"gt": 1}}, "operator 'gt'; expected gte and lte"),
        ({"a": {}}, "no operator"),
        ({"a": []}, "lists 0 values"),
        ({"a": None}, "compares with null"),
        ({"a": [[1]]}, "compares with a list"),
        ({"a": {"gte": True}}, "is a boolean"),
        ({"a": {"gte": 1, "lte": "b"}}, "two of a kind"),
        ({"a": float("nan")}, "finite"),
        (["a"], "filters are a list"),
    ],
)
def test_filters_that_cannot_be_right(tmp_path, filters, match):
    corpus = opened(tmp_path)
    with pytest.raises(UserError, match=match):
        run(corpus.search(dense([1, 0, 0, 0]), 1, filters))
    corpus.close()


def test_what_cannot_be_added_is_named_and_changes_nothing(tmp_path):
    corpus = opened(tmp_path)
    run(corpus.add(texts("a"), dense([1, 0, 0, 0])))
    cases = [
        (texts("b", "b"), dense([1, 0, 0, 0], [1, 0, 0, 0]), "'b' is given twice"),
        (texts("b", "c"), dense([1, 0, 0, 0], [np.nan, 0, 0, 0]), "document c has NaN"),
        (texts("b"), dense([1, 0]), "2 dimensions, those of the corpus 4"),
        (texts("b"), Embeddings.from_list([np.ones((2, 4), np.float32)]), "expected one vector"),
        (texts(""), dense([1, 0, 0, 0]), "empty id"),
        (texts("\ud800"), dense([1, 0, 0, 0]), "surrogate"),
    ]
    for documents, vectors, match in cases:
        with pytest.raises(UserError, match=match):
            run(corpus.add(documents, vectors))
    with pytest.raises(UserError, match="2 dimensions"):
        run(corpus.search(dense([1, 0]), 1))
    with pytest.raises(UserError, match="top_k is 0"):
        run(corpus.search(dense([1, 0, 0, 0]), 0))
    assert run(corpus.ids()) == ["a"] and len(parts(tmp_path)) == 1
    corpus.close()


def test_one_process_has_a_corpus_open_and_a_model_its_own(tmp_path):
    corpus = opened(tmp_path)
    with pytest.raises(UserError, match="open in another process"):
        opened(tmp_path)
    other = opened(tmp_path, Letters("another"))
    run(other.add(texts("x"), dense([1, 0, 0, 0])))
    assert run(corpus.count()) == 0
    corpus.close()
    other.close()
    opened(tmp_path).close()


def test_a_damaged_part_is_named(tmp_path):
    corpus = opened(tmp_path)
    run(corpus.add(texts("a"), dense([1, 0, 0, 0])))
    corpus.close()
    (path,) = parts(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"{path.name} cannot be read"):
        opened(tmp_path)


def test_searches_that_wait_are_one_product_and_a_wrong_one_fails_alone(tmp_path, monkeypatch):
    corpus = opened(tmp_path)
    run(corpus.add(texts("a", "b", "c"), dense([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])))
    started, go, sizes = threading.Event(), threading.Event(), []
    plain = corpus_index.Snapshot.search

    def counted(self, queries, k, filters=None):
        sizes.append((len(queries), k))
        started.set()
        go.wait(10)
        return plain(self, queries, k, filters)

    monkeypatch.setattr(corpus_index.Snapshot, "search", counted)

    async def ask():
        first = asyncio.create_task(corpus.search(dense([1, 0, 0, 0]), 1))
        while not started.is_set():
            await asyncio.sleep(0.001)
        asked = [(dense([0, 1, 0, 0]), 1), (dense([0, 0, 1, 0], [1, 0, 0, 0]), 2), (dense([np.nan, 0, 0, 0]), 1)]
        others = [asyncio.create_task(corpus.search(*one)) for one in asked]
        gone = asyncio.create_task(corpus.search(dense([0, 1, 0, 0]), 3))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    first, second, third, wrong = run(ask())
    assert sizes[:2] == [(1, 1), (4, 2)], "what waited, without the one that nobody waits for"
    assert names(first[0]) == ["a"] and names(second[0]) == ["b"]
    assert [names(hits)[0] for hits in third] == ["c", "a"] and [len(hits) for hits in third] == [2, 2]
    assert isinstance(wrong, UserError) and "NaN" in str(wrong)
    corpus.close()


def test_a_full_queue_is_refused():
    go, begun = threading.Event(), threading.Event()
    line = Coalescer("it", lambda asked: begun.set() or (go.wait(10) and asked), most=1, queue=2)
    futures = [line.submit(0)]
    assert begun.wait(10)
    futures += [line.submit(i) for i in (1, 2)]
    with pytest.raises(OverloadedError, match="2 requests wait"):
        line.submit(3)
    go.set()
    assert [future.result(10) for future in futures] == [0, 1, 2]
    line.close()
    with pytest.raises(OverloadedError, match="closed"):
        line.submit(4)


def test_the_event_loop_runs_while_a_search_does(tmp_path, monkeypatch):
    corpus = opened(tmp_path)
    monkeypatch.setattr(corpus_index.Snapshot, "search", lambda *a: time.sleep(0.2) or [[]])

    async def turns():
        search = asyncio.create_task(corpus.search(dense([1, 0, 0, 0]), 1))
        n = 0
        while not search.done():
            await asyncio.sleep(0.005)
            n += 1
        return n

    assert run(turns()) >= 10
    corpus.close()


def small_parts(monkeypatch, most=3):
    monkeypatch.setattr(corpus_state, "MOST_PARTS", most)


def test_many_parts_become_few_and_say_the_same(tmp_path, monkeypatch):
    """Forty changes; while parts are joined everything stays readable, and after it too."""
    small_parts(monkeypatch)
    corpus = opened(tmp_path)
    for i in range(20):
        run(corpus.add(texts(f"d{i}", f"e{i}"), dense([1, i, 0, 0], [0, 1, i, 0])))
        run(corpus.delete([f"e{i}"]))
        assert run(corpus.documents([f"d{j}" for j in range(i + 1)])) == texts(*[f"d{j}" for j in range(i + 1)])
    assert run(corpus.vectors([f"d{i}" for i in range(20)])).values.tolist() == [[1, i, 0, 0] for i in range(20)]
    corpus.close()
    left = parts(tmp_path)
    assert len(left) <= 4
    assert pq.read_table(left[0]).column("id").to_pylist()[:3] == ["d0", "d1", "d2"], "what is gone is left out"
    corpus = opened(tmp_path)
    assert run(corpus.ids()) == sorted(f"d{i}" for i in range(20))
    assert run(corpus.documents(["d7", "e7"])) == [*texts("d7"), None]
    corpus.close()


def two_pages():
    vectors = dense([1, 0, 0, 0], [0, 1, 0, 0])
    return Base(
        ["p0", "p1"],
        np.arange(2),
        2,
        pieces=lambda: iter([(np.arange(2), vectors)]),
        read=lambda contents: vectors.take(contents),
        show=lambda rows: [Content(f"page {row}") for row in rows],
        contexts={},
    )


def test_joined_parts_keep_the_deletions_that_are_needed(tmp_path, monkeypatch):
    """Of a page of the base, for good; of an added document only while a part before them has it."""
    small_parts(monkeypatch, 1)
    state = State(two_pages(), ChangeLog(str(tmp_path), {"fingerprint": "f"}), "dot")
    state.add(texts("x", "y"), dense([1, 1, 0, 0], [1, 2, 0, 0]))
    assert state.delete(["p0", "x"]) == ["p0", "x"]
    while state.join_parts():
        pass
    (part,) = state.log.parts
    table = pq.read_table(part.path)
    assert dict(zip(table["id"].to_pylist(), table["deleted"].to_pylist(), strict=True)) == {"y": False, "p0": True}
    assert (part.first, part.last) == (1, 2)
    state.delete(["y"])
    state.log.close()
    state = State(two_pages(), ChangeLog(str(tmp_path), {"fingerprint": "f"}), "dot")
    (hits,) = state.index.now.search(dense([1, 1, 0, 0]), 9)
    assert names(hits) == ["p1"]
    state.log.close()


def test_what_a_killed_join_left_does_not_count(tmp_path, monkeypatch):
    """Killed after the joined part was written and before the others were removed: they are out of date."""
    small_parts(monkeypatch, 1)
    log = ChangeLog(str(tmp_path), {"fingerprint": "f"})
    state = State(two_pages(), log, "dot")
    state.add(texts("x", "y"), dense([1, 1, 0, 0], [1, 2, 0, 0]))
    state.delete(["x"])
    monkeypatch.setattr(log, "remove", lambda *a: None)
    assert state.join_parts() and len(parts(tmp_path)) == 3
    (tmp_path / ".part-000000000003-000000000003.parquet.abc.part").write_bytes(b"half")
    log.close()
    log = ChangeLog(str(tmp_path), {"fingerprint": "f"})
    assert [path.name for path in parts(tmp_path)] == ["part-000000000001-000000000002.parquet"]
    assert not list(tmp_path.glob(".*.part"))
    state = State(two_pages(), log, "dot")
    state.add(texts("z"), dense([1, 1, 0, 0]))
    assert state.log.parts[-1].first == 3 and sorted(state.index._row) == ["p0", "p1", "y", "z"]
    log.close()


def test_a_reader_that_meets_a_join_looks_again(tmp_path, monkeypatch):
    small_parts(monkeypatch, 1)
    state = State(two_pages(), ChangeLog(str(tmp_path), {"fingerprint": "f"}), "dot")
    state.add(texts("x"), dense([1, 1, 0, 0]))
    state.add(texts("y"), dense([1, 2, 0, 0]))
    plain, joined = state.log.contents, []

    def contents(part, rows):
        if not joined:
            joined.append(state.join_parts())
        return plain(part, rows)

    monkeypatch.setattr(state.log, "contents", contents)
    assert state.documents(["y", "p1", "x"]) == [*texts("y"), Document("p1", Content("page 1")), *texts("x")]
    assert joined == [True]
    state.log.close()


def test_in_memory_the_blocks_stay_few_and_places_are_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_index, "_FEW_DEAD", 10)
    state = State(two_pages(), ChangeLog(str(tmp_path), {"fingerprint": "f"}), "dot")
    for i in range(100):
        state.add(texts(f"d{i % 30:02d}"), dense([i, 1, 0, 0]))
    now = state.index.now
    assert len(now.blocks) <= 8 and len(now.live_N) < 2 + 30 + 2 * 30
    (hits,) = now.search(dense([1, 0, 0, 0]), 3)
    assert [(hit.id, hit.score) for hit in hits] == [("d09", 99), ("d08", 98), ("d07", 97)]
    assert len(state.index) == 32
    state.log.close()


_CHILD = """
import asyncio, sys
import numpy as np
from raylib.serve.corpus import open_corpus
from raylib.serve import corpus_state
from raylib.serve.protocol import Content, Document
from raylib.types import Embeddings
from tests.evaluate.made import Letters

corpus_state.MOST_PARTS = 4
async def add():
    corpus = open_corpus("empty:mine", sys.argv[1], Letters())
    first = await corpus.count()
    for i in range(first, 10**6):
        pair = [Document(f"{i:06d}{side}", Content(f"text {i}", bytes(2000)), {"n": i}) for side in "ab"]
        vectors = np.array([[i, 1, 0, 0], [0, i, 1, 0]], np.float32)
        await corpus.add(pair, Embeddings.from_dense(vectors))
        print(i, flush=True)
asyncio.run(add())
"""


def test_killed_in_the_middle_of_adds_nothing_acknowledged_is_lost(tmp_path):
    """Three times; parts are joined all the while. A pair of documents is there whole or not at all."""
    acknowledged = set()
    for turn in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(7 + 5 * turn):
            line = child.stdout.readline()
            assert line, child.communicate()[1]
            acknowledged.add(int(line))
        time.sleep(0.003 * turn)
        child.kill()
        acknowledged |= {int(line) for line in child.communicate()[0].split("\n")[:-1]}
    corpus = opened(tmp_path)
    there = run(corpus.ids(0, 10**6))
    numbers = {int(name[:6]) for name in there}
    assert acknowledged <= numbers and len(numbers) <= len(acknowledged) + 3
    assert there == sorted(f"{i:06d}{side}" for i in numbers for side in "ab")
    found = run(corpus.documents(there))
    assert [d.content for d in found] == [Content(f"text {int(name[:6])}", bytes(2000)) for name in there]
    vectors = [[int(n[:6]), 1, 0, 0] if n.endswith("a") else [0, int(n[:6]), 1, 0] for n in there]
    assert run(corpus.vectors(there)).values.tolist() == vectors
    hits = run(corpus.search(dense(*vectors), 1))
    by_hand = np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert [hit[0].score for hit in hits] == pytest.approx((by_hand @ by_hand.T).max(axis=1), abs=1e-6)
    corpus.close()


class Changes(RuleBasedStateMachine):
    """Any changes, in any order, opened anew at any time, against a dict and a sort of all scores."""

    folder = None

    @initialize(late=st.booleans())
    def start(self, late):
        self.encoder = Words("w") if late else Letters("l")
        self.late, self.dim = late, 3 if late else 4
        self.model = {}
        self.place = self.folder.mktemp("corpus")
        self.corpus = opened(self.place, self.encoder)

    def vectors(self, seed, n):
        rng = np.random.default_rng(seed)
        counts = rng.integers(1, 4, n) if self.late else np.ones(n, int)
        # Small whole numbers: many ties.
        return Embeddings.from_list([rng.integers(0, 3, (c, self.dim)).astype(np.float32) for c in counts], self.dim)

    @rule(ids=st.lists(st.sampled_from("abcdefgé"), min_size=1, max_size=5, unique=True), seed=st.integers(0, 99))
    def add(self, ids, seed):
        vectors = self.vectors(seed, len(ids))
        documents = [Document(name, Content(f"{name}{seed}"), {"even": seed % 2 == 0, "n": seed}) for name in ids]
        run(self.corpus.add(documents, vectors))
        self.model |= {d.id: (d, v) for d, v in zip(documents, vectors, strict=True)}

    @rule(ids=st.lists(st.sampled_from("abcdefgé"), max_size=4))
    def delete(self, ids):
        there = [name for name in dict.fromkeys(ids) if name in self.model]
        assert run(self.corpus.delete(ids)) == there
        for name in there:
            del self.model[name]

    @rule()
    def reopen(self):
        self.corpus.close()
        self.corpus = opened(self.place, self.encoder)

    @rule(seed=st.integers(0, 99), k=st.integers(1, 9), even=st.sampled_from([None, True, False]))
    def search(self, seed, k, even):
        queries = self.vectors(seed, 2)
        filters = None if even is None else {"even": even, "n": {"gte": 10, "lte": 90}}
        chosen = [
            (name, d, v)
            for name, (d, v) in self.model.items()
            if even is None or (d.metadata["even"] == even and 10 <= d.metadata["n"] <= 90)
        ]
        for query, hits in zip(queries, run(self.corpus.search(queries, k, filters)), strict=True):
            scored = [(self.score(query, v), name, d.metadata) for name, d, v in chosen]
            best = sorted(scored, key=lambda row: (row[0], row[1]), reverse=True)[:k]
            assert [(hit.score, hit.id, hit.metadata) for hit in hits] == best

    def score(self, query, tokens):
        """As float32 has it: products of small whole numbers are exact, and so is their cosine up to one rounding."""
        if self.late:
            return float((query @ tokens.T).max(axis=1).sum())
        unit = [
            (v.astype(np.float64) / max(np.linalg.norm(v.astype(np.float64)), 1e-12)).astype(np.float32)
            for v in (query[0], tokens[0])
        ]
        return float(np.float32(unit[0].astype(np.float64) @ unit[1].astype(np.float64)))

    @invariant()
    def the_same_documents(self):
        if not hasattr(self, "corpus"):
            return
        assert run(self.corpus.ids()) == sorted(self.model)
        assert run(self.corpus.documents(["a", "é"])) == [self.model.get(n, (None,))[0] for n in ("a", "é")]

    def teardown(self):
        if hasattr(self, "corpus"):
            self.corpus.close()


def test_any_changes_in_any_order(tmp_path_factory, monkeypatch):
    small_parts(monkeypatch)
    monkeypatch.setattr(corpus_index, "_FEW_DEAD", 3)
    monkeypatch.setattr(Changes, "folder", tmp_path_factory)
    few = settings(
        max_examples=25,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    run_state_machine_as_test(Changes, settings=few)
