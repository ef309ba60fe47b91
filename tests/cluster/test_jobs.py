"""`raylib submit`, `jobs` and `stop` against a real head with its job server; `ray job submit`, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raylib.cli import main
from tests.cluster.nodes import Nodes, ray_nodes
from tests.cluster.test_driver_killed import ROOT, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_FACTORY = '''
"""A model that says what travelled with the job, and one that never ends."""
import os, time


def telling():
    here = sorted(name for name in os.listdir(".") if not name.startswith("."))
    print("TRAVELLED", ",".join(here), os.environ.get("ASKED"), os.environ.get("NOT_ASKED"), flush=True)
    raise SystemExit(7)


def endless():
    print("WAITING", flush=True)
    time.sleep(600)
'''


@pytest.fixture(scope="module")
def nodes():
    with ray_nodes(head_cpus=2, job_server=True) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A working directory."""
    (tmp_path / "mine.py").write_text(_FACTORY)
    (tmp_path / "lines.txt").write_text("one line\nanother line\n")
    (tmp_path / "data.parquet").write_text("large")
    (tmp_path / "notes.csv").write_text("private")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "old.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("ASKED", "a value")
    monkeypatch.setenv("NOT_ASKED", "another")
    return tmp_path


def submit(nodes: Nodes, *arguments: str) -> int:
    return main(["submit", *arguments, "--address", nodes.job_server])


def test_a_followed_job_does_what_the_command_does(nodes, folder, tmp_path_factory, capfd):
    output = tmp_path_factory.mktemp("vectors")
    job = ["encode", "--model", "raylib/hashed-ngrams", "--input", "lines.txt"]
    assert main([*job, "--output", str(output / "here"), "--format", "npy", "--local"]) == 0
    assert submit(nodes, *job, "--output", str(output / "there"), "--format=npy", "--follow", "--job-id", "first") == 0
    here, there = ((output / name / "embeddings.npy").read_bytes() for name in ("here", "there"))
    assert here == there
    said = capfd.readouterr().out
    assert f"job first  {nodes.job_server}/#/jobs/first" in said
    assert main(["jobs", "--address", nodes.job_server]) == 0
    listed = capfd.readouterr().out
    assert "first" in listed and "SUCCEEDED" in listed


def test_the_exit_status_is_the_jobs_and_only_what_should_travels(nodes, folder, capfd):
    arguments = ["encode", "--model", "mine:telling", "--input", "lines.txt", "--output", "x", "--local", "--follow"]
    assert submit(nodes, *arguments, "--env", "ASKED", "--exclude", "*.csv") == 7
    assert "TRAVELLED lines.txt,mine.py,x a value None" in capfd.readouterr().out


def test_a_job_that_is_stopped(nodes, folder, capfd):
    command = [sys.executable, "-m", "raylib.cli", "submit", "encode", "--model=mine:endless", "--input=lines.txt"]
    command += ["--output", "x", "--local", "--follow", "--job-id", "endless", "--address", nodes.job_server]
    log = folder / "log"
    with open(log, "w") as stream:
        follower = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "WAITING" in log.read_text(), 120, "the job's words")
        assert main(["stop", "endless", "--address", nodes.job_server]) == 0
        assert follower.wait(timeout=60) == 130
    finally:
        follower.kill()
    assert "job endless was stopped" in log.read_text()
    assert main(["stop", "endless", "--address", nodes.job_server]) == 0
    assert "has ended already: STOPPED" in capfd.readouterr().out
    assert main(["stop", "never-there", "--address", nodes.job_server]) == 2


def test_rays_own_command_runs_the_scripts(nodes, tmp_path):
    command = ["ray", "job", "submit", "--address", nodes.job_server, "--working-dir", str(ROOT / "jobs"), "--"]
    command += ["python", "encode.py", "--model", "raylib/hashed-ngrams", "--input", str(tmp_path / "lines.txt")]
    command += ["--output", str(tmp_path / "vectors")]
    (tmp_path / "lines.txt").write_text("one line\nanother line\n")
    run = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "vectors" / "embeddings.parquet").exists()
