"""One model on its way through the evaluate job: planned, encoded, scored, and a summary of all that at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from raylib import storage
from raylib.errors import BadContent, ModelError, RaylibError
from raylib.evaluate.config import EvaluateConfig
from raylib.evaluate.encode import Progress
from raylib.evaluate.meta import model_meta
from raylib.evaluate.model import EncodeStage, StoreModel, SubsetKeys
from raylib.evaluate.plan import Plan
from raylib.evaluate.progress import Reporter
from raylib.evaluate.results import RunSummary, result_folder, save_task_result, stored_result, task_entry
from raylib.evaluate.task_data import LoadedTask
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf

if TYPE_CHECKING:
    from mteb.results import TaskResult

    from raylib.models.bridge import SearchModel


class ModelRun:
    """See the module. Steps: `plan`, `encode` (in any thread), `encoded`, `score`, `finish`. A step that fails says so
    in the summary and gives False; the steps after it are then left out, but for `finish`."""

    def __init__(
        self, model: Encoder | SearchModel, config: EvaluateConfig, request_stage: EncodeStage, reporter: Reporter
    ) -> None:
        self.model, self.spec, self.config, self.reporter = model, model.spec, config, reporter
        self.task_results: list[TaskResult] = []
        self.summary = RunSummary(
            self.spec.name, list(config.benchmarks or config.tasks), config=config.as_dict(), untrained=self.untrained
        )
        self.store_model: StoreModel | None = None
        self._request_stage = request_stage
        self._plan: Plan | None = None
        self._planned: dict[str, SubsetKeys] = {}
        self._timings: dict[str, float] = {}

    @property
    def untrained(self) -> bool:
        return "untrained" in self.spec.name

    def plan(self, tasks: Sequence[LoadedTask]) -> bool:
        """Name every content of every task that this model can do."""
        start = time.perf_counter()
        try:
            self.summary.fingerprint = self.model.fingerprint
            experiment = self.config.experiment()
            self.meta = model_meta(self.model, experiment)
            self.summary.variant = self.meta.experiment_name or ""
            self._skip_what_it_cannot_read(tasks)
            if isinstance(self.model, Encoder):
                self._plan = Plan(self.model)
                for loaded in self._tasks(tasks):
                    self._planned[loaded.name] = loaded.plan(self._plan)
                self.store_model = StoreModel(
                    self.model,
                    Shelf(self.config.store_folder, self.model.fingerprint),
                    self._request_stage,
                    batch_size=self.config.batch_size,
                    planned={where: side for sides in self._planned.values() for where, side in sides.items()},
                    allow_bad=self.config.allow_errors > 0,
                    experiment=experiment,
                )
        except Exception as error:
            return self._failed(error)
        self._timings["plan"] = time.perf_counter() - start
        return True

    def _skip_what_it_cannot_read(self, tasks: Sequence[LoadedTask]) -> None:
        for loaded in tasks:
            reason = loaded.refusal(self.model, self.meta.modalities)
            if reason is not None:
                self.summary.tasks_skipped.append({"task_name": loaded.name, "reason": reason})
                self.reporter.say(f"– {self.spec.name}  {loaded.name} skipped: {reason}")
        if len(self.summary.tasks_skipped) == len(tasks):
            raise ModelError(f"{self.spec.name} can do none of the tasks")

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
        _, distinct, stored = self.plan_counts()
        self.summary.contents = {"planned": distinct, "reused": stored, "encoded": 0, "failed": 0}
        if distinct == stored:
            self.reporter.say(f"{self.spec.name}: all {distinct} contents are in the store")
            return
        note = f", {stored} of {distinct} are in the store" if stored else ""
        self.reporter.say(f"{self.spec.name}: encoding {distinct - stored} contents{note}")
        with self.reporter.stage(f"encode {self.spec.name}", distinct - stored) as progress:
            self.store_model.stage = stage_with(progress)
            try:
                self.store_model.encode_missing(self._plan)
            finally:
                self.store_model.stage = self._request_stage

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
        self._timings.update(startup=report.startup_seconds, encode=report.seconds, encode_cpu=report.cpu_seconds)
        bad = self._bad_contents()
        self.summary.contents = {**self.summary.contents, "encoded": report.encoded, "failed": len(bad)}
        if bad:
            shown = "\n".join(f"  {b.source} {b.item_id}: {b.reason}" for b in bad[:10])
            self.reporter.warn(f"{self.spec.name}: {len(bad)} contents could not be encoded\n{shown}")
            self.store_model.allow_bad = len(bad) <= self.config.allow_errors
        self._write_errors(bad)
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

    def _write_errors(self, bad: list[BadContent]) -> None:
        """errors.parquet beside the results; one of an earlier run that no longer holds goes."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = storage.join(result_folder(self.config.output_folder, self.meta), "errors.parquet")
        if bad:
            columns = {name: [getattr(b, name) for b in bad] for name in ("key", "source", "item_id", "reason")}
            with storage.atomic_write(path) as stream:
                pq.write_table(pa.table(columns), stream)
        else:
            storage.remove(path)

    def score(self, tasks: Sequence[LoadedTask]) -> None:
        """Run MTEB over every task this model can do, but for those whose result is known already."""
        start = time.perf_counter()
        try:
            model = self.store_model if isinstance(self.model, Encoder) else self.model.load()
        except Exception as error:
            self._failed(error)
            return
        for loaded in self._tasks(tasks):
            try:
                self._score_task(model, loaded)
            except Exception as error:
                text = str(error) if isinstance(error, RaylibError) else f"{type(error).__name__}: {error}"
                self.summary.tasks_failed.append({"task_name": loaded.name, "error": text})
                self.reporter.warn(f"✗ {self.spec.name}  {loaded.name}: {text}")
        self._timings["score"] = time.perf_counter() - start

    def _score_task(self, model: Any, loaded: LoadedTask) -> None:
        start = time.perf_counter()
        planned = self._planned.get(loaded.name)
        digest = loaded.digest(self.model.fingerprint, planned) if planned else ""
        complete = self.store_model is None or not self.store_model.bad
        result = None
        if digest and complete and not self.config.overwrite:
            result = stored_result(self.config.output_folder, self.meta, loaded.name, digest)
        took = "known"
        if result is None:
            result = self._run_mteb(model, loaded, digest if complete else "")
            took = f"{time.perf_counter() - start:.1f} s"
        self.task_results.append(result)
        self.summary.task_results.append(task_entry(result))
        self.summary.official = self.summary.official and loaded.official
        metric = loaded.task.metadata.main_score
        self.reporter.say(f"✓ {self.spec.name}  {loaded.name}  {metric} {result.get_score():.4f}  ({took})")

    def _run_mteb(self, model: Any, loaded: LoadedTask, digest: str) -> TaskResult:
        import mteb

        settings: Any = {"batch_size": self.config.batch_size, "show_progress_bar": False}
        (result,) = mteb.evaluate(
            model,
            loaded.task,
            cache=None,
            co2_tracker=False,
            encode_kwargs=settings.copy(),
            show_progress_bar=False,
        ).task_results
        save_task_result(
            self.config.output_folder,
            result,
            self.meta,
            official=loaded.official,
            digest=digest,
            fingerprint=self.model.fingerprint,
            untrained=self.untrained,
            partial=bool(self.config.languages or self.config.splits),
            encode_kwargs=settings,
        )
        return result

    def finish(self) -> None:
        """Write the run summary."""
        self.summary.timings = {name: round(seconds, 3) for name, seconds in self._timings.items()}
        path = self.summary.write(self.config.output_folder)
        if self.summary.status != "success":
            self.reporter.warn(f"✗ {self.spec.name}: {self.summary.status}; see {path}")

    def _failed(self, error: BaseException) -> bool:
        known = isinstance(error, RaylibError)
        self.summary.error = str(error) if known else f"{type(error).__name__}: {error}"
        self.reporter.warn(f"✗ {naming(self.spec.name, self.summary.error)}")
        return False


def naming(model: str, error: str) -> str:
    """The error with the model's name before it, once."""
    return error if error.startswith(model) else f"{model}: {error}"
