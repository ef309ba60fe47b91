"""A vision-language model as an extractor: a CPU half that makes a row's tensors, and one forward of a batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import UserError
from raylib.evaluate.contents import BadContentError
from raylib.extract.alone import FirstBatch
from raylib.extract.anatomy import Anatomy, decoder_depth, dissect
from raylib.extract.architectures import PROVEN, architecture
from raylib.extract.capture import Capture, Positions
from raylib.extract.collate import PreparedRow, Side
from raylib.extract.config import Boundary, ExtractConfig
from raylib.extract.layers import parse_layers
from raylib.extract.own_code import auto_class, check_trusted, trusted
from raylib.extract.reader import Reader
from raylib.extract.readers import reader_for
from raylib.extract.spans import LEGACY_POSITIONS, span_of
from raylib.models.loading import check_attention, device_name, dtype_name, model_failure, placed, rgb, with_adapter
from raylib.models.protocol import ModelSpec
from raylib.models.weights import source_identity
from raylib.store.representations import Representation

if TYPE_CHECKING:
    from PIL import Image

_VERSION = 1
"""Raised when the same weights and settings would give other states than before."""


@dataclass
class States:
    """What one forward gave. values: representation → float32 [rows, width]; answers [rows], "" without --generate."""

    values: Mapping[Representation, np.ndarray]
    answers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Extractor:
    """One model under one set of options. Cheap to make and to pickle: processor and weights are loaded on first use
    and stay behind when it travels.

    layers: as a user writes them. max_new_tokens: of an answer; None for no answers.
    """

    spec: ModelSpec
    asked_layers: str
    boundary: Boundary = "exact"
    max_new_tokens: int | None = None
    cache_dir: str | None = None

    @classmethod
    def of(cls, config: ExtractConfig) -> Extractor:
        tokens = config.max_new_tokens if config.generate else None
        return cls(config.spec.here(), config.layers, config.boundary, tokens, config.cache_dir)

    def __post_init__(self) -> None:
        dtype_name(self.spec)
        check_attention(self.spec)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    # What is known without weights.

    @cached_property
    def config(self) -> Any:
        """transformers' config of the model. Raises UserError for one of which raylib knows that it cannot run."""
        from transformers import AutoConfig, PretrainedConfig

        with model_failure(self.spec, "its config cannot be loaded"), trusted(self.spec):
            place = {"revision": self.spec.revision, "cache_dir": self.cache_dir}
            check_trusted(self.spec, PretrainedConfig.get_config_dict(self.spec.name, **place)[0])
            config = AutoConfig.from_pretrained(self.spec.name, **self._pretrained())
        if self.boundary == "legacy" and config.model_type not in LEGACY_POSITIONS:
            known = ", ".join(LEGACY_POSITIONS)
            raise UserError(
                f"--boundary legacy: no script of HALP was for {config.model_type} ({self.spec.name}); they were for "
                f"{known}. Leave it out"
            )
        return config

    @cached_property
    def depth(self) -> int:
        return decoder_depth(self.config, self.spec.name)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        return parse_layers(self.asked_layers, self.depth)

    @property
    def dtype(self) -> str:
        return dtype_name(self.spec)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides the states besides the rows. JSON-able."""
        return {
            "version": _VERSION,
            **source_identity(self.spec, cache_dir=self.cache_dir),
            "dtype": self.dtype,
            "attention": self.spec.attention,
            "layers": list(self.layers),
            "boundary": self.boundary,
            "max_new_tokens": self.max_new_tokens,
        }

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the states at a layer, 64 hex digits: the same whichever layers were asked for."""
        of_model = {k: v for k, v in self.identity.items() if k not in ("layers", "max_new_tokens")}
        return digest_of(of_model)

    def _pretrained(self) -> dict[str, Any]:
        return {
            "revision": self.spec.revision,
            "trust_remote_code": self.spec.trust_remote_code,
            "cache_dir": self.cache_dir,
        }

    # CPU half.

    @cached_property
    def reader(self) -> Reader:
        return reader_for(self.spec, self.config, self._pretrained())

    def prepare_named(self, question: str, name: str, load: Callable[[], Image.Image]) -> PreparedRow:
        """`prepare` of an image that other rows may have, too: it is loaded and processed once while it is in use.

        name: the same for no other image.
        """
        picture = self.reader.recent.get(
            ("image", name), lambda: rgb(load(), over_white=False), lambda image: 3 * image.width * image.height
        )
        return self.prepare(question, picture, name)

    def prepare(self, question: str, image: Image.Image, name: str | None = None) -> PreparedRow:
        """One row, processed alone: what it gives does not depend on its neighbours.

        name: of the image, where what is made of it may be used again. Raises BadContentError for a prompt longer than
        the model reads, and for one that the processor refuses.
        """
        reader = self.reader
        mark = next((mark for mark in reader.marks if mark in question), None)
        if mark is not None:
            raise BadContentError(f"its question holds {mark}, by which the model knows an image")
        prompt = reader.prompt(question, rgb(image, over_white=False), name)
        legacy = LEGACY_POSITIONS[self.config.model_type] if self.boundary == "legacy" else None
        row = PreparedRow(prompt.tensors, span_of(prompt.image, prompt.tokens, prompt.tensors, legacy))
        if reader.longest is not None and row.tokens > reader.longest:
            raise BadContentError(f"its prompt has {row.tokens} tokens; the model reads {reader.longest}")
        return row

    # Accelerator half.

    @cached_property
    def model(self) -> Any:
        import torch

        attention = {"attn_implementation": self.spec.attention} if self.spec.attention else {}
        loaded_in = "float32" if self.spec.adapter else self.dtype  # a merged adapter would lose its small updates
        with model_failure(self.spec, "its weights cannot be loaded"), trusted(self.spec):
            model = auto_class(self.spec, self.config, self.cache_dir).from_pretrained(
                self.spec.name, dtype=getattr(torch, loaded_in), **attention, **self._pretrained()
            )
            self.reader.check(model)
            self._add_own_adapter(model)
            return placed(with_adapter(model, self.spec.adapter), self.spec, self.dtype)

    def _add_own_adapter(self, model: Any) -> None:
        """The LoRA that the checkpoint itself brings for images, where it has one."""
        from transformers.utils import cached_file

        folder = architecture(self.config.model_type).adapter
        if folder is None:
            return
        place = {"revision": self.spec.revision, "cache_dir": self.cache_dir}
        quietly = {"_raise_exceptions_for_missing_entries": False}
        if not cached_file(self.spec.name, f"{folder}/adapter_config.json", **quietly, **place):
            return
        model.load_adapter(self.spec.name, adapter_name=folder, adapter_kwargs={"subfolder": folder, **place})
        model.set_adapter(folder)

    @cached_property
    def anatomy(self) -> Anatomy:
        found = dissect(self.model, self.spec.name)
        module: Any
        for module in found.tower.modules() if architecture(self.config.model_type).uncausal else ():
            # Phi-4's tower is marked causal and is so under sdpa, but only in batches without padding.
            if getattr(module, "is_causal", False):
                module.is_causal = False
        return found

    @cached_property
    def device(self) -> str:
        return device_name(self.spec)

    def load(self) -> None:
        """Load weights and processor now rather than with the first batch."""
        _ = self.anatomy, self.reader.processor

    def together(self, rows: Sequence[PreparedRow]) -> list[list[int]]:
        """The rows that may share a forward: with longrope, all of a batch are turned by what its longest row needs."""
        text = self.config.get_text_config()
        rope = getattr(text, "rope_parameters", None) or {}
        limit = getattr(text, "original_max_position_embeddings", None) if rope.get("rope_type") == "longrope" else None
        groups: dict[bool, list[int]] = {}
        for i, row in enumerate(rows):
            groups.setdefault(limit is not None and row.tokens > limit, []).append(i)
        return list(groups.values())

    def forward(self, rows: Sequence[PreparedRow], side: Side = "right") -> States:
        """The states of `rows` from one forward, and their answers from a second call where they are asked for.

        side: where padding goes. Tokens see none of it, so that both sides give the same. Raises ModelError.
        """
        values = self._values(rows, side)
        self._first_batch.check(values, rows, lambda alone: self._values(alone, side))
        answers = self.answer(rows) if self.max_new_tokens is not None else [""] * len(rows)
        return States(values, answers)

    @cached_property
    def _first_batch(self) -> FirstBatch:
        kind = self.config.model_type
        return FirstBatch(f"{self.spec.name} ({kind})", self.dtype, kind in PROVEN)

    def _values(self, rows: Sequence[PreparedRow], side: Side) -> Mapping[Representation, np.ndarray]:
        import torch

        anatomy = self.anatomy
        inputs = self._on_device(rows, side)
        forget_positions(self.model)
        at = Positions.of(rows, side, self.device)
        with torch.inference_mode():
            known = architecture(self.config.model_type)
            capture = Capture(anatomy, self.layers, self.spec.name, known.maps, known.all_layers)
            return capture.take(lambda: self.reader.run(self.model, anatomy, inputs, side), rows, at)

    def answer(self, rows: Sequence[PreparedRow]) -> list[str]:
        """Greedy answers, without special tokens and blanks at the ends."""
        import torch

        inputs = self._on_device(rows, "left")
        forget_positions(self.model)
        with torch.inference_mode():
            tokens = self.reader.generate(self.model, inputs, self.max_new_tokens or 0)
        return self.reader.decode(tokens)

    def _on_device(self, rows: Sequence[PreparedRow], side: Side) -> dict[str, Any]:
        import torch

        inputs = {}
        for name, array in self.reader.collate(rows, side).items():
            tensor = torch.from_numpy(array).to(self.device)
            inputs[name] = tensor.to(getattr(torch, self.dtype)) if tensor.is_floating_point() else tensor
        return inputs


def digest_of(settings: Mapping[str, Any]) -> str:
    """SHA-256 of JSON-able settings, 64 hex digits."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True, default=str).encode()).hexdigest()


def forget_positions(model: Any) -> None:
    """Models of the Qwen-VL kind keep the last batch's position offsets on themselves, and would use them again."""
    for module in model.modules():
        if getattr(module, "rope_deltas", None) is not None:
            module.rope_deltas = None
