"""What of an encoder learns: all of its weights, a LoRA on them, or the heads on top; and how it is written down."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raylib.errors import UnsupportedOptionError, UserError
from raylib.models.token_vectors import TokenVectors
from raylib.models.torch_encoder import TorchEncoder
from raylib.train.features import are_features, tokens_of_features, vectors_of_features
from raylib.train.feed import Piece
from raylib.train.options import LoraSettings, Precision, What
from raylib.types import Tensors

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from peft import PeftModel

    from raylib.train.sharding import Shards
    from raylib.train.team import Team

LORA_TARGETS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "fc1", "fc2"),
    *("query", "key", "value", "dense", "custom_text_proj"),
)
"""The linear layers that get a LoRA where --lora-targets does not say: those of them that a model has."""

_SHOWN = 12


@dataclass
class Learner:
    """An encoder whose weights change. It is the encoder that evaluates: nothing is copied.

    what: "full", "lora" or "heads". precision: of the computation, "float32", "bf16" or "fp16"; weights that learn are
    float32. checkpointing: activations are computed again in the backward instead of kept.
    """

    encoder: TorchEncoder
    what: What = "full"
    lora: LoraSettings = field(default_factory=LoraSettings)
    precision: Precision = "float32"
    checkpointing: bool = False
    peft: PeftModel | None = None
    shards: Shards | None = None
    """Where the weights are spread over processes."""

    def prepare(self, seed: int) -> None:
        """Load the weights and let those learn that are to. seed: of a new LoRA's weights.

        Raises UserError for LoRA targets that match no module, and for a family without heads.
        """
        self.encoder.load()
        for parameter in self._everything():
            parameter.requires_grad_(False)
        if self.what == "full":
            for parameter in self._everything():
                parameter.requires_grad_(True)
        elif self.what == "lora":
            torch.manual_seed(seed)
            self._add_lora()
        self._let_heads_learn()
        if self.checkpointing:
            _checkpoint_activations(self.encoder.trunk)
        frozen = [name for name, parameter in self.parameters() if parameter.dtype != torch.float32]
        if frozen:
            raise UserError(
                f"{self.encoder.spec.name}: weights that learn are kept in float32, and {frozen[0]} is not; leave "
                "--dtype out and give --precision bf16 instead"
            )

    def spread(self, team: Team) -> None:
        """Keep a part of every weight only, after `prepare`; called by every process. One alone keeps all of them."""
        if team.size > 1:
            from raylib.train.sharding import Shards

            self.shards = Shards(self.encoder, team)

    def _everything(self) -> list[torch.nn.Parameter]:
        return list(self.encoder.trunk.parameters()) + list(self.encoder.heads().values())

    def _let_heads_learn(self) -> None:
        heads = self.encoder.heads()
        if self.what == "heads" and not heads:
            raise UnsupportedOptionError(
                f"{self.encoder.spec.name} (family {self.encoder.family.name}) has no heads apart from its model; "
                "leave --heads-only out"
            )
        inside = {id(parameter) for parameter in self.encoder.trunk.parameters()}
        for parameter in heads.values():  # those that lie apart from the model learn in any case
            if self.what == "heads" or id(parameter) not in inside:
                parameter.requires_grad_(True)

    def _add_lora(self) -> None:
        from peft import LoraConfig, get_peft_model

        host: Any = self.encoder.adapter_host
        targets = self._targets(host)
        alpha: Any = self.lora.alpha  # need not be whole, whatever peft's annotation says
        config = LoraConfig(
            r=self.lora.r,
            lora_alpha=alpha,
            lora_dropout=self.lora.dropout,
            target_modules=targets,
            bias="none",
            base_model_name_or_path=self.encoder.location,
            revision=self.encoder.spec.revision,
        )
        found: Any = get_peft_model(host, config)
        self.peft = found

    def _targets(self, host: torch.nn.Module) -> list[str]:
        linear = sorted(
            {name.rpartition(".")[2] for name, module in host.named_modules() if isinstance(module, torch.nn.Linear)}
        )
        asked = list(self.lora.targets)
        if not asked:
            asked = [name for name in LORA_TARGETS if name in linear] or linear
        names = [name for name, _ in host.named_modules()]
        unknown = [t for t in asked if not any(name == t or name.endswith(f".{t}") for name in names)]
        if unknown or not asked:
            shown = ", ".join(linear[:_SHOWN]) + (" …" if len(linear) > _SHOWN else "")
            raise UserError(
                f"--lora-targets {', '.join(unknown)}: no such module in {type(host).__name__}; its linear layers are "
                f"{shown}"
            )
        return asked

    def parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Those that learn, by name, in one order everywhere; of those that are spread this process's part."""
        named = [*self.encoder.trunk.named_parameters(), *self.encoder.heads().items()]
        seen: set[int] = set()
        found = []
        for name, parameter in named:
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                found.append((name, parameter if self.shards is None else self.shards.own(parameter)))
        return found

    def train(self) -> None:
        """Dropout on. Where only heads learn there is none to switch on: the backbone is as it is in evaluation."""
        self.encoder.trunk.train(self.what != "heads")

    def judge(self) -> None:
        self.encoder.trunk.eval()

    def vectors(self, pieces: Sequence[Piece], seeds: Sequence[int]) -> TokenVectors:
        """The vectors of all contents of the pieces, in the order of their positions; float32. seeds: one a piece, of
        what is random in its forward: the same seed gives the same dropout again."""
        parts = [self.piece_vectors(piece.tensors, seed) for piece, seed in zip(pieces, seeds, strict=True)]
        return in_place(parts, [piece.positions for piece in pieces])

    def piece_vectors(self, tensors: Tensors, seed: int) -> TokenVectors:
        torch.manual_seed(seed)
        with self._computation():
            if are_features(tensors):
                found = vectors_of_features(self.encoder, tensors)
            else:
                found = (self.shards or self.encoder).vectors(tensors)
        return TokenVectors(found.values.float(), found.counts)

    def tokens(self, tensors: Tensors) -> int:
        """Of all contents together; 0 where the model cannot count them."""
        if are_features(tensors):
            return tokens_of_features(tensors)
        counts = self.encoder.token_counts(tensors)
        return 0 if counts is None else int(counts.sum())

    def _computation(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return contextlib.nullcontext()
        kind = torch.device(self.encoder.device).type
        return torch.autocast(kind, dtype=torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def save(self, folder: str, step: int, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """A folder that `raylib --model FOLDER` runs: the model, or the adapter, or the heads. weights: what `state`
        gives, needed where they are spread."""
        assert self.shards is None or weights is not None, "a part of the weights is no model"
        with contextlib.nullcontext() if self.shards is None else self.shards.in_place(weights or {}):
            self.encoder.save(folder, peft=self.peft, whole=self.what == "full", step=step)

    def state(self) -> dict[str, torch.Tensor]:
        """The weights that learn, by name, as they are. Where they are spread every process calls it, and only the
        first one gets them."""
        if self.shards is not None:
            return self.shards.weights(self.parameters())
        return {name: parameter.detach().cpu() for name, parameter in self.parameters()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Raises UserError where the weights are of another model, or of other settings."""
        own = dict(self.parameters())
        shards = self.shards
        shapes = {n: p.shape if shards is None else shards.shape(p) for n, p in own.items()}
        wrong = sorted(set(own) ^ set(state)) or [n for n in own if shapes[n] != state[n].shape]
        if wrong:
            raise UserError(
                f"the checkpoint is of another model or other --lora settings: {wrong[0]} and {len(wrong) - 1} more "
                "weights differ; resume with the settings that the run began with"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(state[name] if shards is None else shards.part_of(state[name], parameter))


def in_place(parts: Sequence[TokenVectors], positions: Sequence[np.ndarray]) -> TokenVectors:
    """The contents of all parts in the order of their positions, which are 0 … n - 1 in all."""
    if len(parts) == 1:
        return parts[0]
    together = TokenVectors.concatenate(parts)
    order = np.concatenate(list(positions))
    if (order == np.arange(len(order))).all():
        return together
    return together.take(np.argsort(order, kind="stable"))


def _checkpoint_activations(model: torch.nn.Module) -> None:
    """Of every part that transformers can do it for."""
    able = [m for m in model.modules() if getattr(m, "supports_gradient_checkpointing", False)]
    if not able:
        raise UnsupportedOptionError(
            f"{type(model).__name__} cannot compute activations again; leave --gradient-checkpointing out"
        )
    for module in able:
        module.gradient_checkpointing_enable({"use_reentrant": False})  # pyright: ignore[reportCallIssue]
