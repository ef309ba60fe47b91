"""Rankings and score bits do not depend on how the corpus is cut, how many queries are asked together or who else is
there. The reference is worked out pair by pair without raylib: math.fsum over exact products, rounded once."""

import math

import numpy as np
import pytest

from raylib.search import engine
from raylib.search.blocks import blocks
from raylib.search.engine import Search, content_ranks, documents_of, merge
from raylib.search.exact import search
from raylib.search.options import SearchOptions
from raylib.search.topk import tie_ranks
from raylib.types import Embeddings

SHARDS = (1, 2, 3, 7)


def product(a, b):
    """Products of float32 numbers are exact in float64, and fsum adds them without rounding."""
    return np.float32(math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True)))


def reference_score(query, document):
    """Of one query and one document, each [tokens, dim]: the canonical maxima, summed and rounded once."""
    return np.float32(math.fsum(float(max(product(q, d) for d in document)) for q in query))


def reference(queries, contents, owners, ids, k, reference_score=reference_score):
    """(ids, scores) of the k best documents of each query; ties by id, descending."""
    rows = []
    for query in queries:
        of_content = [reference_score(query, content) for content in contents]
        ordered = sorted(((of_content[o], i) for i, o in zip(ids, owners, strict=True)), reverse=True)
        rows.append([(i, s) for s, i in ordered[:k]])
    return rows


def dense(seed, n, dim, planted):
    """Vectors of which many are copies of each other, and a few differ in one last bit."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, dim)).astype(np.float32)
    values[rng.permutation(n)[:planted]] = values[0]
    near = rng.permutation(n)[: planted // 2]
    values[near, 0] = np.nextafter(values[near, 0], np.float32(9))
    return Embeddings.from_dense(values)


def late(seed, n, dim, planted):
    rng = np.random.default_rng(seed)
    items = [rng.normal(size=(rng.integers(1, 6), dim)).astype(np.float32) for _ in range(n)]
    for i in rng.permutation(n)[:planted]:
        items[i] = items[0][::-1].copy()  # the same tokens in another order score the same
    return Embeddings.from_list(items)


N, K = 220, 12
IDS = [f"d{i}" for i in np.random.default_rng(9).permutation(N + 40)]
OWNERS = np.concatenate([np.arange(N), np.random.default_rng(8).integers(0, N, size=40)])


def sharded(queries, contents, similarity, shards, options=None):
    """As a cluster does it: each shard is cut into blocks of its own, and the merge takes them in reverse."""
    options = options or SearchOptions()
    ranks = tie_ranks(IDS)
    of_contents = content_ranks(OWNERS, ranks, len(contents))
    parts = []
    for mine in np.array_split(np.random.default_rng(shards).permutation(len(contents)), shards):
        local = content_ranks(np.arange(len(mine)), of_contents[mine], len(mine))
        running = Search(queries, similarity, K, local, options)
        for block in blocks([(np.arange(len(mine)), contents.take(mine))], similarity, limit=4000 * shards):
            running.add(block)
        found = running.found()
        parts.append(
            engine.Ranked(
                np.where(found.contents_QK < 0, -1, mine[found.contents_QK]), found.scores_QK, found.estimates_QK
            )
        )
    merged = merge(parts[::-1], of_contents, K, options)
    return documents_of(merged, OWNERS, ranks, K)


def as_rows(documents, scores):
    return [[(IDS[d], s) for d, s in zip(*row, strict=True)] for row in zip(documents, scores, strict=True)]


@pytest.fixture(params=["faiss", "whole blocks"])
def way(request, monkeypatch):
    """Dense candidates through FAISS, however small the corpus; or every pair."""
    if request.param == "faiss":
        monkeypatch.setattr(engine, "_PAIR_COST", 0)
        monkeypatch.setattr(engine, "_MARGIN", 1)


@pytest.mark.parametrize("shards", SHARDS)
def test_dense_is_the_reference_however_it_is_cut(shards, way):
    queries, contents = dense(1, 6, 16, 0), dense(2, N, 16, 60)
    expected = reference(queries, contents, OWNERS, IDS, K)
    assert as_rows(*sharded(queries, contents, "dot", shards)) == expected


@pytest.mark.parametrize("shards", SHARDS)
def test_late_interaction_is_the_reference_however_it_is_cut(shards):
    queries, contents = late(3, 4, 8, 0), late(4, N, 8, 60)
    expected = reference(queries, contents, OWNERS, IDS, K)
    assert as_rows(*sharded(queries, contents, "maxsim", shards)) == expected


@pytest.mark.parametrize("candidates", ["binary", "int8"])
def test_estimates_choose_the_same_candidates_however_the_corpus_is_cut(candidates):
    queries, contents = late(3, 4, 8, 0), late(4, N, 8, 60)
    options = SearchOptions(candidates=candidates, oversample=2)
    one, *others = (as_rows(*sharded(queries, contents, "maxsim", shards, options)) for shards in SHARDS)
    assert others == [one] * 3


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("dim", [3, 64, 1024])
def test_ten_queries_or_a_thousand_give_the_same_bits(similarity, dim, way):
    queries, contents = dense(5, 1000, dim, 20), dense(6, 300, dim, 90)
    ids = [f"d{i}" for i in range(300)]
    ranks, owners = tie_ranks(ids), np.arange(300)
    documents, scores = search(queries, contents, similarity, 25, ranks, owners)
    for few in (np.arange(10), np.array([999]), np.arange(500, 537)):
        some_documents, some_scores = search(queries.take(few), contents, similarity, 25, ranks, owners)
        assert np.array_equal(some_documents, documents[few])
        assert np.array_equal(some_scores.view(np.uint32), scores[few].view(np.uint32))


def test_cosine_of_vectors_that_differ_in_length_only_ties():
    """Powers of two: the normalised vectors are equal bit by bit."""
    values = np.random.default_rng(7).normal(size=(1, 32)).astype(np.float32)
    contents = Embeddings.from_dense(np.concatenate([values * 2.0**i for i in range(-4, 4)]).astype(np.float32))
    ids = list("hcbgfaed")
    documents, scores = search(Embeddings.from_dense(values), contents, "cosine", 8, tie_ranks(ids), np.arange(8))
    assert [ids[d] for d in documents[0]] == list("hgfedcba") and len(set(scores[0].tolist())) == 1


def test_when_every_document_is_the_same_the_greatest_ids_win(way):
    """No margin is wide enough for FAISS to tell them apart."""
    contents = Embeddings.from_dense(np.ones((500, 8), np.float32))
    ids = [f"{i:03d}" for i in range(500)]
    documents, _ = search(contents.take([0, 1]), contents, "dot", 5, tie_ranks(ids), np.arange(500))
    assert [[ids[d] for d in row] for row in documents] == [["499", "498", "497", "496", "495"]] * 2


def test_faiss_finds_what_a_sort_in_float64_finds():
    """A size at which FAISS is chosen by itself."""
    rng = np.random.default_rng(11)
    queries = Embeddings.from_dense(rng.normal(size=(7, 16)).astype(np.float32))
    contents = Embeddings.from_dense(rng.normal(size=(20_000, 16)).astype(np.float32))
    table = queries.values.astype(np.float64) @ contents.values.astype(np.float64).T
    documents, scores = search(queries, contents, "dot", 20, np.arange(20_000), np.arange(20_000))
    assert np.array_equal(documents, np.argsort(-table, axis=1)[:, :20])
    assert np.array_equal(scores, -np.sort(-table, axis=1)[:, :20].astype(np.float32))
