"""Weights spread over processes: the same weights, scores and checkpoints as of one process that has them all."""

import json
import multiprocessing
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from raylib.evaluate.progress import QuietReporter
from raylib.train.assignment import Trained
from raylib.train.config import TrainConfig
from raylib.train.job import TrainJob
from raylib.train.options import LoraSettings
from raylib.train.place import ThisProcess
from raylib.train.records import read_metrics
from raylib.train.team import Group, Team
from raylib.train.worker import work
from tests.evaluate.mock_tasks import grown_task

from .made_runs import Kept, Run, all_trained, encoder_of, loop_of, most_different

WEIGHTS = 1e-5

STEPS = 10
"""Batches of seven, and each fourth of two, of which the third process has nothing."""

Weights = dict[str, torch.Tensor]
LORA = LoraSettings(r=4, alpha=8, targets=("q_proj", "v_proj"))


# The same weights.


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six documents of three kinds, so that a process of three has none of some kind."""
    folder = tmp_path_factory.mktemp("pages")
    rows = []
    for i in range(6):
        Image.new("RGB", (40 + 8 * i, 60), (40 * i, 90, 200 - 30 * i)).save(folder / f"{i}.png")
        text, page = f"the page number {i}", f"{i}.png"
        rows.append({"id": f"e{i}", "query": f"page {i}", "pos": [text, page, {"text": text, "image": page}][i % 3]})
    (folder / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "pages.jsonl")


def runs(tiny: Mapping[str, str], pairs: str, pages: str) -> dict[str, Run]:
    dense, late = (Run(tiny[kind], pairs, STEPS, optimizer="sgd", lr=0.02) for kind in ("dense", "late"))
    symmetric = {"symmetric": True, "learn_temperature": True}
    return {
        "dense": dense,
        "late": late,
        "kinds": replace(dense, data=pages, batch_size=4, steps=4, options=symmetric, accumulate=2),
        "lora": replace(late, what="lora", lora=LORA, steps=5, lr=0.1, checkpointing=True),
    }


ASKED = [
    ("dense", 2, False),
    ("dense", 3, True),
    ("late", 2, True),
    ("late", 3, False),
    ("kinds", 3, False),
    ("kinds", 2, True),
    ("lora", 2, False),
]
"""(run, processes, whether with a gradient cache)."""


def parts(team: Team, model: str, data: str) -> None:
    """What one of three processes holds, and what it sees of the others' weights."""
    loop = loop_of(Run(model, data, spread=True), team, Kept())
    shards = loop.learner.shards
    assert shards is not None
    trunk = loop.learner.encoder.trunk
    spread = {n: p for n, p in trunk.named_parameters() if isinstance(p, DTensor)}
    assert [n for n, p in trunk.named_parameters() if n not in spread] == ["logit_scale"], "a scalar"
    held, whole = (sum(p.numel() for p in found) for found in (loop.parameters, trunk.parameters()))
    assert 0.3 * whole < held < 0.36 * whole
    before = {name: p.detach() for name, p in encoder_of(model).trunk.named_parameters()}
    state = loop.learner.state()
    assert most_different(before, state) == 0 if team.rank == 0 else state == {}
    # The norm of a gradient of ones in all weights is the root of their number, on every process.
    for parameter in loop.parameters:
        parameter.grad = torch.ones_like(parameter)
    assert shards.clip(loop.parameters, 1.0) == pytest.approx(whole**0.5, rel=1e-6)
    assert all(p.grad is not None and torch.allclose(p.grad, torch.tensor(whole**-0.5)) for p in loop.parameters)


def test_as_one_process(tiny: Mapping[str, str], pairs: str, pages: str) -> None:
    given = runs(tiny, pairs, pages)
    keys: list[tuple[str, int, bool]] = [*((name, 1, False) for name in given), *ASKED]
    asked = [
        (replace(given[name], spread=size > 1, **({"micro": 2, "chunk": 3} if cached else {})), size)
        for name, size, cached in keys
    ]
    found = dict(zip(keys, all_trained(asked, first=Parts(tiny["dense"], pairs)), strict=True))
    start = {name: p.detach() for name, p in encoder_of(tiny["dense"]).trunk.named_parameters()}
    assert most_different(start, {name: found["dense", 1, False][name] for name in start}) > 100 * WEIGHTS
    assert max(float(w.abs().max()) for n, w in found["lora", 1, False].items() if "lora_B" in n) > 100 * WEIGHTS
    different = {key: most_different(found[key[0], 1, False], found[key]) for key in ASKED}
    assert {key: value for key, value in different.items() if value > WEIGHTS} == {}


class Parts:
    """`parts`, as a function that other processes get."""

    def __init__(self, model: str, data: str) -> None:
        self.model, self.data = model, data

    def __call__(self, team: Team) -> None:
        parts(team, self.model, self.data)


# The job.


class TwoProcesses:
    """A `TrainPlace`. died: the step at which they end, as if they were killed."""

    processes = 2

    def __init__(self, died: int = 0) -> None:
        self.died = died

    def run(self, assignment: Any, reporter: Any) -> Trained:
        del reporter
        folder = assignment.config.output_folder
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=_work, args=(assignment, rank, folder, self.died)) for rank in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [7 if self.died else 0] * 2
        if self.died:
            raise KilledError
        return Trained(**json.loads(Path(folder, "trained.json").read_text()))


class KilledError(Exception):
    pass


def _work(assignment: Any, rank: int, folder: str, died: int) -> None:
    import os

    import raylib.tasks.selection
    import raylib.train.loop

    torch.set_num_threads(1)
    raylib.tasks.selection.select_tasks = lambda *_: [grown_task("MockRetrievalTask")]
    if died:
        save = raylib.train.loop.Loop._save

        def save_and_die(loop: Any, window: Any) -> None:
            save(loop, window)
            if window.step == died:
                os._exit(7)

        raylib.train.loop.Loop._save = save_and_die
    file = f"{folder}/meet-{died}"
    dist.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    found = work(assignment, Group(), print, print)
    if rank == 0:
        Path(folder, "trained.json").write_text(json.dumps(vars(found)))
    dist.destroy_process_group()


@pytest.fixture
def mock_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylib.tasks.selection.select_tasks", lambda *_: [grown_task("MockRetrievalTask")])


def settings(tiny: Mapping[str, str], pairs: str, **more: Any) -> dict[str, Any]:
    """AdamW with a large epsilon: it makes little of rounding in gradients that are 0."""
    plain = {"model": tiny["dense"], "data": pairs, "batch_size": 7, "max_steps": 6, "save_every": 3, "lr": 1e-4}
    return {**plain, "strategy": "fsdp", "quiet": True, **more}


def trained_weights(run: Path) -> Weights:
    found = load_file(run / "model" / "model.safetensors")
    return {name: weight for name, weight in found.items() if not name.endswith("k_proj.bias")}


def test_a_run_goes_on_with_another_number_of_processes(
    tiny: Mapping[str, str], pairs: str, tmp_path: Path, mock_task: None
) -> None:
    """One process for all six steps; two until the checkpoint at the third, then one, with what the optimizer knew;
    and one until there, then two. Scores at each evaluation and the models that are written are the same as well.

    But for biases of keys, whose true gradient is 0 (see test_workers).
    """
    given = settings(tiny, pairs, eval_tasks=["x"], eval_every=3)

    def train(name: str, place: Any, **more: Any) -> None:
        TrainJob(TrainConfig(**{**given, "output_folder": str(tmp_path / name), **more}), place, QuietReporter()).run()

    train("alone", ThisProcess())
    with pytest.raises(KilledError):
        train("two, then one", TwoProcesses(died=3))
    train("two, then one", ThisProcess(), strategy="ddp")
    expected, found = (trained_weights(tmp_path / name) for name in ("alone", "two, then one"))
    assert most_different(expected, found) <= WEIGHTS
    start = load_file(Path(tiny["dense"], "model.safetensors"))
    assert most_different(expected, {name: start[name] for name in expected}) > 10 * WEIGHTS
    # From its third step: what is after it goes away.
    (tmp_path / "alone" / "finished.json").unlink()
    for path in (tmp_path / "alone" / "checkpoints" / "step-00000006").rglob("files.json"):
        path.unlink()
    before = {row["step"]: row["eval/mean"] for row in read_metrics(tmp_path / "alone") if "eval/mean" in row}
    train("alone", TwoProcesses())
    assert most_different(expected, trained_weights(tmp_path / "alone")) <= WEIGHTS
    for name in ("alone", "two, then one"):
        scores = {row["step"]: row["eval/mean"] for row in read_metrics(tmp_path / name) if "eval/mean" in row}
        assert scores == pytest.approx(before, abs=1e-6) and len(scores) >= 2
    config = json.loads((tmp_path / "alone" / "model" / "config.json").read_text())
    assert config["architectures"] == ["CLIPModel"]
