"""Tiny random checkpoints of Qwen2-VL and Qwen2.5-VL with their head, as GME, VLM2Vec and B3 are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raylib.models.untrained import seeded

from .tiny_vlm import TEXT, qwen_tokenizer


def build(version: str, folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint of Qwen `version` ("2" or "2.5"). Weights are large enough that a token's place shows in the
    last token's vector."""
    import transformers as t

    tokenizer, ids = qwen_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope, "initializer_range": 0.3}
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2}
    vision |= {"hidden_size": 32, "initializer_range": 0.2}
    with seeded(seed):
        if version == "2.5":
            vision |= {"intermediate_size": 48, "out_hidden_size": 32, "window_size": 56, "fullatt_block_indexes": [1]}
            config = t.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
            model: Any = t.Qwen2_5_VLForConditionalGeneration(config)
        else:
            vision |= {"embed_dim": 32, "mlp_ratio": 2}
            model = t.Qwen2VLForConditionalGeneration(t.Qwen2VLConfig(text_config=text, vision_config=vision, **ids))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    t.Qwen2VLImageProcessor().save_pretrained(folder)
    return folder


def flatten_config(folder: Path) -> None:
    """Rewrite config.json as transformers 4 wrote it: the text model's settings among the others, rope by its old
    names."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    text = {k: v for k, v in config.pop("text_config").items() if k not in ("model_type", "dtype", "layer_types")}
    rope = text.pop("rope_parameters")
    old = {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
    path.write_text(json.dumps({**text, **config, **old, "transformers_version": "4.45.0"}))
