"""MTEB scores of two runs side by side."""

from __future__ import annotations

import math
from typing import Any


def scores_of(model: Any, task: Any, batch_size: int | None = None) -> dict[str, Any]:
    """Every number that MTEB reports for `task`, by its place: "test/0/ndcg_at_10"."""
    import mteb

    settings: Any = {"show_progress_bar": False} | ({"batch_size": batch_size} if batch_size else {})
    (result,) = mteb.evaluate(
        model, task, cache=None, co2_tracker=False, show_progress_bar=False, encode_kwargs=settings
    ).task_results
    return flatten(result.scores)


def flatten(value: Any, place: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for name, item in value.items() for k, v in flatten(item, f"{place}/{name}").items()}
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in flatten(item, f"{place}/{i}").items()}
    return {place.lstrip("/"): value}


def differences(got: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-6) -> list[str]:
    """Where the two differ: main scores by anything at all, other numbers by more than `tolerance`. NaN equals NaN."""
    if got.keys() != expected.keys():
        return [f"only one run has {sorted(got.keys() ^ expected.keys())}"]
    allowed = {place: 0.0 if place.endswith("main_score") else tolerance for place in expected}
    return [f"{k}: {got[k]}, expected {expected[k]}" for k in expected if not _same(got[k], expected[k], allowed[k])]


def _same(got: Any, expected: Any, tolerance: float) -> bool:
    if not (isinstance(got, float | int) and isinstance(expected, float | int)):
        return got == expected
    if math.isnan(got) or math.isnan(expected):
        return math.isnan(got) and math.isnan(expected)
    return abs(got - expected) <= tolerance
