"""MaxSim against one pair at a time in float64."""

from fractions import Fraction

import numpy as np
import pytest

from raylib.search import maxsim as module
from raylib.search.filters import Float32Filter, Int8Filter, fastest_filter
from raylib.search.maxsim import maxsim
from raylib.types import Embeddings


def ragged(counts, dim=16, seed=0, shift=0.0, dtype=np.float32):
    """Unit rows around `shift`, so that a large shift makes every similarity positive."""
    rng = np.random.default_rng(seed)
    items = [rng.normal(size=(n, dim)) + shift for n in counts]
    return Embeddings.from_list([(i / np.linalg.norm(i, axis=1, keepdims=True)).astype(dtype) for i in items], dim)


def pair_by_pair(queries, documents):
    """[n_queries, n_documents] float64: for each query token the best document token, summed."""
    scores = np.zeros((len(queries), len(documents)))
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            scores[i, j] = sum(max(float(q.astype(np.float64) @ d.astype(np.float64)) for d in document) for q in query)
    return scores


def canonical_by_hand(queries, documents):
    """[n_queries, n_documents] float32: rational numbers, rounded to float32 where the definition rounds."""

    def product(q, d):
        exact = sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(q, d, strict=True)), Fraction(0))
        return nearest_float32(exact)

    scores = np.zeros((len(queries), len(documents)), dtype=np.float32)
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            best = [Fraction(float(max(product(q, d) for d in document))) for q in query]
            scores[i, j] = nearest_float32(sum(best, Fraction(0)))
    return scores


def nearest_float32(exact):
    guess = np.float32(float(exact))
    around = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    # Half-way between two, the even one: sums of a few float32 numbers often are.
    return min(around, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.uint32)) % 2))


QUERIES, DOCUMENTS = ragged([5, 1, 12, 3], seed=1), ragged([1, 30, 2, 7, 1, 1, 19], seed=2)


def test_scores_of_a_small_case_by_hand():
    queries = Embeddings.from_list([np.array([[1, 0], [0, 1]], np.float32), np.array([[1, 1]], np.float32)])
    documents = Embeddings.from_list([np.array([[2, 0], [0, 3]], np.float32), np.array([[1, -4]], np.float32)])
    # q0 on d0: 2 + 3; q0 on d1: 1 - 4; q1 on d0: max(2, 3); q1 on d1: 1 - 4.
    assert maxsim(queries, documents).tolist() == [[5, -3], [3, -3]]


def test_ragged_sizes_agree_with_one_pair_at_a_time():
    scores = maxsim(QUERIES, DOCUMENTS)
    assert scores.shape == (4, 7) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, pair_by_pair(QUERIES, DOCUMENTS), atol=2e-6)


# Every way through the code, small enough for the ragged sizes above to meet it: short documents alone and in groups,
# documents in chunks, query tokens in tiles, a filter that lets all through, one that is then bypassed.
CUTS = {
    "all short": {"SHORT_TOKENS": 10_000},
    "short in groups": {"SHORT_TOKENS": 7, "_CHUNK_TOKENS": 8},
    "all long": {"SHORT_TOKENS": 0},
    "long in chunks": {"SHORT_TOKENS": 0, "_CHUNK_TOKENS": 3},
    "narrow tiles": {"SHORT_TOKENS": 0, "_TILE_BYTES": 1},
    "too many candidates": {"SHORT_TOKENS": 0, "_CANDIDATES_PER_TOKEN": 0},
}


@pytest.fixture(params=[Float32Filter, Int8Filter])
def filter_kind(request, monkeypatch):
    monkeypatch.setattr(module, "fastest_filter", lambda: request.param)
    return request.param


@pytest.mark.parametrize("cut", CUTS)
def test_every_filter_and_cut_gives_the_same_bits(cut, filter_kind, monkeypatch):
    expected = canonical_by_hand(QUERIES, DOCUMENTS)
    for name, value in CUTS[cut].items():
        monkeypatch.setattr(module, name, value)
    assert (maxsim(QUERIES, DOCUMENTS) == expected).all()


def test_a_document_that_repeats_one_token_and_one_of_zeros(filter_kind, monkeypatch):
    """A blank page: every token can be the best one, and int8 has no scale for zeros."""
    monkeypatch.setattr(module, "SHORT_TOKENS", 0)
    token = ragged([1], seed=20)[0]
    documents = Embeddings.from_list([np.repeat(token, 90, axis=0), np.zeros((40, 16), np.float32)])
    assert (maxsim(QUERIES, documents) == canonical_by_hand(QUERIES, documents)).all()


def test_numbers_of_very_different_size(filter_kind, monkeypatch):
    """One large number takes all eight bits of a scale; the rest must still be told apart."""
    monkeypatch.setattr(module, "SHORT_TOKENS", 0)
    rng = np.random.default_rng(21)
    large = np.concatenate([np.full((60, 1), 50.0), rng.normal(size=(60, 15)) * 1e-3], axis=1).astype(np.float32)
    queries = Embeddings.from_list([np.concatenate([[[0.0]], rng.normal(size=(1, 15))], axis=1).astype(np.float32)])
    documents = Embeddings.from_list([large, large * np.float32(1e-6)])
    assert (maxsim(queries, documents) == canonical_by_hand(queries, documents)).all()


@pytest.mark.parametrize("similarity", ["above", "below"])
def test_ties_within_rounding_are_decided_exactly(similarity, filter_kind, monkeypatch):
    """Tokens whose products differ in the last bit of float32 only."""
    monkeypatch.setattr(module, "SHORT_TOKENS", 0)
    base = ragged([1], dim=16, seed=22)[0]
    steps = [base.copy() for _ in range(40)]
    for n, step in enumerate(steps):
        step[0, n % 16] = np.nextafter(step[0, n % 16], np.float32(9 if n % 2 else -9))
    document = Embeddings.from_list([np.concatenate(steps)])
    query = Embeddings.from_list([base if similarity == "above" else -base])
    assert (maxsim(query, document) == canonical_by_hand(query, document)).all()


def test_bits_do_not_depend_on_neighbours_or_on_the_number_of_queries():
    queries, documents = ragged([25] * 12, dim=64, seed=23), ragged([40, 300, 1, 77, 1500, 12], dim=64, seed=24)
    together = maxsim(queries, documents)
    for q in range(len(queries)):
        for d in range(len(documents)):
            assert maxsim(queries.take([q]), documents.take([d]))[0, 0] == together[q, d]
    assert (maxsim(queries, documents, memory=1) == together).all()
    assert (maxsim(queries.take(np.arange(12)[::-1]), documents) == together[::-1]).all()


def test_many_query_tokens_are_cut_too():
    queries = ragged([700, 700, 700, 700, 2500, 3], seed=3, dim=4)
    documents = ragged([2, 3], seed=4, dim=4)
    expected = [[(q.astype(np.float64) @ d.T.astype(np.float64)).max(1).sum() for d in documents] for q in queries]
    np.testing.assert_allclose(maxsim(queries, documents), expected, rtol=2e-6, atol=2e-4)


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_any_number_of_threads_gives_the_same_bits_and_is_left_as_it_was(threads):
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = maxsim(QUERIES, DOCUMENTS)
        torch.set_num_threads(threads)
        together = maxsim(QUERIES, DOCUMENTS)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (together == alone).all()


def test_negative_similarities_stay_negative():
    """Zero padding would make them zero."""
    queries = ragged([4, 2], shift=3.0, seed=6)
    documents = ragged([1, 5, 2], shift=-3.0, seed=7)
    scores = maxsim(queries, documents)
    assert (scores < -0.5).all()
    np.testing.assert_allclose(scores, pair_by_pair(queries, documents), atol=2e-6)


def test_a_short_document_beside_a_long_one_scores_as_it_does_alone():
    queries = ragged([4, 6], shift=2.0, seed=8)
    short, long = ragged([1], shift=-2.0, seed=9), ragged([50], shift=-2.0, seed=10)
    together = maxsim(queries, Embeddings.concatenate([short, long, short]))
    np.testing.assert_allclose(together[:, 0], maxsim(queries, short)[:, 0], atol=1e-6)
    np.testing.assert_allclose(together[:, 0], together[:, 2], atol=1e-6)


def test_half_precision_is_multiplied_in_single():
    queries, documents = ragged([5, 2], seed=11, dtype=np.float16), ragged([9, 1, 30], seed=12, dtype=np.float16)
    scores = maxsim(queries, documents)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, pair_by_pair(queries, documents), atol=2e-6)


def test_one_side_may_be_half_precision():
    queries, documents = ragged([5, 2], seed=11), ragged([9, 1], seed=12, dtype=np.float16)
    np.testing.assert_allclose(maxsim(queries, documents), pair_by_pair(queries, documents), atol=2e-6)


def test_mteb_agrees_where_all_documents_have_one_length():
    """MTEB pads with zeros; without padding both compute the same."""
    torch = pytest.importorskip("torch")
    from mteb.similarity_functions import max_sim

    queries, documents = ragged([6, 6, 6], seed=13), ragged([11, 11], seed=14)
    theirs = max_sim(torch.tensor(np.stack(list(queries))), torch.tensor(np.stack(list(documents))))
    np.testing.assert_allclose(maxsim(queries, documents), theirs.numpy(), atol=2e-6)


def test_no_documents_give_no_scores():
    assert maxsim(QUERIES, Embeddings.from_list([], dim=16)).shape == (4, 0)
    assert maxsim(Embeddings.from_list([], dim=16), DOCUMENTS).shape == (0, 7)


def test_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="queries have 16 dimensions, documents 8"):
        maxsim(QUERIES, ragged([2], dim=8))


@pytest.mark.parametrize("side", [0, 1])
def test_a_content_without_tokens_is_refused(side):
    sides = [ragged([2, 2]), ragged([3, 3])]
    sides[side] = ragged([2, 0])
    with pytest.raises(ValueError, match="1 has no tokens; expected at least one"):
        maxsim(*sides)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_and_named(value):
    documents = ragged([2, 3, 4])
    documents.values[3, 5] = value
    with pytest.raises(ValueError, match="document 1 has NaN or infinite numbers"):
        maxsim(QUERIES, documents)


def test_lists_of_tensors_are_taken_too():
    import torch

    queries, documents = ragged([5, 2], seed=11), ragged([9, 1, 40], seed=12)
    rounded = [torch.from_numpy(d).bfloat16() for d in documents]
    expected = maxsim(queries, Embeddings.from_list([r.float().numpy() for r in rounded]))
    assert (maxsim([torch.from_numpy(q) for q in queries], rounded) == expected).all()


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 0.008), ("int8", 0.02)])
@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_estimates_are_near(precision, error, shift):
    """Per query token; with a shift every similarity is negative, where bfloat16's bits fall instead of rising."""
    queries, documents = (
        ragged([5, 30, 1], shift=-shift, seed=30),
        ragged([1, 60, 33, 5000, 2, 45], shift=shift, seed=31),
    )
    estimates, scores = maxsim(queries, documents, precision=precision), maxsim(queries, documents)
    assert (np.abs(estimates - scores) <= error * queries.token_counts[:, None]).all()
    assert (estimates != scores).any()


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="expected float32, bfloat16 or int8"):
        maxsim(QUERIES, DOCUMENTS, precision="int4")


def test_the_filter_is_chosen_among_those_that_are_right_here():
    assert fastest_filter() in (Float32Filter, Int8Filter)


@pytest.mark.parametrize("kind", [Float32Filter, Int8Filter])
def test_a_filter_never_hides_a_token_that_could_be_the_best(kind):
    queries, document = ragged([64], seed=40)[0], ragged([500], seed=41)[0]
    exact = queries.astype(np.float64) @ document.astype(np.float64).T
    held = kind(queries).document(document, 1.0)
    similarities = held.similarities(slice(0, 64)).copy()
    for best in (exact.max(axis=1), np.median(exact, axis=1), np.full(64, -2.0), np.full(64, 2.0)):
        passed = similarities >= held.least(slice(0, 64), best)[:, None]
        assert passed[exact >= best[:, None]].all()
    few = similarities >= held.least(slice(0, 64), exact.max(axis=1))[:, None]
    assert few.sum() < 64 * 50, "a filter that lets everything through is none"
