"""One probe as a task, and where tasks are run: here one after another, on a cluster side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from raylib.probe.data import ProbeData
from raylib.probe.recipe import Recipe
from raylib.probe.results import Classifier, ProbeResult, SplitFacts, probe_name
from raylib.probe.splits import Split
from raylib.probe.train import run_probe
from raylib.store.representations import Representation


@dataclass(frozen=True)
class Common:
    """What all probes of a run share. depth: blocks of the decoder that the states are of, where that is known."""

    data: ProbeData
    split: Split
    facts: SplitFacts
    recipe: Recipe
    model_name: str
    target: str
    fingerprint: str
    depth: int | None = None


@dataclass(frozen=True)
class ProbeTask:
    """One probe to train."""

    representation: Representation
    classifier: Classifier

    @property
    def name(self) -> str:
        return probe_name(self.representation, self.classifier)

    def run(self, states: np.ndarray, common: Common) -> tuple[ProbeResult, dict[str, Any]]:
        """states: float32 [rows of common.data, width]. Gives the result and what probe_model.pt holds; the same on
        every machine, whatever runs beside it."""
        return run_probe(
            states,
            common.data,
            common.split,
            common.facts,
            self.representation,
            self.classifier,
            common.recipe,
            common.model_name,
            common.target,
            common.fingerprint,
        )


Matrix = Callable[[Representation], np.ndarray]
"""Representation → float32 [rows of the data, width], read when it is asked for."""


class Place(Protocol):
    """Where probes are trained."""

    def train(
        self, tasks: Sequence[ProbeTask], common: Common, matrix: Matrix
    ) -> Iterator[tuple[ProbeTask, ProbeResult, dict[str, Any]]]:
        """Every task with what it gave, as they come."""
        ...


class ThisProcess:
    """A `Place`."""

    def train(
        self, tasks: Sequence[ProbeTask], common: Common, matrix: Matrix
    ) -> Iterator[tuple[ProbeTask, ProbeResult, dict[str, Any]]]:
        states: dict[Representation, np.ndarray] = {}
        for task in tasks:
            if task.representation not in states:
                states = {task.representation: matrix(task.representation)}
            yield task, *task.run(states[task.representation], common)
