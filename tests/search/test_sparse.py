"""Products of token weights, against math.fsum over the tokens that two contents share."""

import math

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.search import engine
from raylib.search.exact import score, search
from raylib.search.options import SearchOptions
from raylib.search.topk import tie_ranks
from raylib.token_weights import pack, unpack
from raylib.types import Embeddings
from tests.search.test_invariance import IDS, OWNERS, SHARDS, K, N, as_rows, reference, sharded

VOCABULARY = np.array([4, 5, 2047, 2048, 2049, 65_504, 100_001, 250_001])


def weighed(*contents, dtype=np.float32):
    """One dict of token id → weight for each content."""
    items = [pack(np.array(list(c)), np.array(list(c.values()), dtype)) for c in contents]
    return Embeddings.from_list([item if len(item) else np.zeros((1, 3), dtype) for item in items])


def as_dict(rows):
    return {int(i): float(w) for i, w in zip(*unpack(rows), strict=True) if w}


def by_hand(query_rows, document_rows):
    query, document = as_dict(query_rows), as_dict(document_rows)
    return np.float32(math.fsum(query[i] * document[i] for i in query.keys() & document.keys()))


def made(seed, n, planted):
    """Contents of 0 to 6 tokens, of which many are copies of each other and a few differ in one last bit."""
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(n):
        ids = rng.permutation(VOCABULARY)[: rng.integers(0, 7)]
        items.append(dict(zip(ids.tolist(), rng.random(len(ids)).astype(np.float32).tolist(), strict=True)))
    for i in rng.permutation(n)[:planted]:
        items[i] = dict(reversed(items[0].items()))  # the order of tokens is no matter
    for i in rng.permutation(n)[: planted // 3]:
        items[i] = {k: float(np.nextafter(np.float32(w), np.float32(2))) for k, w in items[1].items()}
    return weighed(*items)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_number_of_a_token_survives_its_row(dtype):
    rows = pack(VOCABULARY, np.full(len(VOCABULARY), 0.3, dtype))
    assert rows.dtype == dtype and unpack(rows)[0].tolist() == VOCABULARY.tolist()
    assert (unpack(rows)[1] == float(dtype(0.3))).all()


def test_only_tokens_that_both_have_count():
    queries = weighed({7: 0.5, 9: 0.25}, {})
    documents = weighed({9: 2.0, 250_001: 8.0}, {7: 1.0, 9: 4.0}, {}, {8: 1.0})
    assert score(queries, documents, "sparse").tolist() == [[0.5, 1.5, 0, 0], [0, 0, 0, 0]]


def test_a_token_that_a_content_has_twice_counts_with_the_larger_weight():
    twice = Embeddings.from_list([pack(np.array([7, 8, 7]), np.array([0.25, 1.0, 0.5], np.float32))])
    assert score(twice, weighed({7: 1.0}), "sparse").tolist() == [[0.5]]


@pytest.mark.parametrize("shards", SHARDS)
def test_a_search_is_the_reference_however_it_is_cut(shards):
    queries, contents = made(1, 9, 0), made(2, N, 70)
    expected = reference(queries, contents, OWNERS, IDS, K, by_hand)
    assert as_rows(*sharded(queries, contents, "sparse", shards)) == expected


def test_a_sum_next_to_the_middle_of_two_numbers_goes_to_the_right_one():
    """1 + 2^-24 is halfway, and each of the last two terms alone is lost in float64."""
    queries = weighed({4: 1.0, 5: 2.0**-24, 2047: 2.0**-53, 2048: 2.0**-53})
    documents = weighed({4: 1.0, 5: 1.0, 2047: 1.0, 2048: 1.0}, {4: 1.0, 5: 1.0})
    assert score(queries, documents, "sparse").tolist() == [[1 + 2.0**-23, 1.0]]


def test_of_many_that_score_nothing_the_greatest_ids_are_kept(monkeypatch):
    """And no more of them than asked for go on to be sorted."""
    contents = weighed(*({4: 1.0} if i == 17 else {5: 1.0} for i in range(500)))
    ids = [f"{i:03d}" for i in range(500)]
    sizes, plain = [], engine._best_of
    monkeypatch.setattr(engine, "_best_of", lambda *a: sizes.append(len((found := plain(*a))[0])) or found)
    documents, scores = search(weighed({4: 2.0}), contents, "sparse", 4, tie_ranks(ids), np.arange(500))
    assert [ids[d] for d in documents[0]] == ["017", "499", "498", "497"] and scores.tolist() == [[2, 0, 0, 0]]
    assert max(sizes) <= 2 * 4


def test_half_precision_is_scored_as_it_is():
    queries, documents = weighed({100_001: 0.1}, dtype=np.float16), weighed({100_001: 0.3}, dtype=np.float16)
    exact = float(np.float16(0.1)) * float(np.float16(0.3))
    assert score(queries, documents, "sparse")[0, 0] == np.float32(exact)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pack(np.array([4]), np.array([-0.5], np.float32)), "document 1 has a negative token weight"),
        (pack(np.array([4]), np.array([np.nan], np.float32)), "document 1 has NaN or infinite numbers"),
        (np.zeros((0, 3), np.float32), "document 1 has no vector at all"),
    ],
)
def test_weights_that_cannot_be_compared_are_named(rows, message):
    documents = Embeddings.from_list([weighed({4: 1.0})[0], rows])
    with pytest.raises(UserError, match=message):
        score(weighed({4: 1.0}), documents, "sparse")


def test_vectors_are_no_token_weights():
    vectors = Embeddings.from_dense(np.ones((2, 8), np.float32))
    with pytest.raises(
        UserError, match="rows of 8 numbers; sparse scores need 3, as BGE-M3 gives them with --mode sparse"
    ):
        score(vectors, vectors, "sparse")


@pytest.mark.parametrize("options", [{"index": "Flat"}, {"candidates": "int8"}, {"token_pooling": 2}], ids=str)
def test_ways_to_search_vectors_faster_are_refused(options):
    (flag,) = options
    with pytest.raises(
        UserError, match=f"--{flag.replace('_', '-')}.* is for vectors, and this model gives token weights"
    ):
        SearchOptions(**options).check("sparse")
