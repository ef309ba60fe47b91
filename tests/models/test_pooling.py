"""Pooling, truncation and normalisation of token vectors, against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from raylib.errors import UserError
from raylib.models.pooling import fuse, normalise, pool, truncate

HIDDEN = torch.tensor([[[1.0, 0], [3, 4], [5, 8], [9, 9]], [[7.0, 7], [2, 2], [4, 6], [6, 10]]])
RIGHT = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
LEFT = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("how", "mask", "expected"),
    [
        ("cls", RIGHT, [[1, 0], [7, 7]]),
        ("cls", LEFT, [[3, 4], [7, 7]]),
        ("last", RIGHT, [[5, 8], [6, 10]]),
        ("last", LEFT, [[9, 9], [6, 10]]),
        ("mean", RIGHT, [[3, 4], [4.75, 6.25]]),
        ("mean", LEFT, [[17 / 3, 7], [4.75, 6.25]]),
    ],
)
def test_only_real_tokens_count_on_either_side(how: str, mask: torch.Tensor, expected: list[list[float]]) -> None:
    assert pool(HIDDEN, mask, how).numpy() == pytest.approx(torch.tensor(expected).numpy(), abs=1e-6)


def test_a_mean_in_half_precision_is_summed_in_full() -> None:
    """4,096 ones and a 1,000: a running bfloat16 sum would stick at 256."""
    hidden = torch.ones(1, 4097, 1, dtype=torch.bfloat16)
    hidden[0, -1] = 1000
    found = pool(hidden, torch.ones(1, 4097), "mean")
    assert found.dtype == torch.bfloat16
    assert found.item() == pytest.approx(5096 / 4097, rel=0.004)


def test_another_name_is_refused() -> None:
    with pytest.raises(UserError, match="--pooling is 'max'; expected one of cls, mean, last"):
        pool(HIDDEN, LEFT, "max")


def test_truncation_keeps_the_first_components_and_does_not_normalise() -> None:
    vectors = torch.tensor([[3.0, 4, 12]])
    assert truncate(vectors, 2).tolist() == [[3, 4]]
    assert truncate(vectors, None) is vectors
    for dim in (0, 4):
        with pytest.raises(UserError, match=f"--embedding-dim is {dim}; this model's vectors have 3"):
            truncate(vectors, dim)


def test_normalised_vectors_have_length_one_but_zero_stays_zero() -> None:
    assert normalise(torch.tensor([[3.0, 4], [0, 0]])).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    small = normalise(torch.full((1, 4), 1e-4, dtype=torch.float16))
    assert small.dtype == torch.float16 and small.tolist() == [[0.5] * 4]


TEXT, IMAGE = [[3.0, 0.0], [0.0, 1.0]], [[0.0, 4.0], [0.0, -1.0]]


@pytest.mark.parametrize(
    ("how", "unit", "expected"),
    [
        ("sum", False, [[3, 4], [0, 0]]),
        ("mean", False, [[1.5, 2], [0, 0]]),
        ("sum", True, [[0.6, 0.8], [0, 0]]),
        ("mean", True, [[0.6, 0.8], [0, 0]]),
        ("concat", False, [[3, 0, 0, 4], [0, 1, 0, -1]]),
        ("concat", True, [[3, 0, 0, 4], [0, 1, 0, -1]]),
    ],
)
def test_fused_vectors(how: str, unit: bool, expected: list[list[float]]) -> None:
    found = fuse(torch.tensor(TEXT), torch.tensor(IMAGE), how, unit=unit)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_fused_vectors_of_half_precision_are_summed_in_float32() -> None:
    large = torch.full((1, 2), 40000.0, dtype=torch.float16)  # twice that is more than float16 can hold
    found = fuse(large, large, "mean")
    assert found.dtype == torch.float16 and found.tolist() == [[40000.0, 40000.0]]
    with pytest.raises(UserError, match="--fusion is 'max'; expected one of sum, mean, concat"):
        fuse(large, large, "max")
