"""The states of one row by the plain procedure: transformers alone, one row at a time, nothing padded, float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class ReferenceRow:
    """What a row's vectors are taken from."""

    vision_only: np.ndarray
    """[Dv]: the mean of the vision tower's last hidden state over all tokens of the row's real tiles."""
    layers: dict[int, np.ndarray]
    """Decoder block → [T, D]: its output for every token of the prompt, before the final norm."""
    input_ids: list[int]
    """[T]: the prompt, with the image's tokens as the model gets them."""
    image_positions: list[int]
    """Where the image's tokens stand in it."""

    @property
    def query_position(self) -> int:
        """The last token of the prompt."""
        return len(self.input_ids) - 1


def chat(processor: Any, image: Any, question: str) -> Any:
    """The inputs of one row by transformers' own chat, tokenised by itself."""
    content = [{"type": "image", "image": image.convert("RGB")}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def block_outputs(model: Any, blocks: Any, inputs: Any, layers: Sequence[int]) -> dict[int, np.ndarray]:
    """k → [T, D]: run the whole model once, its head included, and keep what blocks[k] gave."""
    import torch

    kept: dict[int, Any] = {}

    def keep(layer: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            kept[layer] = output

        return hook

    hooks = [blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        with torch.inference_mode():
            model(**inputs, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: states[0].numpy() for layer, states in kept.items()}


def reference(name: str, folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """The row of a checkpoint built by the builder called `name`. Raises KeyError for a name that has no reference."""
    from .references_a import REFERENCES_A
    from .references_b import REFERENCES_B
    from .references_remote import REFERENCES_REMOTE

    return {**REFERENCES_A, **REFERENCES_B, **REFERENCES_REMOTE}[name](folder, image, question, layers)
