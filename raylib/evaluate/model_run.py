"""One model on its way through the evaluate job: planned, encoded, scored, and a summary of all that at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from raylib.buckets import Repeats
from raylib.errors import BadContent, ModelError, RaylibError
from raylib.evaluate.auto_batch import LimitsFinder, auto_limits
from raylib.evaluate.batching import BatchLimits, Limits
from raylib.evaluate.config import EvaluateConfig
from raylib.evaluate.encode import Progress
from raylib.evaluate.errors_file import write_errors
from raylib.evaluate.exact_run import ExactModelMaker, ExactRunModel
from raylib.evaluate.groups import summary_groups
from raylib.evaluate.meta import model_meta
from raylib.evaluate.model import EncodeStage, StoreModel, SubsetKeys
from raylib.evaluate.plan import Plan
from raylib.evaluate.progress import Reporter, quality_line
from raylib.evaluate.results import RunSummary, result_folder, task_entry
from raylib.evaluate.score_task import Scored, ScoreUnit
from raylib.evaluate.search import SearchStage
from raylib.evaluate.task_data import LoadedTask
from raylib.evaluate.task_results import TaskResults
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf
from raylib.timeline import Stage, Timeline

if TYPE_CHECKING:
    from mteb.results import TaskResult

    from raylib.models.bridge import SearchModel


class ModelRun:
    """See the module. Steps: `plan`, `encode` (in any thread), `encoded`, `units`, `take` for each of them, `finish`. A
    step that fails says so in the summary and gives False; the steps after it are then left out, but for `finish`."""

    def __init__(
        self,
        model: Encoder | SearchModel,
        config: EvaluateConfig,
        request_stage: EncodeStage,
        search_stage: SearchStage,
        reporter: Reporter,
        make_exact: ExactModelMaker,
        find_limits: LimitsFinder = auto_limits,
        timeline: Timeline | None = None,
    ) -> None:
        self.model, self.spec, self.config, self.reporter = model, model.spec, config, reporter
        self.task_results: list[TaskResult] = []
        ran = config.as_dict() | self.spec.options()  # an adapter named as a model ran as its base with an adapter
        self.summary = RunSummary(
            self.spec.asked, list(config.benchmarks or config.tasks), config=ran, untrained=self.untrained
        )
        self.store_model: StoreModel | None = None
        self._exact = ExactRunModel(model, make_exact) if config.exact_mteb else None
        self._request_stage, self._search_stage = request_stage, search_stage
        self._find_limits, self._limits = find_limits, config.limits or BatchLimits()
        self._plan: Plan | None = None
        self._planned: dict[str, SubsetKeys] = {}
        self._timings: dict[str, float] = {}
        self._timeline = (timeline or Timeline()).of(self.spec.name)
        self._scoring: Stage | None = None
        self._repeats = Repeats()
        self._asked: list[str] = []
        self._waiting = 0
        self._score_start = 0.0
        self.stopping = False

    @property
    def untrained(self) -> bool:
        return "untrained" in self.spec.asked

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint if self._exact is None else self._exact.fingerprint

    def plan(self, tasks: Sequence[LoadedTask]) -> bool:
        """Name every content of every task that this model can do."""
        with self._timeline.stage("plan") as stage:
            planned = self._planned_tasks(tasks)
        self._timings["plan"] = stage.seconds
        return planned

    def _planned_tasks(self, tasks: Sequence[LoadedTask]) -> bool:
        self._asked = [loaded.name for loaded in tasks]
        try:
            self.summary.fingerprint = self.fingerprint
            self.meta = model_meta(self.model, self.config.experiment())
            self.summary.variant = self.meta.experiment_name or ""
            self._skip_what_it_cannot_read(tasks)
            if isinstance(self.model, Encoder) and self._exact is None:
                self._plan = Plan(self.model)
                for loaded in self._tasks(tasks):
                    self._planned[loaded.name] = loaded.plan(self._plan)
                self._shelf = Shelf(self.config.store_folder, self.model.fingerprint)
                self.store_model = self._store_model({})
            elif not self.config.search_options().exact:
                raise ModelError(
                    f"{self.spec.asked} searches by itself; leave out --index, --candidates, --token-pooling"
                )
        except Exception as error:
            return self._failed(error)
        return True

    def _store_model(self, planned: SubsetKeys) -> StoreModel:
        assert isinstance(self.model, Encoder)
        return StoreModel(
            self.model,
            self._shelf,
            self._request_stage,
            limits=self._limits,
            planned=planned,
            allow_bad=self.config.allow_errors > 0,
            experiment=self.config.experiment(),
            search_stage=self._search_stage,
            search_options=self.config.search_options(),
        )

    def _skip_what_it_cannot_read(self, tasks: Sequence[LoadedTask]) -> None:
        for loaded in tasks:
            reason = loaded.refusal(self.model, self.meta.modalities)
            if reason is not None:
                self.summary.tasks_skipped.append({"task_name": loaded.name, "reason": reason})
                self.reporter.say(f"– {self.spec.asked}  {loaded.name} skipped: {reason}")
        if len(self.summary.tasks_skipped) == len(tasks):
            raise ModelError(f"{self.spec.asked} can do none of the tasks")

    def _tasks(self, tasks: Sequence[LoadedTask]) -> list[LoadedTask]:
        skipped = {entry["task_name"] for entry in self.summary.tasks_skipped}
        return [loaded for loaded in tasks if loaded.name not in skipped]

    def plan_counts(self) -> tuple[int, int, int]:
        """(contents asked for, distinct ones, those of them that are stored)."""
        if self._plan is None or self.store_model is None:
            return 0, 0, 0
        self.store_model.shelf.refresh()
        keys = self._plan.keys()
        return self._plan.n_requested, len(keys), int(self.store_model.shelf.contains(keys).sum()) if keys else 0

    def encode(self, stage_with: Callable[[Progress], EncodeStage]) -> None:
        """Encode what is planned and not stored. May run in any thread; raises what went wrong."""
        if self._plan is None or self.store_model is None:
            return
        with self._timeline.stage("encode") as stage:
            try:
                self._encode_missing(self._plan, self.store_model, stage_with)
            finally:
                stage.take(self.store_model.report)

    def _encode_missing(self, plan: Plan, model: StoreModel, stage_with: Callable[[Progress], EncodeStage]) -> None:
        _, distinct, stored = self.plan_counts()
        self._timeline.reused("encode", stored)
        self.summary.contents = {"planned": distinct, "reused": stored, "encoded": 0, "failed": 0}
        if distinct == stored:
            self.reporter.say(f"{self.spec.asked}: all {distinct} contents are in the store")
            return
        note = f", {stored} of {distinct} are in the store" if stored else ""
        self.reporter.say(f"{self.spec.asked}: encoding {distinct - stored} contents{note}")
        if self.config.limits is None:
            self._limits = self._found_limits(plan, model)
        with self.reporter.stage(f"encode {self.spec.asked}", distinct - stored) as progress:
            model.stage = stage_with(self._until_stopped(progress))
            try:
                model.encode_missing(plan)
            finally:
                model.stage = self._request_stage

    def _found_limits(self, plan: Plan, model: StoreModel) -> Limits:
        """What --batch-size auto finds for the contents that are still to be encoded."""
        start = time.perf_counter()
        samples = plan.samples(model.shelf.stored(plan.keys()))
        model.shelf.describe(model.encoder.identity)
        model.limits = found = self._find_limits(model.encoder, samples, plan.sources, model.shelf)
        self._timings["find_batch"] = time.perf_counter() - start
        for fields, limit in found.items():
            bound = f"{limit.tokens} tokens" if limit.tokens else f"{limit.contents} contents"
            self.reporter.say(f"{self.spec.asked}: batches of {bound} for {' and '.join(fields)}")
        return found

    def _until_stopped(self, progress: Progress) -> Progress:
        """`progress`, which also ends the encode stage after `stopping` is set: no other thread can interrupt it."""

        def advance(n: int, bad: int = 0) -> None:
            progress(n, bad)
            if self.stopping:
                raise ModelError(f"{self.spec.asked}: interrupted")

        return advance

    def encoded(self, future: Future[None]) -> bool:
        """Take the outcome of `encode`: report its notes and the contents that could not be encoded."""
        error = future.exception()
        if error is not None:
            return self._failed(error)
        if self.store_model is None:
            return True
        report = self.store_model.report
        for note in report.notes:
            self.reporter.warn(note)
        self._repeats.others += report.repeated
        self._timings.update(startup=report.startup_seconds, encode=report.seconds, encode_cpu=report.cpu_seconds)
        bad = self._bad_contents()
        self.summary.contents = {**self.summary.contents, "encoded": report.encoded, "failed": len(bad)}
        if bad:
            shown = "\n".join(f"  {b.source} {b.item_id}: {b.reason}" for b in bad[:10])
            self.reporter.warn(f"{self.spec.asked}: {len(bad)} contents could not be encoded\n{shown}")
            self.store_model.allow_bad = len(bad) <= self.config.allow_errors
        write_errors(result_folder(self.config.output_folder, self.meta), bad)
        return True

    def _bad_contents(self) -> list[BadContent]:
        """Every item of the tasks that has no vector: a content that several items share is named for each."""
        found = self.store_model.bad if self.store_model is not None else {}
        named = []
        for sides in self._planned.values():
            for (task, split, subset, role), (ids, keys) in sides.items():
                for item_id, key in zip(ids, keys, strict=True):
                    if key in found:
                        source = f"{task}/{split}/{subset} {role}"
                        named.append(BadContent(key.hex(), source, item_id, found[key].reason))
        return named

    def units(self, tasks: Sequence[LoadedTask]) -> list[ScoreUnit]:
        """What must be scored of what this model can do, the longest task first; known results are taken at once."""
        self._score_start = time.perf_counter()
        self._scoring = self._timeline.add("score")
        units = []
        for loaded in self._tasks(tasks):
            try:
                self._results.check_mode(loaded)
                if not self._take_known(loaded):
                    units.append(self._unit(loaded))
            except Exception as error:
                self._task_failed(loaded, error)
        self._waiting = len(units)
        return sorted(units, key=lambda unit: -unit.task.cost)

    def _unit(self, loaded: LoadedTask) -> ScoreUnit:
        model: Any = self._exact or self.model
        if self.store_model is not None:
            model = self._store_model(self._planned[loaded.name])
            model.bad, model.allow_bad = dict(self.store_model.bad), self.store_model.allow_bad
        return ScoreUnit(model, loaded, self.config.contents, self.config.keep_rankings)

    def _take_known(self, loaded: LoadedTask) -> bool:
        known = None if self.config.overwrite else self._results.known(loaded)
        if known is None:
            return False
        self._report(loaded, *known, "known")
        return True

    def take(self, unit: ScoreUnit, future: Future[Scored]) -> bool:
        """Write and report what came of a unit. True when it was the last of this model."""
        try:
            scored = future.result()
            self._save(unit.task, scored)
        except Exception as error:
            self._task_failed(unit.task, error)
        self._waiting -= 1
        self._timings["score"] = time.perf_counter() - self._score_start
        if self._scoring is not None:
            self._scoring.seconds = self._timings["score"]
        return self._waiting == 0

    def _save(self, loaded: LoadedTask, scored: Scored) -> None:
        for note in scored.report.notes:
            self.reporter.warn(note)
        if self._scoring is not None:  # of contents that a task asked for while it was scored
            self._scoring.retries += scored.report.retries
        self._timings["score_cpu"] = self._timings.get("score_cpu", 0.0) + scored.cpu_seconds
        quality = self._results.save(loaded, scored)
        self._report(loaded, scored.result, quality, f"{scored.seconds:.1f} s")

    @property
    def _results(self) -> TaskResults:
        complete = self.store_model is None or not self.store_model.bad
        return TaskResults(
            self.config, self.model, self.fingerprint, self.meta, self._planned, complete, self.untrained
        )

    def _report(self, loaded: LoadedTask, result: TaskResult, quality: Mapping[str, Any], took: str) -> None:
        self.task_results.append(result)
        self.summary.task_results.append(task_entry(result))
        self.summary.official = self.summary.official and loaded.official
        if quality:
            self.summary.search[loaded.name] = quality
        metric = loaded.task.metadata.main_score
        told = f"{metric} {result.get_score():.4f}  ({took}{quality_line(quality)})"
        self.reporter.say(f"✓ {self.spec.asked}  {loaded.name}  {told}")

    def _task_failed(self, loaded: LoadedTask, error: Exception) -> None:
        text = str(error) if isinstance(error, RaylibError) else f"{type(error).__name__}: {error}"
        self.summary.tasks_failed.append({"task_name": loaded.name, "error": text})
        self.reporter.warn(f"✗ {self.spec.asked}  {loaded.name}: {text}")

    def close(self, release: Callable[[EncodeStage], None]) -> None:
        """Give back what requests in this process were answered with."""
        if self.store_model is not None:
            release(self._request_stage)
        if self._exact is not None:
            self._exact.close()

    def finish(self) -> None:
        """Write the run summary. Results come in the order in which tasks were asked for, whatever was done first."""
        asked = {name: at for at, name in enumerate(self._asked)}
        self.task_results.sort(key=lambda result: asked[result.task_name])
        self.summary.task_results.sort(key=lambda entry: asked[entry["task_name"]])
        self.summary.tasks_failed.sort(key=lambda entry: asked.get(entry["task_name"], -1))
        self.summary.timings = {name: round(seconds, 3) for name, seconds in self._timings.items()}
        self.summary.timeline = self._timeline.as_dict()
        if (told := self._timeline.line()) and not self.summary.error:
            self.reporter.say(f"{self.spec.name}: {told}")
        self.summary.groups = summary_groups({result.task_name: result.get_score() for result in self.task_results})
        self.summary.repeated_requests = self._repeats.count
        for note in self._repeats.told():
            self.reporter.warn(f"{self.spec.asked}: {note}")
        path = self.summary.write(self.config.output_folder)
        if self.summary.status != "success":
            self.reporter.warn(f"✗ {self.spec.asked}: {self.summary.status}; see {path}")

    def _failed(self, error: BaseException) -> bool:
        known = isinstance(error, RaylibError)
        self.summary.error = str(error) if known else f"{type(error).__name__}: {error}"
        self.reporter.warn(f"✗ {naming(self.spec.asked, self.summary.error)}")
        return False


def naming(model: str, error: str) -> str:
    """The error with the model's name before it, once."""
    return error if error.startswith(model) else f"{model}: {error}"
