"""Where a job runs, as the job sees it: what encodes, what scores, what searches. `LocalBackend` is this process; the
cluster's is `raylib.cluster.evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from raylib.evaluate.auto_batch import auto_limits
from raylib.evaluate.batching import BatchLimits, MicroBatch
from raylib.evaluate.contents import Rows
from raylib.evaluate.encode import EncodeReport, Progress, encode_locally
from raylib.evaluate.model import EncodeStage
from raylib.evaluate.score_task import Scored, Scorer, ScoreUnit
from raylib.evaluate.search import SearchStage, search_locally
from raylib.models.protocol import Encoder, ModelSpec
from raylib.store.embeddings import Shelf


class ScoreStage(Protocol):
    """Where tasks are scored."""

    def submit(self, unit: ScoreUnit, *, alone: bool) -> Future[Scored]:
        """Score a task, now or later. alone: nothing else of its model is to be scored."""
        ...

    def release(self, fingerprint: str) -> None:
        """A model is no longer needed."""
        ...

    def close(self) -> None:
        """Give up what still runs."""
        ...


class ScoreHere:
    """This process: a task is scored when it is submitted."""

    def __init__(self) -> None:
        self._scorer = Scorer()

    def submit(self, unit: ScoreUnit, *, alone: bool) -> Future[Scored]:
        del alone
        future: Future[Scored] = Future()
        try:
            future.set_result(self._scorer(unit))
        except Exception as error:
            future.set_exception(error)
        return future

    def release(self, fingerprint: str) -> None:
        del fingerprint

    def close(self) -> None:
        pass


class Backend(Protocol):
    """Where contents are encoded, and tasks scored."""

    def plan_stage(self, progress: Progress, *, requests: bool) -> EncodeStage:
        """For the one big execution per model. requests: its tasks will ask for vectors while they are scored, too."""
        ...

    def request_stage(self) -> EncodeStage:
        """For what tasks ask for while they are scored: many small requests."""
        ...

    def score_stage(self) -> ScoreStage:
        """For the whole job."""
        ...

    def search_stage(self) -> SearchStage:
        """For the searches of tasks."""
        ...

    def find_limits(
        self,
        encoder: Encoder,
        samples: Mapping[tuple[str, ...], Sequence[MicroBatch]],
        sources: Sequence[Any],
        shelf: Shelf,
    ) -> dict[tuple[str, ...], BatchLimits]:
        """See `auto_limits`, on a worker as the model will have it."""
        ...

    def exact_model(self, spec: ModelSpec) -> Any:
        """What `mteb.evaluate` takes under --exact-mteb; with `close` where it holds workers."""
        ...

    def parallel_models(self) -> int:
        """How many models there is room for side by side."""
        ...

    def release(self, stage: EncodeStage) -> None:
        """A request stage is no longer needed."""
        ...


class LocalBackend:
    """This process, one model after another."""

    def plan_stage(self, progress: Progress, *, requests: bool) -> EncodeStage:
        del requests

        def stage(
            encoder: Encoder, batches: Sequence[MicroBatch], sources: Sequence[Rows], shelf: Shelf
        ) -> EncodeReport:
            return encode_locally(encoder, batches, sources, shelf, progress)

        return stage

    def request_stage(self) -> EncodeStage:
        return encode_locally

    def score_stage(self) -> ScoreStage:
        return ScoreHere()

    def search_stage(self) -> SearchStage:
        return search_locally

    find_limits = staticmethod(auto_limits)

    def exact_model(self, spec: ModelSpec) -> Any:
        from raylib.evaluate.exact_mteb import local_exact_model

        return local_exact_model(spec)

    def parallel_models(self) -> int:
        return 1

    def release(self, stage: EncodeStage) -> None:
        del stage
