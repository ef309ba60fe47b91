"""The gradient of one batch, on the process that has a part of it: forward, exchange of vectors, loss, backward.

Vectors are leaves of the loss, in every case: what the loss says about them is carried into the model afterwards. With
a gradient cache (Gao et al., arXiv 2101.06983) they are computed piece by piece without gradient, and each piece again
with it: memory is that of one piece, whatever the size of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from raylib.examples.examples import Examples
from raylib.models.token_vectors import TokenVectors
from raylib.train.false_negatives import Layout
from raylib.train.feed import Feed, Piece, levelled
from raylib.train.host_memory import trim
from raylib.train.learner import Learner
from raylib.train.objective import Criterion
from raylib.train.schedule import Schedule, Window
from raylib.train.team import Team
from raylib.types import Role

_SIDES: tuple[tuple[str, Role], ...] = (("queries", "query"), ("positives", "document"), ("negatives", "document"))


@dataclass(frozen=True)
class Batch:
    """layout: of the whole batch. examples: int64 [B], which. rows: this process's part. pieces: its contents, by
    "queries", "positives" and "negatives". contents: how many they are; contents of pieces beyond these stand in for
    other processes' (see `levelled`)."""

    layout: Layout
    examples: np.ndarray
    rows: slice
    pieces: dict[str, list[Piece]]
    contents: dict[str, int]


@dataclass(frozen=True)
class Batches:
    """Makes the batches of a schedule. most_negatives: of each example, those of the plan first, then those that the
    data gives. level: every process gets as many pieces of each kind, as weights that are spread need it."""

    examples: Examples
    schedule: Schedule
    feed: Feed
    team: Team
    most_negatives: int | None = None
    level: bool = False

    def of(self, window: Window) -> list[Batch]:
        return [self._batch(window, position) for position in window.batches]

    def layout(self, window: Window, position: int) -> tuple[Layout, np.ndarray]:
        """Of the whole batch, and its examples."""
        data = self.examples
        chosen = self.schedule.examples(window, position)
        mined = self.schedule.negative_examples(position, window)
        found = [self._negatives(e, m) for e, m in zip(chosen.tolist(), mined, strict=True)]
        owners = np.repeat(np.arange(len(chosen)), [len(numbers) for numbers in found])
        negatives = np.concatenate([np.zeros(0, dtype=np.int64), *found])
        return Layout(data.query[chosen], data.positive[chosen], negatives, owners), chosen

    def _negatives(self, example: int, mined: np.ndarray) -> np.ndarray:
        data = self.examples
        numbers = np.concatenate([data.positive[mined], data.given_negatives(example)])
        numbers = numbers[numbers != data.positive[example]]
        _, first = np.unique(numbers, return_index=True)
        return numbers[np.sort(first)][: self.most_negatives]

    def _batch(self, window: Window, position: int) -> Batch:
        layout, chosen = self.layout(window, position)
        shares, rank = self.team.shares(len(layout)), self.team.rank
        mine = _contents(layout, shares[rank])
        if self.level:
            parts = [_contents(layout, rows) for rows in shares]
            pieces = {side: levelled(self.feed, role, [part[side] for part in parts], rank) for side, role in _SIDES}
        else:
            pieces = {side: self.feed.pieces(role, mine[side]) if len(mine[side]) else [] for side, role in _SIDES}
        return Batch(layout, chosen, shares[rank], pieces, {side: len(mine[side]) for side, _ in _SIDES})


def _contents(layout: Layout, rows: slice) -> dict[str, np.ndarray]:
    """The numbers of the contents of a part of a batch, by side."""
    first, last = np.searchsorted(layout.owners, [rows.start, rows.stop])
    return {
        "queries": layout.queries[rows],
        "positives": layout.positives[rows],
        "negatives": layout.negatives[first:last],
    }


@dataclass
class BatchStep:
    """Adds the gradient of a batch to the parameters'.

    cached: pieces are computed twice instead of kept. chunk: queries whose scores are held at a time; None for all.
    """

    learner: Learner
    criterion: Criterion
    team: Team
    cached: bool
    chunk: int | None = None
    seed: int = 0

    def __call__(self, batch: Batch, step: int, position: int, scale: float) -> float:
        """This process's part of the loss of the batch; its gradient is added `scale` times."""
        seeds = {
            side: self._seeds(step, position, number, len(batch.pieces[side]))
            for number, (side, _) in enumerate(_SIDES)
        }
        with torch.set_grad_enabled(not self.cached):
            own = {side: self._vectors(batch.pieces[side], seeds[side]) for side, _ in _SIDES}
        asked = {side: vectors.slice(0, batch.contents[side]) for side, vectors in own.items()}
        everyone = {side: self.team.gather(asked[side]) for side in ("positives", "negatives")}
        symmetric = self.criterion.objective.symmetric
        if symmetric:
            everyone["queries"] = self.team.gather(asked["queries"])
        leaves = {side: [_leaf(part) for part in parts] for side, parts in everyone.items()}
        mine = _leaf(asked["queries"])
        loss = 0.0
        if batch.rows.stop > batch.rows.start:
            documents = _together([*leaves["positives"], *leaves["negatives"]])
            queries = _together(leaves["queries"]) if symmetric else mine
            loss = self.criterion.backward(batch.layout, batch.rows, queries, documents, chunk=self.chunk, scale=scale)
        gradients = {side: self._own_gradient(parts) for side, parts in leaves.items()}
        if not symmetric:
            gradients["queries"] = _gradient_of(mine)
        for side, _ in _SIDES:
            if len(own[side]):
                self._carry_back(batch.pieces[side], seeds[side], own[side], gradients[side])
        return loss

    def _vectors(self, pieces: Sequence[Piece], seeds: Sequence[int]) -> TokenVectors:
        if pieces:
            return self.learner.vectors(pieces, seeds)
        device = self.learner.encoder.device
        return TokenVectors(torch.zeros(0, 0, device=device), np.zeros(0, dtype=np.int64))

    def _own_gradient(self, parts: list[TokenVectors]) -> torch.Tensor:
        """The sum over processes of what they say about this process's vectors."""
        flat = torch.cat([_gradient_of(part) for part in parts])
        sizes = [len(part.values) for part in parts]
        return self.team.sum(flat).split(sizes)[self.team.rank]

    def _carry_back(
        self, pieces: Sequence[Piece], seeds: Sequence[int], own: TokenVectors, gradient: torch.Tensor
    ) -> None:
        """The gradient of the vectors into the model; 0 for those that stand in for other processes'."""
        rest = len(own.values) - len(gradient)
        if rest:
            gradient = torch.cat([gradient, gradient.new_zeros(rest, own.values.shape[1])])
        if not self.cached:
            own.values.backward(gradient)
            return
        about = TokenVectors(gradient, own.counts)
        on_host = torch.device(self.learner.encoder.device).type == "cpu"
        for piece, seed in zip(pieces, seeds, strict=True):
            if on_host:
                trim()
            with torch.enable_grad():
                again = self.learner.piece_vectors(piece.tensors, seed)
            again.values.backward(about.take(piece.positions).values)

    def _seeds(self, step: int, position: int, side: int, n: int) -> list[int]:
        """Of the forwards' dropout: other ones for every piece, and the same when a run is resumed here."""
        state = np.random.SeedSequence([self.seed, step, position, side, self.team.rank])
        return state.generate_state(n).tolist()


def _leaf(vectors: TokenVectors) -> TokenVectors:
    return TokenVectors(vectors.values.detach().requires_grad_(), vectors.counts)


def _gradient_of(vectors: TokenVectors) -> torch.Tensor:
    gradient = vectors.values.grad
    return torch.zeros_like(vectors.values) if gradient is None else gradient


def _together(parts: list[TokenVectors]) -> TokenVectors:
    """Without the parts that have nothing, which know no width."""
    there = [part for part in parts if len(part)]
    return there[0] if len(there) == 1 else TokenVectors.concatenate(there)
