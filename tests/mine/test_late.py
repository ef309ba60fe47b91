"""Late-interaction teachers against MaxSim by loops, over matrices in a store."""

import dataclasses
import pickle

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.evaluate.search import search_locally
from raylib.mine.b3 import plan_batches
from raylib.mine.late import LateComparison
from raylib.mine.negatives import mine_negatives
from raylib.mine.neighbours import SearchFacts, nearest, neighbours
from raylib.mine.options import SearchMethod
from raylib.mine.quality import batch_quality
from raylib.store.embeddings import PartRows, Shelf
from raylib.types import Embeddings

DIM = 6


def _matrices(n, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rng.integers(1, 9), DIM)).astype(np.float32) for _ in range(n)]


QUERIES, DOCUMENTS = _matrices(40, 0), _matrices(90, 1)


def _maxsim(query, document):
    return sum(max(float(np.dot(q, d)) for d in document) for q in query)


TABLE = np.array([[_maxsim(q, d) for d in DOCUMENTS] for q in QUERIES])
ALL = np.arange(40)


def _compared(tmp_path, queries=QUERIES, documents=DOCUMENTS, *, query_rows=None, document_rows=None, **settings):
    """rows: which of the matrices each query or document has; several parts in the store."""
    shelf = Shelf(str(tmp_path / "store"), "f" * 64)
    keys: list[list[bytes]] = []
    for name, side in (("q", queries), ("d", documents)):
        side_keys = [f"{name}{i}".encode().ljust(32, b".") for i in range(len(side))]
        for first in range(0, len(side), 35):
            part = side[first : first + 35]
            offsets = np.cumsum([0, *map(len, part)])
            shelf.write(side_keys[first : first + 35], Embeddings(np.concatenate(part), offsets))
        keys.append(side_keys)
    shelf.refresh()
    query_keys, document_keys = (
        side if rows is None else [side[i] for i in rows]
        for side, rows in zip(keys, (query_rows, document_rows), strict=True)
    )
    return LateComparison(shelf, query_keys, document_keys, **settings)


def _found(search):
    blocks = list(search.blocks())
    assert [first for first, _, _ in blocks] == np.cumsum([0, *(len(b) for _, b, _ in blocks)])[:-1].tolist()
    return np.concatenate([scores for _, scores, _ in blocks]), np.concatenate([found for _, _, found in blocks])


def _best(table, k):
    order = np.argsort(-table, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(table, order, axis=1), order


@pytest.fixture
def small_runs(monkeypatch):
    """Queries of up to 20 tokens, or one, and about 25 tokens of documents at a time."""
    monkeypatch.setattr("raylib.mine.late._QUERY_BYTES", 20 * 4 * DIM)
    monkeypatch.setattr("raylib.search.blocks.BLOCK_BYTES", 25 * 4 * DIM)


@pytest.fixture
def reads(monkeypatch):
    """The parts whose vectors are read, in order."""
    read, paths = PartRows.read, []
    monkeypatch.setattr(PartRows, "read", lambda part: paths.append(part.path) or read(part))
    return paths


@pytest.mark.parametrize("k", [1, 7, 500])
def test_the_nearest_are_those_of_loops(k, tmp_path, small_runs):
    search = _compared(tmp_path).nearest(k)
    scores, found = _found(search)
    expected_scores, expected = _best(TABLE, k)
    assert search.k == min(k, 90) and search.facts.method == "exact" and np.array_equal(found, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


def test_some_queries_among_some_documents(tmp_path):
    queries, documents = np.array([3, 3, 17]), np.r_[5:20, 60:80]
    _, found = _found(_compared(tmp_path).nearest(4, queries, documents))
    assert np.array_equal(found, documents[_best(TABLE[queries][:, documents], 4)[1]])


def test_contents_that_come_twice_are_two_documents_the_lower_position_first(tmp_path):
    rows = [4, 7, 4, 9, 7, 4]
    _, found = _found(_compared(tmp_path, document_rows=rows, query_rows=[2, 5, 2]).nearest(6))
    assert np.array_equal(found, _best(TABLE[[2, 5, 2]][:, rows], 6)[1])


def test_queries_are_searched_as_many_as_can_be_held(tmp_path, small_runs):
    asked = []

    def stage(request):
        asked.append(request.shelf.token_counts(request.query_keys))
        return search_locally(request)

    _found(_compared(tmp_path, stage=stage).nearest(3))
    assert np.concatenate(asked).tolist() == [len(query) for query in QUERIES]
    assert max(counts.sum() for counts in asked) <= 20 and min(map(len, asked[:-1])) > 1


def test_of_equal_scores_the_lower_position_comes_first(tmp_path, small_runs):
    """Small whole numbers have exact scores: many tie, at the last place too."""
    rng = np.random.default_rng(7)
    queries, documents = (
        [rng.integers(1, 4, size=(rng.integers(1, 4), DIM)).astype(np.float32) for _ in range(n)] for n in (20, 80)
    )
    table = np.array([[_maxsim(q, d) for d in documents] for q in queries])
    scores, found = _found(_compared(tmp_path, queries, documents).nearest(15))
    expected_scores, expected = _best(table, 15)
    assert np.array_equal(found, expected) and np.array_equal(scores, expected_scores)
    rescored = _found(_compared(tmp_path / "some", queries, documents, candidates=79).nearest(3))
    chosen = [np.setdiff1d(np.arange(80), row)[0] for row in _found_by_means(tmp_path, queries, documents, 79)]
    table[np.arange(20), chosen] = -np.inf
    assert np.array_equal(rescored[1], _best(table, 3)[1])


def _found_by_means(tmp_path, queries, documents, n):
    compared = _compared(tmp_path / "means", queries, documents)
    return nearest(compared.single("query"), compared.single("document"), n)[1]


def test_nothing_is_read_but_what_is_asked_for(tmp_path, reads):
    compared = _compared(tmp_path)
    reads.clear()
    _found(compared.nearest(3, np.arange(35, 40), np.arange(70, 90)))
    assert len(set(reads)) == 2  # the second part of queries, the third of documents


def test_pairs_and_blocks(tmp_path, small_runs):
    compared = _compared(tmp_path)
    rng = np.random.default_rng(3)
    queries, documents = rng.integers(40, size=170), rng.integers(90, size=170)
    pairs = compared.pairs(queries, documents)
    np.testing.assert_allclose(pairs, TABLE[queries, documents], atol=1e-5)
    assert np.array_equal(np.diag(compared.block(queries, documents)), pairs)
    block = compared.block(queries[:9], documents[:12])
    np.testing.assert_allclose(block, TABLE[queries[:9]][:, documents[:12]], atol=1e-5)
    assert compared.pairs(queries[:0], documents[:0]).shape == (0,)


def test_pairs_read_a_part_of_documents_once(tmp_path, reads):
    """Ninety documents lie in three parts, forty queries in two; all queries are held at once."""
    compared = _compared(tmp_path)
    compared.pairs(np.arange(90) % 40, np.random.default_rng(0).permutation(90))
    assert len(reads) == 5 and len(set(reads)) == 5


def test_pairs_of_more_queries_than_can_be_held_read_documents_in_order(tmp_path, monkeypatch, reads):
    monkeypatch.setattr("raylib.mine.late._QUERY_BYTES", 60 * 4 * DIM)
    compared = _compared(tmp_path)
    compared.pairs(np.arange(90) % 40, np.random.default_rng(0).permutation(90))
    parts = [place.path for place in compared.shelf.locate(compared.document_keys)]
    of_documents = [path for path in reads if path in parts]
    assert of_documents == sorted(of_documents, key=parts.index)
    assert 3 < len(of_documents) <= len(reads) / 2


def test_one_vector_of_each_content_is_the_mean_of_its_tokens(tmp_path):
    means = np.stack([d.mean(axis=0) for d in DOCUMENTS])[[8, 8, 2]]
    found = _compared(tmp_path, document_rows=[8, 8, 2]).single("document")[:]
    np.testing.assert_allclose(found, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-6)


def test_candidates_are_those_of_the_mean_vectors_and_their_recall_is_told(tmp_path):
    compared = _compared(tmp_path, candidates=30)
    search = compared.nearest(10)
    scores, found = _found(search)
    near = compared.single("query")[:] @ compared.single("document")[:].T
    table = np.full_like(TABLE, -np.inf)
    chosen = np.argsort(-near, axis=1)[:, :30]
    np.put_along_axis(table, chosen, np.take_along_axis(TABLE, chosen, axis=1), axis=1)
    expected_scores, expected = _best(table, 10)
    assert np.array_equal(found, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    exact = _best(TABLE, 10)[1]
    share = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(expected, exact, strict=True)])
    assert (search.facts.method, search.facts.candidates, search.facts.sampled) == ("pooled", 30, 40)
    assert search.facts.recall == pytest.approx(share) and share < 1


def test_recall_is_told_where_means_mislead(tmp_path):
    """The best document of query i is number i. Of four it has the tokens e and -2e, whose mean points away; four
    others are plain. Twelve documents that are worse lie where all queries look."""
    axes = np.eye(9, dtype=np.float32)
    queries = [axes[i : i + 1] for i in range(8)]
    best = [np.stack([axes[i], -2 * axes[i]]) if i < 4 else axes[i : i + 1] for i in range(8)]
    decoys = [(axes[:8].sum(axis=0) / 4 + axes[8] * n / 100)[None].astype(np.float32) for n in range(12)]
    compared = _compared(tmp_path, queries, best + decoys, candidates=10)
    search = compared.nearest(1)
    assert search.facts == SearchFacts("pooled", recall=0.5, sampled=8, candidates=10)
    scores, found = _found(search)
    assert (found[4:, 0] == np.arange(4, 8)).all() and (found[:4, 0] >= 8).all()
    assert scores[:, 0].tolist() == [0.25] * 4 + [1.0] * 4
    complete = _compared(tmp_path / "more", queries, best + decoys, candidates=19).nearest(1)
    assert complete.facts.recall == 0.5 and complete.facts.candidates == 19  # -1 is the last cosine there is


def test_enough_candidates_find_what_maxsim_finds(tmp_path, small_runs):
    search = _compared(tmp_path, candidates=89).nearest(5)
    assert search.facts.method == "pooled" and search.facts.recall == 1.0
    assert np.array_equal(_found(search)[1], _best(TABLE, 5)[1])


def test_candidates_come_in_blocks(tmp_path, small_runs):
    def find(queries, documents, k, **settings):
        search = neighbours(queries, documents, k, **settings)
        ((_, scores, found),) = search.blocks()
        cut = [(first, scores[first : first + 15], found[first : first + 15]) for first in range(0, len(queries), 15)]
        return dataclasses.replace(search, blocks=lambda: iter(cut))

    expected = _found(_compared(tmp_path, candidates=30).nearest(5))
    scores, found = _found(_compared(tmp_path, candidates=30, find=find).nearest(5))
    assert np.array_equal(found, expected[1]) and np.array_equal(scores, expected[0])


def test_candidates_among_some_documents(tmp_path):
    queries, among = np.array([30, 2, 2]), np.r_[5:20, 60:80]
    search = _compared(tmp_path, candidates=34).nearest(3, queries, among)
    assert search.facts.sampled == 3
    assert np.array_equal(_found(search)[1], among[_best(TABLE[queries][:, among], 3)[1]])


def test_the_sample_is_searched_as_all_queries_are(tmp_path):
    asked = []

    def find(queries, documents, k, *, method: SearchMethod = "ivf", among=None):
        asked.append((len(queries), k, method))
        return neighbours(queries, documents, k, method=method, among=among, recall=0.9)

    search = _compared(tmp_path, candidates=20, find=find).nearest(2, ALL[:7])
    assert asked == [(7, 20, "ivf"), (7, 20, "ivf")]
    assert search.facts.method == "pooled" and search.facts.lists >= search.facts.visited >= 1


def test_means_are_computed_once_and_lie_in_the_store(tmp_path, reads):
    compared = _compared(tmp_path, document_rows=[3, 50, 3, 89])
    first = compared.single("document")
    assert compared.single("document") is first
    reads.clear()
    again = _compared(tmp_path, document_rows=[50, 3])
    found = again.single("document")
    assert all(again.shelf.folder not in path for path in reads)
    assert np.array_equal(found[:], first[:][[1, 0]])
    assert found.shelf is not None
    assert np.array_equal(found.shelf.get(found.keys).dense(), found[:])
    again.single("query")
    assert np.array_equal(pickle.loads(pickle.dumps(again)).single("document")[:], found[:])
    assert len(pickle.dumps(again)) < 5000


def _spoilt(side, position, tokens):
    return [*side[:position], np.asarray(tokens, dtype=np.float32).reshape(-1, DIM), *side[position + 1 :]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda compared: list(compared.nearest(2).blocks()),
        lambda compared: compared.pairs(ALL, ALL),
        lambda compared: compared.block(ALL, ALL),
        lambda compared: [compared.single(role) for role in ("query", "document")],
    ],
    ids=["nearest", "pairs", "block", "single"],
)
@pytest.mark.parametrize(("side", "position"), [("query", 3), ("document", 17)])
def test_numbers_that_are_not_finite_are_named_by_position(side, position, ask, tmp_path):
    sides = {"query": QUERIES, "document": DOCUMENTS}
    sides[side] = _spoilt(sides[side], position, [[1.0] * DIM, [np.nan] * DIM])
    with pytest.raises(UserError, match=f"^{side} {position} has NaN or infinite numbers; encode it again"):
        ask(_compared(tmp_path, sides["query"], sides["document"]))


def test_positions_are_told_as_they_were_given(tmp_path):
    """The bad document is the eleventh that is searched, the bad query the second."""
    documents = _spoilt(DOCUMENTS, 17, [[np.inf] * DIM])
    compared = _compared(tmp_path, documents=documents)
    with pytest.raises(UserError, match=r"^document 17 has NaN"):
        _found(compared.nearest(2, documents=np.arange(7, 30)))
    assert np.isfinite(_found(compared.nearest(2, documents=np.arange(18, 30)))[0]).all()
    queries = _spoilt(QUERIES, 9, [[np.inf] * DIM])
    with pytest.raises(UserError, match=r"^query 9 has NaN"):
        _found(_compared(tmp_path / "other", queries).nearest(2, np.array([4, 4, 9, 1])))


@pytest.mark.parametrize(("side", "position"), [("query", 3), ("document", 17)])
def test_contents_without_vectors_are_refused_at_once(side, position, tmp_path):
    sides = {"query": QUERIES, "document": DOCUMENTS}
    sides[side] = _spoilt(sides[side], position, [])
    with pytest.raises(UserError, match=f"^{side} {position} has no vector at all"):
        _compared(tmp_path, sides["query"], sides["document"])


def test_contents_of_other_dimensions_are_refused_at_once(tmp_path):
    compared = _compared(tmp_path)
    key = b"wide".ljust(32, b".")
    compared.shelf.write([key], Embeddings.from_dense(np.ones((1, 2 * DIM), dtype=np.float32)))
    documents = [*compared.document_keys[:4], key]
    with pytest.raises(UserError, match=r"^document 4 has 12 dimensions and query 0 has 6.*--fusion concat"):
        LateComparison(compared.shelf, compared.query_keys, documents)
    with pytest.raises(UserError, match=r"^query 1 has 12 dimensions and query 0 has 6"):
        LateComparison(compared.shelf, [compared.query_keys[0], key], compared.document_keys)


def test_tokens_that_add_up_to_zero_have_no_mean(tmp_path):
    documents = _spoilt(DOCUMENTS, 17, [[1.0] * DIM, [-1.0] * DIM])
    compared = _compared(tmp_path, documents=documents, candidates=20)
    with pytest.raises(UserError, match=r"^document 17 has tokens that add up to zero, so their mean has no direction"):
        compared.nearest(2)


def test_what_cannot_be_asked_is_said(tmp_path):
    compared = _compared(tmp_path)
    with pytest.raises(UserError, match="0 neighbours were asked for"):
        compared.nearest(0)
    with pytest.raises(UserError, match="no documents to search among"):
        compared.nearest(1, documents=ALL[:0])
    with pytest.raises(UserError, match="--candidates is 0; expected at least 1"):
        _compared(tmp_path, candidates=0)
    with pytest.raises(UserError, match="there are no queries to compare"):
        LateComparison(compared.shelf, [], compared.document_keys)


def test_as_many_candidates_as_documents_are_all(tmp_path):
    search = _compared(tmp_path, candidates=90).nearest(10)
    assert search.facts.method == "exact" and np.array_equal(_found(search)[1], _best(TABLE, 10)[1])
    with pytest.raises(UserError, match="--candidates is 8 and 10 neighbours are looked for"):
        _compared(tmp_path, candidates=8).nearest(10)


def test_negatives_are_mined_by_maxsim(tmp_path):
    positives = np.arange(40)
    found = mine_negatives(_compared(tmp_path), positives, k=3, positive_fraction=0.8, range_max=90)
    own = TABLE[positives, positives]
    for i in range(40):
        allowed = own[i] - 0.2 * abs(own[i])
        expected = [j for j in np.argsort(-TABLE[i]) if j != i and TABLE[i, j] <= allowed][:3]
        assert found.indices[i].tolist() == (expected + [-1] * 3)[:3]


def test_batches_are_planned_by_maxsim(tmp_path):
    compared = _compared(tmp_path, document_rows=range(40))
    plan = plan_batches(compared, None, batch_size=8, cluster_size=4, skip_top=1, neighbours=10)
    assert sorted(plan.batches.ravel().tolist()) == list(range(40))
    assert np.array_equal(plan.window, _best(TABLE[:, :40], 11)[1][:, 1:])
    quality = batch_quality(plan.batches, compared, np.arange(40), plan.same)
    assert quality.n_examples == 40 and np.isfinite(quality.hardness)
