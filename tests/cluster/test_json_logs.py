"""Workers' lines as JSON, in Ray's logs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cluster.test_driver_killed import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_workers_say_job_model_stage_and_shard(tmp_path):
    (tmp_path / "texts.txt").write_text("one\ntwo\nthree\nfour\n")
    command = [sys.executable, "-m", "raylib.cli", "encode", "--model", "raylib/hashed-ngrams", "--batch-size", "1"]
    command += ["--input", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "out"), "--workers", "2"]
    command += ["--log-format", "json"]
    folder = tempfile.mkdtemp(prefix="rt", dir="/tmp")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    try:
        environment |= {"RAY_TMPDIR": folder, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        logs = Path(folder).glob("ray/session_2*/logs/worker-*.err")
        lines = [line for log in logs for line in log.read_text().splitlines() if '"shard"' in line]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    told = [json.loads(line) for line in lines]
    job = json.loads(run.stdout.splitlines()[0])["job"]
    assert job.startswith("encode-")
    assert {(one["job"], one["model"], one["stage"]) for one in told} == {(job, "raylib/hashed-ngrams", "encode")}
    assert len({one["shard"] for one in told}) == len(told) > 0 and all("worker_id" in one for one in told)
