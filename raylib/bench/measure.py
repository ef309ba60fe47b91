"""How a loaded model is timed: calls one after another, from several clients, or arriving by chance.

Nothing but the call is between two readings of the clock. Contents are made before. Rubbish is collected once before
and what is loaded is frozen out of later collections (`gc.freeze`); the collector stays on, as it does in a server.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from raylib.errors import ModelError

WARM_UP = 10
"""Calls before anything is timed, the first of the process among them."""
LEAST_CONTENTS = 100
LEAST_CALLS = 10
"""A cell is timed for its duration and until it has embedded so many contents in at least so many calls."""
P99_CALLS = 1000
"""From so many calls on there is a 99th percentile to speak of."""
MOST_ERRORS = 10
"""A runtime that fails more often is not measured."""
_SPIN_NS = 1_000_000
"""A sleeping process wakes late: the last of a wait is spent looking at the clock."""


class Clock(Protocol):
    """Nanoseconds since some moment, and how to wait for one. Tests have their own."""

    def now(self) -> int: ...

    def cpu(self) -> int:
        """Of all threads of this process."""
        ...

    def wait_until(self, moment: int) -> None: ...


class RealClock:
    def now(self) -> int:
        return time.perf_counter_ns()

    def cpu(self) -> int:
        return time.process_time_ns()

    def wait_until(self, moment: int) -> None:
        while (left := moment - time.perf_counter_ns()) > 0:
            if left > _SPIN_NS:
                time.sleep((left - _SPIN_NS) / 1e9)


@dataclass
class Timed:
    """latencies_ns: of every call that gave vectors, in the order in which they ended. wall_ns: from the first call's
    begin (or arrival) to the last one's end. errors: what the other calls raised."""

    latencies_ns: list[int] = field(default_factory=list)
    wall_ns: int = 0
    cpu_ns: int = 0
    errors: list[Exception] = field(default_factory=list)

    def raise_errors(self) -> None:
        """Raises ModelError where no call was good, or too many were not."""
        if self.errors and (not self.latencies_ns or len(self.errors) > MOST_ERRORS):
            first = self.errors[0]
            done = len(self.errors) + len(self.latencies_ns)
            raise ModelError(
                f"{len(self.errors)} of {done} calls failed; the first: {type(first).__name__}: {first}"
            ) from first

    def percentiles(self) -> dict[str, float | None]:
        """Milliseconds, by linear interpolation as numpy's; p99 is None for fewer than P99_CALLS calls."""
        ms = np.asarray(self.latencies_ns, dtype=np.float64) / 1e6
        p50, p90, p95, p99 = np.percentile(ms, [50, 90, 95, 99]).tolist()
        told = {"mean": float(ms.mean()), "min": float(ms.min()), "p50": p50, "p90": p90, "p95": p95}
        return {**told, "p99": p99 if len(ms) >= P99_CALLS else None}


@dataclass(frozen=True)
class Until:
    """When enough has been timed: both have been reached. seconds: of the whole cell; calls: of all clients."""

    seconds: float
    calls: int

    @classmethod
    def of(cls, seconds: float, batch: int) -> Until:
        return cls(seconds, max(LEAST_CALLS, -(-LEAST_CONTENTS // batch)))


Call = Callable[[Any], object]


def settle() -> None:
    """What is there before the timing starts is no work of the collector's while it runs."""
    gc.collect()
    gc.freeze()


def closed_loop(
    call: Call, contents: Sequence[Any], until: Until, clients: int = 1, clock: Clock | None = None
) -> Timed:
    """Each client calls as soon as its call before has ended. contents: what is called with, in turn."""
    clock = clock or RealClock()
    timed, lock = Timed(), threading.Lock()
    begin, cpu = clock.now(), clock.cpu()
    end = begin + round(until.seconds * 1e9)

    panics: list[BaseException] = []

    def client(first: int) -> None:
        for i in range(first, 1 << 62, clients):
            start = clock.now()
            enough = len(timed.latencies_ns) + len(timed.errors) >= until.calls
            if (enough and start >= end) or len(timed.errors) > MOST_ERRORS or panics:
                return
            _one(call, contents[i % len(contents)], start, clock, timed, lock)

    def watched(first: int) -> None:
        try:
            client(first)
        except BaseException as panic:  # a thread would only print it: a Rust panic is no Exception
            panics.append(panic)

    if clients == 1:
        client(0)
    else:
        threads = [threading.Thread(target=watched, args=(n,), daemon=True) for n in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if panics:
        raise panics[0]
    timed.wall_ns, timed.cpu_ns = clock.now() - begin, clock.cpu() - cpu
    timed.raise_errors()
    return timed


def _one(call: Call, content: Any, start: int, clock: Clock, timed: Timed, lock: threading.Lock) -> None:
    """One call; its latency counts from `start`."""
    try:
        call(content)
    except Exception as error:  # a runtime may raise anything; what is no Exception ends the process and its cell
        with lock:
            timed.errors.append(error)
        return
    took = clock.now() - start
    with lock:
        timed.latencies_ns.append(took)


def arrivals(per_second: float, until: Until, seed: int) -> np.ndarray:
    """[n] int64: nanoseconds from the begin at which calls arrive, of a Poisson process of that rate: as many as it
    takes to fill the time and to reach the least number of calls."""
    rng = np.random.default_rng(seed)
    found = np.cumsum(rng.exponential(1 / per_second, size=until.calls))
    while found[-1] < until.seconds:
        more = np.cumsum(rng.exponential(1 / per_second, size=max(until.calls, 64)))
        found = np.concatenate([found, found[-1] + more])
    kept = max(until.calls, int(np.searchsorted(found, until.seconds)))
    return np.rint(found[:kept] * 1e9).astype(np.int64)


def open_loop(call: Call, contents: Sequence[Any], moments: np.ndarray, clock: Clock | None = None) -> Timed:
    """Calls that arrive at `moments` (see `arrivals`) and are served one at a time, first come, first served. A latency
    counts from the arrival, so waiting for the calls before is in it. CPU time is that of the calls alone."""
    clock = clock or RealClock()
    timed, lock = Timed(), threading.Lock()
    begin = clock.now()
    for i, moment in enumerate(moments.tolist()):
        clock.wait_until(begin + moment)
        cpu = clock.cpu()
        _one(call, contents[i % len(contents)], begin + moment, clock, timed, lock)
        timed.cpu_ns += clock.cpu() - cpu
        if len(timed.errors) > MOST_ERRORS:
            break
    timed.wall_ns = clock.now() - begin
    timed.raise_errors()
    return timed


def warm_up(
    call: Callable[[Any], np.ndarray], contents: Sequence[Any], n: int, clock: Clock | None = None
) -> tuple[float, int]:
    """Call until a runtime has compiled and allocated; seconds of the first call, and the width of its vectors.

    n: contents of a call. Raises ModelError for what are no n vectors."""
    clock = clock or RealClock()
    start = clock.now()
    vectors = call(contents[0])
    first = (clock.now() - start) / 1e9
    for i in range(1, WARM_UP):
        check_vectors(vectors, n)
        vectors = call(contents[i % len(contents)])
    return first, check_vectors(vectors, n)


def check_vectors(vectors: Any, n: int) -> int:
    """The width of [n, dim] finite float32 vectors. Raises ModelError for anything else."""
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or len(vectors) != n or vectors.dtype != np.float32:
        got = f"{vectors.dtype}{list(vectors.shape)}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
        raise ModelError(f"the runtime gave {got}; expected float32 vectors of shape [{n}, dim]")
    if not np.isfinite(vectors).all():
        raise ModelError("the runtime gave vectors with NaN or infinite components")
    return vectors.shape[1]
