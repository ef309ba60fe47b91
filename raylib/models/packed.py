"""Texts of different lengths end to end in a few rows, so that a batch computes next to no padding.

Each token sees the tokens of its own text alone (a mask of blocks) and has its position in that text, so vectors are
those of the padded batch but for rounding. Rows are short, for attention costs their length squared. The idea is that
of packed sequences in training (https://arxiv.org/abs/2107.02027). It is used on CPUs, where a forward takes as long as
its arithmetic, and needs nothing but a mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.models.sentence_modules import are_plain

if TYPE_CHECKING:
    import torch

_KINDS = ("bert", "roberta", "xlm-roberta")
"""Models whose positions are embeddings of absolute numbers, which may be given."""

_ROW_TOKENS = 64
"""Of a row, about; a longer text has a row of its own."""

_WORTH = 0.9
"""Of the arithmetic of the padded batch, at most, to be worth the gathering."""


@dataclass(frozen=True)
class Packing:
    """A batch in rows. inputs: for the transformer, [rows, width], and attention_mask bool [rows, 1, width, width];
    places int64 [n, tokens]: where the tokens lie among those of all rows; mask bool [n, tokens]: which are no padding.
    """

    inputs: dict[str, torch.Tensor]
    places: torch.Tensor
    mask: torch.Tensor

    def unpack(self, states: torch.Tensor) -> torch.Tensor:
        """[rows, width, hidden] → [n, tokens, hidden], zero where there is padding."""
        return states.flatten(0, 1)[self.places] * self.mask.unsqueeze(-1)


def run_packed(model: Any, inputs: Mapping[str, torch.Tensor], features: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a model of sentence-transformers gives for `features`, its transformer run over rows; None where that cannot
    be, or is not worth it.

    inputs: the arrays of the features. A graph that is traced and a gradient that is recorded are no inference mode.
    """
    import torch

    kinds = (f"{type(module).__module__}.{type(module).__name__}" for module in model)
    if not torch.is_inference_mode_enabled() or not are_plain(kinds) or not can_pack(model[0].model):
        return None
    packing = packing_of(model[0].model, inputs)
    if packing is None:
        return None
    transformer, *rest = model
    states = packing.unpack(transformer({**features, **packing.inputs})["token_embeddings"])
    found = {**features, "token_embeddings": states}
    for module in rest:
        found = module(found)
    return found


def can_pack(transformer: Any) -> bool:
    """Whether this is a model of transformers, on a CPU, that may be given such a mask. An adapter, a compiled model or
    code of the checkpoint's own is none."""
    config: Any = getattr(transformer, "config", None)
    return (
        type(transformer).__module__.startswith("transformers.models.")
        and config.model_type in _KINDS
        and getattr(config, "position_embedding_type", None) in ("absolute", None)
        and config._attn_implementation == "sdpa"
        and not config.is_decoder
        and transformer.device.type == "cpu"
    )


def packing_of(transformer: Any, inputs: Mapping[str, torch.Tensor]) -> Packing | None:
    """How to run this batch; None where there is little padding, or where it is not at the end of the texts.

    inputs: of the tokenizer, [n, tokens] each. transformer: one that `can_pack`.
    """
    import torch

    mask = inputs["attention_mask"].numpy().astype(bool)
    n, padded = mask.shape
    lengths = mask.sum(1)
    if n < 2 or not (mask == (np.arange(padded) < lengths[:, None])).all():
        return None
    starts, rows, width = _layout(lengths)
    if rows * width * _cost(transformer, width) > _WORTH * n * padded * _cost(transformer, padded):
        return None
    # `there`: of every token among those of the padded batch; `here`: among those of all rows.
    there = np.flatnonzero(mask)
    text, position = np.divmod(there, padded)
    here = starts[text] + position
    owner, positions = np.full(rows * width, -1), np.zeros(rows * width, np.int64)
    owner[here], positions[here] = text, position + _first_position(transformer)
    places = np.zeros(n * padded, np.int64)
    places[there] = here
    owner = owner.reshape(rows, width)
    # What a row is filled up with sees itself: a softmax over nothing is no number.
    blocks = owner[:, None, :, None] == owner[:, None, None, :]
    found = {"attention_mask": blocks, "position_ids": positions.reshape(rows, width)}
    for name, value in inputs.items():
        if name not in found and value.shape == mask.shape:
            flat = np.zeros(rows * width, value.numpy().dtype)
            flat[here] = value.numpy().ravel()[there]
            found[name] = flat.reshape(rows, width)
    tensors = {name: torch.from_numpy(value) for name, value in found.items()}
    return Packing(tensors, torch.from_numpy(places.reshape(n, padded)), torch.from_numpy(mask))


def _layout(lengths: np.ndarray) -> tuple[np.ndarray, int, int]:
    """(where each text begins among the tokens of all rows, rows, width): the longest texts first, each into the row
    that is the least full."""
    rows = max(1, math.ceil(int(lengths.sum()) / max(_ROW_TOKENS, int(lengths.max()))))
    full, row_of, begin = [0] * rows, np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    for text in np.argsort(-lengths, kind="stable").tolist():
        row = full.index(min(full))
        row_of[text], begin[text] = row, full[row]
        full[row] += int(lengths[text])
    width = max(full)
    return row_of * width + begin, rows, width


def _cost(transformer: Any, width: int) -> float:
    """Of a token: products of its state with the weights of a layer, and with the states of a row."""
    config = transformer.config
    return 4 * config.hidden_size + 2 * config.intermediate_size + 2 * width


def _first_position(transformer: Any) -> int:
    """RoBERTa counts from behind the index of padding."""
    return 0 if transformer.config.model_type == "bert" else transformer.embeddings.padding_idx + 1
