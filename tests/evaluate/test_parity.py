"""raylib's model over the store gives what MTEB gives for the plain model, on every text and image mock task.

The toy encoders' vectors depend on the content alone, so every main score must be the same number. The tolerance of
1e-6 on the other metrics is for sums that numpy and torch round differently.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from raylib.evaluate.encode import EncodeReport, encode_locally
from raylib.evaluate.model import StoreModel
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.store.embeddings import Shelf
from tests import toys
from tests.evaluate.compare import differences, scores_of
from tests.evaluate.mock_tasks import IMAGE_MOCKS, LATE_MOCKS, TEXT_MOCKS, grown_task


@cache
def plain_scores(model: str, task: str) -> dict[str, Any]:
    return scores_of(getattr(toys, model)(), grown_task(task))


def store_model(model: str, folder: Any, stage: Any = encode_locally) -> StoreModel:
    encoder: Any = resolve(ModelSpec(f"tests.toys:{model}"))
    return StoreModel(encoder, Shelf(str(folder), encoder.fingerprint), stage, limits=32)


@pytest.mark.parametrize("task", TEXT_MOCKS + IMAGE_MOCKS)
def test_dense_scores_are_those_of_mteb(task, tmp_path):
    got = scores_of(store_model("dense", tmp_path), grown_task(task))

    assert differences(got, plain_scores("dense", task)) == []


@pytest.mark.parametrize("task", LATE_MOCKS)
def test_late_interaction_scores_are_those_of_mteb(task, tmp_path):
    got = scores_of(store_model("late", tmp_path), grown_task(task))

    assert differences(got, plain_scores("late", task)) == []


@pytest.mark.parametrize("task", TEXT_MOCKS + IMAGE_MOCKS)
def test_the_mock_would_show_two_swapped_batches(task, tmp_path):
    """Of the mock, not of raylib: what the tests above can see at all."""
    got = scores_of(store_model("dense", tmp_path, swap_two_batches), grown_task(task))

    expected = plain_scores("dense", task)
    assert got.keys() == expected.keys()
    assert any(got[place] != expected[place] for place in expected if place.endswith("main_score"))


def swap_two_batches(encoder: Any, batches: Any, sources: Any, shelf: Any) -> EncodeReport:
    """An encode stage with a fault: of one request, two batches of vectors change places."""
    first, second, *rest = batches if len(batches) > 1 else (*batches, None)
    if second is not None:
        n = min(len(first), len(second))
        rows = second.rows[:n] + first.rows[n:], first.rows[:n] + second.rows[n:]
        batches = [replace(first, rows=rows[0]), replace(second, rows=rows[1]), *rest]
    return encode_locally(encoder, batches, sources, shelf)
