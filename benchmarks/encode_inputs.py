"""What `benchmarks/encode.py` measures on: two random-weight models of the true architectures, texts and pages of many
sizes, all built here."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from raylib.models.untrained import TOKENIZER_TEXT, build_tokenizer, seeded

LONGEST = 512


def texts(n: int) -> list[str]:
    """n texts whose lengths in words are log-normal (median 40, a tenth above 130), as passages and pages are."""
    random = np.random.default_rng(0)
    words = TOKENIZER_TEXT.split()
    counts = np.clip(random.lognormal(np.log(40), 0.95, n), 3, 400).astype(int)
    return [" ".join(words[i] for i in random.integers(0, len(words), count)) for count in counts]


def pages(n: int) -> list[bytes]:
    """n PNG pages of different sizes: thumbnails, slides, scans."""
    from PIL import Image

    random = np.random.default_rng(1)
    found = []
    for _ in range(n):
        height = int(np.clip(random.lognormal(np.log(260), 0.5), 60, 900))
        width = int(np.clip(height * random.choice([0.7, 0.75, 1.4, 1.8]), 60, 900))
        pixels = np.full((height, width, 3), 255, dtype=np.uint8)
        for _ in range(12):
            top, left = random.integers(0, height), random.integers(0, width)
            pixels[top : top + height // 8, left : left + width // 3] = random.integers(0, 200, 3)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def build_text_model(folder: Path) -> None:
    """XLM-R of 6 layers and width 384, mean pooling: 11 M parameters beside the embeddings."""
    import transformers as t
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = build_tokenizer(names, template="<s> $A </s>", max_length=LONGEST)
    size: dict[str, Any] = {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LONGEST + 2,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with seeded(0):
        model = t.XLMRobertaModel(t.XLMRobertaConfig(**size))
    model.save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    modules = [Transformer(str(folder / "backbone")), Pooling(384, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)


def build_qwen(folder: Path) -> None:
    """ColQwen2.5 of 4 layers and width 256 with a vision tower of 4 blocks: pages of 4 to 768 tokens."""
    import colpali_engine.models as models
    from transformers import Qwen2_5_VLConfig, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    tokens = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    specials = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer: Any = build_tokenizer(specials, extra_tokens=tokens, max_length=4096)
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    named |= {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
    tokenizer._set_model_specific_special_tokens(special_tokens=named)
    images = Qwen2VLImageProcessor(size={"shortest_edge": 4 * 28 * 28, "longest_edge": 768 * 28 * 28})
    processor = models.ColQwen2_5_Processor(
        image_processor=images, tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor()
    )
    text = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 8}
    text |= {"num_key_value_heads": 2, "max_position_embeddings": 4096, "vocab_size": len(tokenizer)}
    text |= {"bos_token_id": None, "eos_token_id": None}
    text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}}
    vision = {"depth": 4, "num_heads": 4, "patch_size": 14, "spatial_merge_size": 2, "hidden_size": 128}
    vision |= {"intermediate_size": 384, "out_hidden_size": 256, "window_size": 112, "fullatt_block_indexes": [3]}
    ids = {f"{name}_id": tokenizer.get_vocab()[token] for name, token in named.items()}
    with seeded(0):
        model = models.ColQwen2_5(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
