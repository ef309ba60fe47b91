"""The embeddings that `benchmarks/mine.py` makes, and what it makes of measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.mine_inputs import Shape, write_embeddings
from benchmarks.mine_report import neighbour_rows, plan_rows


def written(folder: Path, n: int, shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    write_embeddings(folder, n, shape)
    queries, documents, same = (np.load(folder / f"{name}.npy") for name in ("queries", "documents", "same"))
    return queries, documents, same


def test_embeddings_hold_what_was_planted_in_a_subspace(tmp_path: Path) -> None:
    queries, documents, same = written(tmp_path, 2000, Shape(dimensions=40))
    assert queries.shape == documents.shape == (2000, 384) and queries.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(documents, axis=1), 1, atol=1e-5)
    assert np.linalg.matrix_rank(documents, tol=1e-2) == 40
    copies = np.flatnonzero(same != np.arange(2000))
    assert len(copies) == 20
    cosines = np.triu(documents @ documents.T, 1)
    planted = cosines[np.minimum(copies, same[copies]), np.maximum(copies, same[copies])]
    assert planted.min() >= 0.99
    assert int((cosines >= 0.99).sum()) == 20
    assert 36 <= int(((cosines > 0.95) & (cosines < 0.99)).sum()) <= 50  # forty planted, and some by chance


def test_a_query_is_nearest_to_its_own_document_more_than_to_any_other(tmp_path: Path) -> None:
    queries, documents, _ = written(tmp_path, 2000, Shape(duplicates=0, near_duplicates=0))
    scores = queries @ documents.T
    assert np.mean(scores.argmax(axis=1) == np.arange(2000)) > 0.95
    # 1 / sqrt(1 + .25²): noise of that length at a right angle
    assert np.diagonal(scores).mean() == pytest.approx(0.970, abs=0.01)


def test_the_same_seed_gives_the_same_embeddings(tmp_path: Path) -> None:
    first, again = (written(tmp_path / name, 500, Shape()) for name in ("a", "b"))
    for left, right in zip(first, again, strict=True):
        np.testing.assert_array_equal(left, right)


def side(wall: float, recall: float) -> dict[str, Any]:
    times = {"wall s": {"search ready": 1.0, "searched": wall - 1}, "cpu s": {"searched": 2 * wall}}
    return {**times, "recall": recall, "lists": 100, "visited": 7, "peak mb": 900, "peak mb anonymous": 500}


def test_ratios_are_of_pairs_and_their_median_is_held_against_the_target() -> None:
    ours, theirs = [side(12, 0.991), side(24, 0.992), side(9, 0.991)], [side(10, 0.99)] * 3
    row = neighbour_rows("1,000", {"knn": {"ivf": {"raylib": ours, "faiss": theirs}}})[0]
    assert row[2:6] == ["12.0 (24.0)", "10.0 (20.0)", "1.20× (0.90 to 2.40), met", "1.20×"]
    assert row[6:8] == ["0.9910 / 0.9900", "7 of 100 / 7 of 100"]


def test_only_metis_is_held_against_the_seconds_of_a_partition() -> None:
    plan: dict[str, Any] = {
        "hardness": 0.5,
        "suspects": 2e-6,
        "examples_with_suspects": 0.01,
        "cluster similarity": 0.4,
    }
    plan |= {"cluster wanted": 3.0, "cluster excluded": 1.0, "peak mb": 9, "peak mb anonymous": 5}
    plan["cpu s"] = {"partition": 61.0, "assemble": 0.5}
    rows = plan_rows("1,000", {"plans": {"metis": plan, "growth": plan}, "split": {**plan, "split_above": 250}})
    assert [row[1] for row in rows] == ["metis", "growth", "metis, split above 250"]
    assert [row[7] for row in rows] == ["61.0, missed", "61.0", "61.0"]
    assert rows[0][3] == "2 (1.0%)"
