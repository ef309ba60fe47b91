"""Probes on the connected cluster: a Ray task each, the same function as in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.exceptions

from raylib.cluster.session import MAX_ATTEMPTS, answer_of, taken, worker_failure
from raylib.probe.place import Common, Matrix, ProbeTask
from raylib.probe.results import ProbeResult
from raylib.store.representations import Representation


@dataclass(frozen=True)
class RayPlace:
    """A `raylib.probe.place.Place`. workers: most tasks at a time; None for as many as the cluster has CPUs."""

    workers: int | None = None

    def train(
        self, tasks: Sequence[ProbeTask], common: Common, matrix: Matrix
    ) -> Iterator[tuple[ProbeTask, ProbeResult, dict[str, Any]]]:
        """Every task with what it gave, as they come. A task whose worker dies is run again, `MAX_ATTEMPTS` times in
        all. States travel through the object store, only those of tasks under way."""
        most = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        run = ray.remote(_run).options(num_cpus=1, max_retries=MAX_ATTEMPTS - 1)
        shared = ray.put(common)
        waiting = list(reversed(tasks))
        running: dict[Any, ProbeTask] = {}
        states: dict[Representation, Any] = {}
        while waiting or running:
            while waiting and len(running) < most:
                task = waiting.pop()
                if task.representation not in states:
                    under_way = {other.representation for other in running.values()}
                    states = {name: ref for name, ref in states.items() if name in under_way}
                    states[task.representation] = ray.put(matrix(task.representation))
                running[run.remote(task, states[task.representation], shared)] = task
            (done,), _ = ray.wait(list(running), num_returns=1)
            task = running.pop(done)
            try:
                found = taken(done)
            except ray.exceptions.RayError as error:
                raise worker_failure(error, task.representation.path) from error
            yield task, *found


def _run(task: ProbeTask, states: np.ndarray, common: Common) -> tuple[ProbeResult, dict[str, Any]] | Exception:
    """On a worker."""
    return answer_of(task.run, states, common)
