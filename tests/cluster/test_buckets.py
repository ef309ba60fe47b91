"""Jobs on Ray whose store, results and checkpoints are in a bucket that refuses a fifth of all requests; a worker whose
disk is full; a head that is killed. What comes of it is what a calm run gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.torch import load, load_file

import raylib
from raylib.cluster.encode import RayDataStage
from raylib.cluster.session import Workers
from raylib.errors import DiskFullError
from raylib.models.untrained import build_clip
from raylib.store.embeddings import Shelf
from tests.bucket import SECRET, Bucket, put, s3_server, take
from tests.cluster import watched_toys
from tests.cluster.nodes import Nodes, ray_nodes
from tests.cluster.test_driver_killed import CONTENTS, ROOT, TASK, ray_folder, scores_in, wait_until
from tests.cluster.test_faults import plan_of, run
from tests.evaluate.compare import flatten
from tests.extract.conftest import checkpoint as checkpoint
from tests.extract.made import columns, images_folder
from tests.train.made_runs import write_pairs

pytestmark = pytest.mark.cluster

__all__ = ["ray_folder"]  # a fixture


@pytest.fixture
def bucket():
    with s3_server() as server:
        yield server.bucket()


def raylib_command(arguments: list[str], ray_folder: str) -> str:
    """What a job with a Ray of its own says."""
    run = subprocess.run(
        [sys.executable, "-m", "raylib.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": ray_folder},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout
    assert SECRET not in run.stdout and "AKIA" not in run.stdout
    return run.stdout


def as_flags(settings: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


def check_quiet(bucket: Bucket) -> None:
    """No file that was stored holds a credential."""
    for data in bucket.files().values():
        assert SECRET.encode() not in data and b"AKIA" not in data


def test_evaluate_with_a_busy_bucket(watched, vidore, tmp_path, ray_folder, bucket):
    flags = {"--model": "tests.cluster.watched_toys:watched", "--tasks": TASK, "--data-root": vidore}
    flags |= {"--output-folder": f"{bucket.url}/out", "--store": f"{bucket.url}/store"}
    flags |= {"--batch-size": "4", "--workers": "2"}
    bucket.refuse(share=0.2, seed=5)
    said = raylib_command(["evaluate", *(part for pair in flags.items() for part in pair)], ray_folder)
    assert bucket.refused > 20 and "to a bucket that was busy were sent again" in said
    bucket.refuse()
    check_quiet(bucket)

    calm = tmp_path / "calm"
    raylib.evaluate("tests.toys:dense", tasks=[TASK], data_root=vidore, output_folder=str(calm), local=True, quiet=True)
    files = bucket.files()
    (found,) = (data for name, data in files.items() if name.endswith(f"/{TASK}.json"))
    assert repr(flatten(json.loads(found)["scores"])) == repr(scores_in(calm))
    (summary,) = (json.loads(data) for name, data in files.items() if name.startswith("out/runs/"))
    assert summary["contents"]["encoded"] == CONTENTS and 0 < summary["repeated_requests"] <= bucket.refused


@pytest.mark.slow
def test_train_with_a_busy_bucket(tmp_path, ray_folder, bucket):
    build_clip(tmp_path / "clip")
    write_pairs(tmp_path / "pairs.jsonl", 23)
    settings: dict[str, Any] = {"batch_size": 7, "max_steps": 6, "save_every": 2, "lr": 1e-4}
    common = {"model": str(tmp_path / "clip"), "data": str(tmp_path / "pairs.jsonl"), **settings}
    raylib.train(**common, output_folder=str(tmp_path / "calm"), local=True, quiet=True)
    bucket.refuse(share=0.2, seed=5)
    raylib_command(["train", *as_flags(common), f"--output-folder={bucket.url}/run", "--workers=1"], ray_folder)
    assert bucket.refused > 20
    check_quiet(bucket)
    found, expected = (
        load(bucket.files()["run/model/model.safetensors"]),
        load_file(tmp_path / "calm/model/model.safetensors"),
    )
    assert found.keys() == expected.keys()
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) <= 1e-7


@pytest.mark.slow
def test_extract_with_a_busy_bucket(checkpoint, tmp_path, ray_folder, bucket):
    """The model and the images are read from the bucket by workers, and the files are written there."""
    model, settings = checkpoint("gemma3"), {"checkpoint_interval": 3, "batch_size": 2}
    images_folder(tmp_path / "vqa")
    folders = {"vqa_dataset": "vqa/vqa.csv", "images_dir": "vqa/images", "output_dir": "states"}
    here = {name: str(tmp_path / path) for name, path in folders.items()}
    assert raylib.extract(str(model), **here, **settings, local=True, quiet=True).ok
    put(bucket, tmp_path / "vqa", model)
    bucket.refuse(share=0.2, seed=5)
    flags = {"model": f"{bucket.url}/{model.name}", "workers": 2, **settings}
    flags |= {name: f"{bucket.url}/{path}" for name, path in folders.items()}
    raylib_command(["extract", *as_flags(flags)], ray_folder)
    assert bucket.refused > 20
    bucket.refuse()
    check_quiet(bucket)
    (tmp_path / "found").mkdir()
    take(bucket, ".h5", tmp_path / "found")
    assert columns(tmp_path / "found") == columns(tmp_path / "states")


@pytest.mark.slow
def test_mine_with_a_busy_bucket(tmp_path, ray_folder, bucket):
    build_clip(tmp_path / "clip")
    (tmp_path / "data").mkdir()
    write_pairs(tmp_path / "data/pairs.jsonl", 23)
    calm = tmp_path / "mined.jsonl"
    data = {"data": str(tmp_path / "data/pairs.jsonl"), "k": 2}
    raylib.mine_negatives(str(tmp_path / "clip"), output=str(calm), **data, local=True, quiet=True)
    put(bucket, tmp_path / "data", tmp_path / "clip")
    bucket.refuse(share=0.2, seed=5)
    flags = {"model": f"{bucket.url}/clip", "data": f"{bucket.url}/data/pairs.jsonl", "k": 2, "workers": 2}
    flags |= {"store": f"{bucket.url}/store", "output": f"{bucket.url}/mined.jsonl"}
    raylib_command(["mine", "negatives", *as_flags(flags)], ray_folder)
    assert bucket.refused > 5
    bucket.refuse()
    check_quiet(bucket)
    assert bucket.files()["mined.jsonl"] == calm.read_bytes()


# A full disk on one node.


@pytest.fixture
def no_room(watched):
    """Workers find no room on their disks after 32 contents while the file that this gives is there."""
    watched_toys.forget("full")
    path = watched_toys.folder() / "no-room"
    path.write_text("")
    yield path
    path.unlink(missing_ok=True)


def test_a_full_disk_of_a_worker_costs_nothing(cluster, no_room, tmp_path):
    """The job writes what a worker encodes: nothing is encoded twice, and all is as where there was room."""
    plan = plan_of("full_disk", [f"text {i}" for i in range(96)])
    shelf = Shelf(str(tmp_path / "full"), plan.encoder.fingerprint)
    report = RayDataStage(Workers(2), split=False)(plan.encoder, plan.batches(4), plan.sources, shelf)
    shelf.refresh()
    full = f"the disk of the node {os.uname().nodename} is full"
    assert [note for note in report.notes if full in note] and report.encoded == 96 and not report.retries
    assert len(watched_toys.forwards("full")) == 96

    no_room.unlink()
    calm = run(RayDataStage(Workers(2), split=False), plan, tmp_path / "calm")
    keys = plan.keys()
    assert shelf.contains(keys).all()
    assert np.array_equal(shelf.get(keys).values, calm.get(keys).values)


def test_no_room_anywhere_names_the_node_and_the_run_goes_on_when_there_is_room(
    cluster, no_room, tmp_path, monkeypatch
):
    """Neither a worker nor the job: what was stored stays, and the same run again does only the rest."""
    plan = plan_of("full_disk", [f"text {i}" for i in range(96)])
    monkeypatch.setattr("raylib.store.embeddings.Shelf.describe", lambda *_: None)
    monkeypatch.setattr("os.fsync", watched_toys.no_room)
    with pytest.raises(DiskFullError) as error:
        run(RayDataStage(Workers(2), split=False), plan, tmp_path)
    said = str(error.value)
    assert "No space left on device" in said and str(tmp_path) in said and f"the node {os.uname().nodename}" in said
    assert "run the same command again" in said and "\n" not in said

    monkeypatch.undo()
    no_room.unlink()
    shelf = Shelf(str(tmp_path), plan.encoder.fingerprint)
    shelf.refresh()
    stored = shelf.stored(plan.keys())
    first = {process for process, _ in watched_toys.forwards("full")}  # one of them may still be at a batch
    assert 0 < len(stored) < 96
    RayDataStage(Workers(2), split=False)(plan.encoder, plan.batches(4, stored), plan.sources, shelf)
    shelf.refresh()
    assert shelf.contains(plan.keys()).all()
    assert sum(process not in first for process, _ in watched_toys.forwards("full")) == 96 - len(stored)


# The head.


def kill_head(nodes: Nodes) -> None:
    """SIGKILL to every process of the head and what they have started: the job server, the job and its workers, too."""
    own = [info.process.pid for kind in nodes._cluster.head_node.all_processes.values() for info in kind]
    family = [p for pid in own if psutil.pid_exists(pid) for p in (psutil.Process(pid), *_below(pid))]
    for process in family:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=30)


def _below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.slow
def test_a_head_that_is_killed_and_the_job_sent_again(watched, vidore, tmp_path, monkeypatch):
    watched_toys.forget("slow")
    output = tmp_path / "out"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    job = ["submit", "evaluate", "--model", "tests.cluster.watched_toys:slow", "--tasks", TASK, "--data-root", vidore]
    job += ["--output-folder", str(output), "--batch-size", "4", "--workers", "2"]
    job += ["--env", "RAYLIB_WATCHED,PYTHONPATH", "--working-dir", str(tmp_path / "empty")]
    (tmp_path / "empty").mkdir()

    def send(nodes: Nodes, *more: str) -> int:
        command = [sys.executable, "-m", "raylib.cli", *job, "--address", nodes.job_server, *more]
        return subprocess.run(command, cwd=tmp_path, timeout=280).returncode

    with ray_nodes(head_cpus=3, job_server=True) as nodes:
        wait_until(lambda: send(nodes) == 0, 120, "a job server that takes jobs")
        wait_until(lambda: len(list(output.rglob("part-*.parquet"))) >= 4, 240, "four parts")
        kill_head(nodes)
    before = len(watched_toys.forwards("slow"))
    assert 0 < before < CONTENTS and not list(output.rglob(f"{TASK}.json"))

    with ray_nodes(head_cpus=3, job_server=True) as nodes:
        wait_until(lambda: send(nodes, "--follow") == 0, 280, "a job server that takes jobs")
    (summary,) = (json.loads(path.read_text()) for path in (output / "runs").glob("*.json"))
    contents = summary["contents"]
    assert contents["reused"] > 0 and contents["reused"] + contents["encoded"] == CONTENTS
    assert len(watched_toys.forwards("slow")) - CONTENTS <= 2 * 4, "more than what was in flight"
    raylib.evaluate(
        "tests.toys:dense", tasks=[TASK], data_root=vidore, output_folder=str(tmp_path / "calm"), local=True, quiet=True
    )
    assert repr(scores_in(output)) == repr(scores_in(tmp_path / "calm"))
