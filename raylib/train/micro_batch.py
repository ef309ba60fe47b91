"""--micro-batch-size auto: the most contents that forward and backward hold, tried on the longest ones."""

from __future__ import annotations

import numpy as np
import torch

from raylib.evaluate.auto_batch import largest_batch
from raylib.train.feed import ROLES, ContentFeed, Piece
from raylib.train.learner import Learner


def largest_micro_batch(learner: Learner, feed: ContentFeed, fraction: float) -> int:
    """What fits for queries and for documents, on this device, to a fraction of its memory; on a CPU as many as make it
    faster. No weight and no gradient changes. Raises ModelError where one content alone does not fit."""
    encoder = learner.encoder
    learner.train()
    found = []
    for role in ROLES:
        longest = feed.longest(role)

        def forward_and_backward(size: int, longest=longest) -> None:
            tensors = {name: np.repeat(array, size, axis=0) for name, array in longest.items()}
            vectors = learner.vectors([Piece(tensors, np.arange(size))], [0])
            vectors.values.square().sum().backward()
            for _, parameter in learner.parameters():
                parameter.grad = None

        with torch.enable_grad():
            found.append(largest_batch(encoder.spec.name, encoder.device, forward_and_backward, headroom=fraction))
    return min(found)
