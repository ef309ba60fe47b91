"""References of the models of group C: one procedure, with the modules of each looked up by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .references import ReferenceRow


class Known(NamedTuple):
    """Where a class has what: paths of the tower and of the decoder's blocks, the image's token, and which of the
    tower's last states, for the one row, are of the image: [..., width]."""

    tower: str
    blocks: str
    token: str
    states: Callable[[Any, Any], Any] = lambda states, inputs: states


def _maps(states: Any, inputs: Any) -> Any:
    """[tiles, width, rows, columns] → [tiles, rows, columns, width]."""
    del inputs
    return states.permute(0, 2, 3, 1)


def _real_patches(states: Any, inputs: Any) -> Any:
    """LFM2-VL: patches [tiles, most patches, width] without those that only fill a tile up."""
    import torch

    counts = inputs["spatial_shapes"].prod(dim=1).tolist()
    return torch.cat([tile[:count] for tile, count in zip(states, counts, strict=True)])


def _unpadded(states: Any, inputs: Any) -> Any:
    """Aria: patches [1, P, width] of a square, without those that hold no pixel of the image."""
    mask = inputs["pixel_mask"][0]
    side = len(mask) // int(states.shape[1] ** 0.5)
    return states[:, mask[::side, ::side].flatten().bool()]


_LANGUAGE = "model.language_model.layers"
_TEXT = "model.text_model.layers"

KNOWN = {
    "llava": Known("model.vision_tower", _LANGUAGE, "<image>"),
    "vipllava": Known("model.vision_tower", _LANGUAGE, "<image>"),
    "llava_onevision": Known("model.vision_tower", _LANGUAGE, "<image>"),
    "idefics2": Known("model.vision_model", _TEXT, "<image>"),
    "idefics3": Known("model.vision_model", _TEXT, "<image>"),
    "qwen2_vl": Known("model.visual", _LANGUAGE, "<|image_pad|>"),
    "qwen3_vl_moe": Known("model.visual", _LANGUAGE, "<|image_pad|>"),
    "qwen3_5": Known("model.visual", _LANGUAGE, "<|image_pad|>"),
    "mistral3": Known("model.vision_tower", _LANGUAGE, "[IMG]"),
    "gemma4": Known("model.vision_tower", _LANGUAGE, "<|image|>"),
    "aya_vision": Known("model.vision_tower", _LANGUAGE, "<|IMG_PATCH|>"),
    "cohere2_vision": Known("model.vision_tower", _LANGUAGE, "<|IMG_PATCH|>"),
    "glm4v": Known("model.visual", _LANGUAGE, "<|image|>"),
    "glm46v": Known("model.visual", _LANGUAGE, "<|image|>"),
    "got_ocr2": Known("model.vision_tower", _LANGUAGE, "<imgpad>", _maps),
    "ovis2": Known("model.vision_tower", _LANGUAGE, "<IMG_ATOM>"),
    "lfm2_vl": Known("model.vision_tower", _LANGUAGE, "<image>", _real_patches),
    "molmo2": Known("model.vision_tower", _LANGUAGE, "<im_patch>"),
    "paddleocr_vl": Known("model.visual", _LANGUAGE, "<|IMAGE_PLACEHOLDER|>"),
    "llama4": Known("vision_model", "language_model.model.layers", "<|patch|>"),
    "blip-2": Known("vision_model", "language_model.model.decoder.layers", "<image>"),
    "instructblip": Known("vision_model", "language_model.model.decoder.layers", "<image>"),
    "video_llama_3": Known("model.vision_model", _LANGUAGE, "<|image_pad|>"),
    "deepseek_vl": Known("model.vision_model", _LANGUAGE, "<image_placeholder>"),
    "aria": Known("model.vision_tower", _LANGUAGE, "<|img|>", _unpadded),
    "janus": Known("model.vision_model", _LANGUAGE, "<image_placeholder>"),
    "glm_ocr": Known("model.visual", _LANGUAGE, "<|image|>"),
    "ernie4_5_vl_moe": Known("model.vision_tower", _LANGUAGE, "<|IMAGE_PLACEHOLDER|>"),
    "exaone4_5": Known("model.visual", _LANGUAGE, "<|image_pad|>"),
    "perception_lm": Known("model.vision_tower", _LANGUAGE, "<|image|>"),
    "granite4_vision": Known("model.vision_tower", _LANGUAGE, "<image>"),
    "lighton_ocr": Known("model.vision_encoder", _LANGUAGE, "<|image_pad|>"),
}


@cache
def _load(folder: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoProcessor.from_pretrained(folder)


def _inputs(processor: Any, image: Image.Image, question: str) -> Any:
    """By the processor's chat template, or as BLIP reads them: the image, then the question."""
    picture = image.convert("RGB")
    if getattr(processor, "img_pad_token", None):
        text = (
            "<|im_start|>system\nYou should follow the instructions carefully and explain your answers in detail."
            f"<|im_end|><|im_start|>user\n<img><imgpad></img>\n{question}<|im_end|><|im_start|>assistant\n"
        )
        return processor(images=picture, text=text, return_tensors="pt")
    if processor.chat_template is None:
        return processor(images=picture, text=question, return_tensors="pt")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def _float32(value: Any) -> Any:
    """Llama 4's processor gives pixels as bfloat16."""
    return value.float() if value.is_floating_point() else value


def reference(name: str, folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """One row alone through the whole model, its head included; what tower and blocks give is kept by hooks."""
    import torch

    known = KNOWN[name]
    model, processor = _load(str(folder))
    inputs = {name: _float32(value) for name, value in _inputs(processor, image, question).items()}
    kept: dict[Any, Any] = {}

    def keep(key: Any) -> Callable[..., None]:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            kept[key] = output

        return hook

    blocks = model.get_submodule(known.blocks)
    hooks = [blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
    hooks.append(model.get_submodule(known.tower).register_forward_hook(keep("tower")))
    try:
        with torch.inference_mode():
            model(**inputs, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    patches = known.states(kept.pop("tower").last_hidden_state, inputs)
    tokens = inputs["input_ids"][0].tolist()
    wanted = processor.tokenizer.get_vocab()[known.token]
    states = {layer: output if isinstance(output, torch.Tensor) else output[0] for layer, output in kept.items()}
    return ReferenceRow(
        vision_only=patches.flatten(0, -2).mean(0).numpy(),
        layers={layer: output[0].numpy() for layer, output in states.items()},
        input_ids=tokens,
        image_positions=np.flatnonzero(np.array(tokens) == wanted).tolist(),
    )
