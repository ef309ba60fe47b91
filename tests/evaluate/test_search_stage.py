"""Search over the store: streamed, by index, over pooled tokens and in fewer bits, with what each of them loses."""

import numpy as np
import pytest

from raylib.errors import StoreError, UserError
from raylib.evaluate.search import CorpusCache, SearchRequest, search_locally
from raylib.search import blocks
from raylib.search.dense import Index
from raylib.search.options import SearchOptions
from raylib.search.topk import tie_ranks
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings

DIM, N_QUERIES, N = 16, 30, 600


def key(side, i):
    return f"{side}{i:07d}".encode().ljust(32, b".")


def clustered(seed, n, dim=DIM):
    """Vectors around twenty centres, the same for every seed."""
    centres = np.random.default_rng(0).normal(size=(20, dim))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(0, 20, n)] + 0.7 * rng.normal(size=(n, dim))).astype(np.float32)


def dense_sides():
    return Embeddings.from_dense(clustered(1, N_QUERIES)), Embeddings.from_dense(clustered(2, N))


def late_sides():
    rng = np.random.default_rng(3)
    lengths = rng.integers(6, 14, N)
    return (
        Embeddings(clustered(4, 4 * N_QUERIES), np.arange(0, 4 * N_QUERIES + 1, 4)),
        Embeddings(clustered(5, int(lengths.sum())), np.concatenate([[0], np.cumsum(lengths)])),
    )


def stored(folder, queries, documents, parts=5):
    """A shelf with the documents in several parts, in a shuffled order."""
    shelf = Shelf(str(folder), "f" * 64)
    shelf.describe({})
    shelf.write([key("q", i) for i in range(len(queries))], queries)
    for chosen in np.array_split(np.random.default_rng(6).permutation(len(documents)), parts):
        shelf.write([key("d", i) for i in chosen], documents.take(chosen))
    return shelf


def ask(shelf, similarity, k=10, n=N, **settings):
    ids = [f"d{i}" for i in range(n)]
    request = {
        "shelf": shelf,
        "query_keys": [key("q", i) for i in range(N_QUERIES)],
        "document_keys": [key("d", i) for i in range(n)],
        "owners": np.arange(n),
        "ranks": tie_ranks(ids),
        "similarity": similarity,
        "k": k,
        "query_ids": [f"q{i}" for i in range(N_QUERIES)],
        "document_ids": ids,
    }
    return SearchRequest(**{**request, **settings})


def best_by_float64(queries, documents, similarity, k):
    """[n_queries, k] by a sort of every score in float64."""
    wide = [[tokens.astype(np.float64) for tokens in side] for side in (queries, documents)]
    if similarity == "cosine":
        wide = [[tokens / np.linalg.norm(tokens) for tokens in side] for side in wide]
    table = np.array([[(q @ d.T).max(axis=1).sum() for d in wide[1]] for q in wide[0]])
    return np.argsort(-table, axis=1)[:, :k], -np.sort(-table, axis=1)[:, :k]


@pytest.mark.parametrize(("similarity", "sides"), [("cosine", dense_sides), ("maxsim", late_sides)])
def test_a_streamed_search_is_a_full_sort(tmp_path, monkeypatch, similarity, sides):
    queries, documents = sides()
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * DIM * 100)
    found = search_locally(ask(stored(tmp_path, queries, documents), similarity))
    expected, scores = best_by_float64(queries, documents, similarity, 10)
    assert np.array_equal(found.documents_QK, expected) and found.quality == {}
    np.testing.assert_allclose(found.scores_QK, scores, rtol=1e-5)


def test_the_bits_do_not_depend_on_the_files_or_the_queries_beside(tmp_path, monkeypatch):
    queries, documents = dense_sides()
    documents.values[50:150] = documents.values[7]
    whole = search_locally(ask(stored(tmp_path / "one", queries, documents, parts=1), "cosine"))
    shelf = stored(tmp_path / "seven", queries, documents, parts=7)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * DIM * 37)
    for few in (range(N_QUERIES), range(3), [29]):
        found = search_locally(ask(shelf, "cosine", query_keys=[key("q", i) for i in few]))
        assert np.array_equal(found.documents_QK, whole.documents_QK[list(few)])
        assert np.array_equal(found.scores_QK.view(np.int32), whole.scores_QK[list(few)].view(np.int32))


def test_one_part_is_held_at_a_time(tmp_path, monkeypatch):
    queries, documents = dense_sides()
    shelf = stored(tmp_path, queries, documents, parts=6)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * DIM * 100)
    sizes = []
    plain = blocks.prepare
    monkeypatch.setattr(blocks, "prepare", lambda *a: sizes.append(len(a[0])) or plain(*a))
    search_locally(ask(shelf, "cosine"))
    assert sum(sizes) == N and max(sizes) <= 100


def test_a_corpus_that_several_languages_share_is_read_once(tmp_path, monkeypatch):
    queries, documents = dense_sides()
    shelf = stored(tmp_path, queries, documents)
    reads = []
    plain = Shelf.scan
    monkeypatch.setattr(Shelf, "scan", lambda self, keys: reads.append(len(keys)) or plain(self, keys))
    cache, large = CorpusCache(), CorpusCache(limit=4 * DIM * N - 1)
    for store_cache, expected in ((cache, 1), (large, 2)):
        reads.clear()
        one, other = (search_locally(ask(shelf, "cosine", cache=store_cache)) for _ in range(2))
        assert reads.count(N) == expected and np.array_equal(one.documents_QK, other.documents_QK)
    reads.clear()
    other_half = search_locally(ask(shelf, "cosine", n=300, cache=cache))
    assert reads.count(300) == 1 and other_half.documents_QK.max() < 300


@pytest.mark.parametrize("factory", ["IVF8,Flat", "HNSW16", "Flat", "IVF8,Flat;nprobe=1"])
def test_an_index_finds_most_and_says_how_much(tmp_path, factory):
    queries, documents = dense_sides()
    options = SearchOptions(index=factory, oversample=2)
    found = search_locally(ask(stored(tmp_path, queries, documents), "cosine", options=options))
    expected, _ = best_by_float64(queries, documents, "cosine", 10)
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(found.documents_QK, expected, strict=True)]
    assert found.quality["recall_at_10"] == pytest.approx(np.mean(shares)) and found.quality["index"] == factory
    assert found.quality["sampled_queries"] == N_QUERIES
    if "nprobe=1" in factory:
        assert 0.2 < found.quality["recall_at_10"] < 0.99
    else:
        assert found.quality["recall_at_10"] > 0.95
    assert found.quality["bytes_per_document"] >= found.quality["bytes_per_document_float32"] == 4 * DIM


def test_what_an_index_gives_has_canonical_scores(tmp_path):
    queries, documents = dense_sides()
    shelf = stored(tmp_path, queries, documents)
    exact = search_locally(ask(shelf, "cosine", k=N))
    score_of = {
        (q, d): s for q in range(N_QUERIES) for d, s in zip(exact.documents_QK[q], exact.scores_QK[q], strict=True)
    }
    found = search_locally(ask(shelf, "cosine", options=SearchOptions(index="IVF8,PQ4x4", oversample=3)))
    for q in range(N_QUERIES):
        assert [score_of[q, d] for d in found.documents_QK[q]] == found.scores_QK[q].tolist()
        assert (np.diff(found.scores_QK[q]) <= 0).all()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IVF8,Flut", "--index 'IVF8,Flut' is no FAISS index for vectors of 16 dimensions"),
        ("PQ5", "--index 'PQ5' is no FAISS index"),
        ("IVF4096,Flat", r"--index 'IVF4096,Flat' cannot be trained on 600 vectors: it needs at least 4096"),
        ("IVF8,Flat;nprobes=3", "this index has no parameters 'nprobes=3'"),
    ],
)
def test_an_index_that_cannot_be_says_why(tmp_path, factory, message):
    shelf = stored(tmp_path, *dense_sides())
    with pytest.raises(UserError, match=message):
        search_locally(ask(shelf, "cosine", options=SearchOptions(index=factory)))


@pytest.mark.parametrize("candidates", ["int8", "bfloat16", "binary"])
def test_fewer_bits_choose_and_float32_scores(tmp_path, candidates):
    queries, documents = late_sides()
    shelf = stored(tmp_path, queries, documents)
    exact = search_locally(ask(shelf, "maxsim", k=N))
    score_of = {
        (q, d): s for q in range(N_QUERIES) for d, s in zip(exact.documents_QK[q], exact.scores_QK[q], strict=True)
    }
    found = search_locally(ask(shelf, "maxsim", options=SearchOptions(candidates=candidates, oversample=4)))
    for q in range(N_QUERIES):
        assert [score_of[q, d] for d in found.documents_QK[q]] == found.scores_QK[q].tolist()
    assert found.quality["recall_at_10"] > (0.5 if candidates == "binary" else 0.99)
    share = {"int8": 4, "bfloat16": 2, "binary": 32}[candidates]
    assert found.quality["bytes_per_document"] == pytest.approx(
        found.quality["bytes_per_document_float32"] / share, abs=0.1
    )


def test_enough_candidates_are_an_exact_search(tmp_path):
    shelf = stored(tmp_path, *late_sides())
    found = search_locally(ask(shelf, "maxsim", options=SearchOptions(candidates="binary", oversample=60)))
    assert np.array_equal(found.documents_QK, search_locally(ask(shelf, "maxsim")).documents_QK)
    assert found.quality["recall_at_10"] == 1.0


def test_pooled_tokens_lie_on_a_shelf_of_their_own_and_are_pooled_once(tmp_path, monkeypatch):
    from raylib.evaluate import pooled

    queries, documents = late_sides()
    shelf = stored(tmp_path, queries, documents)
    calls = []
    plain = pooled.pool_tokens
    monkeypatch.setattr(pooled, "pool_tokens", lambda d, factor: calls.append(len(d)) or plain(d, factor))
    options = SearchOptions(token_pooling=3)
    found = search_locally(ask(shelf, "maxsim", options=options))
    assert sum(calls) == N
    again = search_locally(ask(Shelf(str(tmp_path), "f" * 64), "maxsim", options=options))
    assert sum(calls) == N and np.array_equal(found.scores_QK, again.scores_QK)

    by_hand = plain(documents, 3)
    expected, scores = best_by_float64(queries, by_hand, "maxsim", 10)
    assert np.array_equal(found.documents_QK, expected)
    np.testing.assert_allclose(found.scores_QK, scores, rtol=1e-5)
    assert 0.1 < found.quality["recall_at_10"] < 1
    tokens = sum(max(1, n // 3) for n in documents.token_counts)
    assert found.quality["bytes_per_document"] == pytest.approx(tokens * 4 * DIM / N, abs=0.1)
    assert found.quality["bytes_per_document_float32"] == pytest.approx(
        documents.token_counts.sum() * 4 * DIM / N, abs=0.1
    )


def test_at_most_a_hundred_queries_are_searched_twice(tmp_path):
    queries, documents = Embeddings.from_dense(clustered(1, 250)), Embeddings.from_dense(clustered(2, N))
    request = ask(
        stored(tmp_path, queries, documents),
        "cosine",
        query_keys=[key("q", i) for i in range(250)],
        options=SearchOptions(index="IVF8,Flat"),
    )
    assert search_locally(request).quality["sampled_queries"] == 100


@pytest.mark.parametrize(
    ("similarity", "sides", "options", "message"),
    [
        ("maxsim", late_sides, {"index": "Flat"}, "--index 'Flat' is for dense vectors"),
        ("cosine", dense_sides, {"candidates": "int8"}, "--candidates int8 is for late-interaction vectors"),
        ("dot", dense_sides, {"token_pooling": 2}, "--token-pooling is for late-interaction vectors"),
    ],
)
def test_options_of_the_other_kind_of_model_are_refused(tmp_path, similarity, sides, options, message):
    shelf = stored(tmp_path, *sides())
    with pytest.raises(UserError, match=message):
        search_locally(ask(shelf, similarity, options=SearchOptions(**options)))


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize(("similarity", "sides"), [("cosine", dense_sides), ("maxsim", late_sides)])
@pytest.mark.parametrize("side", ["query", "document"])
def test_numbers_that_cannot_be_compared_are_named_by_id(tmp_path, number, similarity, sides, side):
    both = dict(zip(("query", "document"), sides(), strict=True))
    if similarity == "cosine" and number == 1e30:
        number = -np.inf  # a length alone is no matter to cosine
    both[side].values[both[side].offsets[17], 3] = number
    shelf = stored(tmp_path, both["query"], both["document"])
    why = "is too long a vector" if number == 1e30 else "has NaN or infinite numbers"
    with pytest.raises(UserError, match=f"^{side} {side[0]}17 {why}"):
        search_locally(ask(shelf, similarity))


@pytest.mark.parametrize("training", [0, 500])
def test_a_document_that_an_index_cannot_hold_is_named_by_id(tmp_path, monkeypatch, training):
    """Met while the index is filled, or in a sample of the corpus to train on."""
    monkeypatch.setattr(Index, "training_vectors", training)
    queries, documents = dense_sides()
    documents.values[417, 3] = np.nan
    shelf = stored(tmp_path, queries, documents)
    with pytest.raises(UserError, match=r"^document d417 has NaN or infinite numbers"):
        search_locally(ask(shelf, "cosine", options=SearchOptions(index="Flat")))


def test_vectors_of_two_models_are_not_compared(tmp_path):
    queries, _ = dense_sides()
    shelf = stored(tmp_path, queries, Embeddings.from_dense(clustered(2, N, dim=12)))
    for options in (SearchOptions(), SearchOptions(index="Flat")):
        with pytest.raises(UserError, match="queries have 16 dimensions, documents 12"):
            search_locally(ask(shelf, "cosine", options=options))


@pytest.mark.parametrize("side", ["query_keys", "document_keys"])
def test_an_empty_side_is_an_error(tmp_path, side):
    shelf = stored(tmp_path, *dense_sides())
    with pytest.raises(UserError, match=r"there are no (queries|documents) to search with"):
        search_locally(ask(shelf, "cosine", **{side: []}))


def test_a_corrupt_part_is_named(tmp_path):
    shelf = stored(tmp_path, *dense_sides())
    shelf.refresh()
    part = sorted(tmp_path.glob("*/part-*.parquet"))[2]
    data = bytearray(part.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    part.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=f"{part.name} cannot be read"):
        search_locally(ask(shelf, "cosine"))


def test_an_index_is_built_once_for_a_corpus_that_several_languages_share(tmp_path, monkeypatch):
    from raylib.search import indexed

    built = []
    plain = indexed.Index
    monkeypatch.setattr(indexed, "Index", lambda *a: built.append(a) or plain(*a))
    shelf, cache = stored(tmp_path, *dense_sides()), CorpusCache()
    for n, factory in ((N, "IVF8,Flat"), (N, "IVF8,Flat"), (N, "Flat"), (300, "Flat")):
        found = search_locally(ask(shelf, "cosine", n=n, cache=cache, options=SearchOptions(index=factory)))
        assert found.quality["recall_at_10"] > 0.9
    assert [factory for factory, _ in built] == ["IVF8,Flat", "Flat", "Flat"]
