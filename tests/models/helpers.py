"""Tiny random checkpoints of published shapes, and what every parity test compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raylib.models.families import family
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.untrained import build_tokenizer, seeded
from raylib.types import EncodeContext

TEXTS = [
    "Return the number of items",
    "a",
    "Open a file and read its lines as text; raise an error when the file is not found, and close it at the end.",
    "What does the table on the left show?",
    "naïve café 漢字 🙂",
    "sort by key, group by value",
    "x " * 200,
    "date",
]

WORDS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def pictures(n: int = 8) -> list[Image.Image]:
    """n noisy RGB images of different sizes, the same every time."""
    random = np.random.default_rng(7)
    sizes = [(40 + 13 * i, 100 - 7 * i) for i in range(n)]
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def encoder_for(directory: str | Path, family_name: str, **options: Any) -> Encoder:
    """The family's encoder over `directory`, without the registry."""
    from importlib import import_module

    entry = family(family_name)
    module, name = entry.encoder.split(":")
    return getattr(import_module(module), name)(ModelSpec(str(directory), **options), entry)


def vectors(encoder: Encoder, role: Any = None, prompt: str | None = None, **columns: list) -> np.ndarray:
    """[n, dim] of dense contents, all in one batch; by default with the model's own prompt."""
    context = encoder.context(None, role) if prompt is None else EncodeContext(role, prompt)
    return encoder.encode(dict(columns), context).dense()


def assert_same_directions(ours: np.ndarray, theirs: np.ndarray, max_difference: float) -> None:
    """Cosine ≥ 0.9999 row by row, and no component further off than `max_difference`."""
    assert ours.shape == theirs.shape
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert ((ours * theirs).sum(axis=1) / norms).min() >= 0.9999
    assert np.abs(ours - theirs).max() <= max_difference


def save_siglip(directory: Path, *, naflex: bool = False, limit: int = 16) -> None:
    """A random SigLIP (or SigLIP 2 NaFlex) checkpoint: 32-pixel images, texts of `limit` tokens."""
    import transformers as t

    tokenizer = build_tokenizer(WORDS, template="$A </s>", max_length=limit)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = {**tower, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": limit, "projection_size": 32}
    vision: dict[str, Any] = {**tower, "patch_size": 16}
    with seeded(1):
        if naflex:
            model = t.Siglip2Model(t.Siglip2Config(text_config=text, vision_config={**vision, "num_patches": 256}))
            images = t.Siglip2ImageProcessor()
            processor = t.Siglip2Processor(image_processor=images, tokenizer=tokenizer)
        else:
            model = t.SiglipModel(t.SiglipConfig(text_config=text, vision_config={**vision, "image_size": 32}))
            images = t.SiglipImageProcessor(size={"height": 32, "width": 32})
            processor = t.SiglipProcessor(image_processor=images, tokenizer=tokenizer)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)


TINY: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def save_sentence(directory: Path, shape: str, *, width: int = 32, layers: int = 2, **gemma: Any) -> None:
    """ "bge-m3": XLM-R, first token. "gemma": Gemma 3 reading both ways, mean, two dense layers. "qwen": Qwen 3, last
    token, padded on the left, an EOS after each text. width: of Gemma's vectors. gemma: of its configuration."""
    import torch
    import transformers as t
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    side = "left" if shape == "qwen" else "right"
    template = {"bge-m3": "<s> $A </s>", "gemma": "<s> $A </s>", "qwen": "$A </s>"}[shape]
    tokenizer = build_tokenizer(WORDS, template=template, max_length=64, padding_side=side)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    size = {**TINY, **ids, "vocab_size": len(tokenizer), "num_hidden_layers": layers}
    heads = {"num_key_value_heads": 2, "head_dim": 8}
    with seeded(3):
        if shape == "bge-m3":
            model = t.XLMRobertaModel(t.XLMRobertaConfig(**size, max_position_embeddings=80))
        elif shape == "gemma":
            gemma = {**size, **heads, "use_bidirectional_attention": True, "sliding_window": 16, **gemma}
            model = t.Gemma3TextModel(t.Gemma3TextConfig(**gemma))
        else:
            model = t.Qwen3Model(t.Qwen3Config(**size, **heads))
        dense = [Dense(32, 48, bias=False, activation_function=torch.nn.Identity())]
        dense += [Dense(48, width, bias=False, activation_function=torch.nn.Identity())]
    model.save_pretrained(directory / "backbone")
    tokenizer.save_pretrained(directory / "backbone")
    how = {"bge-m3": "cls", "gemma": "mean", "qwen": "lasttoken"}[shape]
    modules = [Transformer(str(directory / "backbone")), Pooling(32, how)]
    modules += [*(dense if shape == "gemma" else []), Normalize()]
    prompts = {"query": "task: search | query: ", "document": "title: none | text: ", "STS": "similar: "}
    whole = SentenceTransformer(modules=modules, device="cpu", prompts=prompts if shape != "bge-m3" else None)
    whole.save(str(directory / "model"), create_model_card=False)
