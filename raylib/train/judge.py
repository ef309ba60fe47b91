"""Scores of the weights as they are, while they train: every process encodes its share, the first one scores.

Where the weights are spread over the processes, the first one plans, reads and scores everything, and the others take
their share of each of its forwards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raylib import storage
from raylib.errors import UserError
from raylib.evaluate.encode import encode_locally
from raylib.evaluate.model import StoreModel, SubsetKeys
from raylib.evaluate.plan import Plan
from raylib.evaluate.score_task import Scorer, ScoreUnit
from raylib.evaluate.task_data import LoadedTask, load_task
from raylib.models.torch_encoder import TorchEncoder
from raylib.store.embeddings import Shelf
from raylib.train.team import Team

if TYPE_CHECKING:
    from mteb.results import TaskResult

    from raylib.train.sharding import Shards

MEAN = "eval/mean"
"""The mean over tasks of what each is judged by: what the best step is the best of."""


def load_tasks(encoder: TorchEncoder, benchmarks: Sequence[str], tasks: Sequence[str]) -> list[LoadedTask]:
    """The tasks of --eval-benchmarks and --eval-tasks that this model can do, with their data.

    Raises UserError for a name that is not known, for data that cannot be had, and where the model can do none.
    """
    from raylib.tasks.local_data import is_official
    from raylib.tasks.selection import select_tasks

    modalities = sorted(encoder.modalities)
    found = [load_task(t, official=is_official(t)) for t in select_tasks(list(benchmarks), list(tasks))]
    reasons = {task.name: task.refusal(encoder, modalities) for task in found}
    fitting = [task for task in found if reasons[task.name] is None]
    if found and not fitting:
        raise UserError(f"the model can do none of the evaluation's tasks: {next(iter(reasons.values()))}")
    return fitting


@dataclass
class Judge:
    """Called by every process, with the step. run: names the run, in the key of every vector. folder: the run's, which
    all processes see. contents: of one forward."""

    encoder: TorchEncoder
    team: Team
    tasks: Sequence[LoadedTask]
    run: str
    folder: str
    contents: int = 32
    shards: Shards | None = None

    def __call__(self, step: int) -> dict[str, float]:
        """By eval/TASK/METRIC, nDCG@5 for retrieval and MTEB's main score for other kinds, and their mean as MEAN; {}
        but on the first process. MTEB's result files are in evaluations/step-N."""
        self.encoder.name_weights(f"{self.run}, step {step}")
        shelf = Shelf(storage.join(self.folder, "evaluations", "store"), self.encoder.fingerprint)
        try:
            if self.shards is None:
                planned = self._encode(shelf, self.team.rank, self.team.size)
                self.team.wait()
                return self._scores(shelf, planned, step) if self.team.rank == 0 else {}
            return self._scores_led(self.shards, shelf, step)
        finally:
            if self.team.rank == 0:
                storage.remove_folder(shelf.folder)
            self.encoder.name_weights(None)

    def _scores_led(self, shards: Shards, shelf: Shelf, step: int) -> dict[str, float]:
        from raylib.train.lockstep import follow, leading

        if self.team.rank > 0:
            follow(shards)
            return {}
        with leading(shards):
            return self._scores(shelf, self._encode(shelf, 0, 1), step)

    def _encode(self, shelf: Shelf, number: int, of: int) -> dict[str, SubsetKeys]:
        """One share of so many. Bad contents are left for the first process, which names them."""
        plan = Plan(self.encoder)
        planned = {task.name: task.plan(plan) for task in self.tasks}
        shelf.describe(self.encoder.identity)
        own = plan.batches(self.contents)[number::of]
        encode_locally(self.encoder, own, plan.sources, shelf)
        return planned

    def _scores(self, shelf: Shelf, planned: dict[str, SubsetKeys], step: int) -> dict[str, float]:
        score = Scorer()
        found = {}
        for task in self.tasks:
            model = StoreModel(self.encoder, shelf, encode_locally, limits=self.contents, planned=planned[task.name])
            result = score(ScoreUnit(model, task, self.contents)).result
            metric = "ndcg_at_5" if task.ranks else str(task.task.metadata.main_score)
            found[f"eval/{task.name}/{metric}"] = _mean_of(result, metric)
            file = storage.join(self.folder, "evaluations", f"step-{step:08d}", f"{task.name}.json")
            storage.make_folder(file.rpartition("/")[0])
            storage.write_text(file, json.dumps(result.to_dict(), indent=1, default=str) + "\n")
        return {**found, MEAN: sum(found.values()) / len(found)}


def _mean_of(result: TaskResult, metric: str) -> float:
    """Over the subsets of all splits, as MTEB's main score is."""
    values = [float(subset[metric]) for split in result.scores.values() for subset in split]
    return sum(values) / len(values)
