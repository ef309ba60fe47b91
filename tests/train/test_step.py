"""One process: the loop against a trainer of twenty lines that encodes every text by itself."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F  # noqa: N812

from raylib.errors import ModelError
from raylib.examples.examples import read_examples
from raylib.models.torch_encoder import TorchEncoder
from raylib.train.loop import Loop
from raylib.train.team import Team

from .made_runs import Kept, Run, encoder_of, loop_of, most_different, trained

WEIGHTS = 1e-6
"""Of weights after a few steps of 0.02 with gradients of norm 1, in float32."""

TEMPERATURE = 0.02


def vector_of(encoder: TorchEncoder, text: str, role: Any) -> torch.Tensor:
    """[tokens, dim] of one text, alone, with gradient."""
    values = encoder.vectors(encoder.preprocess({"text": [text]}, encoder.context(None, role))).values
    return F.normalize(values, dim=1) if encoder.similarity == "cosine" else values


def loss_by_hand(encoder: TorchEncoder, rows: list[dict[str, Any]]) -> torch.Tensor:
    """Of a batch of rows of the file: all positives and all hard negatives are documents of every query."""
    queries = [vector_of(encoder, row["query"], "query") for row in rows]
    texts = [row["pos"] for row in rows] + [text for row in rows for text in row.get("negs", [])]
    documents = [vector_of(encoder, text, "document") for text in texts]
    scores = torch.stack([torch.stack([(q @ d.T).amax(dim=1).mean() for d in documents]) for q in queries])
    return F.cross_entropy(scores / TEMPERATURE, torch.arange(len(rows)))


def train_by_hand(run: Run, plans: list[np.ndarray]) -> tuple[dict[str, torch.Tensor], list[float]]:
    """(weights, losses of the steps): SGD with clipping to 1 and a decay of 0.01 for matrices; a warm-up of 3 steps,
    then a line to 0. A step's batches count the same, and an epoch's last step has what is left."""
    encoder = encoder_of(run.model)
    encoder.load()
    weights = dict(encoder.trunk.named_parameters())
    for weight in weights.values():
        weight.requires_grad_(True)
    rows = [json.loads(line) for line in Path(run.data).read_text().splitlines()]
    windows = [plan[i : i + run.accumulate] for plan in plans for i in range(0, len(plan), run.accumulate)]
    losses = []
    for step, window in enumerate(windows[: run.steps]):
        loss = sum(loss_by_hand(encoder, [rows[i] for i in batch if i >= 0]) for batch in window) / len(window)
        assert isinstance(loss, torch.Tensor)
        losses.append(loss.item())
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(weights.values(), found, strict=True)]
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        factor = (step + 1) / 4 if step < 3 else (run.steps - step) / (run.steps - 3)
        with torch.no_grad():
            for weight, gradient in zip(weights.values(), gradients, strict=True):
                decay = 0.01 * weight if weight.ndim > 1 else 0
                weight -= run.lr * factor * (gradient * min(1, 1 / float(norm)) + decay)
    return {name: weight.detach() for name, weight in weights.items()}, losses


def run_loop(run: Run) -> tuple[dict[str, torch.Tensor], list[float], Loop]:
    """(weights, losses of the steps, the loop)."""
    loop = loop_of(run, Team(), kept := Kept())
    loop.settings = dataclasses.replace(loop.settings, log_every=1)
    loop.run()
    return loop.state()["weights"], [line["loss"] for line in kept.lines], loop


@pytest.mark.parametrize("micro", [None, 3])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", ["dense", "late"])
def test_the_loop_is_the_plain_trainer(
    kind: str, accumulate: int, micro: int | None, tiny: Mapping[str, str], pairs: str
) -> None:
    """Two epochs of four batches, the last of two examples. Three batches a step leave one for the second."""
    steps = {1: 6, 3: 4}[accumulate]
    run = Run(tiny[kind], pairs, steps, micro=micro, chunk=micro, accumulate=accumulate, optimizer="sgd", lr=0.02)
    weights, losses, loop = run_loop(run)
    plans = [loop.batches.schedule.plan_of(epoch) for epoch in (0, 1)]
    assert [int((batch >= 0).sum()) for batch in plans[0]] == [7, 7, 7, 2]
    by_hand, expected = train_by_hand(run, plans)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert most_different(weights, by_hand) < WEIGHTS
    start = dict(encoder_of(run.model).trunk.named_parameters())
    assert most_different(weights, {name: p.detach() for name, p in start.items()}) > 1e-3, "it has learned"


def test_two_batches_of_one_step_are_their_mean(tiny: Mapping[str, str], pairs: str) -> None:
    """Loss and gradient, against steps of the single batches from the same weights."""
    one, two = (Run(tiny["dense"], pairs, 1, accumulate=n, optimizer="sgd", lr=1e-9) for n in (1, 2))
    _, (first,), alone = run_loop(one)
    _, losses, _ = run_loop(dataclasses.replace(one, steps=2))
    _, (both,), loop = run_loop(two)
    assert both == pytest.approx((first + losses[1]) / 2, rel=1e-6)
    window = next(loop.batches.schedule.windows())
    summed = [torch.zeros_like(p) for p in loop.parameters]
    for batch in loop.batches.of(window):
        for parameter in alone.parameters:
            parameter.grad = None
        alone.batch_step(batch, 1, 0, 0.5)
        for total, parameter in zip(summed, alone.parameters, strict=True):
            total += parameter.grad if parameter.grad is not None else 0
    clipped = [total * min(1, 1 / loop.norm) for total in summed]
    for parameter, expected in zip(loop.parameters, clipped, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=1e-6)


def test_pages_and_texts_in_one_batch(tiny: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of three kinds come in pieces of one kind; with a gradient cache, in smaller ones."""
    rows = []
    for i in range(6):
        Image.new("RGB", (40 + 8 * i, 60), (40 * i, 90, 200 - 30 * i)).save(tmp_path / f"{i}.png")
        text, page = f"the page number {i}", f"{i}.png"
        rows.append({"id": f"e{i}", "query": f"page {i}", "pos": [text, page, {"text": text, "image": page}][i % 3]})
    data = tmp_path / "pages.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    run = Run(tiny["dense"], str(data), 4, batch_size=6, optimizer="sgd", lr=0.02)
    whole, losses, loop = run_loop(run)
    (batch,) = loop.batches.of(next(loop.batches.schedule.windows()))
    assert sorted(tuple(sorted(piece.tensors)) for piece in batch.pieces["positives"]) == [
        ("attention_mask", "input_ids"),
        ("attention_mask", "input_ids", "pixel_values"),
        ("pixel_values",),
    ]
    encoder = encoder_of(run.model)
    chosen = [rows[i] for i in batch.examples]
    queries = encoder.encode({"text": [row["query"] for row in chosen]}, encoder.context(None, "query")).dense()
    documents = np.concatenate([_document(encoder, row["pos"]) for row in chosen])
    scores = torch.from_numpy(_unit(queries) @ _unit(documents).T)
    assert losses[0] == pytest.approx(float(F.cross_entropy(scores / TEMPERATURE, torch.arange(6))), rel=1e-4)
    assert most_different(whole, run_loop(dataclasses.replace(run, micro=1, chunk=2))[0]) < WEIGHTS


def _document(encoder: TorchEncoder, pos: Any) -> np.ndarray:
    content = pos if isinstance(pos, dict) else {"image": pos} if pos.endswith(".png") else {"text": pos}
    batch = {name: [Image.open(v) if name == "image" else v] for name, v in content.items()}
    return encoder.encode(batch, encoder.context(None, "document")).dense()


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_dropout_is_the_same_in_both_forwards_of_a_cache(tiny: Mapping[str, str], pairs: str) -> None:
    """Against pieces that are kept: the seed is of the step, the batch and the piece."""
    loop = loop_of(Run(tiny["dense"], pairs, micro=2), Team(), Kept())
    dropping: list[Any] = [module for module in loop.learner.encoder.trunk.modules() if hasattr(module, "dropout")]
    for module in dropping:
        module.dropout = 0.4  # of attention
    assert dropping
    loop.learner.train()
    (batch,) = loop.batches.of(next(loop.batches.schedule.windows()))

    def step(number: int, *, cached: bool) -> tuple[float, list[torch.Tensor]]:
        for parameter in loop.parameters:
            parameter.grad = None
        loss = dataclasses.replace(loop.batch_step, cached=cached)(batch, number, 0, 1.0)
        return loss, [p.grad for p in loop.parameters if p.grad is not None]

    kept, again, other = step(1, cached=False), step(1, cached=True), step(2, cached=True)
    loop.learner.judge()
    assert len({kept[0], other[0], step(1, cached=True)[0]}) == 3 and kept[0] == again[0]
    largest = max(float(gradient.abs().max()) for gradient in kept[1])
    for one, two in zip(kept[1], again[1], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("micro", [None, 2])
def test_a_loss_that_is_no_number_stops_before_a_weight_changes(
    micro: int | None, tiny: Mapping[str, str], pairs: str
) -> None:
    """In the second step, after one that has changed weights."""
    run = Run(tiny["dense"], pairs, 3, micro=micro, accumulate=2, optimizer="sgd", lr=0.02)
    loop = loop_of(run, Team(), kept := Kept())
    first, second = list(loop.batches.schedule.windows())[:2]
    real, before = loop.batch_step, {}

    def broken(batch: Any, step: int, position: int, scale: float) -> float:
        if step == 2:
            before.update({name: w.clone() for name, w in loop.state()["weights"].items()})
            name, weight = loop.named[-1]
            assert name == "text_projection.weight"
            with torch.no_grad():
                before[name][0, 0] = weight[0, 0] = float("nan")
        return real(batch, step, position, scale)

    loop.batch_step = broken  # pyright: ignore[reportAttributeAccessIssue]
    examples = read_examples(pairs)
    chosen = [examples.ids[i] for p in second.batches for i in loop.batches.schedule.examples(second, p)]
    assert len(chosen) == 9 and set(first.batches) != set(second.batches)
    with pytest.raises(ModelError) as caught:
        loop.run()
    message = str(caught.value)
    assert "the loss is nan at step 2" in message and f"of the examples {', '.join(chosen)}." in message
    assert "--lr" in message
    after = loop.state()["weights"]
    assert all(torch.equal(after[name].nan_to_num(7), before[name].nan_to_num(7)) for name in before)
    assert loop.done == 1 and kept.states == {}


def test_a_gradient_that_is_no_number_stops_too(tiny: Mapping[str, str], pairs: str) -> None:
    loop = loop_of(Run(tiny["dense"], pairs, 3, batch_size=23, optimizer="sgd"), Team(), Kept())
    before = {name: weight.clone() for name, weight in loop.state()["weights"].items()}
    loop.parameters[-1].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(ModelError, match=r"the gradient is (nan|inf) at step 1, of the examples .* and 3 more"):
        loop.run()
    assert most_different(before, loop.state()["weights"]) == 0


def test_a_temperature_learns_beside_the_weights(tiny: Mapping[str, str], pairs: str) -> None:
    run = Run(tiny["dense"], pairs, 5, optimizer="sgd", lr=0.02, options={"learn_temperature": True})
    found, fixed = trained(run), trained(dataclasses.replace(run, options={}))
    assert float(found["criterion.log_scale"]) < float(fixed["criterion.log_scale"]) == pytest.approx(np.log(50))
