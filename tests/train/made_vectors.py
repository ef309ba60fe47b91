"""Random vectors of a batch, and its layout."""

from collections.abc import Sequence

import numpy as np
import torch

from raylib.models.token_vectors import TokenVectors
from raylib.train.false_negatives import Layout


def leaf(counts: Sequence[int], *, dim: int = 6, seed: int = 0, unit: bool = True, positive: bool = False):
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
