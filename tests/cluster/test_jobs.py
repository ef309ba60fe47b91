"""`raylib submit`, `jobs` and `stop` against a real head with its job server; `ray job submit`, too."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raylib.cli import main
from raylib.cluster.jobs import _when_there_is_an_agent, connect
from raylib.submit_config import JobServer
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


@contextmanager
def follower(nodes: Nodes, folder: Path, job_id: str, stdin: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`raylib submit --follow` of a job that never ends, once that has said so. Its words are in folder/log."""
    command = [sys.executable, "-m", "raylib.cli", "submit", "encode", "--model=mine:endless", "--input=lines.txt"]
    command += ["--output", "x", "--local", "--follow", "--job-id", job_id, "--address", nodes.job_server]
    log = folder / "log"
    with open(log, "w") as stream:
        found = subprocess.Popen(command, stdin=stdin, stdout=stream, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "WAITING" in log.read_text(), 120, "the job's words")
        yield found
    finally:
        found.kill()


def test_a_job_that_is_stopped(nodes, folder, capfd):
    with follower(nodes, folder, "endless") as found:
        assert main(["stop", "endless", "--address", nodes.job_server]) == 0
        assert found.wait(timeout=60) == 130
    assert "job endless was stopped" in (folder / "log").read_text()
    assert main(["stop", "endless", "--address", nodes.job_server]) == 0
    assert "has ended already: STOPPED" in capfd.readouterr().out
    assert main(["stop", "never-there", "--address", nodes.job_server]) == 2


@pytest.mark.parametrize(("answer", "end"), [("s", "STOPPED"), ("n", "RUNNING")])
def test_ctrl_c_asks_whether_to_stop_the_job(nodes, folder, answer, end):
    job_id, log = f"asked-{answer}", folder / "log"
    keyboard, terminal = pty.openpty()
    client = connect(JobServer(nodes.job_server))
    try:
        with follower(nodes, folder, job_id, stdin=terminal) as found:
            found.send_signal(signal.SIGINT)
            wait_until(lambda: "Stop the job (s)" in log.read_text(), 60, "the question")
            assert client.get_job_status(job_id).value == "RUNNING"
            os.write(keyboard, f"{answer}\n".encode())
            assert found.wait(timeout=60) == 130
        wait_until(lambda: client.get_job_status(job_id).value == end, 60, f"the job to be {end}")
    finally:
        client.stop_job(job_id)
        os.close(keyboard)
        os.close(terminal)


def test_ctrl_c_without_a_terminal_leaves_the_job(nodes, folder):
    client = connect(JobServer(nodes.job_server))
    try:
        with follower(nodes, folder, "unasked", stdin=subprocess.DEVNULL) as found:
            found.send_signal(signal.SIGINT)
            assert found.wait(timeout=60) == 130
        assert client.get_job_status("unasked").value == "RUNNING"
        assert "stop it with: raylib stop unasked" in (folder / "log").read_text()
    finally:
        client.stop_job("unasked")


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


def test_a_job_server_whose_agent_is_not_up_yet_is_asked_again(monkeypatch):
    monkeypatch.setattr("raylib.cluster.jobs._SECONDS_BETWEEN", 0.0)
    answers = iter([RuntimeError("status code 500: No available agent to submit job"), "job-1"])

    def submit() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert _when_there_is_an_agent(submit) == "job-1"
    answers = iter([RuntimeError("the id is taken")])
    with pytest.raises(RuntimeError, match="taken"):
        _when_there_is_an_agent(submit)
