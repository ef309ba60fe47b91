"""`raylib serve` on Ray Serve: replicas of each model that follow the load, one replica of each corpus.

HTTP is answered by the process that was started, on the port that was asked for, and batches are put together there:
what crosses to a replica is a whole batch. Ray Serve's own proxy, which costs several milliseconds of a core for each
request, and a handle call for each, would take more than small models do.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

# For many short calls: batches go straight to a replica, and cross no threads on either side. Each crossing waits for
# the interpreter, which a forward of many small steps wants all the time. Ray Serve reads these when it is imported.
os.environ.setdefault("RAY_SERVE_USE_GRPC_BY_DEFAULT", "1")
os.environ.setdefault("RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", str(2**31 - 1))  # of images 4 MB are little
os.environ.setdefault("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "0")
os.environ.setdefault("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", "0")

import ray
import ray.exceptions
from ray import serve
from ray.serve.exceptions import RayServeException

from raylib.cluster.session import cause_or, session, started_here
from raylib.errors import ModelError
from raylib.models.protocol import Encoder
from raylib.serve.config import ServeConfig
from raylib.serve.local import SWITCH_SECONDS, batcher_of, open_here, with_corpora
from raylib.serve.model_worker import ModelWorker, Vectors
from raylib.serve.protocol import Asked, Content, Corpus, Document, Hit, Served, WorkerDiedError
from raylib.serve.server import serve as answer
from raylib.types import Embeddings, EncodeContext, Role

T = TypeVar("T")

logger = logging.getLogger(__name__)

_BATCHES = 2
"""Of one replica at a time: one in its forward, one that is prepared."""

_WATCH_SECONDS = 1.0
"""How often replicas are counted."""

_HEALTH_SECONDS = 2.0
_UPSCALE_SECONDS, _DOWNSCALE_SECONDS = 2.0, 60.0
"""How long the load must be so before replicas come, or go."""

_CORPUS_TRIES = 5

_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
"""Of Ray Serve and of every replica, which would else write a line for each batch."""

_numbers = itertools.count(1)


class _ModelReplica:
    def __init__(self, encoder: Encoder, max_tokens: int, threads: int) -> None:
        import torch

        sys.setswitchinterval(SWITCH_SECONDS)
        torch.set_num_threads(threads)
        self._worker = ModelWorker(encoder, max_tokens)
        self._worker.load()

    async def encode(self, contents: Sequence[Content], asked: Asked) -> Vectors:
        return await asyncio.to_thread(self._worker.encode, contents, asked)

    def check_health(self) -> None:
        """Asked by Ray Serve, which starts another replica in place of one that raises here three times."""
        if self._worker.broken:
            raise ModelError(f"{self._worker.encoder.spec.name} fails on whatever it is given")


class _CorpusReplica:
    """The one process that has the corpus open."""

    def __init__(self, config: ServeConfig, name: str, encoder: Encoder) -> None:
        self._corpus = open_here(config, name, encoder)

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """What the method gives. A failure that is raised is the caller's: it travels as Ray sends it."""
        return await getattr(self._corpus, method)(*arguments)

    async def contexts(self) -> Mapping[Role, EncodeContext]:
        return self._corpus.contexts

    def __del__(self) -> None:
        corpus = getattr(self, "_corpus", None)
        if corpus is not None:
            corpus.close()


class ReplicaRunner:
    """A `Runner` over the replicas of a model."""

    def __init__(self, application: str, handle: Any, fewest: int) -> None:
        self.models = fewest
        self._application, self._encode = application, handle.encode
        self._counting: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Follow the number of replicas, in this event loop."""
        self._counting = asyncio.ensure_future(self._count())

    def stop(self) -> None:
        if self._counting is not None:
            self._counting.cancel()

    async def __call__(self, contents: Sequence[Content], asked: Asked) -> Vectors:
        return await _unwrapped(self._encode.remote(list(contents), asked))

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                self.models = max(1, await asyncio.to_thread(running_replicas, self._application))
            except Exception:  # the controller is being started again
                logger.warning("replicas could not be counted", exc_info=True)


class RemoteCorpus:
    """A `Corpus` whose replica may be started again under it: what is asked then is asked again, for all of it may be
    done twice."""

    def __init__(self, model: str, contexts: Mapping[Role, EncodeContext], handle: Any) -> None:
        self.model, self.contexts = model, contexts
        self._call = handle.call

    async def _ask(self, method: str, *arguments: Any) -> Any:
        for last in (False,) * (_CORPUS_TRIES - 1) + (True,):
            try:
                return await _unwrapped(self._call.remote(method, arguments))
            except WorkerDiedError:
                if last:
                    raise
                await asyncio.sleep(_HEALTH_SECONDS / 2)
        return None

    async def search(self, queries: Embeddings, top_k: int, filters: Any = None) -> list[list[Hit]]:
        return await self._ask("search", queries, top_k, filters)

    async def add(self, documents: Sequence[Document], vectors: Embeddings) -> None:
        await self._ask("add", documents, vectors)

    async def delete(self, ids: Sequence[str]) -> list[str]:
        return await self._ask("delete", ids)

    async def documents(self, ids: Sequence[str]) -> list[Document | None]:
        return await self._ask("documents", ids)

    async def ids(self, start: int = 0, count: int = 100) -> list[str]:
        return await self._ask("ids", start, count)

    async def changes(self) -> tuple[dict[str, str], list[str]]:
        return await self._ask("changes")

    async def vectors(self, ids: Sequence[str]) -> Embeddings:
        return await self._ask("vectors", ids)

    async def count(self) -> int:
        return await self._ask("count")


async def _unwrapped(answer: Awaitable[T]) -> T:
    """The answer of a replica. Raises WorkerDiedError where it died, and what it raised in its own words."""
    try:
        return await answer
    except ray.exceptions.RayError as error:
        raise cause_or(error, WorkerDiedError("a replica died")) from error


def running_replicas(application: str) -> int:
    """Of all deployments of an application."""
    found = serve.status().applications.get(application)
    states = [one.replica_states for one in found.deployments.values()] if found is not None else []
    return sum(count for one in states for state, count in one.items() if state == "RUNNING")


def serve_on_ray(config: ServeConfig) -> None:
    """Until SIGTERM or SIGINT; see `raylib.serve.server.serve`. Joins a cluster, or starts one here."""
    with session(config.address, quiet=config.quiet or not config.address):
        try:
            logging.getLogger("ray.serve").setLevel(logging.WARNING)
            serve.start(proxy_location="Disabled", logging_config=_LOGGING)
            answer(config, open_on_ray)
        finally:
            logging.getLogger("ray.serve").setLevel(logging.CRITICAL)  # a cluster that was started here just ends


async def open_on_ray(config: ServeConfig, encoder: Encoder, name: str, stack: AsyncExitStack) -> dict[str, Served]:
    """See `raylib.serve.server.Opener`."""
    application = _application_name()
    handle = await asyncio.to_thread(_run, _model_application(config, encoder), application, name)
    stack.push_async_callback(asyncio.to_thread, serve.delete, application)
    runner = ReplicaRunner(application, handle, config.replica_range()[0])
    runner.watch()
    stack.callback(runner.stop)
    return await with_corpora(config, name, batcher_of(config, encoder, runner), stack, _corpus_opener(config))


def _application_name() -> str:
    """That no other server on the cluster has."""
    return f"raylib-{socket.gethostname()}-{os.getpid()}-{next(_numbers)}"


def _run(application: Any, name: str, what: str) -> Any:
    """Its handle, once replicas answer. Raises ModelError where they cannot start."""
    try:
        return serve.run(application, name=name, route_prefix=None)
    except (RayServeException, RuntimeError) as error:
        found = serve.status().applications.get(name)
        told = found.message if found is not None else str(error)
        with contextlib.suppress(Exception):
            serve.delete(name)
        lines = [line.strip() for line in told.splitlines() if line.strip()]
        raise ModelError(f"{what} cannot be served: {lines[-1][:500] if lines else error}") from error


def _model_application(config: ServeConfig, encoder: Encoder) -> Any:
    fewest, most = config.replica_range()
    gpus = _gpus_of(config, encoder)
    scaling: dict[str, Any] = {"num_replicas": fewest}
    if most > fewest:
        # A replica has at most two batches, and two all the time only where requests wait: more replicas then help.
        scaling = {
            "autoscaling_config": {
                "min_replicas": fewest,
                "max_replicas": most,
                "initial_replicas": fewest,
                "target_ongoing_requests": 1.2,
                "upscale_delay_s": _UPSCALE_SECONDS,
                "downscale_delay_s": _DOWNSCALE_SECONDS,
                "look_back_period_s": 5.0,
                "metrics_interval_s": 1.0,
            }
        }
    deployment = serve.deployment(
        name="model",
        logging_config=_LOGGING,
        ray_actor_options={"num_cpus": config.cpus_per_replica or 1, "num_gpus": gpus, **_elsewhere()},
        max_ongoing_requests=_BATCHES,
        health_check_period_s=_HEALTH_SECONDS,
        graceful_shutdown_timeout_s=config.timeout,
        **scaling,
    )(_ModelReplica)
    return deployment.bind(encoder, config.max_batch_tokens, config.cpus_per_replica or 1)


def _elsewhere() -> dict[str, Any]:
    """Options of replicas: those of a Ray that was started here have this process's environment."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("RAY_SERVE_")}
    return {} if started_here() else {"runtime_env": {"env_vars": settings}}


def _gpus_of(config: ServeConfig, encoder: Encoder) -> float:
    if not encoder.needs_device:
        return 0
    if config.gpus_per_replica is not None:
        return config.gpus_per_replica
    return 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0


def _corpus_opener(config: ServeConfig) -> Any:
    async def opened(name: str, encoder: Encoder) -> tuple[Corpus, Callable[[], Any]]:
        application = _application_name()
        deployment = serve.deployment(
            name="corpus",
            logging_config=_LOGGING,
            num_replicas=1,
            ray_actor_options={"num_cpus": 0, **_elsewhere()},
            max_ongoing_requests=1024,
            health_check_period_s=_HEALTH_SECONDS,
            graceful_shutdown_timeout_s=config.timeout,
        )(_CorpusReplica)
        handle = await asyncio.to_thread(_run, deployment.bind(config, name, encoder), application, f"corpus {name}")
        contexts = await _unwrapped(handle.contexts.remote())
        return RemoteCorpus(encoder.spec.name, contexts, handle), lambda: serve.delete(application)

    return opened
