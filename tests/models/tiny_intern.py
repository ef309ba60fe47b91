"""A tiny random InternVL, heads saved as the ColIntern trainer saves them, and the published procedure done by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raylib.models.untrained import build_tokenizer, seeded

HIDDEN, DIM = 32, 8
TILE = 56
"""Pixels; patches of 14, and 2 × 2 patches become one token: a tile has 2 × 2 tokens."""

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROCESSOR_TOKENS: dict[str, Any] = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def build(folder: Path, *, padding_side: str = "left", seed: int = 0) -> Path:
    """InternVL3.5's shape: InternViT, pixel shuffle, a projector, Qwen3. At most 4 tiles and the whole page in one."""
    import transformers as t

    specials = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = build_tokenizer(
        specials, extra_tokens=list(PROCESSOR_TOKENS.values()), max_length=2048, padding_side=padding_side
    )
    tokenizer._set_model_specific_special_tokens(special_tokens=PROCESSOR_TOKENS)
    text = {"model_type": "qwen3", "vocab_size": len(tokenizer), "hidden_size": HIDDEN, "intermediate_size": 48}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": [TILE, TILE], "patch_size": [14, 14]}
    context: Any = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    config = t.InternVLConfig(text_config=text, vision_config=vision, image_token_id=context, image_seq_length=4)
    with seeded(seed):
        model = t.InternVLForConditionalGeneration(config)
        for name, weight in model.named_parameters():  # what training would have moved away from zero and one
            if name.endswith(("position_embeddings", "cls_token")) or "norm" in name:
                weight.data += 0.1 * weight.data.new_empty(weight.shape).normal_()
    images = t.GotOcr2ImageProcessor(size={"height": TILE, "width": TILE}, max_patches=4)
    processor = t.InternVLProcessor(
        image_processor=images, tokenizer=tokenizer, video_processor=t.InternVLVideoProcessor(), image_seq_length=4
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def projections(seed: int = 5) -> dict[str, Any]:
    """Two random Linear layers, as the trainer makes them."""
    import torch

    with seeded(seed):
        return {name: torch.nn.Linear(HIDDEN, DIM, bias=False) for name in ("proj_img", "proj_txt")}


def causal_lm(base: Path) -> Any:
    """The language model with its head: what InternVL's own code has inside, and where the trainer puts its LoRA."""
    import transformers as t

    whole = t.InternVLForConditionalGeneration.from_pretrained(base)
    config: Any = whole.config.text_config
    language = t.Qwen3ForCausalLM(config)
    language.model.load_state_dict(whole.model.language_model.state_dict())
    return language.eval()


def with_random_lora(language: Any, seed: int = 6) -> tuple[Any, Any]:
    """(the model with a LoRA that changes it, its configuration), made as the trainer makes it."""
    from peft import LoraConfig, get_peft_model

    config: Any = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.1, bias="none", task_type="CAUSAL_LM", target_modules=TARGETS
    )
    with seeded(seed):
        adapted = get_peft_model(language, config)
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.3)
    return adapted.eval(), config


def heads(base: Path, *, lora: Any = None, compiled: bool = False, step: int = 200) -> dict[str, Any]:
    """The content of a file of heads. lora: what `with_random_lora` gives. compiled: with torch.compile's prefix."""
    from peft import get_peft_model_state_dict

    prefix = "_orig_mod." if compiled else ""
    saved: dict[str, Any] = {
        name: {prefix + key: weight for key, weight in layer.state_dict().items()}
        for name, layer in projections().items()
    }
    saved |= {"proj_dim": DIM, "model_id": str(base), "dtype": "torch.bfloat16", "step": step}
    saved["lora_enabled"] = lora is not None
    if lora is not None:
        model, config = lora
        saved["lora_state"] = get_peft_model_state_dict(model, save_embedding_layers=False)
        saved["lora_config"] = {"r": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout}
        saved["lora_config"]["targets"] = config.target_modules  # a set by now
    return saved


def save(folder: Path, content: Any, tag: str = "step200") -> Path:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / f"colintern_heads_{tag}.pt")
    return folder / f"colintern_heads_{tag}.pt"


# The published procedure, one content at a time.


def text_by_hand(base: Path, text: str, language: Any) -> np.ndarray:
    """[tokens, dim]: the last of the hidden states of the model with its head, projected, divided by their lengths."""
    import torch
    from transformers import AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(base)([text], truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = language(**inputs, output_hidden_states=True).hidden_states[-1][0]
        return unit(projections()["proj_txt"](hidden.float()).numpy())


def page_by_hand(base: Path, page: Image.Image, **processor_options: Any) -> np.ndarray:
    """[tiles · 4, dim]: tower without its first token, every 2 × 2 patches side by side, projector, projection."""
    import torch
    import transformers as t

    model = t.InternVLForConditionalGeneration.from_pretrained(base).eval().model
    images = t.AutoProcessor.from_pretrained(base).image_processor
    options = {"crop_to_patches": True, **processor_options}
    pixels = images(images=[page], return_tensors="pt", **options)["pixel_values"]
    rows = []
    with torch.no_grad():
        for tile in pixels:
            patches = model.vision_tower(pixel_values=tile[None]).last_hidden_state[0, 1:].reshape(4, 4, -1)
            for y in (0, 2):
                for x in (0, 2):
                    around = (patches[y, x], patches[y, x + 1], patches[y + 1, x], patches[y + 1, x + 1])
                    rows.append(model.multi_modal_projector(torch.cat(around)))
        return unit(projections()["proj_img"](torch.stack(rows)).numpy())


def unit(vectors: np.ndarray) -> np.ndarray:
    """As published: over the length plus 1e-12."""
    return vectors / (np.sqrt((vectors**2).sum(axis=1, keepdims=True)) + 1e-12)
