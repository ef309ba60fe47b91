"""References of Gemma 3, PaliGemma, Qwen2.5-VL, Qwen3-VL and LLaVA-NeXT, each written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .references import ReferenceRow, block_outputs, chat


@cache
def _load(folder: str) -> tuple[Any, Any]:
    """Model and processor, as a user loads them."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(folder)


def _row(vision: Any, layers: dict[int, np.ndarray], input_ids: Any, image_token: int) -> ReferenceRow:
    """vision: [..., Dv], every patch of the row. input_ids: [1, T]."""
    tokens = input_ids[0].tolist()
    return ReferenceRow(
        vision_only=vision.flatten(0, -2).mean(0).numpy(),
        layers=layers,
        input_ids=tokens,
        image_positions=[place for place, token in enumerate(tokens) if token == image_token],
    )


def gemma3(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """SigLIP over the one image, its final norm included. token_type_ids are among the inputs: image tokens see each
    other both ways."""
    import torch

    model, processor = _load(str(folder))
    inputs = chat(processor, image, question)
    with torch.inference_mode():
        patches = model.model.vision_tower(pixel_values=inputs["pixel_values"]).last_hidden_state  # [1, P, Dv]
    states = block_outputs(model, model.model.language_model.layers, inputs, layers)
    return _row(patches, states, inputs["input_ids"], model.config.image_token_index)


def paligemma(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """No chat: the processor writes image tokens, BOS, question and a newline. token_type_ids are all 0: the whole
    prompt is seen both ways."""
    import torch

    model, processor = _load(str(folder))
    inputs = processor(images=image.convert("RGB"), text=question, return_tensors="pt")
    inputs.pop("labels")
    with torch.inference_mode():
        patches = model.model.vision_tower(pixel_values=inputs["pixel_values"]).last_hidden_state  # [1, P, Dv]
    states = block_outputs(model, model.model.language_model.layers, inputs, layers)
    return _row(patches, states, inputs["input_ids"], model.config.image_token_index)


def qwen_vl(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """Both Qwens: the last block of the tower, before patches are merged by fours. Qwen2.5 has them in the order of
    its windows, which a mean does not see."""
    import torch

    model, processor = _load(str(folder))
    inputs = chat(processor, image, question)
    patches: list[Any] = []
    hook = model.model.visual.blocks[-1].register_forward_hook(lambda module, args, output: patches.append(output))
    with torch.inference_mode():
        model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    hook.remove()
    states = block_outputs(model, model.model.language_model.layers, inputs, layers)
    return _row(patches[0], states, inputs["input_ids"], model.config.image_token_id)  # patches[0]: [P, Dv]


def llava_next(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """CLIP over the row's tiles, the whole image first. Its last hidden state is of its last block and has the class
    token, though the projector reads the block before and no class token."""
    import torch

    model, processor = _load(str(folder))
    inputs = chat(processor, image, question)
    with torch.inference_mode():
        tiles = model.model.vision_tower(pixel_values=inputs["pixel_values"][0]).last_hidden_state  # [tiles, 1 + P, Dv]
    states = block_outputs(model, model.model.language_model.layers, inputs, layers)
    return _row(tiles, states, inputs["input_ids"], model.config.image_token_index)


REFERENCES_A: dict[str, Callable[[Path, Image.Image, str, Sequence[int]], ReferenceRow]] = {
    "gemma3": gemma3,
    "paligemma": paligemma,
    "qwen2_5_vl": qwen_vl,
    "qwen3_vl": qwen_vl,
    "llava_next": llava_next,
}
