"""Runs whose weights are spread: checkpoints of any number of processes, the scores and the model that they write."""

import contextlib
import json
import multiprocessing
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from raylib.evaluate.progress import QuietReporter
from raylib.tasks import selection
from raylib.train.assignment import Assignment, Trained
from raylib.train.config import TrainConfig
from raylib.train.job import TrainJob
from raylib.train.loop import Loop
from raylib.train.place import ThisProcess
from raylib.train.records import read_metrics
from raylib.train.team import Group
from raylib.train.worker import work

from .made_runs import most_different

WEIGHTS = 1e-5

Weights = dict[str, torch.Tensor]


class NotYetError(Exception):
    pass


@dataclass
class Later:
    """A `TrainPlace` that keeps what is to be trained."""

    assignments: list[Assignment] = field(default_factory=list)
    processes = 2

    def run(self, assignment: Assignment, reporter: Any) -> Trained:
        del reporter
        self.assignments.append(assignment)
        raise NotYetError


def in_two(assignments: list[Assignment], folder: Path) -> None:
    """Run by two processes; the first of them ends at its first evaluation after a step, as if it were killed."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(assignments, rank, str(folder)), daemon=True) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]


def _work(assignments: list[Assignment], rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    selection.select_tasks = lambda *_: [mock_task()]  # pyright: ignore[reportAttributeAccessIssue]
    evaluate = Loop._evaluate

    def evaluate_and_end(self: Loop) -> None:
        evaluate(self)
        if self.done:
            raise NotYetError

    for number, assignment in enumerate(assignments):
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{number}", rank=rank, world_size=2)
        Loop._evaluate = evaluate if number else evaluate_and_end
        with contextlib.nullcontext() if number else pytest.raises(NotYetError):
            work(assignment, Group(), print, print)
        dist.destroy_process_group()


def mock_task() -> Any:
    import mteb.mocks

    task = mteb.mocks.MockRetrievalTask()
    task.load_data()
    return task


def weights_of(run: Path) -> Weights:
    """But for biases of keys, whose true gradient is 0: Adam makes much of the rounding in it (see test_workers)."""
    found = load_file(run / "model" / "model.safetensors")
    return {name: weight for name, weight in found.items() if not name.endswith("k_proj.bias")}


def scores_of(run: Path) -> dict[int, float]:
    return {row["step"]: row["eval/mean"] for row in read_metrics(run) if "eval/mean" in row}


def test_a_run_goes_on_with_another_number_of_processes(
    tiny: Mapping[str, str], pairs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process for all six steps, as another that begins with one and goes on with two, and one that begins with two
    and goes on with one: weights, scores, and what the optimizer knows."""
    monkeypatch.setattr(selection, "select_tasks", lambda *_: [mock_task()])
    given = {"model": tiny["dense"], "data": pairs, "batch_size": 7, "max_steps": 6, "lr": 1e-4, "quiet": True}
    given |= {"eval_tasks": ["x"], "eval_every": 3, "strategy": "fsdp"}

    def train(name: str, place: Any, **more: Any) -> None:
        config = TrainConfig(**{**given, "output_folder": str(tmp_path / name), **more})
        TrainJob(config, place, QuietReporter()).run()

    train("one", ThisProcess())
    shutil.copytree(tmp_path / "one", tmp_path / "one, two")
    (tmp_path / "one, two" / "finished.json").unlink()
    shutil.rmtree(tmp_path / "one, two" / "checkpoints" / "step-00000006")
    later = Later()
    for name in ("two, one", "one, two"):
        with pytest.raises(NotYetError):
            train(name, later)
    in_two(later.assignments, tmp_path)
    train("two, one", ThisProcess(), strategy="ddp")

    expected, scores = weights_of(tmp_path / "one"), scores_of(tmp_path / "one")
    start = load_file(Path(tiny["dense"], "model.safetensors"))
    assert most_different(expected, {name: start[name] for name in expected}) > 10 * WEIGHTS
    assert list(scores) == [0, 3, 6]
    largest = max(float(values.abs().max()) for values in moments(tmp_path / "one"))
    for name in ("two, one", "one, two"):
        run = tmp_path / name
        assert [row["step"] for row in read_metrics(run) if "loss" in row] == [1, 6]
        assert most_different(expected, weights_of(run)) <= WEIGHTS
        assert scores_of(run) == pytest.approx(scores, abs=1e-6)
        assert json.loads((run / "model" / "config.json").read_text())["architectures"] == ["CLIPModel"]
        for mine, own in zip(moments(run), moments(tmp_path / "one"), strict=True):
            torch.testing.assert_close(mine, own, atol=1e-4 * largest, rtol=0)


def moments(run: Path) -> list[torch.Tensor]:
    state = torch.load(run / "checkpoints" / "step-00000006" / "state.pt", weights_only=True)["optimizer"]["state"]
    return [state[number]["exp_avg"] for number in sorted(state)]
