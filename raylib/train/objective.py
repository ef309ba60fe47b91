"""What is minimised: how scores are made of vectors, which loss they get, and what of it learns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from raylib.errors import UserError
from raylib.models.token_vectors import TokenVectors
from raylib.train import losses
from raylib.train.false_negatives import Layout, above_positive
from raylib.train.maxsim import dense_scores, maxsim
from raylib.train.options import Loss
from raylib.types import VectorSimilarity

SIGMOID_BIAS = -10.0
"""Where SigLIP's bias begins: nearly every pair is a negative one."""


@dataclass(frozen=True)
class Objective:
    """similarity: "cosine" (vectors are brought to length 1), "dot" or "maxsim". temperature: what scores are divided
    by; where it learns, its logarithm does. symmetric: documents rank queries, too; the mean of both. explicit: the
    share of a term for each query's own hard negatives, beside the loss over the positives of the batch; 0 for hard
    negatives that are negatives of all queries. per_token: MaxSim is divided by the query's tokens. matryoshka:
    dimensions that vectors are cut to, the losses of which are added (arXiv 2205.13147); () for whole vectors.
    mask_above: documents that score more than the positive by more than this do not count; None for all that do."""

    similarity: VectorSimilarity
    loss: Loss = "infonce"
    temperature: float = 0.02
    learn_temperature: bool = False
    symmetric: bool = False
    explicit: float = 0.0
    per_token: bool = True
    matryoshka: tuple[int, ...] = ()
    mask_above: float | None = None


class Criterion(torch.nn.Module):
    """An objective with what of it learns: log_scale, of 1 / temperature, and the bias of the sigmoid loss."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective
        learns = objective.learn_temperature or objective.loss == "sigmoid"
        self.log_scale = torch.nn.Parameter(torch.tensor(-math.log(objective.temperature)), requires_grad=learns)
        self.bias = torch.nn.Parameter(torch.tensor(SIGMOID_BIAS), requires_grad=objective.loss == "sigmoid")

    @property
    def temperature(self) -> float | torch.Tensor:
        return torch.exp(-self.log_scale) if self.log_scale.requires_grad else self.objective.temperature

    def by_query(self, layout: Layout, rows: slice, queries: TokenVectors, documents: TokenVectors) -> torch.Tensor:
        """The losses of some queries of a batch, added and divided by the size of the batch: a scalar. queries: those
        of `rows`; documents: of all columns."""
        own = np.arange(len(layout))[rows]
        device = queries.values.device
        places = torch.from_numpy(own).to(device)
        masked = torch.from_numpy(layout.masked(rows)).to(device)
        total = queries.values.new_zeros(())
        for dim in self._dims(queries):
            scores = self.scores(_cut(queries, dim), _cut(documents, dim), cut=dim is not None)
            hidden = masked
            if self.objective.mask_above is not None:
                hidden = masked | above_positive(scores, places, self.objective.mask_above)
            # Beside a term of their own hard negatives are no negatives of the batch as well, as in colpali-engine.
            counted = len(layout) if self.objective.explicit else len(layout.columns)
            each = self._losses(scores[:, :counted], places, hidden[:, :counted])
            if self.objective.explicit:
                negatives = torch.from_numpy(layout.negative_columns(rows)).to(device)
                extra = losses.explicit_negatives(scores, places, negatives, self.temperature)
                each = (1 - self.objective.explicit) * each + self.objective.explicit * extra
            total = total + each.sum() / len(layout)
        return total / 2 if self.objective.symmetric else total

    def by_document(self, layout: Layout, rows: slice, queries: TokenVectors, documents: TokenVectors) -> torch.Tensor:
        """The other half of a symmetric loss: positives rank queries. queries: all of the batch; documents: the
        positives of `rows`."""
        device = queries.values.device
        places = torch.from_numpy(np.arange(len(layout))[rows]).to(device)
        masked = torch.from_numpy(layout.masked(slice(None))[:, : len(layout)][:, rows].T.copy()).to(device)
        total = queries.values.new_zeros(())
        for dim in self._dims(queries):
            scores = self.scores(_cut(queries, dim), _cut(documents, dim), cut=dim is not None).T
            each = losses.info_nce(scores, places, masked, self.temperature)
            total = total + each.sum() / len(layout)
        return total / 2

    def _losses(self, scores: torch.Tensor, own: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        if self.objective.loss == "sigmoid":
            return losses.sigmoid(scores, own, masked, torch.exp(self.log_scale), self.bias)
        function = losses.info_nce if self.objective.loss == "infonce" else losses.pairwise
        return function(scores, own, masked, self.temperature)

    def scores(self, queries: TokenVectors, documents: TokenVectors, *, cut: bool = False) -> torch.Tensor:
        """float32 [q, m]. cut: the vectors have lost components, and with them their length."""
        if self.objective.similarity == "cosine" or (cut and self.objective.similarity == "maxsim"):
            queries, documents = _unit(queries), _unit(documents)
        if self.objective.similarity != "maxsim":
            return dense_scores(queries, documents)
        found = maxsim(queries, documents)
        if not self.objective.per_token:
            return found
        return found / torch.from_numpy(queries.counts).to(found)[:, None]

    def _dims(self, vectors: TokenVectors) -> list[int | None]:
        width = vectors.values.shape[1]
        if any(dim > width for dim in self.objective.matryoshka):
            asked = ",".join(map(str, self.objective.matryoshka))
            raise UserError(f"--matryoshka is {asked}, and the vectors have {width} dimensions; leave larger ones out")
        return [None if dim == width else dim for dim in self.objective.matryoshka] or [None]

    def backward(
        self,
        layout: Layout,
        rows: slice,
        queries: TokenVectors,
        documents: TokenVectors,
        *,
        chunk: int | None = None,
        scale: float = 1.0,
    ) -> float:
        """The loss of `rows`, whose gradient times `scale` is added to what leaves have: `queries` of all examples (of
        the rows alone unless the objective is symmetric), `documents` of all columns. chunk: queries at a time, so that
        no more than chunk rows of scores are held; None for all."""
        first, last, _ = rows.indices(len(layout))
        step = chunk or max(1, last - first)
        total = 0.0
        for start in range(first, last, step):
            part = slice(start, min(start + step, last))
            base = 0 if self.objective.symmetric else first
            own = queries.slice(part.start - base, part.stop - base)
            loss = self.by_query(layout, part, own, documents)
            if self.objective.symmetric:
                loss = loss + self.by_document(layout, part, queries, documents.slice(part.start, part.stop))
            (loss * scale).backward()
            total += float(loss.detach())
        return total


def _cut(vectors: TokenVectors, dim: int | None) -> TokenVectors:
    return vectors if dim is None else TokenVectors(vectors.values[:, :dim], vectors.counts)


def _unit(vectors: TokenVectors) -> TokenVectors:
    return TokenVectors(torch.nn.functional.normalize(vectors.values, dim=-1), vectors.counts)
