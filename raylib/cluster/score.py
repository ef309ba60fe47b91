"""Tasks scored side by side on the cluster: a pool of processes, each with one whole task at a time, longest first.

They hold no CPUs of Ray's count: what a task asks for while it is scored (a search, an encode actor) must find room.
How many there are is bounded instead. What they find goes back to the job, which alone writes results.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import logging
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import ray
import ray.exceptions

from raylib.cluster.metrics import Meter
from raylib.cluster.session import MAX_ATTEMPTS, Workers, portable, started_here, take_for_started_here
from raylib.cluster.shared_pool import SharedPool
from raylib.cluster.shared_store import require_store, store_marker
from raylib.errors import ModelError
from raylib.evaluate.backend import ScoreHere
from raylib.evaluate.exact_run import ExactRunModel
from raylib.evaluate.model import StoreModel
from raylib.evaluate.score_task import Scored, Scorer, ScoreUnit
from raylib.evaluate.task_data import LoadedTask
from raylib.logs import about, job_name, name_job
from raylib.store.embeddings import Shelf

if TYPE_CHECKING:
    from raylib.models.bridge import SearchModel

logger = logging.getLogger(__name__)

_MAX_WORKERS = 16
"""Each holds MTEB and what its task loads: half a gigabyte and more."""


class _ScoreWorker:
    """Scores one task at a time; an index of a store that was read for one serves the next."""

    def __init__(self, here: bool, threads: int, job: str) -> None:
        import torch

        from raylib.evaluate.quiet import quiet_libraries

        take_for_started_here(here)
        name_job(job)
        torch.set_num_threads(threads)
        quiet_libraries()
        self._scorer = Scorer()
        self._shelves: dict[str, Shelf] = {}

    @ray.method(max_task_retries=-1)
    def ready(self) -> None:
        """Answers once the process works, also again after a restart."""

    def score(
        self, model: StoreModel | SearchModel, task: LoadedTask, batch_size: int, keep: int, marker: str | None
    ) -> Scored | Exception:
        try:
            require_store(marker)
            if isinstance(model, StoreModel):
                model.shelf = self._shelves.setdefault(model.shelf.folder, model.shelf)
            unit = ScoreUnit(model, task, batch_size, keep)
            with about(model=unit.model_name, stage="score", shard=task.name):
                scored = self._scorer(unit)
            meter = Meter.of(unit.model_name, "score")
            logger.info("scored in %.3f s", scored.seconds, extra={**meter.about, "shard": task.name})
            scored.cpu_seconds += scored.report.cpu_seconds  # of the encode actors
            return scored
        except Exception as error:  # raised, Ray would wrap it in its own words
            return portable(error)


class ScoreWorkers:
    """A `ScoreStage` on the connected cluster. Processes start as tasks come, and end with `close`.

    A single task is scored in this process, and so is a model that searches by itself with weights of its own: one
    copy of them is enough. A process that dies is started again with the task it was at, `MAX_ATTEMPTS` times at most.
    """

    def __init__(self, workers: Workers) -> None:
        cpus = ray.cluster_resources().get("CPU", 1.0)
        self._most = max(1, min(_MAX_WORKERS, int(cpus)))
        self._threads = max(1, int(cpus) // self._most) if started_here() else 1
        self._workers, self._here = workers, ScoreHere()
        self._pool: SharedPool | None = None
        self._queue: queue.PriorityQueue[Any] = queue.PriorityQueue()
        self._number = itertools.count()
        self._lock = threading.Lock()
        self._idle = 0
        self._actors: list[Any] = []
        self._parcels: dict[tuple[str, bool], Any] = {}

    def submit(self, unit: ScoreUnit, *, alone: bool) -> Future[Scored]:
        meter = Meter.of(unit.model_name, "score")
        if (alone and not self._actors) or not _travels(unit):
            if self._pool is not None:
                unit = dataclasses.replace(unit, model=self._asking_pool(unit.model))
            with about(model=unit.model_name, stage="score", shard=unit.task.name):
                future = self._here.submit(unit, alone=alone)
            future.add_done_callback(functools.partial(_count, meter))
            return future
        self.pool()
        future = Future()
        future.add_done_callback(functools.partial(_count, meter))
        with self._lock:
            self._queue.put((unit.place, next(self._number), unit, self._parcel(unit), future))
            if self._idle < self._queue.qsize() and len(self._actors) < self._most:
                self._idle += 1
                actor = _start(started_here(), self._threads)
                self._actors.append(actor)
                threading.Thread(target=self._serve, args=(actor,), name="score", daemon=True).start()
        return future

    def pool(self) -> SharedPool:
        """The encode actors that answer what tasks ask for, of every model; started when first needed."""
        if self._pool is None:
            self._pool = SharedPool.start(self._workers)
        return self._pool

    def _parcel(self, unit: ScoreUnit) -> Any:
        """The task in Ray's object store, once for all models that need as much of it."""
        contents = not isinstance(unit.model, StoreModel)
        key = (unit.task.name, contents)
        if key not in self._parcels:
            self._parcels[key] = ray.put(unit.task.parcel(contents=contents, by_value=not started_here()))
        return self._parcels[key]

    def _serve(self, actor: Any) -> None:
        """Give one process task after task."""
        while True:
            _, _, unit, parcel, future = self._queue.get()
            if unit is None:
                return
            with self._lock:
                self._idle -= 1
            try:
                found = self._score(actor, unit, parcel)
            except Exception as error:  # what cannot be sent, say; the thread goes on
                found = error
            with self._lock:
                self._idle += 1
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)

    def _score(self, actor: Any, unit: ScoreUnit, parcel: Any) -> Scored | Exception:
        """Send a task until it is scored. Ray's own retries are no use: it counts one whenever the actor is not there
        yet, so that all are spent while it starts again."""
        sent = (self._asking_pool(unit.model), parcel, unit.batch_size, unit.keep_rankings, _marker(unit))
        lost: Exception | None = None
        for _ in range(MAX_ATTEMPTS):
            try:
                ray.get(actor.ready.remote())
                return ray.get(actor.score.remote(*sent))
            except ray.exceptions.RayActorError as error:
                lost = _lost(unit, error)
                Meter.of(unit.model_name, "score").count(retries=1)
        assert lost is not None
        return lost

    def _asking_pool(self, model: Any) -> Any:
        """The model, with the encode actors of all in place of this process's."""
        if not isinstance(model, StoreModel):
            return model
        assert self._pool is not None
        model = copy.copy(model)
        model.stage = self._pool
        return model

    def release(self, fingerprint: str) -> None:
        self._here.release(fingerprint)
        if self._pool is not None:
            self._pool.release(fingerprint)

    def close(self) -> None:
        """End every process; a task that is still scored or waits fails."""
        with self._lock:
            for _ in self._actors:
                self._queue.put(((-1, 0.0), next(self._number), None, None, None))
            for actor in self._actors:
                ray.kill(actor)
            self._actors = []
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _count(meter: Meter, future: Future[Scored]) -> None:
    failed = future.cancelled() or future.exception() is not None
    meter.count(**({"errors": 1} if failed else {"contents": 1, "busy_seconds": future.result().seconds}))


def _start(here: bool, threads: int) -> Any:
    options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": "SPREAD"}
    return ray.remote(_ScoreWorker).options(**options).remote(here, threads, job_name())


def _travels(unit: ScoreUnit) -> bool:
    if isinstance(unit.model, StoreModel):
        return True
    if isinstance(unit.model, ExactRunModel):  # its calls go to actors that answer one process
        return False
    meta = unit.model.model_meta()
    return meta is not None and meta.n_parameters == 0


def _marker(unit: ScoreUnit) -> str | None:
    """A file of the store that the process must see, where it is not known that it shares this disk."""
    return store_marker(unit.model.shelf) if isinstance(unit.model, StoreModel) else None


def _lost(unit: ScoreUnit, error: ray.exceptions.RayActorError) -> ModelError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
    return ModelError(
        f"{unit.title}: the process that scored it died {MAX_ATTEMPTS} times ({reason}). Too little memory? Try "
        "--local, which scores one task at a time."
    )
