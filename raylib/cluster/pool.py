"""Long-lived encode actors for many small requests: `RayModel.encode` is called dozens of times per task, and a fresh
actor pool per call, which Ray Data would start, costs ten seconds each time.

Several threads may ask one `PoolStage` at a time, and several processes through a `SharedPool`: whoever asks, batches
go to the actors from one place, which therefore knows over which of them an actor died.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions

from raylib.cluster.held import held
from raylib.cluster.metrics import Meter
from raylib.cluster.session import MAX_ATTEMPTS, Workers, died_over_it, lost_workers, worker_failure
from raylib.cluster.ship import ShippedSource, ship
from raylib.errors import ModelError
from raylib.evaluate.batching import BatchRecord, MicroBatch, singles
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import Encoded, EncodeReport, Progress, WriteBuffer, no_progress, run_forward
from raylib.evaluate.prepare import bad_content, prepare
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf

logger = logging.getLogger(__name__)

_IN_FLIGHT = 2
_PATIENCE_SECONDS = 60
_CPU_SHARE = 0.5
"""Of the CPUs of a cluster without GPUs: these actors live on between requests, and what else runs needs room then."""


class _PoolWorker:
    """Both halves of one encoder in one process."""

    def __init__(self, encoder: Encoder, threads: int, meter: Meter) -> None:
        import torch

        torch.set_num_threads(threads)
        self.encoder, self.meter = encoder, meter
        encoder.load()

    @ray.method(max_task_retries=-1)
    def ready(self) -> None:
        """Answers once the weights are loaded, also again after a restart."""

    def encode(self, batch: MicroBatch, sources: list[ShippedSource]) -> tuple[Encoded, float]:
        """The vectors, and the CPU seconds they took."""
        cpu = time.process_time()
        encoded = run_forward(self.encoder, prepare(self.encoder, batch, sources))
        self.meter.gpu_memory()
        return encoded, time.process_time() - cpu


@dataclass(eq=False)
class _Request:
    """What one caller asked for. results: what came of its batches, in any order."""

    todo: deque[_Call]
    sources: list[ShippedSource]
    shipped: Any
    results: queue.SimpleQueue[tuple[Encoded, float] | Exception] = field(default_factory=queue.SimpleQueue)


@dataclass(eq=False)
class _Call:
    """A batch on its way. deaths: of workers that were at it. settled: its actor died, and that is counted already, to
    this batch or to the one it waited behind."""

    batch: MicroBatch
    request: _Request
    actor: Any = None
    deaths: int = 0
    settled: bool = False


class PoolStage:
    """An `EncodeStage` over actors that live as long as it does; they start at the first request.

    An actor that dies is started again by Ray and what it held is sent again, the batch over which it died content by
    content. A content over which workers die `MAX_ATTEMPTS` times is a bad one. Results are written by the caller, in
    any order.
    """

    def __init__(self, workers: Workers, progress: Progress = no_progress) -> None:
        self._wanted, self._progress = workers, progress
        self._pool: _Pool | None = None
        self._lock = threading.Lock()

    def __call__(
        self, encoder: Encoder, batches: Sequence[MicroBatch], sources: Sequence[Source], shelf: Shelf
    ) -> EncodeReport:
        return self.encode(encoder, batches, ship(sources), shelf)

    def encode(
        self, encoder: Encoder, batches: Sequence[MicroBatch], sources: list[ShippedSource], shelf: Shelf
    ) -> EncodeReport:
        """Encode `batches` and store them. Raises what the model raised, and ModelError where workers died."""
        report = EncodeReport()
        start = time.perf_counter()
        buffer = WriteBuffer(shelf)
        pool = self._pool_of(encoder)
        try:
            pool.wait_until_ready()
            report.startup_seconds = time.perf_counter() - start
            before = pool.deaths
            for encoded, cpu in pool.run(batches, sources):
                buffer.add(encoded)
                report.add(EncodeReport.of(encoded, cpu))
                pool.meter.batch(encoded.record)
                self._progress(len(encoded.keys) + len(encoded.bad), len(encoded.bad))
        except ray.exceptions.RayError as error:
            raise worker_failure(error, encoder.spec.name) from error
        finally:
            buffer.flush()
        report.retries = pool.deaths - before
        report.notes += lost_workers(encoder.spec.name, report.retries)
        report.held = pool.held
        report.seconds = time.perf_counter() - start - report.startup_seconds
        return report

    def _pool_of(self, encoder: Encoder) -> _Pool:
        """Actors of `encoder`; those of another one, and those that could not load it, are given up first."""
        with self._lock:
            pool = self._pool
            if pool is None or pool.failure is not None or pool.fingerprint != encoder.fingerprint:
                self._close()
                pool = self._pool = _Pool(encoder, self._wanted.for_model(encoder).resolve())
            return pool

    def close(self) -> None:
        """Give the actors up."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.close()
        self._pool = None


class _Pool:
    """The actors of one encoder, and the one thread that sends them batches while there are any.

    All that happens reaches that thread as an event, a function to call. Between requests there is no thread, so that
    a stage which nobody holds any more takes its actors with it.
    """

    def __init__(self, encoder: Encoder, workers: Workers) -> None:
        assert workers.count is not None
        self.fingerprint, self.model = encoder.fingerprint, encoder.spec.name
        self.failure: Exception | None = None
        self.deaths = 0
        self.held, self.meter = held(workers, workers.count), Meter.of(self.model, "encode")
        self._requests: deque[_Request] = deque()
        self._running: dict[_Call, None] = {}
        self._idle: list[Any] = []
        self._events: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._some_ready = threading.Event()
        options: dict[str, Any] = {"max_restarts": -1, "num_gpus": workers.gpus or None, "num_cpus": workers.cpus}
        if not workers.gpus:
            options["num_cpus"] = _CPU_SHARE * min(1.0, ray.cluster_resources().get("CPU", 1.0) / workers.count)
        options["max_concurrency"] = encoder.side_by_side
        actor = ray.remote(_PoolWorker).options(**options)
        self._actors: list[Any] = [actor.remote(encoder, workers.cpus, self.meter) for _ in range(workers.count)]
        for actor in self._actors:
            self._expect(actor, places=max(_IN_FLIGHT, encoder.side_by_side))

    def wait_until_ready(self) -> None:
        """Until one actor has loaded the weights: the others join it. Raises what went wrong with the first."""
        if not self._some_ready.wait(_PATIENCE_SECONDS):
            logger.warning(
                "%s: none of %d workers has started after %d s; the cluster may have no room (it has %s free). "
                "Another RayModel holds its workers until its close().",
                self.model,
                len(self._actors),
                _PATIENCE_SECONDS,
                ray.available_resources(),
            )
            self._some_ready.wait()
        if self.failure is not None:
            raise self.failure

    def run(self, batches: Sequence[MicroBatch], sources: list[ShippedSource]) -> Iterator[tuple[Encoded, float]]:
        """(encoded, CPU seconds) as they come, of whole batches but where a worker died over one. Raises the first
        failure; the rest is then left out."""
        request = _Request(deque(), sources, ray.put(sources))
        request.todo.extend(_Call(batch, request) for batch in batches)
        self._happen(lambda: self._requests.append(request), serve=True)
        try:
            left = sum(map(len, batches))
            while left:
                result = request.results.get()
                if isinstance(result, Exception):
                    raise result
                left -= len(result[0].keys) + len(result[0].bad)
                yield result
        finally:
            self._happen(lambda: self._drop(request))

    def close(self) -> None:
        """Give the actors up; what is asked of them still fails."""
        self.failure = self.failure or ModelError(f"{self.model}: its workers were given up")
        for actor in self._actors:
            ray.kill(actor)
        self._happen(self._fail)

    # What follows is called by the thread alone, but for _happen and _expect.

    def _happen(self, event: Callable[[], Any], serve: bool = False) -> None:
        """Put an event before the thread, which is started for a request if it does not run."""
        with self._lock:
            self._events.put(event)
            if serve and self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="encode pool", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._requests and not self._running and self._events.empty():
                    self._thread = None
                    return
            self._events.get()()
            self._send()

    def _send(self) -> None:
        """Keep every actor `_IN_FLIGHT` batches ahead; requests take turns."""
        while (
            self.failure is None
            and self._idle
            and (request := next((r for r in self._requests if r.todo), None)) is not None
        ):
            self._requests.remove(request)
            self._requests.append(request)
            call = request.todo.popleft()
            call.actor, call.settled = self._idle.pop(0), False
            self._running[call] = None
            done = call.actor.encode.remote(call.batch, request.shipped).future()
            done.add_done_callback(lambda future, call=call: self._happen(lambda: self._done(call, future)))

    def _expect(self, actor: Any, places: int = 1) -> None:
        """Give `actor` that many places once it answers."""

        def answered(future: Any) -> None:
            self.failure = self.failure or future.exception()
            self._happen(self._fail if self.failure is not None else lambda: self._idle.extend([actor] * places))
            self._some_ready.set()

        actor.ready.remote().future().add_done_callback(answered)

    def _done(self, call: _Call, future: Any) -> None:
        error = future.exception()
        if isinstance(error, ray.exceptions.RayActorError) and self.failure is None:
            self._blame(call)
            del self._running[call]
            # What is sent to an actor that restarts fails at once: its place is free when it answers again.
            self._expect(call.actor)
            self._try_again(call)
        else:
            del self._running[call]
            self._idle.append(call.actor)
            call.request.results.put(error or future.result())

    def _blame(self, call: _Call) -> None:
        """`call` failed with its actor. An actor takes its batches in the order in which they were sent: it died over
        the first of those it still had, whoever asked for it, and the others only waited."""
        if call.settled:
            return
        held = [other for other in self._running if other.actor is call.actor]
        held[0].deaths += 1
        self.deaths += 1
        self.meter.count(retries=1)
        for other in held:
            other.settled = True

    def _try_again(self, call: _Call) -> None:
        """A batch over which an actor died: each of its contents by itself, and one that dies too often not again."""
        request, batch = call.request, call.batch
        if call.deaths and len(batch) > 1:
            request.todo.extend(_Call(single, request, deaths=call.deaths) for single in singles(batch))
        elif call.deaths < MAX_ATTEMPTS:
            request.todo.append(call)
        else:
            bad = bad_content(batch, request.sources, died_over_it())
            request.results.put((Encoded([], None, [bad], record=BatchRecord(bad=1)), 0.0))

    def _drop(self, request: _Request) -> None:
        request.todo.clear()
        if request in self._requests:
            self._requests.remove(request)

    def _fail(self) -> None:
        """Tell everyone who waits."""
        assert self.failure is not None
        self._some_ready.set()
        for request in self._requests:
            request.todo.clear()
            request.results.put(self.failure)
