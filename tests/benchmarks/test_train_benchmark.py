"""What `benchmarks/train.py` trains on, its measured processes, and what it makes of measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.train_b3 import read_run
from benchmarks.train_inputs import build_model, pairs, write_pairs
from benchmarks.train_report import memory, run_rows, same_losses, step_rows
from benchmarks.train_side import WARM_UP, WAYS, batches, train


def test_pairs_have_no_text_twice(tmp_path: Path) -> None:
    found = pairs()
    assert len(found) > 2080
    for texts in zip(*found, strict=True):
        assert len(set(texts)) == len(found)
    assert write_pairs(tmp_path / "pairs.jsonl", 5) == 5
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [(row["query"], row["pos"]) for row in rows] == list(found[:5])


def test_measured_batches_are_disjoint_and_within_the_data() -> None:
    found = batches(4, 3, WARM_UP + 12)
    assert [len(part) for part in found] == [WARM_UP, 4, 4, 4]
    np.testing.assert_array_equal(np.concatenate(found), np.arange(WARM_UP + 12))
    with pytest.raises(ValueError, match="more than 43 pairs"):
        batches(4, 3, WARM_UP + 11)


def test_all_ways_have_the_same_losses(tmp_path: Path) -> None:
    """Three steps: the second loss is of weights that the first gradient has changed."""
    build_model(tmp_path / "model", layers=1, hidden=64)
    n = write_pairs(tmp_path / "pairs.jsonl", WARM_UP + 72)
    job = {"model": str(tmp_path / "model"), "pairs": str(tmp_path / "pairs.jsonl"), "size": 36, "steps": 2, "n": n}
    found = {way: train(way, job) for way in WAYS}
    for measured in found.values():
        assert measured["losses"] == pytest.approx(found["raylib"]["losses"], abs=1e-5)
        assert measured["step cpu s"] > 0 and measured["prepare cpu s"] > 0 and measured["loaded mb"] > 0
    first, *_, last = found["raylib"]["losses"]
    assert abs(first - last) > 1e-3


def run(cpu: float, grown: float, losses: list[float]) -> dict[str, Any]:
    times = {"step wall s": 2 * cpu, "step cpu s": cpu, "prepare cpu s": 0.5}
    return {**times, "grown mb": grown, "losses": losses}


def test_ratios_are_of_pairs_and_their_median_is_held_against_the_target() -> None:
    ours = [run(12, 100, [1.0, 2.0]), run(9, 100, [1.0, 2.0]), run(24, 100, [1.0, 2.0])]
    theirs = [run(10, 200, [1.0, 2.00002]) for _ in range(3)]
    rows = step_rows(32, {"raylib, gradient cache": ours, "sentence-transformers, cached": theirs})
    assert rows[0][2:] == ["24.00 (12.00)", "1.20× (0.90 to 2.40), missed", "0.50", "100", "2e-05"]
    assert rows[1][2:] == ["20.00 (10.00)", "1×", "0.50", "200", "–"]


def test_other_losses_fail_the_run() -> None:
    near, far = ([run(1, 1, [value])] for value in (1.00005, 1.0002))
    peer = [run(1, 1, [1.0])]
    for ours, expected in ((near, True), (far, False)):
        assert same_losses({"sizes": {"32": {"raylib": ours, "sentence-transformers": peer}}}) is expected


def test_memory_is_that_of_the_largest_batch_over_that_of_the_smallest() -> None:
    ours, whole = "raylib, gradient cache", "raylib"
    sizes = {"32": {ours: [run(1, 100, [])], whole: [run(1, 100, [])]}, "64": {whole: [run(1, 190, [])]}}
    sizes["512"] = {ours: [run(1, 112, [])]}
    assert memory(sizes) == (
        "Memory: raylib, gradient cache: 1.12× from 32 to 512, missed; raylib: 1.90× from 32 to 64."
    )


def test_runs_are_shown_seed_by_seed(tmp_path: Path) -> None:
    lines: list[dict[str, float]] = [{"step": 0, "eval/StdlibCardsT2I/ndcg_at_5": 0.01}]
    lines += [{"step": step, "loss": float(step)} for step in range(1, 8)]
    lines.append({"step": 7, "eval/StdlibCardsT2I/ndcg_at_5": 0.5})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "finished.json").write_text(json.dumps({"steps": 7, "seconds": 12.4}))
    found = read_run(tmp_path)
    assert found == {"score": 0.5, "untrained": 0.01, "loss": 5.0, "seconds": 12}
    seeds = {
        str(seed): {"random": found, "b3": {**found, "score": score}, "quality": quality()}
        for seed, score in enumerate((0.6, 0.8))
    }
    rows = run_rows({"seeds": seeds})
    assert [row[1:3] for row in rows] == [
        ["0.010, 0.010", "0.010 (0.010 to 0.010)"],
        ["0.500, 0.500", "0.500 (0.500 to 0.500)"],
        ["0.600, 0.800", "0.700 (0.600 to 0.800)"],
    ]


def quality() -> dict[str, Any]:
    return {name: {"hardness": 0.5, "suspects": 2e-6} for name in ("random", "metis")}
