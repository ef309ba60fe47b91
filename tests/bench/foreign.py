"""What the tests of runtimes outside of Python share: targets, batches, and how near vectors are to PyTorch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.bench.protocol import Precision, Runner, Target, Tower
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.types import Batch, EncodeContext
from tests.models.helpers import pictures

SHORT = ["a", "sort by key, group by value", "naïve café", *("word " * n for n in (4, 6, 9, 14, 19))]
"""Up to the limit of the tiny models, and past the window of Gemma, which reaches 8 tokens to either side there."""
LONG = "x " * 200
"""Past all limits: the model cuts it."""


def target(folder: Path, cache: Path, tower: Tower = "text", precision: Precision = "fp32", **options: Any) -> Target:
    return Target(ModelSpec(str(folder), **options), tower, precision, 1, cache)


def batches(tower: str, *, long: bool = True) -> list[Batch]:
    """One alone, several of one length, and all padded to the longest."""
    if tower == "image":
        images = pictures(5)
        return [{"image": images[:1]}, {"image": images[1:2] * 3}, {"image": images}]
    texts = [*SHORT, LONG] if long else SHORT
    return [{"text": [text]} for text in (texts[0], texts[-1])] + [{"text": SHORT[5:6] * 3}, {"text": texts}]


def torchs(asked: Target, batch: Batch) -> np.ndarray:
    encoder: Any = resolve(asked.spec)
    vectors = encoder.encode(batch, EncodeContext(None)).dense()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_torchs(runner: Runner, asked: Target, *, long: bool = True) -> None:
    """Cosine ≥ 0.99999, and no component further off than float32 explains."""
    for batch in batches(asked.tower, long=long):
        found, expected = runner.embed(batch), torchs(asked, batch)
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert (found * expected).sum(axis=1).min() >= 0.99999
        assert np.abs(found - expected).max() <= 2e-6
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
