"""Evaluate, extract, mine and train as jobs of a cluster: by `raylib submit` one after another, by `ray job submit` all
at a time. What they write is what the command writes on this machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import raylib
from raylib.models.untrained import build_clip
from tests.cluster.nodes import Nodes, ray_nodes
from tests.cluster.test_driver_killed import ROOT, TASK, scores_in
from tests.cluster.test_extract import folder as extract_folder
from tests.cluster.test_extract import settings as extract_settings
from tests.cluster.test_jobs import submit
from tests.cluster.test_train import weights
from tests.extract.made import columns
from tests.train.made_runs import most_different, write_pairs

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

__all__ = ["extract_folder", "extract_settings"]  # fixtures

folder, settings = extract_folder, extract_settings


@dataclass
class Job:
    """command: without its output flag. script: of `jobs/`, and what follows it. same: compares two outputs."""

    command: list[str]
    script: list[str]
    calm: Path
    output_flag: str
    same: Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def nodes():
    with ray_nodes(head_cpus=4, job_server=True) as found:
        yield found


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, vidore, settings) -> dict[str, Job]:
    root = tmp_path_factory.mktemp("jobs")
    (root / "clip").mkdir()
    build_clip(root / "clip")
    pairs, clip = write_pairs(root / "pairs.jsonl", 60), str(root / "clip")
    evaluate: dict[str, Any] = {"model": clip, "tasks": TASK, "data_root": vidore, "workers": 2}
    extract = {**{name: value for name, value in settings.items() if name != "quiet"}, "workers": 2}
    mine = {"model": "raylib/hashed-ngrams", "data": pairs, "k": 5, "workers": 2}
    train = {"model": clip, "data": pairs, "batch_size": 9, "max_steps": 12, "optimizer": "sgd", "lr": 1e-3}
    train["workers"] = 2
    alone = {"local": True, "quiet": True}
    raylib.evaluate(**_here(evaluate), output_folder=str(root / "evaluate"), **alone)
    raylib.extract(**_here(extract), output_dir=str(root / "extract"), **alone)
    raylib.mine_negatives(**_here(mine), output=str(root / "mine.jsonl"), **alone)
    raylib.train(**_here(train), output_folder=str(root / "train"), **alone)
    return {
        "evaluate": _job(["evaluate"], evaluate, root / "evaluate", "--output-folder", _same_scores),
        "extract": _job(["extract"], extract, root / "extract", "--output-dir", _same_states),
        "mine": _job(["mine", "negatives"], mine, root / "mine.jsonl", "--output", _same_bytes),
        "train": _job(["train"], train, root / "train", "--output-folder", _same_weights),
    }


def _here(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "workers"}


def _job(
    command: list[str], settings: dict[str, Any], calm: Path, flag: str, same: Callable[[Path, Path], None]
) -> Job:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    return Job([*command, *flags], [f"{command[0]}.py", *command[1:], *flags], calm, flag, same)


def _same_scores(calm: Path, found: Path) -> None:
    assert repr(scores_in(found)) == repr(scores_in(calm))


def _same_states(calm: Path, found: Path) -> None:
    assert columns(found) == columns(calm)


def _same_bytes(calm: Path, found: Path) -> None:
    assert found.read_text() == calm.read_text()


def _same_weights(calm: Path, found: Path) -> None:
    assert most_different(weights(calm), weights(found)) <= 1e-5


@pytest.fixture
def empty(tmp_path: Path, monkeypatch) -> Path:
    """A working directory with nothing of raylib in it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "notes.txt").write_text("")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.mark.parametrize("name", ["evaluate", "extract", "mine", "train"])
def test_raylib_submit(name, nodes: Nodes, jobs: dict[str, Job], empty: Path, capfd):
    job = jobs[name]
    output = empty / job.calm.name
    status = submit(nodes, *job.command, job.output_flag, str(output), "--follow", "--job-id", name)
    assert status == 0, capfd.readouterr()
    job.same(job.calm, output)


def test_ray_job_submit_of_all_four_at_a_time(nodes: Nodes, jobs: dict[str, Job], tmp_path: Path):
    """They share four CPUs, of which each asks for two."""
    ray = str(Path(sys.executable).parent / "ray")
    runs = {}
    for name, job in jobs.items():
        script = ["python", *job.script, job.output_flag, str(tmp_path / job.calm.name)]
        command = [ray, "job", "submit", "--address", nodes.job_server, "--working-dir", str(ROOT / "jobs"), "--"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with open(tmp_path / f"{name}.log", "w") as log:
            runs[name] = subprocess.Popen([*command, *script], env=environment, stdout=log, stderr=log)
    try:
        for name, run in runs.items():
            assert run.wait(timeout=280) == 0, (tmp_path / f"{name}.log").read_text()
    finally:
        for run in runs.values():
            run.kill()
    for job in jobs.values():
        job.same(job.calm, tmp_path / job.calm.name)


def test_a_flag_the_job_does_not_have_is_refused_before_anything_is_sent(nodes: Nodes, empty: Path, capfd):
    with pytest.raises(SystemExit) as ended:
        submit(nodes, "train", "--model", "x", "--data", "y", "--no-such-flag", "--job-id", "refused")
    assert ended.value.code == 2
    listed = subprocess.run(
        shlex.split(f"{sys.executable} -m raylib.cli jobs --address {nodes.job_server}"), capture_output=True, text=True
    )
    assert "refused" not in listed.stdout and listed.returncode == 0
