"""Ways of computing that do not change what is learned: activations computed again, half precision."""

import pytest
import torch

from raylib.errors import UserError
from raylib.train.learner import Learner
from raylib.train.step import BatchStep
from raylib.train.team import Team

from .made_runs import Kept, Run, encoder_of, loop_of


def gradients(run, **learner_options):
    """Of the first batch, by parameter."""
    loop = loop_of(run, Team(), Kept())
    learner = Learner(loop.learner.encoder, **learner_options)
    learner.prepare(seed=0)
    learner.train()
    step = BatchStep(learner, loop.criterion, Team(), cached=False)
    window = next(iter(loop.batches.schedule.windows()))
    loss = step(loop.batches.of(window)[0], 1, 0, 1.0)
    return loss, {
        name: parameter.grad.clone() for name, parameter in learner.parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize("name", ["dense", "late"])
def test_gradient_checkpointing_gives_the_same_gradient(name, tiny, pairs):
    loss, plain = gradients(Run(tiny[name], pairs))
    again, found = gradients(Run(tiny[name], pairs), checkpointing=True)
    assert again == pytest.approx(loss, rel=1e-6)
    assert plain.keys() == found.keys()
    assert max(float((plain[n] - found[n]).abs().max() / plain[n].abs().max().clamp(min=1e-3)) for n in plain) < 1e-4


def test_bf16_computes_in_half_and_learns_in_float32(tiny, pairs):
    loss, plain = gradients(Run(tiny["dense"], pairs))
    half_loss, half = gradients(Run(tiny["dense"], pairs), precision="bf16")
    assert half_loss != loss and half_loss == pytest.approx(loss, rel=0.05)
    assert all(gradient.dtype == torch.float32 for gradient in half.values())
    flat, flat_half = (torch.cat([g.flatten() for g in found.values()]) for found in (plain, half))
    assert float(torch.nn.functional.cosine_similarity(flat, flat_half, dim=0)) > 0.95


def test_weights_in_half_are_refused(tiny):
    from raylib.models.protocol import ModelSpec
    from raylib.models.registry import resolve

    learner = Learner(resolve(ModelSpec(tiny["dense"], dtype="bfloat16", device="cpu")))
    with pytest.raises(UserError, match="--precision bf16"):
        learner.prepare(seed=0)


def test_a_lora_learns_beside_frozen_weights(tiny):
    learner = Learner(encoder_of(tiny["dense"]), "lora")
    learner.prepare(seed=0)
    names = [name for name, _ in learner.parameters()]
    assert names and all("lora_" in name for name in names)
