"""Parity by vectors whose cosines follow by hand."""

from __future__ import annotations

import numpy as np
import pytest

from raylib.bench.gate import compare, refusal
from raylib.bench.records import Parity

REFERENCE = np.array([[1, 0], [0, 1]], dtype=np.float32)


def verdict(found, precision="fp32"):
    return refusal(*compare(REFERENCE, np.array(found, dtype=np.float32)), precision)


def test_the_lowest_cosine_and_the_largest_difference():
    parity, length = compare(REFERENCE, np.array([[0.6, 0.8], [0, 1]], dtype=np.float32))
    assert parity == Parity(pytest.approx(0.6), pytest.approx(0.8), 2)
    assert length == pytest.approx(1)


def test_vectors_of_another_length_have_the_same_cosine():
    parity, length = compare(REFERENCE, 3 * REFERENCE)
    assert (parity.cosine, parity.difference, length) == (1.0, 2.0, 3.0)
    assert "vectors of length 3; expected 1" in (refusal(parity, length, "fp32") or "")


def test_float32_needs_the_same_vectors_and_says_how_far_they_are():
    assert verdict([[1, 0.004], [0, 1]]) is None  # cosine 0.999992
    refused = verdict([[1, 0.005], [0, 1]])  # cosine 0.9999875
    assert "the lowest cosine is 0.999988 (expected 0.99999 or more)" in refused
    assert "by up to 0.005" in refused
    assert "over 2 contents" in refused


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_other_formats_are_reported_and_not_judged(precision):
    assert verdict([[1, 0.5], [0, 1]], precision) is None


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_are_no_vectors_is_refused_in_every_format(precision):
    assert "NaN" in verdict([[np.nan, 0], [0, 1]], precision)
    assert "another width" in verdict([[1, 0, 0], [0, 1, 0]], precision)
    assert "another number" in verdict([[1, 0]], precision)
