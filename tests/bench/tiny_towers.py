"""Tiny random checkpoints that every runtime can run: the five published architectures, with nothing left at a default
that only some runtimes read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raylib.models.untrained import build_tokenizer, seeded
from tests.models.helpers import TINY, WORDS, save_sentence

SIDE = 224
"""Pixels of an image: Candle knows no other size."""


def build(shape: str, folder: Path) -> Path:
    """ "gemma", "qwen", "bge-m3", "siglip" or "clip" → the folder of the checkpoint."""
    if shape in ("siglip", "clip"):
        _save_two_towers(folder, shape)
        return folder
    if shape == "gemma":
        published = {"query_pre_attn_scalar": 8, "num_key_value_heads": 1, "layer_types": _LAYERS}
        save_sentence(folder, shape, layers=3, **published)
    else:
        save_sentence(folder, shape)
    return folder / "model"


_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]


def _save_two_towers(folder: Path, shape: str) -> None:
    import transformers as t

    clip = shape == "clip"
    limit = 77 if clip else 16
    tokenizer = build_tokenizer(WORDS, template="<s> $A </s>" if clip else "$A </s>", max_length=limit)
    if clip:
        tokenizer = _ending_last(tokenizer)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text: dict[str, Any] = {**TINY, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": limit}
    vision: dict[str, Any] = {**TINY, "patch_size": 32, "image_size": SIDE}
    size = {"height": SIDE, "width": SIDE}
    with seeded(5):
        if clip:
            config = t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
            model: Any = t.CLIPModel(config)
            images: Any = t.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size)
            processor: Any = t.CLIPProcessor(image_processor=images, tokenizer=tokenizer)
        else:
            text["projection_size"] = TINY["hidden_size"]
            model = t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=vision))
            images = t.SiglipImageProcessor(size=size)
            processor = t.SiglipProcessor(image_processor=images, tokenizer=tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if not clip:  # as published: padding is read as text
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_input_names": ["input_ids"]}))


def _ending_last(tokenizer: Any) -> Any:
    """The same tokenizer with CLIP's names of its special tokens, of which the end has the highest id, as published."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    about = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = about["model"]["vocab"]
    names = {"<s>": "<|startoftext|>", "</s>": "<|endoftext|>"}
    last = max(vocabulary.values())
    moved = {vocabulary["</s>"]: last, last: vocabulary["</s>"]}
    about["model"]["vocab"] = {names.get(word, word): moved.get(n, n) for word, n in vocabulary.items()}
    for token in about["added_tokens"]:
        token["id"], token["content"] = (
            moved.get(token["id"], token["id"]),
            names.get(token["content"], token["content"]),
        )
    text = json.dumps(about["post_processor"])
    about["post_processor"] = json.loads(text)
    for special in list(about["post_processor"]["special_tokens"].values()):
        special["ids"] = [moved.get(n, n) for n in special["ids"]]
    whole = json.dumps(about)
    for old, new in names.items():
        whole = whole.replace(json.dumps(old), json.dumps(new))
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(whole),
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=77,
    )
