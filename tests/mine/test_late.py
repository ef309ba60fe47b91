"""Late-interaction teachers against MaxSim by loops, over matrices in a store."""

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.evaluate.search import search_locally
from raylib.mine.b3 import plan_batches
from raylib.mine.late import LateComparison
from raylib.mine.negatives import mine_negatives
from raylib.mine.quality import batch_quality
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings

DIM = 6


def _matrices(n, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rng.integers(1, 9), DIM)).astype(np.float32) for _ in range(n)]


QUERIES, DOCUMENTS = _matrices(40, 0), _matrices(90, 1)


def _maxsim(query, document):
    return sum(max(float(np.dot(q, d)) for d in document) for q in query)


TABLE = np.array([[_maxsim(q, d) for d in DOCUMENTS] for q in QUERIES])


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
    return LateComparison(shelf, query_keys, document_keys, search_locally, **settings)


def _found(search):
    blocks = list(search.blocks())
    assert [first for first, _, _ in blocks] == np.cumsum([0, *(len(b) for _, b, _ in blocks)])[:-1].tolist()
    return np.concatenate([scores for _, scores, _ in blocks]), np.concatenate([found for _, _, found in blocks])


def _best(table, k):
    order = np.argsort(-table, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(table, order, axis=1), order


@pytest.mark.parametrize("k", [1, 7, 500])
def test_the_nearest_are_those_of_loops(k, tmp_path, monkeypatch):
    monkeypatch.setattr("raylib.mine.late._QUERIES", 16)
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


def test_pairs_and_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("raylib.mine.late._PAIRS", 50)
    compared = _compared(tmp_path)
    rng = np.random.default_rng(3)
    queries, documents = rng.integers(40, size=170), rng.integers(90, size=170)
    np.testing.assert_allclose(compared.pairs(queries, documents), TABLE[queries, documents], atol=1e-5)
    block = compared.block(queries[:9], documents[:12])
    np.testing.assert_allclose(block, TABLE[queries[:9]][:, documents[:12]], atol=1e-5)


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
