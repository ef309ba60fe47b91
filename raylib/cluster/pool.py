"""Long-lived encode actors for many small requests: `RayModel.encode` is called dozens of times per task, and a fresh
actor pool per call, which Ray Data would start, costs ten seconds each time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
import ray.exceptions

from raylib.cluster.session import Workers, unwrap
from raylib.cluster.ship import ShippedSource, ship
from raylib.errors import ModelError
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import Encoded, EncodeReport, Progress, WriteBuffer, prepare, run_forward
from raylib.evaluate.plan import MicroBatch
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf

_IN_FLIGHT = 2
_MAX_ATTEMPTS = 3


class _PoolWorker:
    """Both halves of one encoder in one process."""

    def __init__(self, encoder: Encoder, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.encoder = encoder
        encoder.load()

    def ready(self) -> None:
        """Answers once the weights are loaded."""

    def encode(self, batch: MicroBatch, sources: list[ShippedSource]) -> Encoded:
        return run_forward(self.encoder, prepare(self.encoder, batch, sources))


class PoolStage:
    """An `EncodeStage` over actors that live as long as it does; they start at the first request.

    An actor that dies is started again by Ray and what it held is sent again, up to three times; then the batch is
    named in a ModelError. Results are written by this process, in any order.
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
            for encoded in self._run(encoder, batches, shipped):
                buffer.add(encoded)
                report.add(EncodeReport(len(encoded.keys), encoded.bad, encoded.notes))
                self._progress(len(encoded.keys) + len(encoded.bad))
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
            ray.get([actor.ready.remote() for actor in self._actors])
        except ray.exceptions.RayError as error:
            self.close()
            raise unwrap(error) from error

    def _run(self, encoder: Encoder, batches: Sequence[MicroBatch], shipped: ray.ObjectRef):
        """Results as they come; every actor is kept `_IN_FLIGHT` batches ahead."""
        todo = [(batch, 0) for batch in reversed(batches)]
        running: dict[ray.ObjectRef, tuple[MicroBatch, int, Any]] = {}
        idle = [actor for actor in self._actors for _ in range(_IN_FLIGHT)]
        while todo or running:
            while todo and idle:
                (batch, attempts), actor = todo.pop(), idle.pop(0)
                running[actor.encode.remote(batch, shipped)] = (batch, attempts + 1, actor)
            (done,), _ = ray.wait(list(running), num_returns=1)
            batch, attempts, actor = running.pop(done)
            idle.append(actor)
            try:
                yield ray.get(done)
            except ray.exceptions.RayActorError as error:
                if attempts >= _MAX_ATTEMPTS:
                    raise ModelError(
                        f"{encoder.spec.name}: the worker died {attempts} times on one batch of {len(batch)} contents, "
                        f"the first with key {batch.keys[0].hex()}. Too little memory? Try a smaller --batch-size."
                    ) from error
                todo.append((batch, attempts))
            except ray.exceptions.RayTaskError as error:
                raise unwrap(error) from error

    def close(self) -> None:
        """Give the actors up."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
