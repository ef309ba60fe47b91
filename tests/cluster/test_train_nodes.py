"""`raylib train` on several Ray nodes, one of which is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import raylib
from raylib.models.untrained import build_clip
from raylib.train.records import read_metrics
from tests.cluster.nodes import lose_a_node
from tests.cluster.test_train import lines_of, weights
from tests.train.made_runs import most_different, write_pairs

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

STEPS, SAVE_EVERY = 40, 5


def test_a_lost_node_costs_the_steps_since_the_last_checkpoint(tmp_path: Path):
    (tmp_path / "clip").mkdir()
    build_clip(tmp_path / "clip")
    write_pairs(tmp_path / "pairs.jsonl", 60)
    settings = {"model": tmp_path / "clip", "data": tmp_path / "pairs.jsonl", "batch_size": 9, "max_steps": STEPS}
    settings |= {"save_every": SAVE_EVERY, "optimizer": "sgd", "lr": 1e-3, "log_every": 1}
    raylib.train(**{name: str(v) if isinstance(v, Path) else v for name, v in settings.items()}, local=True,
                 quiet=True, output_folder=str(tmp_path / "alone"))  # fmt: skip
    run, log = tmp_path / "lost", tmp_path / "log"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    arguments = ["train", *flags, "--workers=2", f"--output-folder={run}"]
    status, said = lose_a_node(arguments, log, lambda: lines_of(run) > SAVE_EVERY + 1, "RayTrainWorker")
    assert status == 0, said
    resumed = re.search(rf"going on from step (\d+) of {STEPS}", said)
    assert resumed is not None and int(resumed[1]) >= SAVE_EVERY, said
    assert most_different(weights(tmp_path / "alone"), weights(run)) <= 1e-5
    assert [row["step"] for row in read_metrics(run)] == list(range(1, STEPS + 1))
