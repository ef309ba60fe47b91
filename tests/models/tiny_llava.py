"""A tiny random checkpoint of LLaVA-NeXT with its head, as VLM2Vec over it is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raylib.models.untrained import build_tokenizer, seeded

from .helpers import WORDS
from .tiny_vlm import TEXT


def build(folder: Path) -> Path:
    """Tiles of 28 pixels, 4 tokens each, at most 2 × 2; a tower with a class token."""
    import transformers as t

    tokenizer = build_tokenizer(WORDS, template="<s> $A", extra_tokens=["<image>"], max_length=4096)
    pins = [[28, 56], [56, 28], [56, 56]]
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision |= {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, "projection_dim": 24}
    text = TEXT | {"model_type": "mistral", "vocab_size": len(tokenizer), "head_dim": 16, "initializer_range": 0.3}
    image: Any = tokenizer.convert_tokens_to_ids("<image>")
    config = t.LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image,
        image_grid_pinpoints=pins,
        image_seq_length=4,
    )
    with seeded(2):
        model = t.LlavaNextForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": 28, "width": 28}
    images = t.LlavaNextImageProcessor(size={"shortest_edge": 28}, crop_size=size, image_grid_pinpoints=pins)
    images.save_pretrained(folder)
    return folder
