"""Joining a Ray cluster, or starting one on this machine, and what it has to give."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from raylib.cluster.preemption import watched_nodes
from raylib.errors import ModelError, RaylibError, UserError
from raylib.logs import LogFormat, log_as_json, name_job

# `uv run` would otherwise start every worker from a snapshot of the working directory with an environment of its own.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylib.cluster.presence import announce, present_jobs

if TYPE_CHECKING:
    from raylib.models.protocol import Encoder
    from raylib.placement import Placement

T = TypeVar("T")

MAX_ATTEMPTS = 3
"""How often contents are given to a worker before its death is put down to them, and not to the machine."""

_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
)

_started_here = False


@dataclass(frozen=True)
class Workers:
    """How the encode stage is spread. count: most forward actors; None takes one per GPU, or per CPU without GPUs, of
    the share of the cluster that is this job's.

    minimum: fewest actors while there is work. gpus and cpus: what one of them holds; gpus None takes one GPU where
    the cluster has any. A fraction shares a GPU among small models.
    """

    count: int | None = None
    minimum: int = 1
    gpus: float | None = None
    cpus: int = 1

    @classmethod
    def of(cls, config: Placement) -> Workers:
        """As the flags say."""
        return cls(config.workers, config.min_workers, config.gpus_per_worker, config.cpus_per_worker)

    def for_model(self, encoder: Encoder) -> Workers:
        """The same without GPUs for an encoder that needs none."""
        return self if encoder.needs_device else replace(self, gpus=0.0)

    def resolve(self) -> Workers:
        """The same with every default filled in from the cluster. Raises UserError for GPUs that it does not have."""
        have = ray.cluster_resources()
        total_gpus, total_cpus = have.get("GPU", 0.0), have.get("CPU", 1.0)
        gpus = self.gpus if self.gpus is not None else (1.0 if total_gpus >= 1 else 0.0)
        if gpus > 0 and total_gpus == 0 and started_here():
            raise UserError(
                f"--gpus-per-worker {gpus:g} was asked for, but this machine has no GPU that Ray can see. "
                "Leave it out to run on CPUs, or give the --address of a cluster with GPUs."
            )
        # Without a number asked for: a fair share of what there is, among the jobs that are on the cluster now.
        all_of_it = int(total_gpus // gpus) if gpus > 0 else int(total_cpus // self.cpus)
        count = self.count or max(1, self.minimum, math.ceil(all_of_it / present_jobs()))
        if self.minimum > count:
            raise UserError(f"--min-workers {self.minimum} is more than --workers {count}")
        return Workers(count, self.minimum, gpus, self.cpus)


@contextmanager
def session(
    address: str | None = None, *, quiet: bool = True, kind: str = "raylib", log_format: LogFormat = "text"
) -> Iterator[None]:
    """Connected to Ray inside the block: to `address`, to a running cluster (RAY_ADDRESS), or to one started here.

    A cluster that was already joined stays joined. kind: of the job, for its name. log_format: of what the job's
    workers write to Ray's logs. Raises UserError when `address` does not answer.
    """
    joined = ray.is_initialized()
    start(address, quiet=quiet, kind=kind, log_format=log_format)
    try:
        with nullcontext() if started_here() else watched_nodes():
            yield
    finally:
        if not joined:
            ray.shutdown()


def start(
    address: str | None = None, *, quiet: bool = True, kind: str = "raylib", log_format: LogFormat = "text"
) -> None:
    """Join or start Ray; where this process is connected already, the job gets its name and nothing else happens."""
    if not ray.is_initialized():
        _start(address, quiet, log_format)
    name_job(_submission_id() or f"{kind}-{ray.get_runtime_context().get_job_id()}")


def _submission_id() -> str | None:
    """Of a job that the job server started: the name that a person knows it by."""
    found = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return found.get("metadata", {}).get("job_submission_id")


def _start(address: str | None, quiet: bool, log_format: LogFormat) -> None:
    global _started_here
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if quiet:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    level = logging.ERROR if quiet else logging.INFO
    options: dict[str, Any] = {"log_to_driver": not quiet, "logging_level": level, "configure_logging": True}
    if log_format == "json":
        # Ray's own encoding: it adds the worker's, the node's and the task's ids to what `extra` says of a line.
        options["logging_config"] = ray.LoggingConfig(encoding="JSON", additional_log_standard_attrs=["name"])
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            with _native_stderr(shown=not quiet):
                ray.init(address=address, **options)
        else:
            with _native_stderr(shown=not quiet):
                ray.init(address="local", include_dashboard=False, **options)
        if log_format == "json":
            log_as_json()  # Ray's handler, for its workers, has taken the place of the job's own
        _started_here = not address
        if address:
            announce()
    except (ConnectionError, ray.exceptions.RaySystemError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        raise UserError(f"cannot reach {where}: {error}. Check --address, or run without Ray: --local.") from error


@contextmanager
def _native_stderr(shown: bool) -> Iterator[None]:
    """Without what Ray's C++ core writes to file descriptor 2 while it starts, a line about its own log level. What
    goes wrong is raised as an exception."""
    if shown:
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def started_here() -> bool:
    """Whether this process started the cluster. It is then this one machine and cannot grow: every worker sees the
    files that this process sees. On any other cluster contents travel through Ray's object store."""
    return _started_here and ray.is_initialized()


def take_for_started_here(here: bool) -> None:
    """Tell a worker process what `started_here` is where the job runs: they see the same files, or they do not."""
    global _started_here
    _started_here = here


def beside_the_job(*, soft: bool = False) -> NodeAffinitySchedulingStrategy:
    """Of an actor that should be lost with the job alone: on its node. soft: elsewhere, should that be gone."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=soft)


def portable(error: Exception) -> Exception:
    """`error` if it survives the way to another process, else one that says the same; its trace is in the worker's
    log."""
    if not isinstance(error, RaylibError):
        logging.getLogger(__name__).error("a worker failed", exc_info=error)
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = None
    return error if type(copy) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")


def answer_of(work: Callable[..., T], *arguments: Any) -> T | Exception:
    """What `work` gives; a failure travels as an answer as well: raised on a worker, Ray would wrap it in its own
    words."""
    try:
        return work(*arguments)
    except Exception as error:
        return portable(error)


def taken(answer: Any) -> Any:
    """What `answer_of` gave in a task or an actor. Raises the failure, where it is one, and Ray's errors."""
    found = ray.get(answer)
    if isinstance(found, Exception):
        raise found
    return found


def worker_failure(error: ray.exceptions.RayError, model: str) -> Exception:
    """What to raise for an error that came from Ray: what the code on the worker raised, in its own words, or a
    ModelError where workers of `model` died."""
    return cause_or(
        error,
        ModelError(
            f"{model}: a worker process died {MAX_ATTEMPTS} times over the same contents ({first_line(error)}). "
            "Too little memory? Try a smaller --batch-size, fewer --workers, or see Ray's logs."
        ),
    )


def died_over_it() -> str:
    """Why a content is set aside."""
    return f"{MAX_ATTEMPTS} worker processes died over it. Is it very large, or memory short?"


def lost_workers(model: str, deaths: int) -> list[str]:
    """What a person should hear of workers that died and were started again."""
    many = "a worker process" if deaths == 1 else f"{deaths} worker processes"
    return [f"{model}: {many} died; what they were at was done again"] if deaths else []


def cause_or(error: ray.exceptions.RayError, death: Exception) -> Exception:
    """`death` where a worker died, else what the code on it raised, in its own words."""
    if isinstance(error, _DEATHS):
        return death
    cause: BaseException | None = error
    while isinstance(cause, ray.exceptions.RayError):
        cause = getattr(cause, "cause", None) or cause.__cause__
    return cause if isinstance(cause, Exception) else error


def first_line(error: BaseException) -> str:
    """What an error from Ray says first, at most 200 characters."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
