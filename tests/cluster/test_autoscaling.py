"""A cluster without workers grows as a job asks, no further, and shrinks to nothing again. Its nodes are processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cluster.nodes import free_port
from tests.cluster.test_driver_killed import ROOT, processes_of, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HEAD_ID = "f" * 51 + "00000"
MOST = 4
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


@dataclass
class Growing:
    address: str
    folder: Path

    def workers(self) -> int:
        """Raylets besides the head's."""
        return sum("/raylet/raylet " in command for command in processes_of(str(self.folder))) - 1


def settings(gcs: str) -> dict[str, Any]:
    provider = {"type": "external", "module": PROVIDER, "gcs_address": gcs, "head_node_id": HEAD_ID}
    provider |= dict.fromkeys(
        ("use_node_id_as_ip", "disable_node_updaters", "disable_launch_config_check", "launch_multiple"), True
    )
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    worker = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": MOST}
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "growing",
        "max_workers": MOST,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 100,
        "provider": provider,
        "available_node_types": {"ray.head.default": head, "worker": worker},
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{f"{name}_commands": [] for name in commands},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    }


@pytest.fixture(scope="module")
def growing() -> Iterator[Growing]:
    from ray._private.services import get_node_ip_address

    folder = Path(tempfile.mkdtemp(prefix="rt", dir="/tmp"))
    port = free_port()
    address = f"{get_node_ip_address()}:{port}"
    (folder / "cluster.json").write_text(json.dumps(settings(address)))
    variables = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"}
    variables |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_CLOUD_INSTANCE_ID": HEAD_ID}
    variables |= {"RAYLIB_WATCHED": str(folder), "PYTHONPATH": str(ROOT)}  # of nodes, as of the head
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=0"]
    command += ["--include-dashboard=false", "--object-store-memory=200000000", f"--temp-dir={folder}"]
    command += [f"--autoscaling-config={folder}/cluster.json"]
    with open(folder / "log", "w") as log:
        head = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        found = Growing(address, folder)
        wait_until(lambda: found.workers() == 0, 60, "the head")
        time.sleep(3)
        yield found
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        for process in _own(str(folder)):
            os.kill(process, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _own(folder: str) -> list[int]:
    """Processes of this cluster that the head does not take with it."""
    running = psutil.process_iter(["cmdline"])
    return [process.pid for process in running if any(folder in word for word in process.info["cmdline"] or [])]


def encode(growing: Growing, lines: int, output: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """With up to four workers; and the most there were."""
    texts = growing.folder / "lines.txt"
    texts.write_text("".join(f"line {number}\n" for number in range(lines)))
    command = [sys.executable, "-m", "raylib.cli", "encode", "--model", "tests.cluster.watched_toys:slow"]
    command += ["--input", str(texts), "--output", str(growing.folder / output), "--batch-size", "1", "--workers", "4"]
    variables = {"RAY_ADDRESS": growing.address, "RAYLIB_WATCHED": str(growing.folder), "PYTHONPATH": str(ROOT)}
    job = subprocess.Popen(
        command, env={**os.environ, **variables}, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    most = 0
    while job.poll() is None:
        most = max(most, growing.workers())
        time.sleep(0.2)
    return subprocess.CompletedProcess(command, job.returncode, job.communicate()[0]), most


def test_as_many_nodes_as_the_work_needs_and_back(growing):
    small, few = encode(growing, 2, "small")
    assert small.returncode == 0, small.stdout
    assert few == 1, "two batches are work for one worker"
    large, many = encode(growing, 60, "large")
    assert large.returncode == 0, large.stdout
    assert 2 <= many <= MOST
    wait_until(lambda: growing.workers() == 0, 60, "the end of idle nodes")
