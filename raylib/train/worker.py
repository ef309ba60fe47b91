"""One process of a training run: it makes all that it needs, goes on from the newest checkpoint, and runs the loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylib import storage
from raylib.buckets import Repeats
from raylib.evaluate.quiet import quiet_libraries
from raylib.train.assignment import Assignment, Trained
from raylib.train.checkpoint_files import MODEL
from raylib.train.checkpoints import Checkpoints
from raylib.train.judge import MEAN
from raylib.train.learner import Learner
from raylib.train.loop import Watcher
from raylib.train.optimizers import check_optimizer
from raylib.train.records import Records, line
from raylib.train.run_folder import RunFolder
from raylib.train.setup import Tell, learner_of, loop_of
from raylib.train.team import Team
from raylib.train.trackers import open_trackers

if TYPE_CHECKING:
    import torch

Logged = Callable[[int, Mapping[str, float]], None]


def work(assignment: Assignment, team: Team, say: Tell, warn: Tell, logged: Logged | None = None) -> Trained:
    """Called by every process of a team; the first one says, writes, and knows how it ended. logged: told of the
    values of a step as the records have them, and of none at the step that it begins after. Raises UserError,
    ModelError, StoreError and BadContentsError."""
    start, repeats = time.perf_counter(), Repeats()
    quiet_libraries()
    config, folder = assignment.config, RunFolder(assignment.config.output_folder)
    folder.require(assignment.run)
    check_optimizer(config.optimizer)
    first = team.rank == 0
    checkpoints = Checkpoints(folder.checkpoints, config.keep_last, config.keep_best, warn if first else _to_nobody)
    learner = learner_of(config, team)
    writer = _Writer(assignment, learner, checkpoints, folder, say, logged) if first else None
    watcher: Watcher = writer or _Silent()
    loop = loop_of(assignment, learner, team, watcher, say if first else _to_nobody)
    found = team.told(checkpoints.newest() if first else None)
    if found is not None:
        loop.resume(checkpoints.load(found))
        if team.told(checkpoints.scored(found.step)):
            loop.scored_at = found.step
    resumed = loop.done
    if writer is None:
        loop.run()
        return Trained(loop.done, resumed, 0.0, folder.model)
    writer.begin(resumed)
    try:
        loop.run()
    finally:
        writer.close()
    folder.write_model(checkpoints.model_folder(checkpoints.all()[-1]))
    for note in repeats.told():
        warn(note)
    return writer.ended(loop.done, resumed, time.perf_counter() - start)


class _Writer:
    """What the first process is told goes into the run's folder, and onto the screen."""

    def __init__(
        self,
        assignment: Assignment,
        learner: Learner,
        checkpoints: Checkpoints,
        folder: RunFolder,
        say: Tell,
        logged: Logged | None = None,
    ) -> None:
        self.assignment, self.learner, self.checkpoints, self.folder = assignment, learner, checkpoints, folder
        self.say, self.logged, self.total = say, logged, assignment.schedule.steps
        self.scores: dict[str, float] = {}

    def begin(self, resumed: int) -> None:
        config, schedule = self.assignment.config, self.assignment.schedule
        if resumed:
            self.say(f"going on from step {resumed} of {self.total}")
        if self.logged is not None:
            self.logged(resumed, {})
        self.records = Records(
            self.folder.path,
            resumed,
            open_trackers(config.track, self.folder.path, config.as_dict(), resumed=resumed > 0),
            steps_per_epoch=math.ceil(len(schedule.plan_of(0)) / schedule.accumulate),
            mode="hf" if config.hub_name is not None else "triples",
            tell=self.say,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.records.log(step, values)
        self.say(line(step, self.total, values))
        if self.logged is not None:
            self.logged(step, values)

    def save(self, step: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self.checkpoints.save(step, lambda place: self._write_model(place, step, state["weights"]), state, facts)
        self.records.flush()

    def _write_model(self, place: Path, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        self.learner.save(str(place), step, weights)
        if self.assignment.config.save_legacy:
            self.folder.write_legacy(step, place)

    def scored(self, step: int, values: Mapping[str, float]) -> None:
        self.scores = dict(values)
        self.records.log(step, values)
        self.records.flush()
        if step:  # weights that have not learned anything are no checkpoint
            self.checkpoints.score(step, values[MEAN])
        self.say(line(step, self.total, {name: value for name, value in values.items() if name != MEAN}))

    def close(self) -> None:
        self.records.close()

    def ended(self, steps: int, resumed: int, seconds: float) -> Trained:
        best = self.checkpoints.best()
        models = {checkpoint.step: storage.join(checkpoint.folder, MODEL) for checkpoint in self.checkpoints.all()}
        folder = None if best is None else models.get(best[0])
        return Trained(steps, resumed, seconds, self.folder.model, self.scores, best, folder)


class _Silent:
    """The other processes."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def save(self, step: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None: ...

    def scored(self, step: int, values: Mapping[str, float]) -> None: ...


def _to_nobody(_: str) -> None: ...
