"""One measured process of `benchmarks/train.py`: a few steps of one way to train the same model on the same batches.

    python benchmarks/train_side.py WAY '{"model": …, "pairs": …, "size": …, "steps": …, "threads": …}'

prints a line "MEASURED {…}": the loss of every step, wall and CPU seconds of the steps and of preparing their texts,
and how far the memory of the process grew beyond the loaded model. Both sides share the loop around their own parts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.common import forget_peak_memory, peak_memory

MICRO = 32
"""Contents of a forward with a gradient cache, on both sides."""

CHUNK = 256
"""raylib: rows of scores at a time with a gradient cache. sentence-transformers takes MICRO."""

SCALE = 20.0
WARM_UP = 32
"""Examples of the first step, which is not measured: what is set up on first use, the optimizer's state among it."""

LR, MOST_NORM, DECAY = 1e-4, 1.0, 0.01

Measured = dict[str, Any]
Prepare = Callable[[np.ndarray], Any]
Backward = Callable[[Any], float]
"""Of what was prepared: the loss, whose gradient is left in the parameters."""


def raylib_side(job: Measured, cached: bool) -> tuple[list[Any], Prepare, Backward]:
    from raylib.examples.examples import read_examples
    from raylib.models.protocol import ModelSpec
    from raylib.models.registry import resolve
    from raylib.models.torch_encoder import TorchEncoder
    from raylib.train.feed import ContentFeed
    from raylib.train.learner import Learner
    from raylib.train.objective import Criterion, Objective
    from raylib.train.schedule import Schedule, Window
    from raylib.train.step import Batches, BatchStep
    from raylib.train.team import Team

    examples = read_examples(job["pairs"])
    encoder = resolve(ModelSpec(job["model"], device="cpu"))
    assert isinstance(encoder, TorchEncoder)
    learner = Learner(encoder)
    learner.prepare(seed=0)
    learner.train()
    criterion = Criterion(Objective("cosine", temperature=1 / SCALE))
    feed = ContentFeed(encoder, examples, MICRO if cached else None)
    team = Team()
    step = BatchStep(learner, criterion, team, cached=cached, chunk=CHUNK if cached else None)
    done = 0

    def prepare(rows: np.ndarray) -> Any:
        return Batches(examples, Schedule([rows[None]], 1, 1, 1), feed, team).of(Window(1, 0, (0,)))[0]

    def backward(batch: Any) -> float:
        nonlocal done
        done += 1
        return step(batch, done, 0, 1.0)

    return learner.parameters(), prepare, backward


def sentence_transformers_side(job: Measured, cached: bool) -> tuple[list[Any], Prepare, Backward]:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    model: Any = SentenceTransformer(job["model"], device="cpu")
    model.train()
    with open(job["pairs"], encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    criterion: Any = losses.MultipleNegativesRankingLoss(model, scale=SCALE)
    if cached:
        criterion = losses.CachedMultipleNegativesRankingLoss(model, scale=SCALE, mini_batch_size=MICRO)
    no_labels = torch.zeros(0)

    def prepare(numbers: np.ndarray) -> Any:
        return [model.preprocess([rows[i][name] for i in numbers.tolist()]) for name in ("query", "pos")]

    def backward(features: Any) -> float:
        loss = criterion(features, no_labels)
        loss.backward()
        return float(loss.detach())

    return list(model.named_parameters()), prepare, backward


WAYS: dict[str, tuple[Callable[..., tuple[list[Any], Prepare, Backward]], bool]] = {
    "raylib, gradient cache": (raylib_side, True),
    "sentence-transformers, cached": (sentence_transformers_side, True),
    "raylib": (raylib_side, False),
    "sentence-transformers": (sentence_transformers_side, False),
}
"""What trains, and whether it has a gradient cache."""


def batches(size: int, steps: int, n: int) -> list[np.ndarray]:
    """int64: the examples of the first step and of `steps` measured ones; an epoch is in the order of the file."""
    measured = [np.arange(WARM_UP + i * size, WARM_UP + (i + 1) * size) for i in range(steps)]
    if WARM_UP + steps * size > n:
        raise ValueError(f"{steps} steps of {size} examples and {WARM_UP} before them need more than {n} pairs")
    return [np.arange(WARM_UP), *measured]


def train(way: str, job: Measured) -> Measured:
    import torch

    from raylib.train.optimizers import make_optimizer

    side, cached = WAYS[way]
    parameters, prepare, backward = side(job, cached)
    optimizer = make_optimizer("adamw", parameters, lr=LR, weight_decay=DECAY)
    weights = [parameter for _, parameter in parameters]
    loaded = forget_peak_memory()
    losses: list[float] = []
    times: dict[str, list[tuple[float, float]]] = {"prepare": [], "step": []}

    def one_step(batch: Any) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = backward(batch)
        torch.nn.utils.clip_grad_norm_(weights, MOST_NORM)
        optimizer.step()
        return loss

    for rows in batches(job["size"], job["steps"], job["n"]):
        batch, of_preparing = timed(prepare, rows)
        loss, of_step = timed(one_step, batch)
        losses.append(loss)
        times["prepare"].append(of_preparing)
        times["step"].append(of_step)
    found: Measured = {"losses": losses, "loaded mb": loaded / 1e6, "grown mb": (peak_memory() - loaded) / 1e6}
    for name, seconds in times.items():
        found |= {f"{name} {what}": means(seconds[1:], i) for i, what in enumerate(("wall s", "cpu s"))}
    return found


def timed(work: Callable[[Any], Any], given: Any) -> tuple[Any, tuple[float, float]]:
    """What it gives; wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work(given)
    return found, (time.perf_counter() - wall, time.process_time() - cpu)


def means(seconds: Sequence[tuple[float, float]], which: int) -> float:
    return float(np.mean([pair[which] for pair in seconds]))


def main() -> int:
    way, job = sys.argv[1], json.loads(sys.argv[2])
    import torch

    torch.set_num_threads(job["threads"])
    print("MEASURED " + json.dumps(train(way, job)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
