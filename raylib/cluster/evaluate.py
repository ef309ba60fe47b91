"""`raylib evaluate` on a Ray cluster: one Ray Data execution per model, long-lived actors for requests in between,
tasks scored side by side."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions

from raylib.cluster.encode import RayDataStage
from raylib.cluster.halves import quiet_ray_data
from raylib.cluster.once import once
from raylib.cluster.pool import PoolStage
from raylib.cluster.score import ScoreWorkers
from raylib.cluster.search import RaySearch
from raylib.cluster.session import Workers, started_here
from raylib.cluster.shared_pool import PooledPlan
from raylib.cluster.shared_store import require_store, store_marker
from raylib.cluster.ship import ShippedSource, ship
from raylib.encode.planned import Place
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
    """The connected cluster as a `raylib.evaluate.backend.Backend`. workers: resolved when the job started; asked: as
    the flags say, for stages that take their share of the cluster when they run."""

    workers: Workers
    asked: Workers
    _scorer: ScoreWorkers | None = None

    @classmethod
    def of(cls, config: Placement) -> RayBackend:
        """Raises UserError for resources that the cluster cannot have."""
        quiet_ray_data()
        asked = Workers.of(config)
        return cls(asked.resolve(), asked)

    def plan_stage(self, progress: Progress, *, requests: bool) -> EncodeStage:
        """Ray Data, which prepares on CPUs what GPUs encode and streams contents by value between machines. On one
        machine of CPUs it would only load a second copy of a model that is to answer requests anyway."""
        if requests and self._scorer is not None and not self.workers.gpus and started_here():
            return PooledPlan(self._scorer.pool(), progress)
        return RayDataStage(self.asked, progress)

    def encode_place(self) -> Place:
        """For jobs that encode and ask for nothing afterwards."""
        return Place(functools.partial(self.plan_stage, requests=False), self.find_limits)

    def request_stage(self) -> EncodeStage:
        return PoolStage(self.asked)

    def score_stage(self) -> ScoreWorkers:
        self._scorer = ScoreWorkers(self.workers)
        return self._scorer

    def search_stage(self) -> RaySearch:
        return RaySearch(self.asked)

    def find_limits(
        self,
        encoder: Encoder,
        samples: Mapping[tuple[str, ...], Sequence[MicroBatch]],
        sources: Sequence[Source],
        shelf: Shelf,
    ) -> dict[tuple[str, ...], BatchLimits]:
        """Tried in a task that holds what a worker holds."""
        sent = (encoder, dict(samples), ship(sources), shelf, store_marker(shelf))
        return once(self.workers, encoder.spec.name, _find_limits, *sent)

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
) -> dict[tuple[str, ...], BatchLimits]:
    """On a worker, which must see the store."""
    require_store(marker)
    return auto_limits(encoder, samples, sources, shelf)
