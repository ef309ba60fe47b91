"""Benchmarks on the connected cluster: a node of each type, held alone while its cells are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raylib.bench.spawn import run_process
from raylib.cluster.held import NODE_TYPE
from raylib.cluster.session import first_line
from raylib.errors import UserError
from raylib.evaluate.progress import Reporter

_PATIENCE_SECONDS = 30.0


class _Holder:
    """Holds every CPU and GPU of its node, so that nothing else of this cluster computes there."""

    def where(self) -> None:
        """Answers once it has the node."""

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        return run_process(job, timeout_s)


@dataclass(frozen=True)
class RayNode:
    """A `raylib.bench.place.Node`. The node is given back when nobody has this any more."""

    type: str | None
    holder: Any

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            return ray.get(self.holder.run.remote(job, timeout_s))
        except ray.exceptions.RayError as error:
            return {"failed": f"its node was lost ({first_line(error)})"}


@dataclass
class RayNodes:
    """A `raylib.bench.place.Place`. types: labels of nodes; without any, one node, the largest. gpus: only nodes that
    have some, and all of them. timeout_s: how long a type may take to appear, as where a cluster grows."""

    types: Sequence[str]
    gpus: bool
    timeout_s: float
    reporter: Reporter

    def nodes(self) -> Sequence[RayNode]:
        """Raises UserError for a type that does not appear, and where no node has what is needed."""
        if not self.types:
            return [self._hold(self._largest(), None)]
        asked = {name: self._ask_for(name) for name in self.types}
        return [self._hold(self._found(name, asked[name]), name) for name in self.types]

    def _largest(self) -> Mapping[str, Any]:
        alive = [node for node in ray.nodes() if node["Alive"] and (not self.gpus or _has(node, "GPU"))]
        if not any(_has(node, "CPU") for node in alive):
            what = "GPUs" if self.gpus else "CPUs"
            raise UserError(f"no node of the cluster has {what}; name a type of node that has, with --node-types")
        return max(alive, key=lambda node: (_has(node, "GPU"), _has(node, "CPU")))

    def _ask_for(self, name: str) -> Any:
        """A small task there: what makes a cluster grow. Gives the node's id."""
        task: Any = ray.remote(_own_id)
        return task.options(num_cpus=1, num_gpus=1 if self.gpus else 0, label_selector={NODE_TYPE: name}).remote()

    def _found(self, name: str, answer: Any) -> Mapping[str, Any]:
        since = time.monotonic()
        ready, _ = ray.wait([answer], timeout=min(_PATIENCE_SECONDS, self.timeout_s))
        if not ready:
            self.reporter.warn(f"no node of type {name} is free yet; the cluster has {_types()}")
            ready, _ = ray.wait([answer], timeout=max(0.0, self.timeout_s - (time.monotonic() - since)))
        if not ready:
            ray.cancel(answer)
            raise UserError(
                f"no node of type {name} came within {self.timeout_s:g} s (--timeout); the cluster has {_types()}. "
                f"Types are the label {NODE_TYPE} of its nodes"
            )
        (found,) = [node for node in ray.nodes() if node["NodeID"] == ray.get(answer)]
        return found

    def _hold(self, node: Mapping[str, Any], name: str | None) -> RayNode:
        maker: Any = ray.remote(_Holder)
        holder = maker.options(
            num_cpus=_has(node, "CPU"),
            num_gpus=_has(node, "GPU"),
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote()
        _wait_for(holder, lambda: self.reporter.warn("waiting for a node that others compute on"))
        return RayNode(name or node["Labels"].get(NODE_TYPE), holder)


def _wait_for(holder: Any, warn: Callable[[], None]) -> None:
    answer = holder.where.remote()
    ready, _ = ray.wait([answer], timeout=_PATIENCE_SECONDS)
    if not ready:
        warn()
    ray.get(answer)


def _own_id() -> str:
    return ray.get_runtime_context().get_node_id()


def _has(node: Mapping[str, Any], resource: str) -> float:
    return node["Resources"].get(resource, 0.0)


def _types() -> str:
    found = {node["Labels"].get(NODE_TYPE) for node in ray.nodes() if node["Alive"]} - {None}
    return ", ".join(sorted(map(str, found))) or "no labelled node"
