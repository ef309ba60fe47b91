"""One `PoolStage` per model for many processes: tasks that are scored side by side share the encode actors."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions

from raylib.cluster.pool import PoolStage
from raylib.cluster.session import Workers, answer_of, beside_the_job, worker_failure
from raylib.cluster.ship import ShippedSource, ship
from raylib.evaluate.batching import MicroBatch
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import EncodeReport, Progress
from raylib.logs import job_name, name_job
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf

_MAX_CALLERS = 64

_PLAN_PIECES = 20
"""In how many pieces a plan is handed over: after each the job hears of its progress and may stop."""


class _Keeper:
    """Holds the pools of a run. The encode actors are its own: they end with it, as it ends with the job."""

    def __init__(self, workers: Workers, job: str) -> None:
        name_job(job)
        self._workers = workers
        self._stages: dict[str, PoolStage] = {}
        self._lock = threading.Lock()

    def encode(
        self, encoder: Encoder, batches: Sequence[MicroBatch], sources: list[ShippedSource], shelf: Shelf
    ) -> EncodeReport | Exception:
        with self._lock:
            stage = self._stages.setdefault(encoder.fingerprint, PoolStage(self._workers))
        return answer_of(stage.encode, encoder, batches, sources, shelf)

    def release(self, fingerprint: str) -> None:
        """Give up the actors of one model."""
        with self._lock:
            stage = self._stages.pop(fingerprint, None)
        if stage is not None:
            stage.close()


@dataclass(frozen=True)
class SharedPool:
    """An `EncodeStage` for any process of the cluster; the actors of a model start when the first of them asks."""

    keeper: Any

    @classmethod
    def start(cls, workers: Workers) -> SharedPool:
        """The keeper holds no resources. It runs beside the job, because it writes to the store."""
        keeper = ray.remote(_Keeper).options(
            num_cpus=0,
            max_concurrency=_MAX_CALLERS,
            max_restarts=-1,
            max_task_retries=-1,  # it runs no code of a model's; Ray counts while an actor starts again, too
            scheduling_strategy=beside_the_job(soft=True),
        )
        return cls(keeper.remote(workers, job_name()))

    def __call__(
        self, encoder: Encoder, batches: Sequence[MicroBatch], sources: Sequence[Source], shelf: Shelf
    ) -> EncodeReport:
        try:
            found: Any = ray.get(self.keeper.encode.remote(encoder, list(batches), ship(sources), shelf))
        except ray.exceptions.RayError as error:
            raise worker_failure(error, encoder.spec.name) from error
        if isinstance(found, Exception):
            raise found
        return found

    def release(self, fingerprint: str) -> None:
        """Give up the actors of one model."""
        self.keeper.release.remote(fingerprint)

    def close(self) -> None:
        """Give up all of them."""
        ray.kill(self.keeper)


@dataclass(frozen=True)
class PooledPlan:
    """The plan of one model through the actors that will answer its tasks' requests: its weights are loaded once."""

    pool: SharedPool
    progress: Progress

    def __call__(
        self, encoder: Encoder, batches: Sequence[MicroBatch], sources: Sequence[Source], shelf: Shelf
    ) -> EncodeReport:
        report = EncodeReport()
        step = max(8, -(-len(batches) // _PLAN_PIECES))
        for first in range(0, len(batches), step):
            part = self.pool(encoder, batches[first : first + step], sources, shelf)
            report.add(part)
            self.progress(part.encoded + len(part.bad), len(part.bad))
        return report
