"""Finding the parts of a vision-language model: its vision tower, its decoder's blocks, its image token."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from raylib.errors import ModelError
from raylib.extract.architectures import architecture

if TYPE_CHECKING:
    from torch import nn

_TOWERS = ("vision_tower", "visual", "vision_model", "vision_encoder", "vision_backbone", "image_tower")
_IMAGE_TOKENS = ("image_token_id", "image_token_index", "media_placeholder_token_id", "img_context_token_id")


@dataclass(frozen=True)
class Anatomy:
    """body: runs all of it but the head that predicts words. tower: the vision tower. blocks: of the decoder."""

    body: nn.Module
    tower: nn.Module
    blocks: list[nn.Module]


def dissect(model: Any, name: str) -> Anatomy:
    """The parts of a loaded model. Raises ModelError that says which part was not found, and what was looked for."""
    config = model.config
    known = architecture(config.model_type)
    if getattr(config, "is_encoder_decoder", False) or getattr(config.get_text_config(), "is_encoder_decoder", False):
        raise ModelError(
            f"{name} ({config.model_type}): an encoder-decoder; raylib extract reads models whose one decoder has both "
            "image and question in its prompt"
        )
    body = getattr(model, "model", None)
    body = body if body is not None and hasattr(body, "forward") else model
    tower = _at(model, known.tower) if known.tower else _find_tower(body)
    if tower is None:
        raise ModelError(
            f"{name} ({config.model_type}): no vision tower found; looked for one module named {', '.join(_TOWERS)}"
        )
    depth = decoder_depth(config, name)
    blocks = list(_at(model, known.layers)) if known.layers else _find_blocks(model, tower, depth)
    if len(blocks) != depth:
        raise ModelError(
            f"{name} ({config.model_type}): no decoder found; looked for one list of {depth} modules, as many as its "
            "text config has num_hidden_layers, in what the model gives as its decoder and outside the vision tower"
        )
    return Anatomy(body, tower, blocks)


def decoder_depth(config: Any, name: str) -> int:
    """How many blocks the decoder has. Raises ModelError where the config does not say."""
    text = config.get_text_config()
    depth = getattr(text, "num_hidden_layers", None)
    if not isinstance(depth, int):
        raise ModelError(f"{name} ({config.model_type}): its config has no num_hidden_layers; is it a language model?")
    return depth


def context_length(config: Any) -> int | None:
    """The most tokens of a prompt, where the config says."""
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def image_token(config: Any, processor: Any, name: str) -> int:
    """The id of the token that stands for a part of the image in an expanded prompt. Raises ModelError where neither
    config nor processor says, and for a token that stands elsewhere too (Kosmos-2.5's begins texts)."""
    known = architecture(config.model_type).image_token
    if known:
        return int(_at(config, known))
    tokenizer = getattr(processor, "tokenizer", None)
    ends = [getattr(tokenizer, attribute, None) for attribute in ("bos_token_id", "eos_token_id")]
    for holder in (config, processor, tokenizer):
        for attribute in _IMAGE_TOKENS:
            found = getattr(holder, attribute, None)
            if isinstance(found, int):
                if found in ends:
                    raise ModelError(
                        f"{name} ({config.model_type}): its image token {found} also begins or ends texts; where its "
                        "image is cannot be told"
                    )
                return found
    raise ModelError(
        f"{name} ({config.model_type}): no image token found; looked for {', '.join(_IMAGE_TOKENS)} in its config and "
        "its processor. Is it a vision-language model?"
    )


def _find_tower(body: Any) -> Any:
    """The outermost module of one of the usual names; None of several that are as far out."""
    named = [(path.count("."), module) for path, module in body.named_modules() if path.rpartition(".")[2] in _TOWERS]
    nearest = min((far for far, _ in named), default=0)
    found = [module for far, module in named if far == nearest]
    return found[0] if len(found) == 1 else None


def _find_blocks(model: Any, tower: Any, depth: int) -> list[Any]:
    """The decoder's blocks: the outermost list of `depth` modules in what the model itself calls its decoder, if it
    does, else in the whole model without the tower. None of several that are as far out: one may be of a Q-Former or
    of another encoder."""
    from torch import nn

    within = model.get_decoder() if hasattr(model, "get_decoder") else model
    inside = {id(module) for module in tower.modules()}
    lists = [
        (path.count(".") + bool(path), module)
        for path, module in within.named_modules()
        if isinstance(module, nn.ModuleList) and id(module) not in inside and len(module) == depth
    ]
    nearest = min((far for far, _ in lists), default=0)
    found = [module for far, module in lists if far == nearest]
    return list(found[0]) if len(found) == 1 else []


def _at(root: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), root)
