"""What every builder does: weights in which a token and its place show, and a folder that the Auto classes read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raylib.models.untrained import seeded

TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 2048,
}
"""Six decoder blocks: the layers 0, 1/4, 1/2, 3/4 and -1 are five."""

VISION: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2}
"""Narrower than the text model: the states of one cannot be taken for those of the other."""


def ids(tokenizer: Any, *names: str) -> dict[str, Any]:
    """The config's names of those of the tokenizer's special tokens: "bos" → {"bos_token_id": …}."""
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}


def draw(model: Any, seed: int, gain: float = 1.0) -> None:
    """Draw every weight again: matrices so that they keep a vector's size or a little more, vectors (norms, biases,
    single tokens) near what they were. Libraries initialise some of them with zeros (Gemma 3's projector), and others
    so small that all tokens look the same."""
    import torch

    with seeded(seed), torch.no_grad():
        for weight in model.parameters():
            spread = gain / weight[0].numel() ** 0.5
            if weight.ndim > 1:
                weight.normal_(0, spread)
            else:
                weight.add_(torch.randn(weight.shape) * 0.1)


def save(model_class: Any, config: Any, processor: Any, folder: Path, seed: int, **generation: Any) -> Path:
    """Write model, processor and generation config. generation: settings of the last, such as eos_token_id."""
    from transformers import GenerationConfig

    with seeded(seed):
        model = model_class(config)
    draw(model, seed)
    model.generation_config = GenerationConfig(**generation)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
