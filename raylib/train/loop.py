"""The training loop, on each of the processes that train together: window after window of batches, one step of the
optimizer each, with records, checkpoints and evaluations as often as asked."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from raylib.errors import ModelError
from raylib.train.feed import ahead
from raylib.train.learner import Learner
from raylib.train.objective import Criterion
from raylib.train.optimizers import lr_factor, make_optimizer, set_lr
from raylib.train.options import OptimizerName, Schedule
from raylib.train.schedule import Window
from raylib.train.step import Batch, Batches, BatchStep
from raylib.train.team import Team

_SHOWN = 20


@dataclass(frozen=True)
class LoopSettings:
    """lr: the highest. warmup: steps. max_norm: of the gradient of all weights together; 0 for no clipping. Every so
    many steps: log_every, save_every (None: at the end only), eval_every."""

    lr: float
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.01
    schedule: Schedule = "linear"
    warmup: int = 0
    max_norm: float = 1.0
    log_every: int = 10
    save_every: int | None = None
    eval_every: int | None = None


class Watcher(Protocol):
    """Told by the first process only."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def save(self, step: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None: ...

    def scored(self, step: int, values: Mapping[str, float]) -> None:
        """values: by eval/TASK/METRIC, and their mean."""
        ...


@dataclass
class _Since:
    """What was done since the last line was logged."""

    loss: float = 0.0
    steps: int = 0
    examples: int = 0
    tokens: float = 0.0
    start: float = field(default_factory=time.perf_counter)


class Loop:
    """`run`, once. evaluate: called by every process, with the step; gives scores by name."""

    def __init__(
        self,
        learner: Learner,
        criterion: Criterion,
        batches: Batches,
        step: BatchStep,
        settings: LoopSettings,
        watcher: Watcher,
        evaluate: Callable[[int], Mapping[str, float]] | None = None,
    ) -> None:
        self.learner, self.criterion, self.batches, self.batch_step = learner, criterion, batches, step
        self.settings, self.watcher, self.evaluate = settings, watcher, evaluate
        self.team: Team = batches.team
        self.shards = learner.shards
        criterion.to(learner.encoder.device)
        learns = [(name, p) for name, p in criterion.named_parameters() if p.requires_grad]
        self.named = [*learner.parameters(), *learns]
        self.parameters = [parameter for _, parameter in self.named]
        self.optimizer = make_optimizer(
            settings.optimizer, self.named, lr=settings.lr, weight_decay=settings.weight_decay
        )
        scaled = learner.precision == "fp16" and learner.encoder.device.startswith("cuda")
        self.scaler = torch.amp.GradScaler(enabled=scaled)
        self.done = 0
        self.scored_at = -1
        """The step whose weights were evaluated last."""
        self._since = _Since()

    # State.

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs besides the settings. What is random depends on the seed and the step alone.
        Where weights are spread every process calls it, and only the first one gets it."""
        shards, optimizer = self.shards, self.optimizer
        return {
            "step": self.done,
            "weights": self.learner.state(),
            "criterion": {name: value.cpu() for name, value in self.criterion.state_dict().items()},
            "optimizer": optimizer.state_dict() if shards is None else shards.optimizer_state(optimizer),
            "scaler": self.scaler.state_dict(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state(state["weights"])
        self.criterion.load_state_dict(state["criterion"])
        optimizer = state["optimizer"]
        if self.shards is not None:
            optimizer = self.shards.own_optimizer_state(optimizer, self.optimizer)
        self.optimizer.load_state_dict(optimizer)
        self.scaler.load_state_dict(state["scaler"])
        self.done = int(state["step"])

    # Running.

    def run(self) -> None:
        """To the last step. Raises ModelError for a loss or gradient that is not finite, before it changes a weight."""
        schedule = self.batches.schedule
        if self.done == 0 or self._due(self.settings.eval_every):
            self._evaluate()  # as they are before the first step, or where a run was killed before it came to that
        self.learner.train()
        self._since = _Since()
        for window, batches in ahead(self.batches.of, schedule.windows(self.done)):
            loss = self._window(window, batches)
            self.done = window.step
            self._watch(window, batches, loss)
            judged = self._due(self.settings.eval_every)
            if judged or self._due(self.settings.save_every):  # what is judged is kept, for it may be the best
                self._save(window)
            if judged:
                self._evaluate()

    def _due(self, every: int | None) -> bool:
        """At the last step in any case."""
        last = self.done == self.batches.schedule.steps
        return last or (every is not None and self.done % every == 0)

    def _window(self, window: Window, batches: list[Batch]) -> float:
        """One step of the optimizer; the mean loss of its batches."""
        self.optimizer.zero_grad(set_to_none=True)
        share = 1 / len(batches)
        own = 0.0
        for position, batch in zip(window.batches, batches, strict=True):
            own += share * self.batch_step(batch, window.step, position, self.scaler.get_scale() * share)
        loss = float(self.team.sum(torch.tensor(own, dtype=torch.float64)))
        if not math.isfinite(loss):
            raise self._not_finite("loss", loss, window, batches)
        (self.shards or self.team).sum_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        self.norm = self._clip(self.settings.max_norm or math.inf)
        if not math.isfinite(self.norm) and not self.scaler.is_enabled():
            raise self._not_finite("gradient", self.norm, window, batches)
        settings, total = self.settings, self.batches.schedule.steps
        self.lr = settings.lr * lr_factor(window.step - 1, total, settings.warmup, settings.schedule)
        set_lr(self.optimizer, self.lr)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def _clip(self, limit: float) -> float:
        """The norm of the gradient of all weights before it."""
        if self.shards is not None:
            return self.shards.clip(self.parameters, limit)
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))

    def _not_finite(self, what: str, value: float, window: Window, batches: list[Batch]) -> ModelError:
        ids = self.batches.examples.ids
        named = [ids[example] for batch in batches for example in batch.examples.tolist()]
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        return ModelError(
            f"the {what} is {value} at step {window.step}, of the examples {', '.join(named[:_SHOWN])}{more}. It has "
            "changed no weight, and the last checkpoint is kept. Try a lower --lr, a longer --warmup or --precision "
            "bf16, and look at these examples"
        )

    def _watch(self, window: Window, batches: list[Batch], loss: float) -> None:
        since = self._since
        since.loss += loss
        since.steps += 1
        since.examples += sum(len(batch.layout) for batch in batches)
        since.tokens += sum(self._tokens(batch) for batch in batches)
        if not (self._due(self.settings.log_every) or self.done == 1):
            return
        tokens = float(self.team.sum(torch.tensor(since.tokens, dtype=torch.float64)))
        seconds = max(1e-9, time.perf_counter() - since.start)
        values = {
            "loss": since.loss / since.steps,
            "lr": self.lr,
            "grad_norm": self.norm,
            "epoch": window.epoch + (window.batches[-1] + 1) / len(self.batches.schedule.plan_of(window.epoch)),
            "examples_per_second": since.examples / seconds,
            "tokens_per_second": tokens / seconds,
            "memory_gb": peak_memory(self.learner.encoder.device) / 1e9,
        }
        if self.criterion.log_scale.requires_grad:
            values["temperature"] = math.exp(-self.criterion.log_scale.item())
        if self.team.rank == 0:
            self.watcher.log(self.done, values)
        self._since = _Since()

    def _tokens(self, batch: Batch) -> float:
        """Of this process's part."""
        return float(sum(self.learner.tokens(piece.tensors) for pieces in batch.pieces.values() for piece in pieces))

    def _save(self, window: Window) -> None:
        state = self.state() if self.team.rank == 0 or self.shards is not None else {}
        if self.team.rank == 0:
            facts = {"epoch": window.epoch, "position": window.batches[-1] + 1}
            self.watcher.save(self.done, state, facts)
        self.team.wait()

    def _evaluate(self) -> None:
        if self.evaluate is None or self.scored_at == self.done:
            return
        self.scored_at = self.done
        self.learner.judge()
        found = self.evaluate(self.done)
        self.learner.train()
        if self.team.rank == 0:
            self.watcher.scored(self.done, found)
        self._since.start = time.perf_counter()  # an evaluation is not part of the speed of training


def peak_memory(device: str) -> int:
    """Bytes: the most that was allocated on the GPU, or that this process has held."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(torch.device(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
