"""`--exact-mteb` on a Ray cluster: the pieces of each `encode` call run in long-lived actors that hold MTEB's model."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ray
import ray.exceptions

from raylib.cluster.session import MAX_ATTEMPTS, Workers, started_here, worker_failure
from raylib.errors import ModelError
from raylib.evaluate.exact_calls import Call, Cut, encode_rows, in_memory
from raylib.evaluate.exact_models import ExactSource, Traits, exact_source, traits_of
from raylib.evaluate.exact_mteb import ExactModel
from raylib.models.protocol import ModelSpec

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 60


def ray_exact_model(spec: ModelSpec, workers: Workers) -> ExactModel | Any:
    """The model of `spec` for `mteb.evaluate`, its batches spread over actors on the connected cluster.

    An ExactModel, whose `close` gives the actors up. For a model that MTEB runs by its own search or by `predict`,
    which has no calls to cut, the MTEB model itself in this process (`hasattr(model, "close")` tells).
    Raises UserError for a name or an option that cannot be, ModelError where the model cannot be loaded.
    """
    source = exact_source(spec)
    if source.searches:
        return source.load()
    runner = ActorRunner(source, workers)
    if source.searches is None and not runner.traits().encodes:
        runner.close()
        return source.load()
    return ExactModel(spec.name, runner)


class _ExactWorker:
    """The real MTEB model in one process."""

    def __init__(self, source: ExactSource, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._source = source

    @cached_property
    def model(self) -> Any:
        return self._source.load()

    @ray.method(max_task_retries=-1)
    def ready(self) -> None:
        """Answers once the weights are loaded, also again after a restart; raises what went wrong with them. (Raised by
        the constructor, Ray would report a dead actor.)"""
        _ = self.model

    @ray.method(max_task_retries=MAX_ATTEMPTS - 1)
    def traits(self) -> Traits:
        return traits_of(self.model)

    def encode(self, call: Call, rows: Any, cut: Cut, sliced: bool) -> Any:
        """sliced: `rows` are those of the cut alone, else those of the whole call."""
        return encode_rows(self.model, call, rows if sliced else rows.select(range(cut.start, cut.stop)), cut)

    @ray.method(max_task_retries=MAX_ATTEMPTS - 1)
    def similarity(self, name: str, first: Any, second: Any) -> Any:
        return getattr(self.model, name)(first, second)


@dataclass
class _Sent:
    """One cut on its way. deaths: of workers that were at it."""

    at: int
    cut: Cut
    deaths: int = 0
    actor: Any = None


class ActorRunner:
    """A `Runner` over actors, which start at the first request and live until `close`.

    An actor that dies is started again by Ray, and the piece it had is sent again; a piece over which workers die
    `MAX_ATTEMPTS` times is named in a ModelError. Every actor has one piece at a time.
    """

    def __init__(self, source: ExactSource, workers: Workers) -> None:
        self._source, self._placing = source, workers.resolve()
        assert self._placing.count is not None
        self.workers = self._placing.count
        self._actors: list[Any] = []
        self._idle: list[Any] = []
        self._starting: dict[ray.ObjectRef, Any] = {}
        self._home: Any = None
        self._answered = False

    def traits(self) -> Traits:
        self._start()
        return self._get(self._actors[0].traits.remote())

    def similarity(self, name: str, first: Any, second: Any) -> Any:
        self._start()
        return self._get(self._actors[0].similarity.remote(name, first, second))

    def run(self, call: Call, rows: Any, cuts: Sequence[Cut]) -> list[Any]:
        """What the model gives for each cut of `rows`, in the order of `cuts`.

        Data sets on disk travel as paths on a cluster that this process started on its own machine; elsewhere, and for
        data sets in memory, each piece travels by value when its turn comes.
        """
        self._start()
        call_ref = ray.put(call)
        whole = ray.put(rows) if started_here() and getattr(rows, "cache_files", None) else None
        todo = deque(_Sent(at, cut) for at, cut in enumerate(cuts))
        results: list[Any] = [None] * len(cuts)
        running: dict[ray.ObjectRef, _Sent] = {}
        try:
            while todo or running:
                while todo and (actor := self._free(first=len(cuts) == 1)) is not None:
                    sent = todo.popleft()
                    sent.actor = actor
                    running[self._send(sent, call_ref, rows, whole)] = sent
                for done in self._wait([*running, *self._starting]):
                    if done in self._starting:
                        self._get(done)
                        self._idle.append(self._starting.pop(done))
                    elif self._finished(done, running[done], results, call):
                        self._idle.append(running.pop(done).actor)
                    else:
                        sent = running.pop(done)
                        todo.appendleft(sent)
                        self._expect(sent.actor)
        finally:
            for sent in running.values():  # after a failure
                self._expect(sent.actor)
        return results

    def _free(self, first: bool) -> Any:
        """An idle actor, or None. first: always the same will do, for calls that are not cut: a model that remembers
        its calls, as CDE does, then sees all of them in MTEB's order. When that one dies, what it remembered is lost,
        and another takes its place: a cluster that is full may have no room to start it again."""
        if first and self._home is None and self._idle:
            self._home = self._idle[0]
        actor = self._home if first else next(iter(self._idle), None)
        if actor not in self._idle:
            return None
        self._idle.remove(actor)
        return actor

    def _finished(self, done: ray.ObjectRef, sent: _Sent, results: list[Any], call: Call) -> bool:
        """Take the result of a piece; False where its actor died. Raises what the model raised, and ModelError for a
        piece over which too many died."""
        try:
            results[sent.at] = ray.get(done)
        except ray.exceptions.RayActorError as error:
            sent.deaths += 1
            if sent.actor == self._home:
                self._home = None
            if sent.deaths >= MAX_ATTEMPTS:
                raise ModelError(self._fatal(sent, call)) from error
            return False
        except ray.exceptions.RayError as error:
            raise worker_failure(error, self._source.spec.name) from error
        return True

    def _expect(self, actor: Any) -> None:
        """Count the actor as idle when it answers. What is sent to one that restarts would fail at once."""
        self._starting[actor.ready.remote()] = actor

    def _wait(self, refs: list[ray.ObjectRef]) -> list[ray.ObjectRef]:
        done, _ = ray.wait(refs, num_returns=1, timeout=None if self._answered else _PATIENCE_SECONDS)
        if not done:
            logger.warning(
                "%s: none of %d workers has started after %d s; the cluster may have no room (it has %s free)",
                self._source.spec.name,
                self.workers,
                _PATIENCE_SECONDS,
                ray.available_resources(),
            )
        self._answered = True
        return done

    def _send(self, sent: _Sent, call: ray.ObjectRef, rows: Any, whole: ray.ObjectRef | None) -> ray.ObjectRef:
        if whole is not None:
            return sent.actor.encode.remote(call, whole, sent.cut, False)
        piece = in_memory(rows.select(range(sent.cut.start, sent.cut.stop)))
        return sent.actor.encode.remote(call, piece, sent.cut, True)

    def _start(self) -> None:
        if self._actors:
            return
        placing = self._placing
        options: dict[str, Any] = {"max_restarts": -1, "num_gpus": placing.gpus or None}
        options["num_cpus"] = (
            placing.cpus if placing.gpus else min(1.0, ray.cluster_resources().get("CPU", 1.0) / self.workers)
        )
        actor = ray.remote(_ExactWorker).options(**options)
        self._actors = [actor.remote(self._source, placing.cpus) for _ in range(self.workers)]
        self._answered = False
        for actor in self._actors:
            self._expect(actor)

    def _get(self, found: Any) -> Any:
        try:
            return ray.get(found)
        except ray.exceptions.RayError as error:
            raise worker_failure(error, self._source.spec.name) from error

    def _fatal(self, sent: _Sent, call: Call) -> str:
        return (
            f"{self._source.spec.name}: the worker process died {sent.deaths} times over rows {sent.cut.start} to "
            f"{sent.cut.stop} of {call.task_metadata.name}/{call.hf_split}/{call.hf_subset}. Too little memory? Try a "
            "smaller --batch-size."
        )

    def close(self) -> None:
        """Give the actors up."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._idle, self._starting, self._home = [], [], {}, None
