"""The largest micro-batch is found by forward and backward on the longest contents."""

import numpy as np
import pytest
import torch

from raylib.errors import ModelError
from raylib.examples.examples import read_examples
from raylib.train.feed import ContentFeed
from raylib.train.learner import Learner
from raylib.train.micro_batch import largest_micro_batch

from .made_runs import encoder_of


class _Counting(Learner):
    """Has memory for `fits` contents in the backward; sizes: what was tried."""

    fits = 1000

    def vectors(self, pieces, seeds):
        size = len(pieces[0].positions)
        self.sizes.append((size, pieces[0].tensors["input_ids"].shape[1]))
        found = super().vectors(pieces, seeds)

        def no_room(_):
            raise RuntimeError("CUDA out of memory")

        if size > self.fits:
            found.values.register_hook(no_room)
        return found


@pytest.fixture
def learner(tiny):
    found = _Counting(encoder_of(tiny["dense"]))
    found.sizes = []
    found.prepare(seed=0)
    return found


def test_the_backward_counts_and_nothing_is_left(learner, pairs):
    examples = read_examples(pairs)
    feed = ContentFeed(learner.encoder, examples)
    learner.fits = 5
    before = {name: parameter.detach().clone() for name, parameter in learner.parameters()}
    found = largest_micro_batch(learner, feed, 0.8)
    assert 1 <= found <= 5  # on a CPU also no larger than makes it faster
    assert max(size for size, _ in learner.sizes) <= 16
    assert all(parameter.grad is None for _, parameter in learner.parameters())
    assert all(torch.equal(parameter, before[name]) for name, parameter in learner.parameters())

    alone = (feed.pieces("document", np.array([row]))[0] for row in range(len(examples.documents)))
    assert max(piece.tensors["input_ids"].shape[1] for piece in alone) in {tokens for _, tokens in learner.sizes}


def test_one_content_that_does_not_fit(learner, pairs):
    learner.fits = 0
    with pytest.raises(ModelError, match="one content alone does not fit"):
        largest_micro_batch(learner, ContentFeed(learner.encoder, read_examples(pairs)), 0.8)
