"""What the builders of groups C and D share: one made-up chat template, and tokens by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylib.models.untrained import build_tokenizer

from .common import TEXT, VISION, ids, save

TEMPLATE = (
    "{% for turn in messages %}<s>{{ turn['role'] }}: {% for part in turn['content'] %}"
    "{{ 'IMAGE' if part['type'] == 'image' else part['text'] }}{% endfor %}</s>{% endfor %}"
    "{{ '<s>assistant: ' if add_generation_prompt else '' }}"
)
"""No model's own; IMAGE stands for what its processor replaces by the image's tokens."""

SIGLIP = VISION | {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7}
CLIP = VISION | {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 7, "projection_dim": 24}
SIDE = {"height": 28, "width": 28}
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def tokenizer_of(named: dict[str, str], extra: Sequence[str] = (), **options: Any) -> Any:
    """named: the tokenizer's names of tokens beside the usual: {"image_token": "<image>"}."""
    tokens = list(dict.fromkeys([*named.values(), *extra]))
    tokenizer = build_tokenizer(SPECIALS, extra_tokens=tokens, max_length=4096, **options)
    if named:
        given: Any = named
        tokenizer._set_model_specific_special_tokens(special_tokens=given)
    return tokenizer


def text_of(tokenizer: Any, model_type: str, **others: Any) -> dict[str, Any]:
    return (
        TEXT | ids(tokenizer, "pad", "eos", "bos") | {"model_type": model_type, "vocab_size": len(tokenizer)} | others
    )


def id_of(tokenizer: Any, token: str) -> Any:
    return tokenizer.get_vocab()[token]


def save_as(model: str, config: Any, processor: Any, folder: Path) -> Path:
    import transformers as t

    special = ids(processor.tokenizer, "pad", "eos", "bos")
    return save(getattr(t, model), config, processor, folder, seed=21, **special)
