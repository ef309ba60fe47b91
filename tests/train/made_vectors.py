"""Random vectors of a batch, its layout, and its loss with gradients to the vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from raylib.models.token_vectors import TokenVectors
from raylib.train.false_negatives import Layout
from raylib.train.objective import Criterion

VALUE, GRADIENT = 1e-5, 1e-5
"""Relative, and to the largest component: float32, logits of up to 50."""


def leaf(
    counts: Sequence[int], *, dim: int = 6, seed: int = 0, unit: bool = True, positive: bool = False
) -> TokenVectors:
    """Vectors with counts[i] rows for content i, float32, that take a gradient. positive: no component is below 0."""
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(sum(counts), dim)).astype(np.float32))
    if positive:
        values = values.abs()
    if unit:
        values = torch.nn.functional.normalize(values, dim=-1)
    return TokenVectors(values.requires_grad_(), np.asarray(counts, dtype=np.int64))


def again(vectors: TokenVectors) -> TokenVectors:
    """The same vectors, as another leaf."""
    return TokenVectors(vectors.values.detach().clone().requires_grad_(), vectors.counts)


def distinct(n: int, owners: Sequence[int] = ()) -> Layout:
    """A batch of n examples in which no content occurs twice; a hard negative for each of `owners`."""
    numbers = np.arange(n)
    return Layout(numbers, numbers, n + np.arange(len(owners)), np.asarray(owners, dtype=np.int64))


def gradient(vectors: TokenVectors) -> torch.Tensor:
    assert vectors.values.grad is not None
    return vectors.values.grad


def run(
    criterion: Criterion, layout: Layout, queries: TokenVectors, documents: TokenVectors, chunk: int | None = None
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """The loss of the whole batch, and its gradients to queries and documents."""
    q, d = again(queries), again(documents)
    loss = criterion.backward(layout, slice(0, len(layout)), q, d, chunk=chunk)
    return loss, gradient(q), gradient(d)


def assert_same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    """Of losses, each followed by gradients."""
    assert found[0] == pytest.approx(float(expected[0]), rel=VALUE)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=GRADIENT * float(theirs.abs().max()))
