"""One epoch of B3 batches: communities found, duplicates apart, every example once."""

from typing import Any

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.mine import b3_batches, b3_plan, random_batches, sequential_batches
from raylib.mine.duplicates import same_examples, same_vectors
from raylib.mine.partition import METHODS
from raylib.mine.vectors import Vectors
from tests.mine.planted import communities, compared, unit

SMALL: dict[str, Any] = {"cluster_size": 8, "skip_top": 4, "neighbours": 12}


def once(batches, n):
    return sorted(batches[batches >= 0].tolist()) == list(range(n))


def meetings(batches, same):
    """Pairs of duplicates in one batch."""
    return sum(int((np.bincount(same[batch[batch >= 0]]) - 1).clip(0).sum()) for batch in batches)


@pytest.mark.parametrize("method", METHODS)
def test_communities_stay_together_whatever_the_method(method):
    queries, documents, community = communities(512, 16)
    plan = b3_plan(queries, documents, batch_size=64, cluster_size=16, skip_top=0, neighbours=15, method=method, seed=2)
    assert plan.batches.shape == (8, 64) and plan.batches.dtype == np.int64 and once(plan.batches, 512)
    assert np.bincount(plan.clusters).tolist() == [16] * 32
    pure = sum(np.bincount(community[plan.clusters == c]).max() for c in range(32)) / 512
    assert pure >= (0.85 if method == "balanced-kmeans" else 1)


def test_clusters_are_not_torn_between_batches():
    queries, documents, _ = communities(500, 20)
    plan = b3_plan(queries, documents, batch_size=64, **SMALL)
    batch_of = np.empty(500, int)
    for number, batch in enumerate(plan.batches):
        batch_of[batch[batch >= 0]] = number
    assert all(len(np.unique(batch_of[plan.clusters == c])) == 1 for c in range(63))


@pytest.mark.parametrize(("n", "last"), [(256, 64), (257, 1), (300, 44), (319, 63)])
def test_every_example_once_and_what_remains_in_a_short_last_batch(n, last):
    queries, documents, _ = communities(n, 20)
    plan = b3_plan(queries, documents, batch_size=64, **SMALL)
    assert once(plan.batches, n) and plan.batches.shape == (-(-n // 64), 64)
    assert (plan.batches >= 0).sum(axis=1).tolist() == [64] * (len(plan.batches) - 1) + [last]
    assert sorted(np.bincount(plan.clusters)) == sorted([8] * (n // 8) + [n % 8] * (n % 8 > 0))
    assert np.all(plan.batches[-1, :last] >= 0)


def test_the_remainder_can_be_dropped():
    queries, documents, _ = communities(300, 20)
    short = b3_plan(queries, documents, batch_size=64, **SMALL)
    dropped = b3_plan(queries, documents, batch_size=64, remainder="drop", **SMALL)
    assert np.array_equal(dropped.batches, short.batches[:-1])
    assert (dropped.clusters == -1).sum() == 44 and np.all(dropped.clusters[dropped.batches] >= 0)


@pytest.mark.parametrize("method", METHODS)
def test_planted_duplicates_never_meet(method):
    """Copies, near copies, and queries that share a document, all in one tight community each."""
    rng = np.random.default_rng(1)
    queries, documents, _ = communities(400, 20)
    twins = np.arange(0, 120)
    documents[twins[0:120:3] + 1] = documents[twins[0:120:3]]  # the same
    documents[twins[0:120:3] + 2] = unit(documents[twins[0:120:3]] + 0.003 * rng.normal(size=(40, 48)))  # nearly
    queries[200:230] = queries[230:260]  # one query, other documents
    positives = np.arange(400)
    positives[300:340] = positives[340:380]  # one document, other queries
    plan = b3_plan(queries, documents, batch_size=64, positives=positives, method=method, **SMALL)
    groups = [
        *np.arange(120).reshape(-1, 3),
        *zip(range(200, 230), range(230, 260), strict=True),
        *zip(range(300, 340), range(340, 380), strict=True),
    ]
    batch_of = np.empty(400, int)
    for number, batch in enumerate(plan.batches):
        batch_of[batch[batch >= 0]] = number
    assert all(len({int(batch_of[e]) for e in group}) == len(group) for group in groups)
    assert once(plan.batches, 400)
    assert sorted(np.bincount(plan.clusters)) == [8] * 50


def test_as_many_duplicates_as_batches_are_one_in_each():
    queries, documents, _ = communities(512, 16)
    documents[:8], documents[8:16] = documents[0], documents[8]
    plan = b3_plan(queries, documents, batch_size=64, **SMALL)
    assert meetings(plan.batches, plan.same) == 0
    assert all(((b < 8).sum(), ((b >= 8) & (b < 16)).sum()) == (1, 1) for b in plan.batches)


def test_nothing_but_duplicates_is_still_dealt_out():
    """Every example has seven duplicates and there are eight batches: each batch must hold one of each kind."""
    queries, documents, _ = communities(512, 16)
    contents = np.arange(512) // 8
    plan = b3_plan(queries, documents, batch_size=64, contents=contents, **SMALL)
    assert all(sorted(contents[batch]) == list(range(64)) for batch in plan.batches)


def test_too_many_duplicates_are_refused_or_spread_evenly():
    queries, documents, _ = communities(512, 16)
    contents = np.where(np.arange(512) < 20, 0, np.arange(512))
    with pytest.raises(UserError, match=r"20 examples are duplicates of one another.*8 batches.*allow_duplicates"):
        b3_batches(queries, documents, batch_size=64, contents=contents, **SMALL)
    batches = b3_batches(queries, documents, batch_size=64, contents=contents, allow_duplicates=True, **SMALL)
    assert (batches < 20).sum(axis=1).max() == 3 and once(batches, 512)


def test_a_chain_of_near_duplicates_is_one_kind_and_all_pairs_are_compared():
    angle = np.array([0.0, 0.1, 0.2, 1.5, 1.5])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    documents = Vectors.of(vectors, "document")
    assert same_vectors(documents, 0.99)[:3].tolist() == [
        0,
        0,
        0,
    ]  # cos 0.1 = .995, cos 0.2 = .980
    assert (
        len(set(same_vectors(Vectors.of(vectors, "document"), 0.999).tolist())) == 4
        and len(set(same_vectors(Vectors.of(vectors, "document"), None).tolist())) == 4
    )
    many = unit(
        np.ones((90, 16)) + 1e-3 * np.random.default_rng(0).normal(size=(90, 16))
    )  # more than are asked at first
    assert len(set(same_vectors(Vectors.of(many, "document"), 0.999).tolist())) == 1


def test_what_makes_two_examples_duplicates():
    rng = np.random.default_rng(0)
    queries, documents = unit(rng.normal(size=(6, 32))), unit(rng.normal(size=(6, 32)))
    documents[1], queries[3] = documents[0], queries[2]
    positives = np.array([0, 1, 2, 3, 4, 4])
    assert same_examples(compared(queries, documents), positives, None).tolist() == [0, 0, 1, 1, 2, 2]
    joined = same_examples(compared(queries, documents), positives, None, ["a", "b", "c", "d", "e", "b"])
    assert joined.tolist() == [0, 0, 1, 1, 0, 0]


def test_the_seed_decides():
    queries, documents, _ = communities(300, 20)
    first, again, other = (b3_batches(queries, documents, batch_size=64, seed=s, **SMALL) for s in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_batch_is_of_one_group_and_ranks_are_counted_within_it():
    queries, documents, _ = communities(400, 20)
    groups = np.array(["b", "a"])[(np.arange(400) % 3 == 0).astype(int)]
    plan = b3_plan(queries, documents, batch_size=64, groups=groups, **{**SMALL, "skip_top": {"a": 2, "b": 6}})
    assert once(plan.batches, 400)
    assert all(len(set(groups[batch[batch >= 0]])) == 1 for batch in plan.batches)
    assert np.all(groups[plan.graph.sources] == groups[plan.graph.indices])
    assert ((plan.excluded >= 0).sum(axis=1) == np.where(groups == "a", 2, 6)).all()
    assert np.all(groups[plan.excluded[:, 0]] == groups)
    assert (plan.batches < 0).any(axis=1).tolist() == [False] * (len(plan.batches) - 2) + [True] * 2


def test_vectors_of_any_length_and_precision_are_normalised():
    queries, documents, _ = communities(128, 16)
    longer = b3_batches(queries * 3, documents.astype(np.float64) * 0.5, batch_size=64, **SMALL)
    assert np.array_equal(longer, b3_batches(queries, documents, batch_size=64, **SMALL))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"batch_size": 60},
            r"batch_size is 60 and cluster_size 8; expected a batch_size that is a multiple.*56 or 64",
        ),
        ({"batch_size": 4}, "batch_size is 4 and cluster_size 8"),
        ({"batch_size": 256}, "there are 200 examples, fewer than a batch of 256"),
        ({"groups": ["a"] * 170 + ["b"] * 30}, "group 'b' has 30 examples, fewer than a batch of 64"),
        ({"groups": ["a"] * 3}, "there are 3 groups for 200 examples"),
        ({"skip_top": 200}, "skip_top is 200 and there are 200 documents"),
        ({"skip_top": -1}, "skip_top is -1"),
        ({"skip_top": {"b": 3}, "groups": ["a"] * 200}, "skip_top has no number for group 'a'"),
        ({"positives": np.arange(200) + 1}, "query 199 has no positive: 200 is no position among 200 documents"),
        ({"positives": np.arange(3)}, "one for each of the 200 queries"),
        ({"method": "louvain"}, "unknown method 'louvain'"),
        ({"contents": ["a"]}, "there are 1 contents for 200 examples"),
        ({"neighbours": 0}, "neighbours is 0"),
    ],
)
def test_what_cannot_be_done_is_said(changed, says):
    queries, documents, _ = communities(200, 20)
    with pytest.raises(UserError, match=says):
        b3_plan(queries, documents, **{"batch_size": 64, **SMALL, **changed})


def test_vectors_that_cannot_be_compared_are_refused():
    queries, documents, _ = communities(128, 16)
    with pytest.raises(UserError, match="there are 128 queries and 100 documents"):
        b3_batches(queries, documents[:100], batch_size=64, **SMALL)
    with pytest.raises(UserError, match="queries have 48 dimensions and documents 40"):
        b3_batches(queries, documents[:, :40], batch_size=64, **SMALL)
    documents[5], documents[9, 3] = 0, np.nan
    with pytest.raises(UserError, match="document 5 has a vector that is zero or not finite"):
        b3_batches(queries, documents, batch_size=64, **SMALL)
    with pytest.raises(UserError, match=r"query vectors have the shape \(128,\)"):
        b3_batches(queries[:, 0], documents, batch_size=64, **SMALL)


def test_random_and_sequential_plans_have_the_same_form():
    groups = np.arange(150) % 2
    by_chance = random_batches(150, batch_size=32, seed=1, groups=groups)
    assert once(by_chance, 150) and by_chance.shape == (6, 32)
    assert all(len(set(groups[b[b >= 0]])) == 1 for b in by_chance)
    assert np.array_equal(by_chance, random_batches(150, batch_size=32, seed=1, groups=groups))
    in_order = sequential_batches(70, batch_size=32)
    assert in_order.ravel()[:70].tolist() == list(range(70)) and np.all(in_order.ravel()[70:] == -1)
    assert sequential_batches(70, batch_size=32, remainder="drop").shape == (2, 32)
    assert sequential_batches(150, batch_size=32, groups=groups)[0].tolist() == list(range(0, 64, 2))
    with pytest.raises(UserError, match="fewer than a batch of 32"):
        random_batches(20, batch_size=32)
