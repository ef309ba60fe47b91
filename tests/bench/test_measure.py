"""Loops on a clock that stands still unless it is told to go on: every latency follows by hand."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from raylib.bench.measure import (
    MOST_ERRORS,
    Timed,
    Until,
    arrivals,
    check_vectors,
    closed_loop,
    open_loop,
    settle,
    warm_up,
)
from raylib.errors import ModelError

MS = 1_000_000


class FakeClock:
    """Half of the time that passes in a call is CPU time; waiting takes none."""

    def __init__(self) -> None:
        self.time = self.used = 0

    def now(self) -> int:
        return self.time

    def cpu(self) -> int:
        return self.used

    def wait_until(self, moment: int) -> None:
        self.time = max(self.time, moment)

    def work(self, ms: float) -> None:
        self.time += round(ms * MS)
        self.used += round(ms * MS / 2)


def test_calls_that_arrive_wait_for_those_before_them():
    clock = FakeClock()
    served = []

    def call(content):
        served.append(content)
        clock.work(15)

    moments = np.array([0, 10, 20, 100]) * MS
    timed = open_loop(call, ["a", "b", "c"], moments, clock)
    # Served from 0 to 15, 15 to 30, 30 to 45 and 100 to 115.
    assert timed.latencies_ns == [15 * MS, 20 * MS, 25 * MS, 15 * MS]
    assert served == ["a", "b", "c", "a"]
    assert timed.wall_ns == 115 * MS
    assert timed.cpu_ns == 4 * 7.5 * MS


def test_the_cpu_time_of_waiting_is_not_counted():
    clock = FakeClock()
    clock.wait_until = lambda moment: clock.work((moment - clock.time) / MS)
    timed = open_loop(lambda _: clock.work(2), [0], np.array([100]) * MS, clock)
    assert (timed.latencies_ns, timed.cpu_ns) == ([2 * MS], 1 * MS)


def test_arrivals_are_of_a_poisson_process():
    moments = arrivals(200.0, Until(60.0, 100), seed=3) / 1e9
    gaps = np.diff(moments, prepend=0.0)
    assert 59 < moments[-1] < 60
    # 12,000 gaps of an exponential distribution of mean 5 ms, whose deviation is its mean.
    assert abs(gaps.mean() - 0.005) < 0.0002
    assert abs(gaps.std() - 0.005) < 0.0003
    assert abs((gaps > 0.005).mean() - np.exp(-1)) < 0.02


def test_arrivals_are_the_same_for_a_seed_and_enough_for_the_least_calls():
    few = arrivals(1.0, Until(0.5, 30), seed=1)
    assert len(few) == 30
    assert (few == arrivals(1.0, Until(0.5, 30), seed=1)).all()
    assert (few != arrivals(1.0, Until(0.5, 30), seed=2)).any()


@pytest.mark.parametrize(("seconds", "least", "calls"), [(0.1, 3, 10), (0.01, 5, 5), (0.095, 1, 10)])
def test_one_client_calls_until_time_and_number_are_reached(seconds, least, calls):
    clock = FakeClock()
    seen = []

    def call(content):
        seen.append(content)
        clock.work(10)

    timed = closed_loop(call, [1, 2, 3], Until(seconds, least), clock=clock)
    assert timed.latencies_ns == [10 * MS] * calls
    assert (timed.wall_ns, timed.cpu_ns) == (calls * 10 * MS, calls * 5 * MS)
    assert seen == [1 + i % 3 for i in range(calls)]


def test_clients_call_at_the_same_time():
    meeting = threading.Barrier(3, timeout=20)  # nobody leaves the first call before three are in it
    first = threading.local()

    def call(content):
        if not hasattr(first, "done"):
            first.done = True
            meeting.wait()

    timed = closed_loop(call, [0, 1], Until(0.001, 30), clients=3)
    assert len(timed.latencies_ns) >= 30
    assert not timed.errors


def test_a_panic_in_a_clients_thread_is_no_secret():
    def call(content):
        raise KeyboardInterrupt("as a Rust panic: no Exception")

    with pytest.raises(KeyboardInterrupt):
        closed_loop(call, [0], Until(0.001, 5), clients=2)


def test_calls_that_fail_are_counted_and_have_no_latency():
    clock = FakeClock()

    def call(content):
        clock.work(10)
        if content == 2:
            raise ValueError("two")

    timed = closed_loop(call, [1, 1, 1, 1, 1, 1, 1, 1, 1, 2], Until(0.3, 1), clock=clock)
    assert (len(timed.latencies_ns), len(timed.errors)) == (27, 3)


def test_a_runtime_that_keeps_failing_is_not_measured():
    calls = []

    def call(content):
        calls.append(content)
        if len(calls) > 3:
            raise ValueError("Already borrowed")

    with pytest.raises(ModelError, match=r"11 of 14 calls failed; the first: ValueError: Already borrowed"):
        closed_loop(call, [0], Until(60.0, 1))
    assert len(calls) == 3 + MOST_ERRORS + 1


def test_percentiles_are_numpys():
    taken = np.random.default_rng(0).integers(1, 50 * MS, size=1000)
    told = Timed(latencies_ns=taken.tolist()).percentiles()
    for q in (50, 90, 95, 99):
        assert told[f"p{q}"] == pytest.approx(np.percentile(taken / 1e6, q), rel=1e-12)
    assert told["mean"] == pytest.approx(taken.mean() / 1e6)
    assert told["min"] == taken.min() / 1e6


def test_a_99th_percentile_takes_a_thousand_calls():
    assert Timed(latencies_ns=[MS] * 999).percentiles()["p99"] is None
    assert Timed(latencies_ns=[MS] * 1000).percentiles()["p99"] == 1.0


@pytest.mark.parametrize(("batch", "calls"), [(1, 100), (8, 13), (32, 10)])
def test_a_cell_embeds_a_least_number_of_contents(batch, calls):
    assert Until.of(2.0, batch) == Until(2.0, calls)


def test_warming_up_calls_ten_times_and_times_the_first():
    clock = FakeClock()
    calls = []

    def call(content):
        calls.append(content)
        clock.work(500 if len(calls) == 1 else 10)
        return np.ones((2, 3), dtype=np.float32)

    assert warm_up(call, [7, 8], 2, clock) == (0.5, 3)
    assert calls == [7, 8] * 5


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((2, 3)), r"float64\[2, 3\]; expected float32 vectors of shape \[2, dim\]"),
        (np.ones((1, 3), dtype=np.float32), r"float32\[1, 3\]"),
        ([[1.0]], "gave list"),
        (np.full((2, 3), np.nan, dtype=np.float32), "NaN"),
    ],
)
def test_what_are_no_vectors_is_refused(vectors, message):
    with pytest.raises(ModelError, match=message):
        check_vectors(vectors, 2)


def test_the_collector_stays_on_and_does_not_look_at_what_is_loaded():
    import gc

    try:
        settle()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
