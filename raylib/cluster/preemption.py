"""Spot nodes that a cloud is about to take away: when the notice comes, the node is drained. Ray then starts nothing
more there, and asks its autoscaler for another one; what the node still does is finished, or done again elsewhere.

Nodes are watched that say in their labels that they are spot nodes, by an actor each that asks the cloud's metadata
server (AWS: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html; GCP:
https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption). $RAYLIB_METADATA_URL of the node is
another address of it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

logger = logging.getLogger(__name__)

SPOT = ({"raylib.io/market": "spot"}, {"ray.io/market-type": "spot"})
"""Labels of nodes that are watched: of cluster.yaml, and Ray's own."""

_SECONDS = 5.0
"""Between two looks: AWS tells two minutes before, GCP thirty seconds."""

_GCP_SECONDS = 30.0


@contextmanager
def watched_nodes() -> Iterator[None]:
    """While the block lasts, spot nodes of the connected cluster are watched, also those that join it."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(ended,), name="spot nodes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(ended: threading.Event) -> None:
    watching: dict[str, tuple[Any, Any]] = {}
    gone: set[str] = set()
    try:
        while True:
            for node in ray.nodes():
                name = node["NodeID"]
                if node["Alive"] and name not in gone | watching.keys() and _is_spot(node["Labels"]):
                    watching[name] = _start(name)
            for name in [name for name, (_, answer) in watching.items() if ray.wait([answer], timeout=0)[0]]:
                gone.add(name)
                _tell(name, watching.pop(name)[1])
            if ended.wait(_SECONDS / 2):
                return
    except ray.exceptions.RayError:  # the cluster itself is gone: the job says so
        return
    finally:
        for actor, _ in watching.values():
            ray.kill(actor)


def _is_spot(labels: Mapping[str, str]) -> bool:
    return any(label.items() <= labels.items() for label in SPOT)


def _start(node: str) -> tuple[Any, Any]:
    maker: Any = ray.remote(_Watcher)
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    actor = maker.options(num_cpus=0, max_restarts=0, scheduling_strategy=here).remote()
    return actor, actor.drained.remote()


def _tell(node: str, answer: Any) -> None:
    try:
        logger.warning("node %s is drained: %s", node[:12], ray.get(answer))
    except ray.exceptions.RayError:  # it went without a word
        return


class _Watcher:
    """On the node that it watches."""

    def drained(self) -> str:
        """Answers when a notice came, and the node is drained: what the notice says."""
        base = os.environ.get("RAYLIB_METADATA_URL", "http://169.254.169.254")
        while (found := notice(base)) is None:
            time.sleep(_SECONDS)
        said, until = found
        drain(ray.get_runtime_context().get_node_id(), said, until)
        return said


def drain(node: str, why: str, until: float) -> None:
    """What `ray drain-node` does, for reason of a pre-emption, which Ray does not refuse. until: seconds of the epoch
    at which the node goes."""
    import ray._raylet as raylet
    from ray.core.generated import autoscaler_pb2

    reasons: Any = vars(autoscaler_pb2)["DrainNodeReason"]
    reason = reasons.Value("DRAIN_NODE_REASON_PREEMPTION")
    client: Any = vars(raylet)["GcsClient"](address=ray.get_runtime_context().gcs_address)
    client.drain_node(node, reason, why, int(until * 1000))


def notice(base: str) -> tuple[str, float] | None:
    """(what it says, seconds of the epoch at which the node goes) of a notice of pre-emption; None where there is none,
    or no metadata server."""
    token = _ask(f"{base}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    if token is not None:
        told = _ask(f"{base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
        if told is None:
            return None
        about = json.loads(told)
        return f"AWS: {about['action']} at {about['time']}", datetime.fromisoformat(about["time"]).timestamp()
    told = _ask(f"{base}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    if told is None or told.strip().upper() != "TRUE":
        return None
    return "GCP: preempted", time.time() + _GCP_SECONDS


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The answer; None for 404 and where nobody answers."""
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=2) as answer:
            return answer.read().decode()
    except OSError:  # HTTP errors are some
        return None
