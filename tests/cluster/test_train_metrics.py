"""Steps of training as metrics, by hand. Starts no Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raylib.cluster import metrics
from raylib.cluster.train import Counted


class Kept:
    def __init__(self, name: str, into: dict[str, float]) -> None:
        self.name, self.into = name, into

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert tags["model"] == "some/model" and tags["stage"] == "train"
        self.into[self.name] = self.into.get(self.name, 0.0) + value


@pytest.fixture
def told(monkeypatch):
    found: dict[str, float] = {}
    monkeypatch.setattr(metrics, "_metric", lambda name: Kept(name, found))
    return found


def test_examples_of_steps_and_processes_that_were_started_again(told):
    """Five steps of 4 examples a batch: two batches each, but for the last of an epoch."""
    windows = [SimpleNamespace(batches=range(n)) for n in (2, 2, 1, 2, 1)]
    schedule: Any = SimpleNamespace(plan_of=lambda epoch: np.zeros((3, 4)), windows=lambda done: windows[done:])
    assignment: Any = SimpleNamespace(schedule=schedule, config=SimpleNamespace(model=["some/model"]))
    counted = Counted(assignment, processes=2)

    counted.begin(None)
    counted.log((0, {}))
    counted.log((1, {"examples_per_second": 4.0, "tokens_per_second": 40.0}))
    counted.log((3, {"examples_per_second": 6.0, "tokens_per_second": 30.0}))
    assert counted.retries == 0
    assert told == {"raylib_contents": 8 + 12, "raylib_tokens": 80 + 60, "raylib_busy_seconds": 2 * (2 + 2)}

    counted.begin(None)  # goes on from the checkpoint of step 2
    counted.log((2, {}))
    counted.log((5, {"examples_per_second": 8.0, "tokens_per_second": 8.0}))
    assert counted.retries == 1 and told["raylib_retries"] == 1
    assert told["raylib_contents"] == 20 + 4 * (1 + 2 + 1)
