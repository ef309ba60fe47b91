"""The published probe: a perceptron of 512, 256 and 128 units on one vector a row.

Each hidden layer is linear, ReLU, batch normalisation and dropout; binary cross-entropy; Adam. Two layouts of stored
weights are about: `model`, as here, and `network`, with the normalisation before the ReLU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import UserError
from raylib.probe.metrics import auroc
from raylib.probe.recipe import Recipe

if TYPE_CHECKING:
    import torch

_SCORED_ROWS = 8192


@dataclass
class TrainedMlp:
    """state: the weights by their names in a checkpoint, on the CPU. history: name → a number an epoch. best_epoch:
    whose weights these are, from 0."""

    state: dict[str, torch.Tensor]
    history: dict[str, list[float]]
    best_epoch: int


def build(input_dim: int, hidden: tuple[int, ...], dropout: float, norm_first: bool = False) -> torch.nn.Sequential:
    """[n, input_dim] → [n, 1], between 0 and 1; the last layer is the sigmoid. norm_first: the layout `network`."""
    from torch import nn

    layers: list[nn.Module] = []
    for before, size in zip((input_dim, *hidden[:-1]), hidden, strict=True):
        middle: list[nn.Module] = [nn.ReLU(), nn.BatchNorm1d(size)]
        layers += [nn.Linear(before, size), *(middle[::-1] if norm_first else middle), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1), nn.Sigmoid())


def train_mlp(x: np.ndarray, y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray, recipe: Recipe) -> TrainedMlp:
    """Train on x float32 [n, D] with labels y [n]; held_x, held_y: validation rows, maybe none.

    The same seed and rows give the same weights on one machine. With recipe.patience and validation rows, training
    stops that many epochs after the best validation AUROC (loss, where AUROC is even or the rows are of one class), and
    that epoch's weights are kept. The random state and threads of torch are left as they were.
    """
    import torch

    device = torch.device(recipe.device)
    with _own_state(recipe):
        torch.manual_seed(recipe.seed)
        layers = build(x.shape[1], recipe.hidden, recipe.dropout).to(device)
        logits = layers[:-1]
        optimiser = torch.optim.Adam(layers.parameters(), lr=recipe.lr, fused=True)  # half the time of a step
        loss_of = torch.nn.BCEWithLogitsLoss(pos_weight=_positive_weight(y, recipe, device))
        rows, labels = _tensors(x, y, device)
        held_rows, held_labels = _tensors(held_x, held_y, device)
        history: dict[str, list[float]] = {"loss": [], "accuracy": []}
        best: tuple[float, float] | None = None
        best_epoch, kept = recipe.epochs - 1, None
        for epoch in range(recipe.epochs):
            loss, accuracy = _one_epoch(logits, optimiser, loss_of, rows, labels, recipe.batch_size)
            history["loss"].append(loss)
            history["accuracy"].append(accuracy)
            if len(held_y) == 0:
                continue
            value = _validate(logits, loss_of, held_rows, held_labels, held_y, history)
            if recipe.patience is None:
                continue
            if best is None or value > best:
                best, best_epoch = value, epoch
                kept = {name: tensor.detach().clone() for name, tensor in layers.state_dict().items()}
            elif epoch - best_epoch >= recipe.patience:
                break
        final = kept if kept is not None else layers.state_dict()
        state = {f"model.{name}": tensor.detach().cpu().clone() for name, tensor in final.items()}
    return TrainedMlp(state, history, best_epoch)


def _one_epoch(logits: Any, optimiser: Any, loss_of: Any, rows: Any, labels: Any, size: int) -> tuple[float, float]:
    """(loss, accuracy), means over the rows as they were met."""
    import torch

    logits.train()
    total, correct = torch.zeros((), device=rows.device), torch.zeros((), device=rows.device)
    for batch in batches(torch.randperm(len(rows)), size):
        chosen = batch.to(rows.device)
        optimiser.zero_grad()
        out = logits(rows[chosen]).squeeze(1)
        loss = loss_of(out, labels[chosen])
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(chosen)
        correct += ((out.detach() > 0) == (labels[chosen] > 0)).sum()
    return float(total) / len(rows), float(correct) / len(rows)


def batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """order [n] in batches; a last one of a single row, which batch normalisation cannot take, joins the one before."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [order[(len(parts) - 2) * size :]]
    return parts


def _validate(
    logits: Any, loss_of: Any, rows: Any, labels: Any, y: np.ndarray, history: dict[str, list[float]]
) -> tuple[float, float]:
    """(AUROC, 0 with one class; minus the loss), the more the better; both go to the history."""
    import torch

    logits.eval()
    with torch.inference_mode():
        out = torch.cat([logits(part).squeeze(1) for part in rows.split(_SCORED_ROWS)])
        loss = float(loss_of(out, labels))
    history.setdefault("validation_loss", []).append(loss)
    value = auroc(y, out.cpu().numpy())
    if value is not None:
        history.setdefault("validation_auroc", []).append(value)
    return value or 0.0, -loss


def _positive_weight(y: np.ndarray, recipe: Recipe, device: torch.device) -> torch.Tensor | None:
    import torch

    if not recipe.class_weight:
        return None
    positives = int(np.sum(y))
    return torch.tensor((len(y) - positives) / positives, dtype=torch.float32, device=device)


def _tensors(x: np.ndarray, y: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    rows = torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device)
    return rows, torch.from_numpy(np.asarray(y, np.float32)).to(device)


@contextmanager
def _own_state(recipe: Recipe) -> Iterator[None]:
    """Random numbers and threads of torch are the whole process's; give them back as they were."""
    import torch

    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            torch.set_num_threads(recipe.threads)
            yield
    finally:
        torch.set_num_threads(threads)


# Stored weights.


def restore(state: Mapping[str, torch.Tensor], path: str = "the checkpoint") -> torch.nn.Sequential:
    """The network of stored weights of either layout, ready to score on the CPU. The layout is told by where the
    normalisation is, second or third of its layer. Raises UserError for weights of something else."""
    import torch

    names = {name.split(".", 1)[0] for name in state}
    if len(names) != 1 or not names <= {"model", "network"}:
        raise UserError(
            f"{path} holds the weights {', '.join(sorted(state)[:5]) or 'none'}…; expected those of a probe, all below "
            "`model.` or all below `network.`"
        )
    weights = {name.split(".", 1)[1]: tensor for name, tensor in state.items()}
    at = sorted(int(name.split(".")[0]) for name in weights if name.endswith(".weight") and weights[name].ndim == 2)
    hidden = tuple(int(weights[f"{position}.weight"].shape[0]) for position in at[:-1])
    if not at or not hidden:
        raise UserError(f"{path} holds a network without hidden layers; expected a probe of raylib or the old scripts")
    with torch.device("meta"):  # weights that are made to be replaced would draw random numbers of the process
        layers = build(int(weights["0.weight"].shape[1]), hidden, 0.0, norm_first="1.running_mean" in weights)
    try:
        layers.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise UserError(f"{path} holds the weights of another network than a probe: {error}") from error
    return layers.eval().float()


def width(layers: torch.nn.Sequential) -> int:
    """D of the vectors it takes."""
    return next(iter(layers.parameters())).shape[1]


def score(layers: torch.nn.Sequential, x: np.ndarray) -> np.ndarray:
    """float64 [n] between 0 and 1, of x float32 [n, D]. The sigmoid is taken in float64, in which far fewer sure rows
    tie at 1."""
    import torch

    rows = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    with torch.inference_mode():
        parts = [layers[:-1](part).squeeze(1) for part in rows.split(_SCORED_ROWS)]
        return torch.sigmoid(torch.cat(parts).double()).numpy()
