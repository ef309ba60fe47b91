"""References of the two models whose code comes with the checkpoint, each written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .references import ReferenceRow


@cache
def load(folder: Path, class_name: str) -> Any:
    """The model by its own class: config.json and the weights, without the loader of transformers."""
    from safetensors.torch import load_file
    from transformers import AutoConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = get_class_from_dynamic_module(class_name, str(folder))(config).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def outputs(blocks: Any, layers: Sequence[int], forward: Callable[[], Any]) -> dict[int, np.ndarray]:
    """Block → [T, D], its output for the only row of a forward."""
    import torch

    kept: dict[int, np.ndarray] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            kept[layer] = (output[0] if isinstance(output, tuple) else output)[0].numpy()

        return hook

    hooks = [blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        with torch.inference_mode():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def molmo_inputs(folder: Path, image: Image.Image, question: str) -> dict[str, Any]:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    found = processor.process(images=[image.convert("RGB")], text=question)
    return {name: tensor.unsqueeze(0) for name, tensor in found.items()}


def molmo(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """The last layer of the tower, class token and all; image tokens are those to which a feature is added."""
    import torch

    model = load(folder, "modeling_molmo.MolmoForCausalLM")
    inputs = molmo_inputs(folder, image, question)
    with torch.inference_mode():
        crops = model.model.vision_backbone.image_vit(inputs["images"][0])[-1]  # [crops, 1 + P, Dv]
    kept = outputs(model.model.transformer.blocks, layers, lambda: model(**inputs, use_cache=False))
    places = sorted(place for place in inputs["image_input_idx"].flatten().tolist() if place >= 0)
    return ReferenceRow(crops.flatten(0, 1).mean(0).numpy(), kept, inputs["input_ids"][0].tolist(), places)


def fastvlm_inputs(folder: Path, image: Image.Image, question: str) -> dict[str, Any]:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    turn = [{"role": "user", "content": f"<image>\n{question}"}]
    text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    before, after = text.split("<image>")
    ids = [*tokenizer.encode(before), -200, *tokenizer.encode(after)]
    tower = load(folder, "llava_qwen.LlavaQwen2ForCausalLM").get_vision_tower()
    pixels = tower.image_processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
    return {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)), "images": pixels}


def llava_qwen2(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """Four tokens of the image in the place of the one id."""
    import torch

    model = load(folder, "llava_qwen.LlavaQwen2ForCausalLM")
    inputs = fastvlm_inputs(folder, image, question)
    with torch.inference_mode():
        cells = model.get_vision_tower()(inputs["images"])  # [1, 4, Dv]
    kept = outputs(model.model.layers, layers, lambda: model(**inputs, use_cache=False))
    ids = inputs["input_ids"][0].tolist()
    at = ids.index(-200)
    expanded = [*ids[:at], *[-200] * 4, *ids[at + 1 :]]
    return ReferenceRow(cells[0].mean(0).numpy(), kept, expanded, [at, at + 1, at + 2, at + 3])


REFERENCES_REMOTE: dict[str, Callable[[Path, Image.Image, str, Sequence[int]], ReferenceRow]] = {
    "molmo": molmo,
    "llava_qwen2": llava_qwen2,
}
"""Builder's name → its reference."""
