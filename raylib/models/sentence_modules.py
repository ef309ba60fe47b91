"""Modules of sentence-transformers as raylib needs them: one that only preprocesses, one step without branches, and
which of them read no more than tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_PLAIN = {"Transformer", "Pooling", "Dense", "Normalize"}


def are_plain(kinds: Iterable[str]) -> bool:
    """Whether modules of these types, by their dotted names, are the library's own and read of a batch its tokens and
    their states alone."""
    return all(kind.startswith("sentence_transformers.") and kind.rpartition(".")[2] in _PLAIN for kind in kinds)


def prompt_free_mask(attention_mask: torch.Tensor, prompt_length: int) -> torch.Tensor:
    """mask [n, tokens] without the padding before each row and its first `prompt_length` tokens: the library's
    `Pooling._exclude_prompt_from_mask`, for any padding, in steps that do not depend on a value."""
    import torch

    first = attention_mask.to(torch.int32).argmax(dim=1) + prompt_length
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return attention_mask * (positions >= first.unsqueeze(1)).to(attention_mask.dtype)


def weightless_transformer() -> type:
    """sentence-transformers' Transformer module with a model that takes no memory: it can only preprocess."""
    import torch
    from sentence_transformers.base.modules import Transformer
    from transformers import AutoModel

    class WeightlessTransformer(Transformer):
        def _load_model(
            self, model_name_or_path, transformer_task, config, backend, is_peft_model, **model_kwargs
        ) -> Any:
            if transformer_task != "feature-extraction" or config.is_encoder_decoder:
                return super()._load_model(
                    model_name_or_path, transformer_task, config, backend, is_peft_model, **model_kwargs
                )
            trust = bool(model_kwargs.get("trust_remote_code"))
            with torch.device("meta"):
                return AutoModel.from_config(config, trust_remote_code=trust)

    return WeightlessTransformer
