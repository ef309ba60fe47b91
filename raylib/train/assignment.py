"""What every process of a training run is told, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

from raylib.examples.examples import Examples
from raylib.train.config import TrainConfig
from raylib.train.schedule import Schedule


@dataclass(frozen=True)
class Assignment:
    """run: names the run, 64 hex digits, by its data, model and settings."""

    config: TrainConfig
    examples: Examples
    schedule: Schedule
    run: str


@dataclass(frozen=True)
class Trained:
    """steps: of the optimizer, in all. resumed: the step that was gone on from, 0 for none. model: the folder of the
    last weights. scores: of the last evaluation, by eval/TASK/METRIC. best: the step of the best evaluation and its
    score, and best_model its folder; None without evaluations. retries: how often processes that died were
    started again."""

    steps: int
    resumed: int
    seconds: float
    model: str
    scores: dict[str, float] = field(default_factory=dict)
    best: tuple[int, float] | None = None
    best_model: str | None = None
    retries: int = 0
