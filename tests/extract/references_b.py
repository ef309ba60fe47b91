"""References of SmolVLM2, InternVL, Llama-3.2-Vision, Phi-4-multimodal and FastVLM, each written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from .references import ReferenceRow, block_outputs, chat


@cache
def _load(folder: Path, **options: Any) -> tuple[Any, Any]:
    """Model and processor. AutoModelForMultimodalLM: to transformers Phi-4 is no image-text-to-text model, but one of
    this wider class, which has the others too."""
    import torch
    from transformers import AutoModelForMultimodalLM, AutoProcessor

    model = AutoModelForMultimodalLM.from_pretrained(folder, dtype=torch.float32, **options)
    return model.eval(), AutoProcessor.from_pretrained(folder)


def _row(model: Any, blocks: Any, inputs: Any, image_token: int, vision: Any, layers: Sequence[int]) -> ReferenceRow:
    """Run the whole model once, its head included, and keep what the blocks give. vision: [..., Dv], all real tokens
    of the tower."""
    kept = block_outputs(model, blocks, inputs, layers)
    input_ids = inputs["input_ids"][0].tolist()
    positions = [place for place, token in enumerate(input_ids) if token == image_token]
    return ReferenceRow(vision.flatten(0, -2).mean(0).numpy(), kept, input_ids, positions)


def smolvlm(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """SigLIP over the row's tiles, the whole image last. A row alone has no padded tile, and a tile no padded patch."""
    import torch

    model, processor = _load(folder)
    inputs = chat(processor, image, question)
    with torch.inference_mode():
        tiles = model.model.vision_model(pixel_values=inputs["pixel_values"][0]).last_hidden_state  # [tiles, P, Dv]
    return _row(model, model.model.text_model.layers, inputs, model.config.image_token_id, tiles, layers)


def internvl(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """InternViT over the row's tiles, its class token included, though the projector does not read it."""
    import torch

    model, processor = _load(folder)
    inputs = chat(processor, image, question)
    with torch.inference_mode():
        tiles = model.model.vision_tower(pixel_values=inputs["pixel_values"]).last_hidden_state  # [tiles, 1 + P, Dv]
    return _row(model, model.model.language_model.layers, inputs, model.config.image_token_id, tiles, layers)


def mllama(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """The tower's output, its intermediate layers included. It always has four tiles: those that hold none of the
    image are left out."""
    import torch

    model, processor = _load(folder)
    inputs = chat(processor, image, question)
    names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
    with torch.inference_mode():
        output = model.model.vision_model(**{name: inputs[name] for name in names})
    tiles = output.last_hidden_state[0, 0, : int(inputs["aspect_ratio_mask"].sum())]  # [tiles, 1 + P, Dv]
    return _row(model, model.model.language_model.layers, inputs, model.config.image_token_index, tiles, layers)


def phi4_multimodal(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """SigLIP over the whole image and its crops; patches that hold none of the image are left out.

    Eager attention, since the layers of this tower call themselves causal, which sdpa heeds when it is given no mask,
    that is for an image without a padded patch. No chat, since this processor does not find its template. (Both:
    transformers 5.23.)
    """
    import torch

    model, processor = _load(folder, attn_implementation="eager")
    prompt = f"<|user|><|image|>{question}<|end|><|assistant|>"
    inputs = processor(text=prompt, images=image.convert("RGB"), return_tensors="pt")
    real = inputs["image_attention_mask"][0].bool()  # [crops, rows, columns]
    tower = model.model.embed_tokens_extend.image_embed.img_processor
    with torch.inference_mode():
        crops = tower(inputs["image_pixel_values"][0], patch_attention_mask=real).last_hidden_state  # [crops, P, Dv]
    return _row(
        model, model.model.layers, inputs, model.config.vision_config.image_token_id, crops[real.flatten(1)], layers
    )


def fast_vlm(folder: Path, image: Image.Image, question: str, layers: Sequence[int]) -> ReferenceRow:
    """A tower of convolutions: its last hidden state has the channels first."""
    import torch

    model, processor = _load(folder)
    inputs = chat(processor, image, question)
    with torch.inference_mode():
        cells = model.model.vision_tower(inputs["pixel_values"]).last_hidden_state  # [1, Dv, rows, columns]
    return _row(
        model,
        model.model.language_model.layers,
        inputs,
        model.config.image_token_index,
        cells.permute(0, 2, 3, 1),
        layers,
    )


REFERENCES_B: dict[str, Callable[[Path, Image.Image, str, Sequence[int]], ReferenceRow]] = {
    "smolvlm": smolvlm,
    "internvl3": internvl,
    "internvl3.5": internvl,
    "mllama": mllama,
    "phi4_multimodal": phi4_multimodal,
    "fast_vlm": fast_vlm,
}
"""Builder's name → its reference."""
