"""Notices that a spot node is taken away, from a metadata server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import raylib
from raylib.cluster.preemption import SPOT, notice
from tests.cluster import watched_toys
from tests.cluster.nodes import ENCODERS, ray_nodes
from tests.cluster.test_driver_killed import CONTENTS, ROOT, TASK, scores_in, wait_until

pytestmark = pytest.mark.cluster


class Metadata:
    """Of a cloud: `answers` by path; what is not there is a 404. AWS wants the token that it gave."""

    def __init__(self, cloud: str) -> None:
        self.cloud, self.notice, self.asked = cloud, "", 0
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                there = answers.cloud == "aws" and self.path == "/latest/api/token"
                self._send("a-token" if there and self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else None)

            def do_GET(self) -> None:
                answers.asked += 1
                aws = self.path == "/latest/meta-data/spot/instance-action"
                aws = aws and self.headers["X-aws-ec2-metadata-token"] == "a-token"
                gcp = self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"]
                if answers.cloud == "gcp":
                    self._send(answers.notice or "FALSE" if gcp == "Google" else None)
                else:
                    self._send(answers.notice if aws else None)

            def _send(self, text: str | None) -> None:
                self.send_response(200 if text else 404)
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def metadata(cloud: str) -> Iterator[Metadata]:
    server = Metadata(cloud)
    try:
        yield server
    finally:
        server.close()


def test_what_clouds_say():
    with metadata("aws") as aws, metadata("gcp") as gcp:
        assert notice(aws.url) is None and notice(gcp.url) is None and notice("http://127.0.0.1:9") is None
        aws.notice = '{"action": "terminate", "time": "2030-01-02T03:04:05Z"}'
        assert notice(aws.url) == (
            "AWS: terminate at 2030-01-02T03:04:05Z",
            datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp(),
        )
        gcp.notice = "TRUE"
        told = notice(gcp.url)
        assert told is not None and told[0] == "GCP: preempted" and 25 < told[1] - time.time() <= 30


_DRIVER = """
import os, sys, time, ray
from raylib.cluster.session import session

@ray.remote(num_cpus=1)
def place():
    time.sleep(0.2)
    return ray.get_runtime_context().get_node_id()

@ray.remote(num_cpus=0)
def hold(path):
    open(path + ray.get_runtime_context().get_node_id(), "w").close()
    while not os.path.exists(path):
        time.sleep(0.1)
    return "finished"

with session(sys.argv[1]):
    before = set(ray.get([place.remote() for _ in range(12)]))
    on = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    path = sys.argv[2]
    held = [hold.options(scheduling_strategy=on(n, soft=False), max_retries=0).remote(path) for n in before]
    while not all(os.path.exists(path + node) for node in before):
        time.sleep(0.1)
    print("BEFORE", len(before), flush=True)
    until = time.time() + 90
    while not ray._private.worker.global_worker.gcs_client.get_draining_nodes() and time.time() < until:
        time.sleep(0.2)
    after = set(ray.get([place.remote() for _ in range(12)]))
    print("AFTER", len(after), "ALIVE", sum(n["Alive"] for n in ray.nodes()), flush=True)
    open(path, "w").close()
    print(*ray.get(held), flush=True)
"""


def test_nothing_new_goes_to_a_node_that_is_taken_away(tmp_path: Path):
    """Of two spot nodes one gets a notice of an hour: new tasks go to the other, and what it was at is finished."""
    with metadata("aws") as first, metadata("aws") as second, ray_nodes() as nodes:
        for server, label in zip((first, second), SPOT, strict=True):
            nodes.add(1, label, {"RAYLIB_METADATA_URL": server.url})
        command = [sys.executable, "-c", _DRIVER, nodes.address, str(tmp_path / "held")]
        job = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert job.stdout is not None and job.stdout.readline() == "BEFORE 2\n"
            wait_until(lambda: first.asked > 0 and second.asked > 0, 60, "watchers on both nodes")
            later = datetime.fromtimestamp(time.time() + 3600, UTC).isoformat(timespec="seconds")
            second.notice = json.dumps({"action": "terminate", "time": later})
            assert job.communicate(timeout=120)[0] == "AFTER 1 ALIVE 3\nfinished finished\n"
        finally:
            job.kill()


@pytest.mark.slow
def test_an_evaluation_whose_node_is_warned_and_then_taken(watched, vidore, tmp_path: Path):
    watched_toys.forget("slow")
    flags = {"--model": "tests.cluster.watched_toys:slow", "--tasks": TASK, "--data-root": vidore}
    flags |= {"--output-folder": str(tmp_path / "out"), "--batch-size": "2", "--workers": "2"}
    command = [sys.executable, "-m", "raylib.cli", "evaluate", *(part for pair in flags.items() for part in pair)]
    with metadata("aws") as cloud, ray_nodes(1) as nodes, open(tmp_path / "log", "w") as log:
        nodes.add(1, SPOT[0], {"RAYLIB_METADATA_URL": cloud.url})
        environment = {**os.environ, "RAY_ADDRESS": nodes.address, "PYTHONPATH": str(ROOT)}
        job = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: len(watched_toys.forwards("slow")) > 12, 240, "first contents")
            assert 1 in nodes.running(ENCODERS)
            later = datetime.fromtimestamp(time.time() + 120, UTC).isoformat(timespec="seconds")
            asked, cloud.notice = cloud.asked, json.dumps({"action": "terminate", "time": later})
            wait_until(lambda: cloud.asked > asked, 30, "the watcher's next look")
            nodes.kill(1)
            job.wait(timeout=280)
        finally:
            job.kill()
    assert job.returncode == 0, (tmp_path / "log").read_text()
    (summary,) = (json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").glob("*.json"))
    assert summary["contents"]["encoded"] == CONTENTS
    raylib.evaluate(
        "tests.toys:dense", tasks=[TASK], data_root=vidore, output_folder=str(tmp_path / "calm"), local=True, quiet=True
    )
    assert repr(scores_in(tmp_path / "out")) == repr(scores_in(tmp_path / "calm"))
