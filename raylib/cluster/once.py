"""One call in a task that holds what a worker of the job holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
import ray.exceptions

from raylib.cluster.session import MAX_ATTEMPTS, Workers, answer_of, taken, worker_failure


def once(workers: Workers, model: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` gives for `arguments` on a worker. Raises what it raises, and ModelError where the worker dies
    `MAX_ATTEMPTS` times; model: named in that."""
    task = ray.remote(call).options(num_gpus=workers.gpus or None, num_cpus=workers.cpus, max_retries=MAX_ATTEMPTS - 1)
    try:
        return taken(task.remote(workers.cpus, function, *arguments))
    except ray.exceptions.RayError as error:
        raise worker_failure(error, model) from error


def call(threads: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """On a worker, with so many threads of torch; see `answer_of`."""
    import torch

    torch.set_num_threads(threads)
    return answer_of(function, *arguments)
