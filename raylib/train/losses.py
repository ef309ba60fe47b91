"""Contrastive losses of each query, from its scores against all documents of a batch. Pure functions.

scores: float [q, m]. own: int64 [q], the column of each query's positive. masked: bool [q, m], columns that do not
count (`raylib.train.false_negatives`), never True at `own`. All give [q], not reduced: the loss of a batch is their
mean over all of its queries, wherever these are.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

Scale = float | torch.Tensor


def info_nce(scores: torch.Tensor, own: torch.Tensor, masked: torch.Tensor, temperature: Scale) -> torch.Tensor:
    """Cross-entropy of the positive among all documents (van den Oord et al., arXiv 1807.03748)."""
    logits = (scores / temperature).masked_fill(masked, float("-inf"))
    return F.cross_entropy(logits, own, reduction="none")


def pairwise(scores: torch.Tensor, own: torch.Tensor, masked: torch.Tensor, temperature: Scale) -> torch.Tensor:
    """softplus of how much better the best negative scores than the positive (as ColPali is trained with); 0 for a
    query that has no negative."""
    of_own = scores.gather(1, own[:, None])
    others = scores.masked_fill(masked, float("-inf")).scatter(1, own[:, None], float("-inf"))
    hardest = others.amax(dim=1, keepdim=True)
    alone = torch.isneginf(hardest)
    distance = (torch.where(alone, of_own, hardest) - of_own) / temperature
    return F.softplus(distance).masked_fill(alone, 0.0).squeeze(1)


def explicit_negatives(
    scores: torch.Tensor, own: torch.Tensor, negatives: torch.Tensor, temperature: Scale
) -> torch.Tensor:
    """The mean over a query's own hard negatives of softplus of how much better they score than the positive.
    negatives: int64 [q, h] columns, -1 for none; 0 for a query without any."""
    present = negatives >= 0
    distance = (scores.gather(1, negatives.clamp(min=0)) - scores.gather(1, own[:, None])) / temperature
    each = F.softplus(distance) * present
    return each.sum(dim=1) / present.sum(dim=1).clamp(min=1)


def sigmoid(scores: torch.Tensor, own: torch.Tensor, masked: torch.Tensor, scale: Scale, bias: Scale) -> torch.Tensor:
    """Every pair judged by itself, summed over documents (Zhai et al., SigLIP, arXiv 2303.15343): the positive is to
    score high and every other document low."""
    signs = torch.full_like(scores, -1.0).scatter(1, own[:, None], 1.0)
    each = -F.logsigmoid(signs * (scale * scores + bias))
    return each.masked_fill(masked, 0.0).sum(dim=1)
