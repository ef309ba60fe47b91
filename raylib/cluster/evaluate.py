"""`raylib evaluate` on a Ray cluster: one Ray Data execution per model, long-lived actors for requests in between,
tasks scored side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions

from raylib.cluster.encode import RayDataStage
from raylib.cluster.halves import quiet_ray_data
from raylib.cluster.pool import PoolStage
from raylib.cluster.score import ScoreWorkers
from raylib.cluster.search import RaySearch
from raylib.cluster.session import MAX_ATTEMPTS, Workers, portable, started_here, worker_failure
from raylib.cluster.shared_pool import PooledPlan
from raylib.cluster.shared_store import require_store, store_marker
from raylib.cluster.ship import ShippedSource, ship
from raylib.evaluate.auto_batch import auto_limits
from raylib.evaluate.batching import BatchLimits, MicroBatch
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import Progress
from raylib.evaluate.model import EncodeStage
from raylib.models.protocol import Encoder, ModelSpec
from raylib.placement import Placement
from raylib.store.embeddings import Shelf


@dataclass
class RayBackend:
    """The connected cluster as a `raylib.evaluate.backend.Backend`."""

    workers: Workers
    _scorer: ScoreWorkers | None = None

    @classmethod
    def of(cls, config: Placement) -> RayBackend:
        """Raises UserError for resources that the cluster cannot have."""
        quiet_ray_data()
        wanted = Workers(config.workers, config.min_workers, config.gpus_per_worker, config.cpus_per_worker)
        return cls(wanted.resolve())

    def plan_stage(self, progress: Progress, *, requests: bool) -> EncodeStage:
        """Ray Data, which prepares on CPUs what GPUs encode and streams contents by value between machines. On one
        machine of CPUs it would only load a second copy of a model that is to answer requests anyway."""
        if requests and self._scorer is not None and not self.workers.gpus and started_here():
            return PooledPlan(self._scorer.pool(), progress)
        return RayDataStage(self.workers, progress)

    def request_stage(self) -> EncodeStage:
        return PoolStage(self.workers)

    def score_stage(self) -> ScoreWorkers:
        self._scorer = ScoreWorkers(self.workers)
        return self._scorer

    def search_stage(self) -> RaySearch:
        return RaySearch(self.workers)

    def find_limits(
        self,
        encoder: Encoder,
        samples: Mapping[tuple[str, ...], Sequence[MicroBatch]],
        sources: Sequence[Source],
        shelf: Shelf,
    ) -> dict[tuple[str, ...], BatchLimits]:
        """Tried in a task that holds what a worker holds."""
        task = ray.remote(_find_limits).options(
            num_gpus=self.workers.gpus or None, num_cpus=self.workers.cpus, max_retries=MAX_ATTEMPTS - 1
        )
        sent = (encoder, dict(samples), ship(sources), shelf, store_marker(shelf), self.workers.cpus)
        try:
            found: Any = ray.get(task.remote(*sent))
        except ray.exceptions.RayError as error:
            raise worker_failure(error, encoder.spec.name) from error
        if isinstance(found, Exception):
            raise found
        return found

    def exact_model(self, spec: ModelSpec) -> Any:
        from raylib.cluster.exact_mteb import ray_exact_model

        return ray_exact_model(spec, self.workers)

    def parallel_models(self) -> int:
        """As many as the cluster holds whole groups of workers."""
        have = ray.cluster_resources()
        assert self.workers.count is not None
        if self.workers.gpus:
            return max(1, int(have.get("GPU", 0) // (self.workers.count * self.workers.gpus)))
        return max(1, int(have.get("CPU", 1) // (self.workers.count * self.workers.cpus)))

    def release(self, stage: EncodeStage) -> None:
        if isinstance(stage, PoolStage):
            stage.close()


def _find_limits(
    encoder: Encoder,
    samples: Mapping[tuple[str, ...], Sequence[MicroBatch]],
    sources: list[ShippedSource],
    shelf: Shelf,
    marker: str | None,
    threads: int,
) -> dict[tuple[str, ...], BatchLimits] | Exception:
    """On a worker. A failure travels as an answer: raised here, Ray would wrap it in its own words."""
    import torch

    try:
        torch.set_num_threads(threads)
        require_store(marker)
        return auto_limits(encoder, samples, sources, shelf)
    except Exception as error:
        return portable(error)
