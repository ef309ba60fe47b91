"""Search through an index over any corpus that gives blocks: what is read, what is kept, what comes out."""

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.search import indexed
from raylib.search.blocks import BadVectorError, prepare
from raylib.search.indexed import rank_by_index
from raylib.search.options import SearchOptions
from raylib.types import Embeddings

DIM, N = 8, 500
RNG = np.random.default_rng(7)
VECTORS = RNG.normal(size=(N, DIM)).astype(np.float32)
QUERIES = RNG.normal(size=(12, DIM)).astype(np.float32)
RANKS = np.arange(N)


class InMemory:
    """A corpus of blocks in a shuffled order, which notes what is asked of it."""

    def __init__(self, vectors=VECTORS, n_blocks=7):
        self.vectors, self.n_blocks = vectors, n_blocks
        self.n_contents, self.dim = vectors.shape
        self.asked: list[np.ndarray | None] = []

    def blocks(self):
        self.asked.append(None)
        return self._blocks(np.arange(self.n_contents))

    def blocks_of(self, contents):
        self.asked.append(contents)
        return self._blocks(contents)

    def _blocks(self, contents):
        for at in np.array_split(np.random.default_rng(1).permutation(contents), self.n_blocks):
            if len(at):
                yield prepare(at, Embeddings.from_dense(self.vectors[at]), "dot", "document")


def rank(corpus, factory, k=10, queries=QUERIES, oversample=2, **more):
    options = SearchOptions(index=factory, oversample=oversample)
    return rank_by_index(Embeddings.from_dense(queries), corpus, "dot", k, RANKS, options, **more)


def sorted_by_float64(queries=QUERIES, vectors=VECTORS):
    table = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    return np.argsort(-table, axis=1), table


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat;nprobe=8", "HNSW32;efSearch=500"])
@pytest.mark.parametrize("at_a_time", [5, 1024])
def test_an_index_that_sees_everything_is_a_sort(factory, at_a_time, monkeypatch):
    monkeypatch.setattr(indexed, "_QUERIES", at_a_time)
    ranked, taken = rank(InMemory(), factory)
    order, table = sorted_by_float64()
    assert np.array_equal(ranked.contents_QK, order[:, :10])
    np.testing.assert_allclose(ranked.scores_QK, np.take_along_axis(table, order[:, :10], axis=1), rtol=1e-5)
    assert taken >= 4 * DIM


def test_scores_are_those_of_the_vectors_and_not_of_their_codes():
    """Two bytes a vector choose; the order among the candidates is exact."""
    ranked, taken = rank(InMemory(), "PQ4x4", oversample=4)
    _, table = sorted_by_float64()
    np.testing.assert_allclose(ranked.scores_QK, np.take_along_axis(table, ranked.contents_QK, axis=1), rtol=1e-5)
    assert (np.diff(ranked.scores_QK) <= 0).all() and taken < DIM


def test_equal_scores_go_by_tie_rank():
    vectors = VECTORS.copy()
    vectors[[3, 200, 450]] = 10 * QUERIES[0]
    ranks = np.random.default_rng(2).permutation(N)
    options = SearchOptions(index="Flat")
    ranked, _ = rank_by_index(Embeddings.from_dense(QUERIES[:1]), InMemory(vectors), "dot", 3, ranks, options)
    assert ranked.contents_QK[0].tolist() == sorted([3, 200, 450], key=lambda content: -ranks[content])


def test_what_is_read_again_are_the_candidates():
    corpus = InMemory()
    rank(corpus, "IVF8,Flat", k=5)
    sample, everything, candidates = corpus.asked
    assert everything is None and sample is not None and candidates is not None
    assert sample.tolist() == list(range(N)), "FAISS wants more than there are"
    assert 10 <= len(candidates) <= 12 * 5 * 2 and (np.diff(candidates) > 0).all()


def test_the_sample_to_train_on_is_bounded_and_always_the_same(monkeypatch):
    trained = []
    plain = indexed.Index.train
    monkeypatch.setattr(indexed.Index, "train", lambda self, s: trained.append(s.copy()) or plain(self, s))
    for n_blocks in (1, 7):
        rank(InMemory(n_blocks=n_blocks), "IVF2,Flat", training_bytes=4 * DIM * 100 + 3)
    one, other = trained
    assert one.shape == (100, DIM) and np.array_equal(one, other)
    assert len({row.tobytes() for row in one} & {row.tobytes() for row in VECTORS}) == 100, "each once"


def test_a_caller_may_keep_the_index():
    built = []

    def keep(build):
        if not built:
            built.append(build())
        return built[0]

    corpus = InMemory()
    one, _ = rank(corpus, "Flat", keep=keep)
    other, _ = rank(corpus, "Flat", keep=keep)
    assert sum(asked is None for asked in corpus.asked) == 1 and np.array_equal(one.contents_QK, other.contents_QK)


def test_fewer_than_k_are_found_and_fewer_than_k_exist():
    ranked, _ = rank(InMemory(), "IVF64,Flat;nprobe=1", k=100)
    assert (ranked.contents_QK[:, -1] == -1).all() and (ranked.contents_QK[:, 0] >= 0).all()
    ranked, _ = rank(InMemory(VECTORS[:6]), "Flat", k=100)
    assert ranked.contents_QK.shape == (12, 6) and (ranked.contents_QK >= 0).all()


def test_sides_that_cannot_be_compared_are_refused_before_anything_is_built():
    corpus = InMemory()
    with pytest.raises(UserError, match="queries have 5 dimensions, documents 8; encode both with one model"):
        rank(corpus, "Flat", queries=np.ones((2, 5), np.float32))
    queries = QUERIES.copy()
    queries[4, 2] = np.inf
    with pytest.raises(BadVectorError, match=r"^query 4 has NaN or infinite numbers"):
        rank(corpus, "Flat", queries=queries)
    assert corpus.asked == []
