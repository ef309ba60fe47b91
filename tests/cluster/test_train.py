"""`raylib train` on Ray: processes that train together, and that are killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

import raylib
from raylib.errors import ModelError
from raylib.models.untrained import build_clip
from raylib.train.records import read_metrics
from tests.cluster.test_driver_killed import processes_of, ray_folder, wait_until
from tests.cluster.test_score import processes
from tests.train.made_runs import most_different, write_pairs

pytestmark = pytest.mark.cluster

__all__ = ["ray_folder"]  # a fixture

STEPS, SAVE_EVERY = 40, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("train")
    (found / "clip").mkdir()
    build_clip(found / "clip")
    write_pairs(found / "pairs.jsonl", 60)
    return found


@pytest.fixture(scope="module")
def settings(folder):
    """SGD: Adam would make much of the rounding by which a gradient that should be zero differs."""
    return {
        "model": str(folder / "clip"),
        "data": str(folder / "pairs.jsonl"),
        "batch_size": 9,
        "max_steps": STEPS,
        "save_every": SAVE_EVERY,
        "optimizer": "sgd",
        "lr": 1e-3,
        "log_every": 1,
    }


@pytest.fixture(scope="module")
def alone(folder, settings):
    """The weights of one process."""
    raylib.train(**settings, local=True, quiet=True, output_folder=str(folder / "alone"))
    return weights(folder / "alone")


def weights(run: Path):
    return load_file(run / "model" / "model.safetensors")


def lines_of(run: Path) -> int:
    return len(read_metrics(run)) if (run / "metrics.jsonl").exists() else 0


def test_a_killed_process_is_started_again(cluster, folder, settings, alone, capsys):
    run = folder / "killed"
    killed = []

    def wait_and_kill():
        wait_until(lambda: lines_of(run) >= SAVE_EVERY + 2, 120, "steps")
        victim = processes("RayTrainWorker")[-1]
        killed.append(victim.pid)
        victim.kill()

    killer = threading.Thread(target=wait_and_kill)
    killer.start()
    outcome = raylib.train(**settings, workers=3, output_folder=str(run))
    killer.join()
    assert killed and not psutil.pid_exists(killed[0])
    assert outcome.trained.resumed >= SAVE_EVERY and outcome.trained.resumed % SAVE_EVERY == 0
    assert f"going on from step {outcome.trained.resumed} of {STEPS}" in capsys.readouterr().out
    assert most_different(weights(run), alone) <= 1e-5
    assert [row["step"] for row in read_metrics(run)] == list(range(1, STEPS + 1))


def test_what_all_processes_meet_is_raised_in_its_own_words_and_not_tried_again(cluster, folder, settings):
    run = folder / "infinite"
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"of the examples e\d+, e\d+"):
        raylib.train(**{**settings, "lr": 1e30, "max_grad_norm": 0}, workers=2, output_folder=str(run))
    assert time.monotonic() - start < 120
    assert not (run / "finished.json").exists()


@pytest.mark.slow
def test_all_processes_encode_what_is_evaluated(cluster, folder, settings):
    evaluated = {**settings, "max_steps": 2, "eval_tasks": ["StdlibCardsT2I"]}
    found = [
        raylib.train(**evaluated, **where, quiet=True, output_folder=str(folder / f"evaluated-{number}"))
        for number, where in enumerate(({"local": True}, {"workers": 2}))
    ]
    one, two = (outcome.trained.scores for outcome in found)
    assert one["eval/StdlibCardsT2I/ndcg_at_5"] == pytest.approx(two["eval/StdlibCardsT2I/ndcg_at_5"], abs=0.01)
    assert found[1].trained.best is not None and found[1].trained.best[0] == 2


@pytest.mark.slow
def test_a_killed_driver_is_resumed_on_another_number_of_workers(folder, settings, alone, ray_folder):
    run = folder / "driver"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "raylib.cli", "train"]
    environment = {**os.environ, "RAY_TMPDIR": ray_folder}
    first = subprocess.Popen([*command, *flags, "--workers=2", f"--output-folder={run}"], env=environment)
    try:
        wait_until(lambda: lines_of(run) >= SAVE_EVERY + 2, 180, "steps")
        first.send_signal(signal.SIGKILL)
    finally:
        first.kill()
        first.wait()
    wait_until(lambda: not processes_of(ray_folder), 200, "the end of its Ray")
    assert not (run / "finished.json").exists()
    found = raylib.train(resume=str(run), local=True)
    assert found.trained.resumed >= SAVE_EVERY
    assert most_different(weights(run), alone) <= 1e-5
