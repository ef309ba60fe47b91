"""Several processes that meet through gloo train the weights that one process trains on the whole batch."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from raylib.models.token_vectors import TokenVectors
from raylib.train.team import Team

from .made_runs import Run, all_trained, encoder_of, most_different

WEIGHTS = 1e-5

STEPS = 50
"""Twelve epochs: batches of seven, which two and three processes cannot share evenly, and a last one of two, of which
the third process has nothing."""

Weights = dict[str, torch.Tensor]

CACHED = {"micro": 2, "chunk": 3}
KINDS = ("dense", "late")
OPTIONS = {
    "dense": {"symmetric": True, "learn_temperature": True, "matryoshka": (64, 16)},
    "late": {"explicit": 0.3, "mask_above": 0.5},
}


def runs(tiny: Mapping[str, str], pairs: str) -> dict[str, Run]:
    """Rates at which the loss falls from 8 to below 1, and rounding is not blown up: with ten times as much the tiny
    models with random weights are chaotic, and one process with and without a cache ends apart as well."""
    sgd = {kind: Run(tiny[kind], pairs, STEPS, optimizer="sgd", lr=0.02) for kind in KINDS}
    short = {f"{kind}, options": replace(run, steps=5, options=OPTIONS[kind]) for kind, run in sgd.items()}
    short["dense, options"] = replace(short["dense, options"], accumulate=2)
    short["late, pairwise"] = replace(sgd["late"], steps=5, loss="pairwise", options={"temperature": 0.1})
    short["dense, sigmoid"] = replace(sgd["dense"], steps=5, loss="sigmoid", options={"temperature": 0.1})
    return {**sgd, "dense, adamw": replace(sgd["dense"], steps=25, optimizer="adamw", lr=1e-4), **short}


ASKED = [
    *((kind, size, cached) for kind in KINDS for size, cached in ((3, True), (2, False))),
    ("dense, adamw", 3, True),
    ("dense, options", 3, True),
    ("late, options", 2, False),
    ("late, pairwise", 3, False),
    ("dense, sigmoid", 2, True),
]
"""(run, processes, whether with a gradient cache)."""


def exchange(team: Team) -> None:
    """What three processes tell each other. Process 1 has no vector at all, and does not know the width."""
    rank = team.rank
    if rank == 1:
        own = TokenVectors(torch.zeros(0, 0), np.zeros(0, dtype=np.int64))
    else:
        own = TokenVectors(torch.full((3, 2), float(rank)), np.array([1, 2] if rank else [3]))
    parts = team.gather(own)
    assert [part.counts.tolist() for part in parts] == [[3], [], [1, 2]]
    assert [part.values.tolist() for part in parts] == [[[0, 0]] * 3, [], [[2, 2]] * 3]
    empty = team.gather(TokenVectors(torch.zeros(0, 0), np.zeros(0, dtype=np.int64)))
    assert [len(part) for part in empty] == [0, 0, 0]
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    weights[0].grad = torch.tensor([1.0, rank])
    if rank == 2:
        weights[1].grad = torch.tensor([5.0, 6.0])
    team.sum_gradients(weights)
    assert [w.grad.tolist() for w in weights if w.grad is not None] == [[3, 3], [5, 6], [0, 0]]
    assert team.sum(torch.tensor(float(rank))).item() == 3
    assert team.told({"from": rank}) == {"from": 0}
    team.wait()


@pytest.fixture(scope="module")
def found(tiny: Mapping[str, str], pairs: str) -> dict[tuple[str, int, bool], Weights]:
    """Those of `ASKED`, and of one process. Others are started once for all, and check `exchange` first."""
    given = runs(tiny, pairs)
    keys = [*((name, 1, False) for name in given), *((kind, 1, True) for kind in KINDS), *ASKED]
    asked = [(replace(given[name], **(CACHED if cached else {})), size) for name, size, cached in keys]
    return dict(zip(keys, all_trained(asked, first=exchange), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_is_exact(kind: str, found: dict[tuple[str, int, bool], Weights], tiny: Mapping[str, str]) -> None:
    """And what the tests below compare has been trained."""
    whole = found[kind, 1, False]
    assert most_different(whole, found[kind, 1, True]) <= WEIGHTS
    start = {name: p.detach() for name, p in encoder_of(tiny[kind]).trunk.named_parameters()}
    moved = {name: float((whole[name] - start[name]).abs().max()) for name in start if "vision" not in name}
    assert max(moved.values()) > 100 * WEIGHTS


@pytest.mark.parametrize(("name", "size", "cached"), [key for key in ASKED if key[0] != "dense, adamw"])
def test_as_one_process(name: str, size: int, cached: bool, found: dict[tuple[str, int, bool], Weights]) -> None:
    assert most_different(found[name, 1, False], found[name, size, cached]) <= WEIGHTS


def test_as_one_process_with_adamw(found: dict[tuple[str, int, bool], Weights]) -> None:
    """All weights but one kind. A bias of keys adds the same to all attention scores of a query, so that its true
    gradient is 0: what is computed is rounding, and Adam divides that by its own size, into steps as large as the
    learning rate, of either sign."""
    one, three = ({**found["dense, adamw", size, size == 3]} for size in (1, 3))
    biases = [name for name in one if name.endswith("k_proj.bias")]
    assert len(biases) == 4
    for name in biases:
        assert float((one.pop(name) - three.pop(name)).abs().max()) <= 2 * 25 * 1e-4
    assert most_different(one, three) <= WEIGHTS


# Alone.


class _OfThree(Team):
    size = 3

    def __init__(self, rank: int) -> None:
        self.rank = rank


@pytest.mark.parametrize(("n", "shares"), [(7, [3, 2, 2]), (2, [1, 1, 0]), (0, [0, 0, 0]), (3, [1, 1, 1])])
def test_shares_are_all_of_it_in_order(n: int, shares: list[int]) -> None:
    found = [_OfThree(rank).share(n) for rank in range(3)]
    assert [part.stop - part.start for part in found] == shares
    assert [i for part in found for i in range(n)[part]] == list(range(n))


def test_alone_there_is_nobody_to_ask() -> None:
    team, weight = Team(), torch.nn.Parameter(torch.ones(2))
    team.sum_gradients([weight])
    assert weight.grad is not None and weight.grad.tolist() == [0, 0]
    own = TokenVectors(torch.ones(3, 2, requires_grad=True), np.array([1, 2]))
    (found,) = team.gather(own)
    assert not found.values.requires_grad and found.counts.tolist() == [1, 2]
    assert team.sum(torch.tensor([2.0])).tolist() == [2] and team.told("x") == "x"
