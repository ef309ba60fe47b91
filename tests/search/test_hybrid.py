"""The weighted mean of three scores, against math.fsum over the pair's own numbers."""

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.search.exact import score
from raylib.search.options import SearchOptions
from raylib.token_weights import COLUMNS
from raylib.types import Embeddings, Hybrid, named_similarity
from tests.search.test_invariance import (
    IDS,
    OWNERS,
    SHARDS,
    K,
    N,
    as_rows,
    product,
    reference,
    reference_score,
    sharded,
)
from tests.search.test_sparse import by_hand as sparse_by_hand
from tests.search.test_sparse import made as made_sparse

WIDTH = 6


def content(dense, tokens, weights):
    """dense [width], tokens [n, width], weights: rows of token weights, at most n."""
    rows = np.zeros((1 + len(tokens), len(dense) + COLUMNS), np.float32)
    rows[0, :-COLUMNS], rows[1:, :-COLUMNS] = dense, tokens
    rows[len(rows) - len(weights) :, -COLUMNS:] = weights
    return rows


def made(seed, n, planted):
    rng = np.random.default_rng(seed)
    items = []
    for weights in made_sparse(seed, n, 0):
        tokens = rng.normal(size=(len(weights) + rng.integers(0, 3), WIDTH))
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        items.append(content(rng.normal(size=WIDTH), tokens.astype(np.float32), weights))
    for i in rng.permutation(n)[:planted]:
        items[i] = np.concatenate([items[0][:1], items[0][:0:-1]])  # the order of tokens is no matter
    return Embeddings.from_list(items)


def unit(vector):
    """Of length 1: in float64, rounded to float32, as the definition of cosine scores has it."""
    wide = vector.astype(np.float64)
    return (wide / np.sqrt(np.add.reduce(wide * wide))).astype(np.float32)


def by_hand(weights):
    def hybrid(query, document):
        dense = product(unit(query[0, :-COLUMNS]), unit(document[0, :-COLUMNS]))
        sparse = sparse_by_hand(query[:, -COLUMNS:], document[:, -COLUMNS:])
        late = reference_score(query[1:, :-COLUMNS], document[1:, :-COLUMNS])
        total = weights[0] * float(dense) + weights[1] * float(sparse)
        total += weights[2] * (float(late) / (len(query) - 1))
        return np.float32(total / (weights[0] + weights[1] + weights[2]))

    return hybrid


@pytest.mark.parametrize("weights", [(0.4, 0.2, 0.4), (3.0, 0.0, 1.0)])
@pytest.mark.parametrize("shards", SHARDS)
def test_a_search_is_the_reference_however_it_is_cut(shards, weights):
    queries, contents = made(3, 5, 0), made(4, N, 70)
    expected = reference(queries, contents, OWNERS, IDS, K, by_hand(weights))
    assert as_rows(*sharded(queries, contents, Hybrid(*weights), shards)) == expected


def test_scores_add_up_to_what_one_can_work_out():
    """Cosine 0.6, one shared token 2 × 0.25, and two query tokens whose best are 1 and -0.5."""
    query = content([3, 4], np.array([[1, 0], [0, 1]]), [[0, 7, 2.0]])
    document = content([0, 2], np.array([[1, -0.5], [0.5, -1]]), [[0, 7, 0.25], [100, 3, 9.0]])
    sides = [Embeddings.from_list([item]) for item in (query, document)]
    parts = {Hybrid(1, 0, 0): 0.8, Hybrid(0, 1, 0): 0.5, Hybrid(0, 0, 1): 0.25}
    for weights, expected in parts.items():
        assert score(*sides, weights)[0, 0] == np.float32(expected)
    assert score(*sides, Hybrid(2, 1, 5))[0, 0] == pytest.approx((2 * 0.8 + 0.5 + 5 * 0.25) / 8, abs=1e-7)


def test_one_weight_alone_gives_the_bits_of_that_score():
    queries, contents = made(5, 4, 0), made(6, 30, 5)
    parts = {
        "cosine": lambda rows: rows[:1, :-COLUMNS],
        "sparse": lambda rows: rows[:, -COLUMNS:],
        "maxsim": lambda rows: rows[1:, :-COLUMNS],
    }
    for similarity, part in parts.items():
        alone = [Embeddings.from_list([part(rows) for rows in side]) for side in (queries, contents)]
        expected = score(*alone, similarity)
        if similarity == "maxsim":
            expected = (expected.astype(np.float64) / alone[0].token_counts[:, None]).astype(np.float32)
        weights = Hybrid(*(float(similarity == name) for name in parts))
        assert np.array_equal(score(queries, contents, weights), expected)


def test_half_precision_and_single_are_scored_alike():
    queries, contents = made(7, 3, 0).astype(np.float16), made(8, 20, 0).astype(np.float16)
    wide = score(queries.astype(np.float32), contents.astype(np.float32), Hybrid())
    assert np.array_equal(score(queries, contents, Hybrid()), wide)


def test_a_similarity_is_known_again_by_its_name():
    for similarity in ("cosine", "dot", "maxsim", "sparse", Hybrid(), Hybrid(1 / 3, 0, 1e-9)):
        assert named_similarity(str(similarity)) == similarity
    assert [named_similarity(name) for name in ("", "hybrid", "hybrid:1,2", "hybrid:a,b,c", "MaxSim")] == [None] * 5


def test_contents_that_are_not_of_three_parts_are_refused():
    thin = Embeddings.from_dense(np.ones((2, COLUMNS), np.float32))
    with pytest.raises(UserError, match="rows of 3 numbers; hybrid scores need more than 3"):
        score(thin, thin, Hybrid())
    whole, lone = made(9, 2, 0), Embeddings.from_dense(np.ones((1, WIDTH + COLUMNS), np.float32))
    with pytest.raises(UserError, match="query 0 has no vector of a token"):
        score(lone, whole, Hybrid())
    with pytest.raises(UserError, match="--index 'Flat' is for vectors, and this model gives token weights"):
        SearchOptions(index="Flat").check(Hybrid())
