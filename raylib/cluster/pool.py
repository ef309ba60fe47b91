"""Long-lived encode actors for many small requests: `RayModel.encode` is called dozens of times per task, and a fresh
actor pool per call, which Ray Data would start, costs ten seconds each time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions

from raylib.cluster.session import MAX_ATTEMPTS, Workers, worker_failure
from raylib.cluster.ship import ShippedSource, ship
from raylib.errors import ModelError
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import Encoded, EncodeReport, Progress, WriteBuffer, prepare, run_forward
from raylib.evaluate.plan import MicroBatch
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf

logger = logging.getLogger(__name__)

_IN_FLIGHT = 2
_PATIENCE_SECONDS = 60


class _PoolWorker:
    """Both halves of one encoder in one process."""

    def __init__(self, encoder: Encoder, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.encoder = encoder
        encoder.load()

    @ray.method(max_task_retries=-1)
    def ready(self) -> None:
        """Answers once the weights are loaded, also again after a restart."""

    def encode(self, batch: MicroBatch, sources: list[ShippedSource]) -> Encoded:
        return run_forward(self.encoder, prepare(self.encoder, batch, sources))


@dataclass
class _Call:
    """A batch on its way. deaths: of workers that were at it. settled: its actor died, and that is counted already, to
    this batch or to the one it waited behind."""

    batch: MicroBatch
    actor: Any = None
    deaths: int = 0
    settled: bool = False


class PoolStage:
    """An `EncodeStage` over actors that live as long as it does; they start at the first request.

    An actor that dies is started again by Ray and what it held is sent again. A batch over which workers die
    `MAX_ATTEMPTS` times is named in a ModelError. Results are written by this process, in any order.
    """

    def __init__(self, workers: Workers, progress: Progress = lambda n: None) -> None:
        self._wanted, self._progress = workers, progress
        self._actors: list[Any] = []
        self._fingerprint: str | None = None

    def __call__(
        self, encoder: Encoder, batches: Sequence[MicroBatch], sources: Sequence[Source], shelf: Shelf
    ) -> EncodeReport:
        report = EncodeReport()
        start = time.perf_counter()
        self._start(encoder)
        report.startup_seconds = time.perf_counter() - start
        start = time.perf_counter()
        buffer = WriteBuffer(shelf)
        shipped = ray.put(ship(sources))
        try:
            for encoded in self._run(encoder, batches, sources, shipped):
                buffer.add(encoded)
                report.add(EncodeReport(len(encoded.keys), encoded.bad, encoded.notes))
                self._progress(len(encoded.keys) + len(encoded.bad))
        except ray.exceptions.RayError as error:
            raise worker_failure(error, encoder.spec.name) from error
        finally:
            buffer.flush()
        report.seconds = time.perf_counter() - start
        return report

    def _start(self, encoder: Encoder) -> None:
        """Actors of `encoder`; those of another one are given up first."""
        if self._actors and self._fingerprint == encoder.fingerprint:
            return
        self.close()
        workers = self._wanted.resolve()
        assert workers.count is not None
        options: dict[str, Any] = {"max_restarts": -1, "num_gpus": workers.gpus or None}
        options["num_cpus"] = (
            workers.cpus if workers.gpus else min(1.0, ray.cluster_resources().get("CPU", 1.0) / workers.count)
        )
        actor = ray.remote(_PoolWorker).options(**options)
        self._actors = [actor.remote(encoder, workers.cpus) for _ in range(workers.count)]
        self._fingerprint = encoder.fingerprint
        try:
            ready = [actor.ready.remote() for actor in self._actors]
            _, late = ray.wait(ready, num_returns=len(ready), timeout=_PATIENCE_SECONDS)
            if late:
                logger.warning(
                    "%s: %d of %d workers have not started after %d s; the cluster may have no room (it has %s free). "
                    "Another RayModel holds its workers until its close().",
                    encoder.spec.name,
                    len(late),
                    len(ready),
                    _PATIENCE_SECONDS,
                    ray.available_resources(),
                )
            ray.get(ready)
        except ray.exceptions.RayError as error:
            self.close()
            raise worker_failure(error, encoder.spec.name) from error

    def _run(
        self, encoder: Encoder, batches: Sequence[MicroBatch], sources: Sequence[Source], shipped: ray.ObjectRef
    ) -> Iterator[Encoded]:
        """Results as they come; every actor is kept `_IN_FLIGHT` batches ahead."""
        todo = [_Call(batch) for batch in reversed(batches)]
        running: dict[ray.ObjectRef, _Call] = {}
        restarting: dict[ray.ObjectRef, Any] = {}
        idle = [actor for actor in self._actors for _ in range(_IN_FLIGHT)]
        while todo or running:
            while todo and idle:
                call = todo.pop()
                call.actor, call.settled = idle.pop(0), False
                running[call.actor.encode.remote(call.batch, shipped)] = call
            (done,), _ = ray.wait([*running, *restarting], num_returns=1)
            if done in restarting:
                ray.get(done)
                idle.append(restarting.pop(done))
                continue
            call = running[done]
            try:
                encoded = ray.get(done)
            except ray.exceptions.RayActorError as error:
                _blame(call, running)
                if call.deaths >= MAX_ATTEMPTS:
                    raise ModelError(_fatal_batch(encoder.spec.name, call, sources)) from error
                del running[done]
                todo.append(call)
                # What is sent to an actor that restarts fails at once: its place is free when it answers again.
                restarting[call.actor.ready.remote()] = call.actor
            else:
                del running[done]
                idle.append(call.actor)
                yield encoded

    def close(self) -> None:
        """Give the actors up."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []


def _blame(call: _Call, running: dict[ray.ObjectRef, _Call]) -> None:
    """`call` failed with its actor. An actor takes its batches in the order in which they were sent: it died over the
    first of those it still had, and the others only waited."""
    if call.settled:
        return
    held = [other for other in running.values() if other.actor is call.actor]
    held[0].deaths += 1
    for other in held:
        other.settled = True


def _fatal_batch(model: str, call: _Call, sources: Sequence[Source]) -> str:
    at, row = call.batch.rows[0]
    return (
        f"{model}: the worker process died {call.deaths} times over one batch of {len(call.batch)} contents, the first "
        f"being {sources[at].name} {sources[at].id_of(row)}. Too little memory? Try a smaller --batch-size."
    )
