"""Mining on the connected cluster: contents are encoded there, neighbours found, MaxSim computed and graphs cut."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import ray
import ray.exceptions

from raylib.cluster.evaluate import RayBackend
from raylib.cluster.held import held
from raylib.cluster.neighbours import RayNeighbours
from raylib.cluster.once import call
from raylib.cluster.search import RaySearch
from raylib.cluster.session import MAX_ATTEMPTS, Workers, cause_or, first_line, taken
from raylib.errors import RaylibError
from raylib.mine.place import MinePlace, Run
from raylib.placement import Placement

_PER_WORKER = 2
"""Tasks of each worker whose results were not taken yet: one that runs, and one that waits for it, or for its turn."""


def mine_place(config: Placement) -> MinePlace:
    """The connected cluster, with as many workers as the flags say. Raises UserError for resources that the cluster
    cannot have."""
    backend = RayBackend.of(config)
    workers = Workers.of(config)
    find, search, run = RayNeighbours(workers), RaySearch(workers), ray_map(workers)
    count = backend.workers.count or 1
    return MinePlace(backend.encode_place(), find, search, run, lambda: held(backend.workers, count))


def ray_map(workers: Workers) -> Run:
    """`map` over one iterable, on the cluster: results in order, at most two tasks a worker ahead of what is taken.

    Tasks hold CPUs alone. One whose process dies is run again, `MAX_ATTEMPTS` times in all. Raises, at its place, what
    a task raises, and RaylibError where workers die; the tasks that are left then do not run.
    """
    return functools.partial(_on_cluster, workers)


def _on_cluster(workers: Workers, function: Callable[..., Any], tasks: Iterable[Any]) -> Iterator[Any]:
    count = replace(workers, gpus=0.0).resolve().count
    assert count is not None
    task: Any = ray.remote(call).options(num_cpus=workers.cpus, max_retries=MAX_ATTEMPTS - 1)
    shared = ray.put(function)
    waiting: deque[Any] = deque()
    try:
        for argument in tasks:
            waiting.append(task.remote(workers.cpus, shared, argument))
            if len(waiting) == _PER_WORKER * count:
                yield _taken(waiting.popleft())
        while waiting:
            yield _taken(waiting.popleft())
    finally:
        for rest in waiting:
            ray.cancel(rest, force=True)


def _taken(task: Any) -> Any:
    try:
        return taken(task)
    except ray.exceptions.RayError as error:
        death = RaylibError(
            f"mining: a worker process died {MAX_ATTEMPTS} times over the same piece ({first_line(error)}). Too little "
            "memory? Try fewer --workers, or see Ray's logs."
        )
        raise cause_or(error, death) from error
