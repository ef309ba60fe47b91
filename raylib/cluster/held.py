"""What the workers of a stage hold, on which nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import ray

from raylib.cluster.session import Workers
from raylib.timeline import Held, NodeKind

NODE_TYPE = "raylib.io/node-type"
"""The label by which nodes say what they are; cluster.yaml gives it to every kind of worker."""

_LABELS = (NODE_TYPE, "node.kubernetes.io/instance-type")


def held(workers: Workers, count: int) -> Held:
    """Of so many of these, which are resolved; with the nodes that there are now."""
    return Held(count, count * (workers.gpus or 0.0), float(count * workers.cpus), node_kinds())


def node_kinds() -> tuple[NodeKind, ...]:
    """The nodes that are alive, by type: a label, or a resource of that name, as clusters have it that were there
    before labels."""
    alike = Counter(
        (_names(node), node["Resources"].get("GPU", 0.0), node["Resources"].get("CPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    )
    return tuple(NodeKind(names, nodes, gpus, cpus) for (names, gpus, cpus), nodes in sorted(alike.items()))


def _names(node: Mapping[str, Any]) -> tuple[str, ...]:
    labels = [str(node["Labels"][name]) for name in _LABELS if node["Labels"].get(name)]
    resources = sorted(name for name in node["Resources"] if ":" not in name and not name.endswith("memory"))
    return (*labels, *(name for name in resources if name not in ("CPU", "GPU")))
