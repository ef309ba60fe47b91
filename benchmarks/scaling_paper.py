"""A model on paper: how many GPUs each shared part of a cluster can feed, from what a page costs there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Of one page, measured. seconds: of CPU; bytes: prepared, as they pass through the object store; read from the
    bucket and written to it; requests: of the bucket."""

    driver_seconds: float
    head_seconds: float
    prepare_seconds: float
    prepared_bytes: float
    read_bytes: float
    written_bytes: float
    read_requests: float
    written_requests: float


@dataclass(frozen=True)
class Fleet:
    """What is assumed of the cluster. Bytes a second are of a node with eight GPUs; requests a second, of one prefix of
    a bucket; cores, of the processes that share them."""

    pages_per_gpu_second: float = 10.0
    gpus_per_node: int = 8
    cores_per_gpu: float = 24.0
    node_network_bytes: float = 100e9 / 8
    object_store_bytes: float = 10e9
    bucket_reads: float = 5_500.0
    bucket_writes: float = 3_500.0
    driver_cores: float = 1.0
    head_cores: float = 8.0


def limits(costs: Costs, fleet: Fleet) -> dict[str, float]:
    """Name of a shared part → the number of GPUs at which it has no time left. Parts that every node has for itself are
    `per_node`."""
    pages = fleet.pages_per_gpu_second
    return {
        "driver process": fleet.driver_cores / (costs.driver_seconds * pages),
        "head node": fleet.head_cores / (costs.head_seconds * pages),
        "bucket, reads of one prefix": fleet.bucket_reads / (costs.read_requests * pages),
        "bucket, writes of one prefix": fleet.bucket_writes / (costs.written_requests * pages),
    }


def per_node(costs: Costs, fleet: Fleet) -> dict[str, float]:
    """Name of a part of a node → the share of it that eight busy GPUs take; above 1 they wait for it."""
    pages = fleet.pages_per_gpu_second * fleet.gpus_per_node
    network = costs.read_bytes + costs.written_bytes + costs.prepared_bytes
    return {
        "CPU cores that prepare": costs.prepare_seconds * pages / (fleet.cores_per_gpu * fleet.gpus_per_node),
        "network, prepared elsewhere": network * pages / fleet.node_network_bytes,
        "network, prepared on the node": (costs.read_bytes + costs.written_bytes) * pages / fleet.node_network_bytes,
        "object store, copies": 2 * costs.prepared_bytes * pages / fleet.object_store_bytes,
    }


def first_limit(found: Mapping[str, float]) -> tuple[str, float]:
    """The part that saturates first."""
    return min(found.items(), key=lambda item: item[1])
