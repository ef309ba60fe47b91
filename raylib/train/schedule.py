"""Which examples are trained on at which step: the batches of a plan, or of one made by chance, epoch after epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from raylib.errors import UserError
from raylib.examples.batch_plan import NO_EXAMPLE, BatchPlan
from raylib.examples.examples import Examples
from raylib.mine.plans import random_batches


@dataclass(frozen=True)
class Window:
    """What one step of the optimizer is made of. step: from 1. epoch: from 0. batches: positions in the epoch's plan,
    as many as --grad-accum says, fewer at the end of an epoch: no gradient is carried into the next one."""

    step: int
    epoch: int
    batches: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """plans: int64 [batches, batch], one for each epoch, or one for all of them. accumulate: batches of a window.
    steps: of the optimizer, in all. hard_negatives: [batches, batch, h] beside a plan that has them."""

    plans: list[np.ndarray]
    epochs: int
    accumulate: int
    steps: int
    hard_negatives: np.ndarray | None = None

    def plan_of(self, epoch: int) -> np.ndarray:
        return self.plans[epoch if len(self.plans) > 1 else 0]

    def windows(self, after: int = 0) -> Iterator[Window]:
        """Those of the steps after `after`."""
        step = 0
        for epoch in range(self.epochs):
            if step == self.steps:  # at the end of an epoch; there may be no plan of the next one
                return
            there = len(self.plan_of(epoch))
            for first in range(0, there, self.accumulate):
                if step == self.steps:
                    return
                step += 1
                if step > after:
                    yield Window(step, epoch, tuple(range(first, min(first + self.accumulate, there))))

    def examples(self, window: Window, position: int) -> np.ndarray:
        """int64: the examples of one batch, without empty places."""
        row = self.plan_of(window.epoch)[position]
        return row[row != NO_EXAMPLE]

    def negative_examples(self, position: int, window: Window) -> list[np.ndarray]:
        """For each example of a batch, the examples whose positives are its hard negatives."""
        row = self.plan_of(window.epoch)[position]
        present = np.flatnonzero(row != NO_EXAMPLE)
        if self.hard_negatives is None:
            return [np.zeros(0, dtype=np.int64) for _ in present]
        return [found[found != NO_EXAMPLE] for found in self.hard_negatives[position][present]]


def follow(plan: BatchPlan, *, epochs: int, accumulate: int, max_steps: int | None) -> Schedule:
    """A plan to the id, the same in every epoch."""
    return _schedule([plan.batches], epochs, accumulate, max_steps, plan.hard_negatives)


def by_chance(
    examples: Examples, *, batch_size: int, seed: int, epochs: int, accumulate: int, max_steps: int | None
) -> Schedule:
    """A plan by chance for each epoch: every example once, a batch of one data set, the remainder in a short batch.

    Raises UserError where a data set has fewer examples than a batch.
    """
    needed = epochs
    if max_steps is not None:
        steps = math.ceil(math.ceil(len(examples) / batch_size) / accumulate)
        needed = min(epochs, math.ceil(max_steps / steps))
    names = np.array(examples.datasets, dtype=object)
    there = np.bincount(examples.dataset, minlength=len(names))
    small = [f"{name} ({n})" for name, n in zip(names, there.tolist(), strict=True) if 0 < n < batch_size]
    if small:
        raise UserError(
            f"--batch-size is {batch_size}, and a batch is of one data set; these have fewer examples: "
            f"{', '.join(small[:10])}. Lower it, or join data sets with --group-by"
        )
    plans = [
        random_batches(len(examples), batch_size=batch_size, seed=seed + epoch, groups=examples.dataset)
        for epoch in range(needed)
    ]
    return _schedule(plans, epochs, accumulate, max_steps, None)


def _schedule(
    plans: list[np.ndarray],
    epochs: int,
    accumulate: int,
    max_steps: int | None,
    hard_negatives: np.ndarray | None,
) -> Schedule:
    each = [-(-len(plan) // accumulate) for plan in plans]
    total = sum(each) if len(plans) > 1 else each[0] * epochs
    steps = total if max_steps is None else min(total, max_steps)
    return Schedule(plans, epochs, accumulate, steps, hard_negatives)
