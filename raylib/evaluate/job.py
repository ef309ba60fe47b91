"""The evaluate job: plan → encode what is missing → search and score → report. Where it runs is the backend's affair.

One failing model or task never takes the others down: it is reported with its reason, in its run summary and in the
exit status. Encoding of the next models overlaps with scoring of the finished ones. Scoring is MTEB's, task by task,
wherever the backend has it done; every write of a result stays in this thread.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylib.errors import ModelError, UserError
from raylib.evaluate.backend import Backend, ScoreStage
from raylib.evaluate.config import EvaluateConfig
from raylib.evaluate.model_run import ModelRun, naming
from raylib.evaluate.progress import Reporter
from raylib.evaluate.results import RunSummary
from raylib.evaluate.score_task import Scored, ScoreUnit
from raylib.evaluate.task_data import LoadedTask, load_task
from raylib.models.protocol import Encoder, ModelSpec
from raylib.timeline import Timeline

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.results import TaskResult

    from raylib.models.bridge import SearchModel


@dataclass
class Outcome:
    """What a job did. task_results: model → MTEB's results. load_failures: task → why its data could not be had."""

    summaries: list[RunSummary]
    task_results: dict[str, list[TaskResult]]
    load_failures: dict[str, str]

    @property
    def ok(self) -> bool:
        """Every task that a model can do was scored, and nothing was left out beyond --allow-errors."""
        return not self.load_failures and all(s.status == "success" for s in self.summaries)


class EvaluateJob:
    """See the module. `prepare` and then `run` or `dry_run`, once each."""

    def __init__(
        self, config: EvaluateConfig, backend: Backend, reporter: Reporter, timeline: Timeline | None = None
    ) -> None:
        self.config, self.backend, self.reporter = config, backend, reporter
        self.timeline = timeline or Timeline()
        self.tasks: list[LoadedTask] = []
        self.load_failures: dict[str, str] = {}
        self.unmade: list[RunSummary] = []
        self._n_encoded = 0

    def prepare(self, tasks: Sequence[AbsTask]) -> list[ModelRun]:
        """Resolve every model and load every task. Raises UserError for a name or an option that cannot be right, and
        when no task is left; a model whose factory fails and a task whose data cannot be had are recorded and left
        out."""
        from raylib.tasks.local_data import is_official
        from raylib.tasks.selection import read_locally

        models = [model for spec in self.config.specs() if (model := self._resolve(spec)) is not None]
        if not models:
            return []
        for task in tasks:
            try:
                if self.config.data_root is not None:
                    read_locally(task, self.config.data_root)
                self.tasks.append(load_task(task, official=is_official(task), limit=self.config.limit))
            except UserError as error:
                self.load_failures[task.metadata.name] = str(error)
        if not self.tasks:
            raise UserError(f"no task could be loaded: {'; '.join(self.load_failures.values())}")
        for name, reason in self.load_failures.items():
            self.reporter.warn(f"✗ {name}: {reason}")
        backend, search = self.backend, self.backend.search_stage()
        runs = [
            ModelRun(
                model,
                self.config,
                backend.request_stage(),
                search,
                self.reporter,
                backend.exact_model,
                backend.find_limits,
                self.timeline,
            )
            for model in models
        ]
        for run in runs:
            for name, error in self.load_failures.items():
                run.summary.tasks_failed.append({"task_name": name, "error": error})
        return runs

    def _resolve(self, spec: ModelSpec) -> Encoder | SearchModel | None:
        from raylib.models.registry import resolve

        try:
            return resolve(spec)
        except ModelError as error:
            asked = list(self.config.benchmarks or self.config.tasks)
            self.unmade.append(RunSummary(spec.name, asked, config=self.config.as_dict(), error=str(error)))
            self.reporter.warn(f"✗ {naming(spec.name, str(error))}")
            return None

    def run(self, runs: Sequence[ModelRun]) -> Outcome:
        """Encode and score every model; writes results and summaries."""
        for summary in self.unmade:
            summary.write(self.config.output_folder)
        side_by_side = max(1, self.config.parallel_models or self.backend.parallel_models())
        requests = any(not task.sides for task in self.tasks)
        stage_with = functools.partial(self.backend.plan_stage, requests=requests)
        waiting = deque(runs)
        encoding: dict[Future[Any], ModelRun] = {}
        scoring: dict[Future[Any], tuple[ModelRun, ScoreUnit]] = {}
        with self._stages(runs) as (pool, scorer):
            while waiting or encoding or scoring:
                while waiting and len(encoding) < side_by_side:
                    run = waiting.popleft()
                    if run.plan(self.tasks):
                        encoding[pool.submit(run.encode, stage_with)] = run
                    else:
                        self._finish(run, scorer)
                for future in wait([*encoding, *scoring], return_when=FIRST_COMPLETED).done:
                    if future in scoring:
                        run, unit = scoring.pop(future)
                        if run.take(unit, future):
                            self._finish(run, scorer)
                    else:
                        scoring |= self._score(encoding.pop(future), future, scorer)
        results = {run.spec.asked: run.task_results for run in runs}
        return Outcome([*self.unmade, *(run.summary for run in runs)], results, self.load_failures)

    @contextmanager
    def _stages(self, runs: Sequence[ModelRun]) -> Iterator[tuple[ThreadPoolExecutor, ScoreStage]]:
        """The threads that encode stages run in, and the score stage. Both end when the block is left, however that
        happens: an interrupted encode stage stops after the batch it is at."""
        scorer = self.backend.score_stage()
        side_by_side = max(1, self.config.parallel_models or self.backend.parallel_models())
        try:
            with ThreadPoolExecutor(side_by_side, thread_name_prefix="encode") as pool:
                try:
                    yield pool, scorer
                except BaseException:
                    for run in runs:
                        run.stopping = True
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            scorer.close()
            for run in runs:
                run.close(self.backend.release)

    def _score(
        self, run: ModelRun, encoded: Future[None], scorer: ScoreStage
    ) -> dict[Future[Scored], tuple[ModelRun, ScoreUnit]]:
        """Hand out the tasks of a model whose contents are encoded. What is scored at once is written at once."""
        units = run.units(self.tasks) if run.encoded(encoded) else []
        running = {}
        self._n_encoded += 1
        alone = len(units) == 1
        while units:
            unit = units.pop(0)  # the last reference to a scored unit: what it read of its corpus goes with it
            unit.place = (self._n_encoded, -unit.task.cost)
            future = scorer.submit(unit, alone=alone)
            if future.done():
                run.take(unit, future)
            else:
                running[future] = (run, unit)
        if not running:
            self._finish(run, scorer)
        return running

    def _finish(self, run: ModelRun, scorer: ScoreStage) -> None:
        run.close(self.backend.release)
        scorer.release(run.fingerprint)
        run.finish()

    def dry_run(self, runs: Sequence[ModelRun]) -> list[dict[str, Any]]:
        """What `run` would encode: per model the distinct contents, how many of them are stored, and the tasks that the
        model cannot do. Writes nothing."""
        nothing = {"requested": 0, "contents": 0, "stored": 0, "to encode": 0, "skipped": {}}
        rows = [{"model": summary.model, **nothing, "error": summary.error} for summary in self.unmade]
        for run in runs:
            planned = run.plan(self.tasks)
            requested, distinct, stored = run.plan_counts() if planned else (0, 0, 0)
            rows.append(
                {
                    "model": run.spec.asked,
                    "requested": requested,
                    "contents": distinct,
                    "stored": stored,
                    "to encode": distinct - stored,
                    "skipped": {entry["task_name"]: entry["reason"] for entry in run.summary.tasks_skipped},
                    "error": run.summary.error,
                }
            )
        return rows
