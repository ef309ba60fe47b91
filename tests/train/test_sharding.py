"""Weights spread over processes learn what those of one process do that has them all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from raylib.errors import UserError
from raylib.train.config import TrainConfig
from raylib.train.feed import Piece, levelled
from raylib.train.learner import Learner
from raylib.train.lockstep import follow, leading
from raylib.train.options import LoraSettings
from raylib.train.sharding import blocks_of
from raylib.train.team import Team

from .made_runs import Kept, Run, all_trained, encoder_of, loop_of, most_different

WEIGHTS = 1e-5

STEPS = 10
"""Batches of seven, and each fourth of two, of which the third process has nothing."""

LORA = LoraSettings(r=4, alpha=8, targets=("q_proj", "v_proj"))


# The same weights.


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six documents of three kinds, so that a process of three has none of some kind."""
    folder = tmp_path_factory.mktemp("pages")
    rows = []
    for i in range(6):
        Image.new("RGB", (40 + 8 * i, 60), (40 * i, 90, 200 - 30 * i)).save(folder / f"{i}.png")
        text, page = f"the page number {i}", f"{i}.png"
        rows.append({"id": f"e{i}", "query": f"page {i}", "pos": [text, page, {"text": text, "image": page}][i % 3]})
    (folder / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "pages.jsonl")


def runs(tiny: Mapping[str, str], pairs: str, pages: str) -> dict[str, Run]:
    dense, late = (Run(tiny[kind], pairs, STEPS, optimizer="sgd", lr=0.02) for kind in ("dense", "late"))
    symmetric = {"symmetric": True, "learn_temperature": True}
    return {
        "dense": dense,
        "late": replace(late, steps=5),
        "kinds": replace(dense, data=pages, batch_size=4, steps=4, options=symmetric, accumulate=2),
        "lora": replace(late, what="lora", lora=LORA, steps=4, lr=0.1, checkpointing=True),
    }


ASKED = [
    ("dense", 2, False),
    ("dense", 3, True),
    ("late", 2, True),
    ("late", 3, False),
    ("kinds", 3, False),
    ("kinds", 2, True),
    ("lora", 2, False),
]
"""(run, processes, whether with a gradient cache)."""


@dataclass
class InThree:
    """What each of three processes checks before they train."""

    dense: str
    late: str
    data: str
    folder: str

    def __call__(self, team: Team) -> None:
        self.holds_a_third(team)
        self.writes_an_adapter(team)
        self.judges_together(team)

    def holds_a_third(self, team: Team) -> None:
        loop = loop_of(Run(self.dense, self.data, spread=True), team, Kept())
        shards, trunk = loop.learner.shards, loop.learner.encoder.trunk
        assert shards is not None
        whole = [name for name, p in trunk.named_parameters() if not isinstance(p, DTensor)]
        assert whole == ["logit_scale"], "a scalar"
        held, in_all = (sum(p.numel() for p in found) for found in (loop.parameters, trunk.parameters()))
        assert 0.3 * in_all < held < 0.36 * in_all
        before = {name: p.detach() for name, p in encoder_of(self.dense).trunk.named_parameters()}
        state = loop.learner.state()
        assert most_different(before, state) == 0 if team.rank == 0 else state == {}
        # The norm of a gradient of ones in all weights is the root of their number, on every process.
        for parameter in loop.parameters:
            parameter.grad = torch.ones_like(parameter)
        assert shards.clip(loop.parameters, 1.0) == pytest.approx(in_all**0.5, rel=1e-6)
        assert all(p.grad is not None and torch.allclose(p.grad, torch.tensor(in_all**-0.5)) for p in loop.parameters)

    def writes_an_adapter(self, team: Team) -> None:
        learner = Learner(encoder_of(self.late), "lora", LORA)
        learner.prepare(seed=0)
        expected = {name: parameter.detach().clone() for name, parameter in learner.parameters()}
        learner.spread(team)
        state = learner.state()
        if team.rank == 0:
            learner.save(self.folder, 1, state)
            found = load_file(Path(self.folder, "adapter_model.safetensors"))
            named = {name.removeprefix("base_model.model."): values for name, values in found.items()}
            assert most_different({n.replace(".default", ""): w for n, w in expected.items()}, named) == 0
        team.wait()

    def judges_together(self, team: Team) -> None:
        """One, three and five texts: not every process has one. The weights can be trained on afterwards: the gradient
        is that of one process, before it is clipped."""
        loop = loop_of(Run(self.late, self.data, steps=1, spread=True), team, Kept())
        encoder, shards = loop.learner.encoder, loop.learner.shards
        assert shards is not None
        loop.learner.judge()
        if team.rank:
            follow(shards)
        else:
            plain = encoder_of(self.late)
            context = plain.context(None, "query")
            with leading(shards):
                for n in (1, 3, 5):
                    texts = {"text": [f"page {i} " * (i + 1) for i in range(n)]}
                    expected, found = (one.encode(texts, context) for one in (plain, encoder))
                    assert found.offsets.tolist() == expected.offsets.tolist()
                    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
        loop.run()
        one = loop_of(Run(self.late, self.data, steps=1), Team(), Kept())
        one.run()
        assert loop.norm == pytest.approx(one.norm, rel=1e-5) and loop.norm > 1


def test_as_one_process(tiny: Mapping[str, str], pairs: str, pages: str, tmp_path: Path) -> None:
    given = runs(tiny, pairs, pages)
    keys: list[tuple[str, int, bool]] = [*((name, 1, False) for name in given), *ASKED]
    asked = [
        (replace(given[name], spread=size > 1, **({"micro": 2, "chunk": 3} if cached else {})), size)
        for name, size, cached in keys
    ]
    first = InThree(tiny["dense"], tiny["late"], pairs, str(tmp_path))
    found = dict(zip(keys, all_trained(asked, first=first), strict=True))
    start = {name: p.detach() for name, p in encoder_of(tiny["dense"]).trunk.named_parameters()}
    assert most_different(start, {name: found["dense", 1, False][name] for name in start}) > 100 * WEIGHTS
    assert max(float(w.abs().max()) for n, w in found["lora", 1, False].items() if "lora_B" in n) > 100 * WEIGHTS
    different = {key: most_different(found[key[0], 1, False], found[key]) for key in ASKED}
    assert {key: value for key, value in different.items() if value > WEIGHTS} == {}


# Alone.


@dataclass
class Words:
    """A feed of contents whose kind is their number modulo 3."""

    micro: int | None

    def kind_of_rows(self, role: str) -> np.ndarray:
        return np.arange(30) % 3

    def pieces(self, role: str, numbers: np.ndarray) -> list[Piece]:
        step = self.micro or len(numbers)
        places = np.arange(len(numbers))
        return [Piece({"numbers": numbers[i : i + step]}, places[i : i + step]) for i in range(0, len(numbers), step)]


@pytest.mark.parametrize(
    ("micro", "first", "second"),
    [
        (None, [([0, 3, 6], [0, 2, 3]), ([1], [1])], [([0], [1]), ([4], [0])]),
        (2, [([0, 3], [0, 2]), ([6], [3]), ([1], [1])], [([0], [1]), ([0], [2]), ([4], [0])]),
    ],
)
def test_every_process_gets_as_many_pieces_of_each_kind(micro: int | None, first: Any, second: Any) -> None:
    """The second of three has nothing of kind 0, the third nothing at all."""
    numbers = [np.array([0, 1, 3, 6]), np.array([4]), np.zeros(0, dtype=np.int64)]
    feed: Any = Words(micro)
    found = [
        [(piece.tensors["numbers"].tolist(), piece.positions.tolist()) for piece in levelled(feed, "query", numbers, r)]
        for r in range(3)
    ]
    assert found[0] == first and found[1] == second
    assert [positions for _, positions in found[2]] == [[n] for n in range(len(first))]
    assert [numbers[0] % 3 for numbers, _ in found[2]] == [numbers[0] % 3 for numbers, _ in first]


def test_blocks_are_the_layers_that_repeat() -> None:
    """Of the outermost lists: experts within a layer are part of it, and what has no weights is no block."""

    def layer() -> torch.nn.Module:
        return torch.nn.ModuleDict({"experts": torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])})

    layers, twice = [layer() for _ in range(3)], torch.nn.Linear(2, 2)
    model = torch.nn.ModuleDict(
        {
            "tower": torch.nn.ModuleDict({"layers": torch.nn.ModuleList(layers)}),
            "shared": torch.nn.ModuleList([twice, twice, torch.nn.GELU()]),
            "alone": torch.nn.ModuleList([torch.nn.Linear(2, 2)]),
        }
    )
    assert blocks_of(model) == [*layers, twice]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"heads_only": True}, "--heads-only"),
        ({"micro_batch_size": "auto"}, "--micro-batch-size auto"),
        ({"optimizer": "paged_adamw_8bit"}, "paged_adamw_8bit"),
        ({"precision": "fp16"}, "bf16"),
        ({"compile": True}, "--compile"),
        ({"device": "auto"}, "--device auto"),
        ({"gpus_per_worker": 2}, "--gpus-per-worker"),
    ],
)
def test_what_cannot_be_spread_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        TrainConfig(strategy="fsdp", **given)
    TrainConfig(**given)


def test_a_process_alone_keeps_all_weights(tiny: Mapping[str, str]) -> None:
    learner = Learner(encoder_of(tiny["dense"]))
    learner.prepare(seed=0)
    learner.spread(Team())
    assert learner.shards is None
