"""Small runs of the training loop: on this process, or on several of them that meet through gloo."""

import contextlib
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from raylib.examples.examples import Examples, read_examples
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.models.torch_encoder import TorchEncoder
from raylib.train.feed import ContentFeed
from raylib.train.learner import Learner
from raylib.train.loop import Loop, LoopSettings
from raylib.train.objective import Criterion, Objective
from raylib.train.options import LoraSettings
from raylib.train.schedule import by_chance
from raylib.train.step import Batches, BatchStep
from raylib.train.team import Group, Team

WORDS = ["list", "file", "error", "open", "close", "read", "sort", "key", "value", "group", "date", "text", "page"]


def write_pairs(path: Path, n: int = 23, negatives: int = 2, seed: int = 0) -> str:
    """n pairs of texts of different lengths; every third without a given negative."""
    rng = np.random.default_rng(seed)

    def words(most: int) -> str:
        return " ".join(rng.choice(WORDS, size=int(rng.integers(1, most))).tolist())

    rows = []
    for i in range(n):
        row: dict[str, Any] = {"id": f"e{i}", "query": f"{words(5)} {i}", "pos": f"{words(12)} {i}"}
        if i % 3 and negatives:
            row["negs"] = [f"{words(12)} not {i} {j}" for j in range(int(rng.integers(1, negatives + 1)))]
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@dataclass
class Kept:
    """A watcher that keeps what it is told."""

    lines: list[dict[str, float]] = field(default_factory=list)
    states: dict[int, Any] = field(default_factory=dict)
    scores: dict[int, Any] = field(default_factory=dict)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.lines.append({"step": step, **values})

    def save(self, step: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self.states[step] = {name: state[name] for name in ("weights", "criterion")}

    def scored(self, step: int, values: Mapping[str, float]) -> None:
        self.scores[step] = dict(values)


@dataclass(frozen=True)
class Run:
    """What a test trains, and how."""

    model: str
    data: str
    steps: int = 50
    batch_size: int = 7
    micro: int | None = None
    chunk: int | None = None
    accumulate: int = 1
    what: Any = "full"
    loss: Any = "infonce"
    optimizer: Any = "adamw"
    lr: float = 1e-4
    options: dict[str, Any] = field(default_factory=dict)
    lora: LoraSettings = field(default_factory=LoraSettings)
    spread: bool = False
    checkpointing: bool = False


def encoder_of(model: str) -> TorchEncoder:
    found = resolve(ModelSpec(model, device="cpu"))
    assert isinstance(found, TorchEncoder)
    return found


def loop_of(run: Run, team: Team, watcher: Any, examples: Examples | None = None) -> Loop:
    examples = read_examples(run.data, root=str(Path(run.data).parent)) if examples is None else examples
    encoder = encoder_of(run.model)
    learner = Learner(encoder, run.what, run.lora, checkpointing=run.checkpointing)
    learner.prepare(seed=0)
    if run.spread:
        learner.spread(team)
    criterion = Criterion(Objective(encoder.similarity, loss=run.loss, **run.options))  # pyright: ignore
    schedule = by_chance(
        examples, batch_size=run.batch_size, seed=0, epochs=100, accumulate=run.accumulate, max_steps=run.steps
    )
    batches = Batches(examples, schedule, ContentFeed(encoder, examples, run.micro), team, level=run.spread)
    step = BatchStep(learner, criterion, team, cached=run.micro is not None, chunk=run.chunk)
    settings = LoopSettings(lr=run.lr, optimizer=run.optimizer, warmup=3, log_every=5)
    return Loop(learner, criterion, batches, step, settings, watcher)


def trained(run: Run, size: int = 1) -> dict[str, torch.Tensor]:
    """The weights after the last step, from a run of `size` processes."""
    return all_trained([(run, size)])[0]


def all_trained(
    asked: Sequence[tuple[Run, int]], first: Callable[[Team], None] | None = None
) -> list[dict[str, torch.Tensor]]:
    """The weights after each run of so many processes, one run after the other. Processes are started once: that takes
    longer than fifty steps. first: what three of them do before."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        ranks = range(max((size for _, size in asked if size > 1), default=0))
        workers = [context.Process(target=_worker, args=(asked, first, rank, folder), daemon=True) for rank in ranks]
        for worker in workers:
            worker.start()
        found = {number: _weights(run, Team()) for number, (run, size) in enumerate(asked) if size == 1}
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * len(workers)
        return [found[n] if n in found else torch.load(f"{folder}/{n}.pt") for n in range(len(asked))]


def _worker(asked: Sequence[tuple[Run, int]], first: Callable[[Team], None] | None, rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    if first is not None:
        with _met(rank, 3, f"{folder}/first") as team:
            first(team)
    for number, (run, size) in enumerate(asked):
        if rank < size > 1:
            with _met(rank, size, f"{folder}/meet-{number}") as team:
                weights = _weights(run, team)
            if rank == 0:
                torch.save(weights, f"{folder}/{number}.pt")


@contextlib.contextmanager
def _met(rank: int, size: int, file: str) -> Iterator[Team]:
    dist.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=size, timeout=timedelta(seconds=120)
    )
    yield Group()
    dist.destroy_process_group()


def _weights(run: Run, team: Team) -> dict[str, torch.Tensor]:
    loop = loop_of(run, team, Kept())
    loop.run()
    state = loop.state()
    return {**state["weights"], **{f"criterion.{name}": value for name, value in state["criterion"].items()}}


def most_different(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)
