"""A run of the loop that is killed goes on from its checkpoint: the same weights, every record once."""

import os
import signal
import time
from dataclasses import dataclass, replace

import pytest
import torch

from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.models.untrained import build_clip
from raylib.train.checkpoints import Checkpoints
from raylib.train.learner import Learner
from raylib.train.records import Records, read_metrics
from raylib.train.team import Team

from .made_runs import Run, loop_of, most_different, write_pairs


class KilledError(Exception):
    pass


@dataclass
class Watcher:
    """What the job tells checkpoints and records, and where it is killed."""

    checkpoints: Checkpoints
    records: Records
    learner: Learner | None = None
    dies_at: int = 0

    def log(self, step, values):
        self.records.log(step, values)
        if step == self.dies_at:
            raise KilledError

    def save(self, step, state, facts):
        assert self.learner is not None
        learner = self.learner
        self.checkpoints.save(step, lambda folder: learner.save(str(folder), step), state, facts)
        self.records.flush()

    def scored(self, step, values):
        self.checkpoints.score(step, values["eval/T/ndcg_at_5"])


def begin(run, folder, dies_at=0):
    """Give the loop of a run in a folder, at the step of its newest checkpoint."""
    checkpoints = Checkpoints(folder / "checkpoints", 2, 0, print)
    newest = checkpoints.newest()
    records = Records(folder, newest.step if newest else 0, steps_per_epoch=4, mode="full", tell=print)
    watcher = Watcher(checkpoints, records, dies_at=dies_at)
    loop = loop_of(run, Team(), watcher)
    watcher.learner = loop.learner
    loop.settings = replace(loop.settings, save_every=2, log_every=1)
    if newest:
        loop.resume(checkpoints.load(newest))
    return loop


def test_a_killed_run_goes_on_to_the_weights_of_an_undisturbed_one(tmp_path):
    build_clip(tmp_path / "clip")
    data = write_pairs(tmp_path / "pairs.jsonl", n=26, negatives=0)
    run = Run(str(tmp_path / "clip"), data, steps=7, lr=1e-3)
    whole = begin(run, tmp_path / "whole")
    start = {name: weight.clone() for name, weight in whole.learner.state().items()}
    whole.run()
    with pytest.raises(KilledError):
        begin(run, tmp_path / "killed", dies_at=5).run()
    again = begin(run, tmp_path / "killed")
    assert again.done == 4
    again.run()
    assert most_different(whole.learner.state(), start) > 1e-4, "it learned"
    assert most_different(whole.learner.state(), again.learner.state()) == 0
    rows = [read_metrics(tmp_path / name) for name in ("whole", "killed")]
    assert [row["step"] for row in rows[1]] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    # What is in the checkpoint is a model that runs.
    checkpoints = Checkpoints(tmp_path / "killed" / "checkpoints", 2, 0, print)
    newest = checkpoints.newest()
    assert newest is not None and newest.facts == {"step": 7, "epoch": 1, "position": 3}
    loaded = resolve(ModelSpec(str(checkpoints.model_folder(newest)), device="cpu"))
    again.learner.judge()
    texts = {"text": ["read a file", "sort by key"]}
    context = loaded.context(None, None)
    found, expected = (encoder.encode(texts, context).dense() for encoder in (loaded, again.learner.encoder))
    torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_a_process_that_is_killed_as_it_saves_leaves_the_checkpoint_before(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2, 0, print)
    checkpoints.save(1, lambda folder: None, {"step": 1}, {})
    child = os.fork()
    if not child:  # the other process: half of its model is written when it ends

        def never_ends(folder):
            (folder / "half.bin").write_bytes(b"x" * 1000)
            time.sleep(100)

        try:
            checkpoints.save(2, never_ends, {"step": 2}, {})
        finally:
            os._exit(0)
    try:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".step-00000002.*/model/half.bin")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 2
    checkpoints = Checkpoints(tmp_path, 2, 0, print)
    newest = checkpoints.newest()
    assert newest is not None and newest.step == 1
    checkpoints.save(2, lambda folder: None, {"step": 2}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
