"""Objectives against the libraries that they are known from, on the same vectors: values, and gradients to them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from raylib.models.token_vectors import TokenVectors
from raylib.train.false_negatives import Layout
from raylib.train.maxsim import plain_maxsim
from raylib.train.objective import SIGMOID_BIAS, Criterion, Objective

from .made_vectors import VALUE, again, assert_same, distinct, gradient, leaf, run

N, DIM = 7, 6
QUERY_TOKENS, DOCUMENT_TOKENS = [3, 5, 1, 4, 2, 5, 3], [8, 2, 5, 1, 9, 3, 4]


# sentence-transformers.


class _Read(torch.nn.Module):
    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": features["vectors"]}


class Given(torch.nn.Sequential):
    """A model whose vectors are what it is given."""

    def __init__(self) -> None:
        super().__init__(_Read())

    def get_embedding_dimension(self) -> int:
        return DIM


def of_sentence_transformers(
    make: Callable[[Any], torch.nn.Module], queries: TokenVectors, documents: TokenVectors
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """documents: the positives, then one negative of each, then the next of each."""
    q, d = again(queries), again(documents)
    columns = [{"vectors": q.values}, *({"vectors": part} for part in d.values.split(len(q)))]
    loss = make(Given())(columns, torch.zeros(0))
    loss.backward()
    return loss.item(), gradient(q), gradient(d)


def dense_batch(negatives: int) -> tuple[Layout, TokenVectors, TokenVectors, np.ndarray]:
    """Vectors that are not of length 1, `negatives` of each query, and the order of sentence-transformers' columns
    (negatives by number) in ours (by owner)."""
    layout = distinct(N, np.repeat(np.arange(N), negatives).tolist())
    queries = leaf([1] * N, dim=DIM, seed=1, unit=False)
    theirs = leaf([1] * (N + N * negatives), dim=DIM, seed=2, unit=False)
    by_owner = N + np.arange(N * negatives).reshape(negatives, N).T.ravel()
    return layout, queries, theirs, np.concatenate([np.arange(N), by_owner])


@pytest.mark.parametrize("negatives", [0, 1, 2])
@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize(
    ("name", "options", "ours"),
    [
        ("MultipleNegativesRankingLoss", {"scale": 50.0}, {"temperature": 0.02}),
        ("MultipleNegativesRankingLoss", {"scale": 20.0}, {"temperature": 0.05}),
        ("CachedMultipleNegativesRankingLoss", {"scale": 20.0, "mini_batch_size": 3}, {"temperature": 0.05}),
        ("MultipleNegativesSymmetricRankingLoss", {"scale": 20.0}, {"temperature": 0.05, "symmetric": True}),
    ],
)
def test_sentence_transformers(
    name: str, options: dict[str, Any], ours: dict[str, Any], negatives: int, chunk: int | None
) -> None:
    from sentence_transformers.sentence_transformer import losses

    layout, queries, documents, order = dense_batch(negatives)
    expected = of_sentence_transformers(lambda model: getattr(losses, name)(model, **options), queries, documents)
    found = run(Criterion(Objective("cosine", **ours)), layout, queries, documents.take(order), chunk)
    assert_same(found, (expected[0], expected[1], expected[2][order]))


@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dims", [(6, 4, 2), (3,)])
def test_matryoshka(dims: tuple[int, ...], symmetric: bool, negatives: int) -> None:
    from sentence_transformers.sentence_transformer import losses

    name = "MultipleNegativesSymmetricRankingLoss" if symmetric else "MultipleNegativesRankingLoss"

    def make(model: Any) -> torch.nn.Module:
        return losses.MatryoshkaLoss(model, getattr(losses, name)(model, scale=20.0), list(dims))

    layout, queries, documents, order = dense_batch(negatives)
    expected = of_sentence_transformers(make, queries, documents)
    criterion = Criterion(Objective("cosine", temperature=0.05, matryoshka=dims, symmetric=symmetric))
    found = run(criterion, layout, queries, documents.take(order), 2)
    assert_same(found, (expected[0], expected[1], expected[2][order]))


def test_dot_products_have_the_length_of_their_vectors() -> None:
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.util import dot_score

    layout, queries, documents, order = dense_batch(1)

    def make(model: Any) -> torch.nn.Module:
        return losses.MultipleNegativesRankingLoss(model, scale=2.0, similarity_fct=dot_score)

    expected = of_sentence_transformers(make, queries, documents)
    found = run(Criterion(Objective("dot", temperature=0.5)), layout, queries, documents.take(order))
    assert_same(found, (expected[0], expected[1], expected[2][order]))


# colpali-engine.


def padded(vectors: TokenVectors) -> torch.Tensor:
    """[n, tokens, dim], with zeros after the tokens of a content."""
    return torch.nn.utils.rnn.pad_sequence(list(vectors.values.split(vectors.counts.tolist())), batch_first=True)


def late_batch(negatives: int) -> tuple[Layout, TokenVectors, TokenVectors]:
    """No component is below 0: colpali-engine pads documents with zeros, which win over products below 0."""
    layout = distinct(N, np.repeat(np.arange(N), negatives).tolist())
    lengths = [*DOCUMENT_TOKENS, *(1 + (5 * i) % 7 for i in range(N * negatives))]
    return layout, leaf(QUERY_TOKENS, seed=3, positive=True), leaf(lengths, seed=4, positive=True)


def of_colpali(
    loss: torch.nn.Module, queries: TokenVectors, documents: TokenVectors, negatives: int
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """documents: the positives, then the negatives of each query."""
    q, d = again(queries), again(documents)
    columns = [padded(q), padded(d.slice(0, N))]
    if negatives:
        columns.append(padded(d.slice(N, len(d))).unflatten(0, (N, negatives)))
    value = loss(*columns)
    value.backward()
    return value.item(), gradient(q), gradient(d)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize(("name", "ours"), [("ColbertLoss", "infonce"), ("ColbertPairwiseCELoss", "pairwise")])
def test_colpali_engine(name: str, ours: Any, chunk: int | None, normalised: bool) -> None:
    from colpali_engine import loss as losses

    temperature = 0.02 if normalised else 1.0
    layout, queries, documents = late_batch(0)
    theirs = getattr(losses, name)(temperature=temperature, normalize_scores=normalised)
    expected = of_colpali(theirs, queries, documents, 0)
    objective = Objective("maxsim", loss=ours, temperature=temperature, per_token=normalised)
    assert_same(run(Criterion(objective), layout, queries, documents, chunk), expected)


@pytest.mark.parametrize("weight", [0.5, 0.2])
@pytest.mark.parametrize("negatives", [1, 3])
@pytest.mark.parametrize(
    ("name", "ours"), [("ColbertNegativeCELoss", "infonce"), ("ColbertPairwiseNegativeCELoss", "pairwise")]
)
def test_colpali_engine_with_hard_negatives(name: str, ours: Any, negatives: int, weight: float) -> None:
    """Its own in-batch term is over positives alone."""
    from colpali_engine import loss as losses

    layout, queries, documents = late_batch(negatives)
    theirs = getattr(losses, name)(temperature=0.05, in_batch_term_weight=weight)
    expected = of_colpali(theirs, queries, documents, negatives)
    objective = Objective("maxsim", loss=ours, temperature=0.05, explicit=1 - weight)
    assert_same(run(Criterion(objective), layout, queries, documents, 3), expected)


# open_clip.


@pytest.mark.parametrize("chunk", [None, 2])
def test_open_clip_s_sigmoid_loss(chunk: int | None) -> None:
    """With the gradients of what learns: the logarithm of the scale, and the bias."""
    from open_clip.loss import SigLipLoss

    queries, documents = leaf([1] * N, dim=DIM, seed=5), leaf([1] * N, dim=DIM, seed=6)
    log_scale, bias = torch.tensor(math.log(10.0), requires_grad=True), torch.tensor(SIGMOID_BIAS, requires_grad=True)
    q, d = again(queries), again(documents)
    loss = SigLipLoss()(q.values, d.values, log_scale.exp(), bias)
    loss.backward()
    criterion = Criterion(Objective("cosine", loss="sigmoid", temperature=0.1))
    found = run(criterion, distinct(N), queries, documents, chunk)
    # Ours divides by the length once more; it is 1, and the gradient along the vector is gone.
    across = [_across(vectors.values.detach(), gradient(vectors)) for vectors in (q, d)]
    assert_same(
        (*found, criterion.log_scale.grad, criterion.bias.grad), (loss.detach(), *across, log_scale.grad, bias.grad)
    )


def _across(vectors: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    return gradients - (gradients * vectors).sum(dim=1, keepdim=True) * vectors


# By hand.


def test_a_batch_by_hand() -> None:
    """Cosines 1, 0 and 0.6, 0.8 with temperature 0.5: the mean of ln(1 + e^-2) and ln(1 + e^-0.4)."""
    q = TokenVectors.dense(torch.tensor([[2.0, 0.0], [3.0, 4.0]], requires_grad=True))
    d = TokenVectors.dense(torch.tensor([[5.0, 0.0], [0.0, 7.0]], requires_grad=True))
    loss, to_q, _ = run(Criterion(Objective("cosine", temperature=0.5)), distinct(2), q, d)
    assert loss == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-0.4))) / 2)
    across = -2 * (1 - 1 / (1 + math.exp(-2))) / 2  # d loss / d (cosine with its own, minus that with the other)
    assert to_q[0].tolist() == pytest.approx([0, -across / 2])  # turning away from (1, 0), over a length of 2


def test_false_negatives_do_not_count() -> None:
    """One content is the positive of the first two of three queries: the loss of each is over two documents."""
    layout = Layout(np.arange(3), np.array([9, 9, 5]), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    queries, documents = leaf([2, 1, 3], seed=7), leaf([4, 4, 2], seed=8)
    documents = TokenVectors(documents.values.detach(), documents.counts)
    scores = plain_maxsim(queries, documents).detach()
    rows = [scores[0, [0, 2]], scores[1, [1, 2]], scores[2, [2, 0, 1]]]
    expected = sum(float(F.cross_entropy(row[None], torch.tensor([0]))) for row in rows) / 3
    criterion = Criterion(Objective("maxsim", temperature=1.0, per_token=False))
    assert run(criterion, layout, queries, documents)[0] == pytest.approx(expected, rel=VALUE)
    both = Criterion(Objective("maxsim", temperature=1.0, per_token=False, symmetric=True))
    columns = [scores[[0, 2], 0], scores[[1, 2], 1], scores[[2, 0, 1], 2]]
    other = sum(float(F.cross_entropy(column[None], torch.tensor([0]))) for column in columns) / 3
    assert run(both, layout, queries, documents)[0] == pytest.approx((expected + other) / 2, rel=VALUE)


@pytest.mark.parametrize(("margin", "kept"), [(0.25, [[0, 2], [0, 1, 2]]), (1.0, [[0, 1, 2], [0, 1, 2]])])
def test_documents_above_the_positive_do_not_count(margin: float, kept: list[list[int]]) -> None:
    """Scores 0.5, 1 and 0.7 of the first query, whose own is 0.5; of the second 0, 1, 0, its own 1. One hard
    negative."""
    q = TokenVectors.dense(torch.tensor([[1.0, 0, 0], [0, 1, 0]], requires_grad=True))
    d = TokenVectors.dense(torch.tensor([[0.5, 0, 0], [1, 1, 0], [0.7, 0, 1]], requires_grad=True))
    rows = [[0.5, 1, 0.7], [0, 1, 0]]
    expected = sum(
        math.log(sum(math.exp(row[j]) for j in columns)) - row[own]
        for own, (row, columns) in enumerate(zip(rows, kept, strict=True))
    )
    criterion = Criterion(Objective("dot", temperature=1.0, mask_above=margin))
    loss, _, to_d = run(criterion, distinct(2, [0]), q, d)
    assert loss == pytest.approx(expected / 2)
    assert (float(to_d[1, 0]) != 0) == (1 in kept[0])


def test_a_temperature_that_learns() -> None:
    """Its gradient by central differences, in float64."""
    queries, documents = leaf([2, 3, 1], seed=9), leaf([4, 1, 2, 5], seed=10)
    scores = (plain_maxsim(queries, documents).detach() / torch.tensor([[2], [3], [1]])).double()

    def loss_at(log_scale: float) -> float:
        return float(F.cross_entropy(scores * math.exp(log_scale), torch.arange(3)))

    start = -math.log(0.07)
    slope = (loss_at(start + 1e-4) - loss_at(start - 1e-4)) / 2e-4
    criterion = Criterion(Objective("maxsim", temperature=0.07, learn_temperature=True))
    loss, *_ = run(criterion, distinct(3, [1]), queries, documents, 1)
    assert loss == pytest.approx(loss_at(start), rel=VALUE)
    assert criterion.log_scale.grad is not None and float(criterion.log_scale.grad) == pytest.approx(slope, rel=1e-4)
    fixed = Criterion(Objective("maxsim", temperature=0.07))
    assert [name for name, p in fixed.named_parameters() if p.requires_grad] == []
