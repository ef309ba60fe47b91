"""Several Ray nodes on this machine, for jobs in processes of their own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.test_driver_killed import ROOT, wait_until

_QUICK_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""A node that is gone is missed within seconds."""


class Nodes:
    """A head, and workers beside it."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.workers: list[Any] = []

    @property
    def address(self) -> str:
        return self._cluster.address

    @property
    def job_server(self) -> str:
        return f"http://{self._cluster.head_node.address_info['webui_url']}"

    def add(
        self, cpus: int, labels: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        given: dict[str, Any] = {"labels": dict(labels or {}), "env_vars": dict(environment or {})}
        node = self._cluster.add_node(num_cpus=cpus, object_store_memory=2**28, **given)
        self.workers.append(node)

    def running(self, name: str) -> list[int]:
        """The numbers of the worker nodes that have a process of this name, a regular expression."""
        found = []
        for number, node in enumerate(self.workers):
            raylet = psutil.Process(self._raylet(node).pid)
            if any(re.search(name, " ".join(child.cmdline())) for child in raylet.children(recursive=True)):
                found.append(number)
        return found

    def kill(self, number: int) -> None:
        """SIGKILL to a node's raylet: its workers end with it."""
        self._raylet(self.workers[number]).kill()

    @staticmethod
    def _raylet(node: Any) -> Any:
        return node.all_processes["raylet"][0].process


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def ray_nodes(*cpus: int, head_cpus: int = 0, job_server: bool = False) -> Iterator[Nodes]:
    """A head, and one worker node for each number, with as many CPUs. Jobs join through `address`, or are submitted to
    `job_server`, of a head alone: nodes on one machine would share the folder into which working directories are
    unpacked, and clean up behind each other. Nothing outlives the block."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="rt", dir="/tmp")
    # Ray writes the address of the cluster that was started last below $RAY_TMPDIR, where others would find it.
    environment = {**_QUICK_HEALTH_CHECKS, "RAY_TMPDIR": folder}
    os.makedirs(os.path.join(folder, "ray"))
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    head = {"num_cpus": head_cpus, "object_store_memory": 2**28, "include_dashboard": job_server, "temp_dir": folder}
    head |= {"dashboard_port": free_port()} if job_server else {}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = Nodes(cluster)
        for count in cpus:
            nodes.add(count)
        yield nodes
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


ENCODERS = r"_PoolWorker|MapWorker"
"""Processes that hold models, by a regular expression."""


def lose_a_node(
    arguments: Sequence[str], log: Path, when: Callable[[], bool], process: str = ENCODERS
) -> tuple[int, str]:
    """Run `raylib` with these arguments on three nodes of one CPU; `when` it is far enough, kill one that runs such a
    process. Its exit status and what it said."""
    command = [sys.executable, "-m", "raylib.cli", *arguments]
    with ray_nodes(1, 1, 1) as nodes, open(log, "w") as stream:
        environment = {**os.environ, "RAY_ADDRESS": nodes.address, "PYTHONPATH": str(ROOT)}
        job = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: job.poll() is not None or when(), 240, "its first results")
            assert job.poll() is None, log.read_text()
            nodes.kill(nodes.running(process)[-1])
            job.wait(timeout=280)
        finally:
            job.kill()
    return job.returncode, log.read_text()
