"""Tiny random checkpoints whose code comes with them, as Molmo's and FastVLM's does. What is proven on them is raylib's
side of the interface; the published code is not here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raylib.models.untrained import build_tokenizer, seeded

from .common import TEXT, draw, ids

OWN_CODE = Path(__file__).parent / "own_code"

FASTVLM_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% for turn in messages %}"
    "{{ '<|im_start|>' + turn['role'] + '\n' + turn['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As published, for contents that are one text."""


def _copy_code(folder: Path, name: str) -> None:
    for file in sorted((OWN_CODE / name).glob("*.py")):
        shutil.copy(file, folder)


def _save(folder: Path, class_name: str, config: dict[str, Any], seed: int) -> Path:
    """Write config.json, then a model with drawn weights by the code that is in the folder already."""
    from transformers import AutoConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    (folder / "config.json").write_text(json.dumps(config, indent=2))
    with seeded(seed):
        model_class = get_class_from_dynamic_module(class_name, str(folder))
        model = model_class(AutoConfig.from_pretrained(folder, trust_remote_code=True))
    draw(model, seed, 1.5)
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def build_molmo(folder: Path, seed: int = 31) -> Path:
    """Molmo: the whole image and up to three crops side by side, 28 pixels and 2 × 2 tokens each."""
    tokens = ["<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>"]
    specials = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    tokenizer = build_tokenizer(specials, extra_tokens=tokens, max_length=1024)
    tokenizer.save_pretrained(folder)
    _copy_code(folder, "molmo")
    about = {"processor_class": "MolmoProcessor", "auto_map": {"AutoProcessor": "preprocessing_molmo.MolmoProcessor"}}
    (folder / "processor_config.json").write_text(json.dumps(about))
    config = {
        "model_type": "molmo",
        "architectures": ["MolmoForCausalLM"],
        "auto_map": {
            "AutoConfig": "config_molmo.MolmoConfig",
            "AutoModelForCausalLM": "modeling_molmo.MolmoForCausalLM",
        },
        "vocab_size": len(tokenizer),
    }
    return _save(folder, "modeling_molmo.MolmoForCausalLM", config, seed)


def build_llava_qwen2(folder: Path, seed: int = 32) -> Path:
    """FastVLM: images of 128 pixels, 2 × 2 tokens."""
    tokenizer = build_tokenizer(
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, extra_tokens=["<|im_start|>"], max_length=1024
    )
    tokenizer.chat_template = FASTVLM_TEMPLATE
    tokenizer.save_pretrained(folder)
    _copy_code(folder, "fastvlm")
    config = {
        "model_type": "llava_qwen2",
        "architectures": ["LlavaQwen2ForCausalLM"],
        "auto_map": {
            "AutoConfig": "llava_qwen.LlavaConfig",
            "AutoModelForCausalLM": "llava_qwen.LlavaQwen2ForCausalLM",
        },
        "vocab_size": len(tokenizer),
        "mm_vision_tower": "mobileclip_l_128",
        "mm_hidden_size": 24,
        "tokenizer_model_max_length": 1024,
        "tokenizer_padding_side": "right",
        **ids(tokenizer, "bos", "eos", "pad"),
    }
    config |= TEXT | {"max_position_embeddings": 2048, "tie_word_embeddings": False}
    return _save(folder, "llava_qwen.LlavaQwen2ForCausalLM", config, seed)


BUILDERS_REMOTE: dict[str, Callable[[Path], Path]] = {"molmo": build_molmo, "llava_qwen2": build_llava_qwen2}
"""model_type → what writes a checkpoint into a folder, and gives that folder back."""
