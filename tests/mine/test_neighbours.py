"""Nearest documents: exact ones are a sort in float64 whatever the blocks, an inverted file has the recall it says."""

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.mine import neighbours as module
from raylib.mine import vectors
from raylib.mine.neighbours import nearest, neighbours


def _unit(shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


QUERIES, DOCUMENTS = _unit((70, 16)), _unit((500, 16), 1)


def _sorted(queries, documents, k):
    table = queries.astype(np.float64) @ documents.T.astype(np.float64)
    order = np.argsort(-table, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(table, order, axis=1), order


@pytest.fixture
def small_blocks(monkeypatch):
    """37 documents and 8 queries at a time."""
    monkeypatch.setattr(vectors, "_BLOCK_BYTES", 37 * 16 * 4)
    monkeypatch.setattr(module, "_QUERIES", 8)


@pytest.mark.parametrize("blocks", ["one", "many"])
def test_exact_is_a_sort(blocks, request):
    if blocks == "many":
        request.getfixturevalue("small_blocks")
    scores, found = nearest(QUERIES, DOCUMENTS, 50)
    expected_scores, expected = _sorted(QUERIES, DOCUMENTS, 50)
    assert scores.dtype == np.float32 and found.dtype == np.int64
    assert np.array_equal(found, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_blocks_come_in_order_and_bounded(small_blocks):
    pieces = list(neighbours(QUERIES, DOCUMENTS, 5).blocks())
    assert [first for first, _, _ in pieces] == list(range(0, 70, 8))
    assert max(len(found) for _, _, found in pieces) == 8


def test_k_is_cut_to_the_documents():
    assert nearest(QUERIES, DOCUMENTS[:3], 10)[1].shape == (70, 3)


@pytest.mark.parametrize("blocks", ["one", "many"])
def test_ties_go_by_position_at_the_last_place_too(blocks, request):
    """Halves are exact in float32, so equal documents tie to the bit: 60 of the best, 40 of the next."""
    if blocks == "many":
        request.getfixturevalue("small_blocks")
    documents = np.zeros((300, 16), dtype=np.float32)
    documents[:, 0] = 0.25
    documents[100:160, 0] = 1.0
    documents[200:240, 0] = 0.5
    queries = np.zeros((9, 16), dtype=np.float32)
    queries[:, 0] = 1.0
    scores, found = nearest(queries, documents, 70)
    assert (found == np.r_[100:160, 200:210]).all()
    assert (scores == np.r_[np.ones(60), np.full(10, 0.5)]).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_memory_maps_are_read_in_blocks(dtype, tmp_path, small_blocks):
    np.save(tmp_path / "documents.npy", DOCUMENTS.astype(dtype))
    mapped = np.load(tmp_path / "documents.npy", mmap_mode="r")
    assert np.array_equal(nearest(QUERIES, mapped, 5)[1], _sorted(QUERIES, DOCUMENTS.astype(dtype), 5)[1])


@pytest.mark.parametrize("method", ["exact", "ivf"])
def test_only_some_documents_are_searched(method, small_blocks):
    among = np.r_[3:40, 80:400:7]
    scores, found = nearest(QUERIES, DOCUMENTS, 6, among=among, method=method, recall=1.0)
    assert np.array_equal(found, among[_sorted(QUERIES, DOCUMENTS[among], 6)[1]])
    np.testing.assert_allclose(scores, np.vecdot(QUERIES[:, None], DOCUMENTS[found]), atol=1e-6)


def _clustered(n, seed):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(100, 16))
    return (centres[rng.integers(0, 100, n)] + 0.5 * rng.normal(size=(n, 16))).astype(np.float32)


def test_an_inverted_file_reaches_the_recall_it_reports():
    queries, documents = _clustered(400, 0), _clustered(12_000, 1)
    search = neighbours(queries, documents, 20, method="ivf", recall=0.95)
    found = np.concatenate([block for _, _, block in search.blocks()])
    _, expected = _sorted(queries, documents, 20)
    share = np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(found, expected, strict=True)])
    assert search.facts.sampled == 400
    assert share == pytest.approx(search.facts.recall, abs=1e-3)
    assert share >= 0.95 and search.facts.visited < search.facts.lists
    assert neighbours(queries, documents, 20, method="ivf", recall=1.0).facts.recall == 1.0


def test_auto_takes_the_inverted_file_above_a_size(monkeypatch):
    queries, documents = _clustered(300, 0), _clustered(12_000, 1)
    assert neighbours(queries, documents, 5).facts == module.SearchFacts("exact")
    monkeypatch.setattr(module, "_EXACT_PAIRS", 10**6)
    assert neighbours(queries, documents, 5).facts.method == "ivf"
    assert neighbours(queries, documents[:9000], 5).facts.method == "exact"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": np.zeros((0, 16))}, r"query vectors have the shape \(0, 16\)"),
        ({"documents": np.zeros(16)}, r"document vectors have the shape \(16,\)"),
        ({"documents": np.zeros((4, 8))}, "16 dimensions and documents 8"),
        ({"k": 0}, "0 neighbours"),
        ({"method": "hnsw"}, "'hnsw'; expected one of auto, exact, ivf"),
        ({"recall": 1.5}, "recall is 1.5"),
        ({"among": np.array([3, 3])}, "ascending positions"),
        ({"among": np.array([3, 500])}, "ascending positions"),
    ],
)
def test_what_cannot_be_searched(change, message):
    given = {"queries": QUERIES, "documents": DOCUMENTS, "k": 3, **change}
    with pytest.raises(UserError, match=message):
        nearest(given.pop("queries"), given.pop("documents"), given.pop("k"), **given)


@pytest.mark.parametrize("side", ["query", "document"])
def test_a_row_that_is_not_finite_is_named(side, small_blocks):
    given = {"query": QUERIES.copy(), "document": DOCUMENTS.copy()}
    given[side][61, 3] = np.nan
    with pytest.raises(UserError, match=f"{side} 61 has a vector that is not finite"):
        nearest(given["query"], given["document"], 3, among=np.arange(2, 500))
