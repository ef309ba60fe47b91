"""Tiny random-weight checkpoints of the vision-language retrievers: the true architectures, a few thousand weights.

Each builder writes a whole checkpoint (weights, tokenizer, image processor) into a folder, as its library saves one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raylib.models.untrained import build_tokenizer, seeded

GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endfor %}"
)
"""A chat template of Gemma 3's shape."""

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
}
SIGLIP = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 14,
}


def page(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A page-like image: white, with dark blocks whose places depend on `seed`."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 4), 255, dtype=np.uint8)
    for _ in range(12):
        top, left = rng.integers(0, height), rng.integers(0, width)
        pixels[top : top + height // 8 + 1, left : left + width // 4 + 1, :3] = rng.integers(0, 200, 3)
    if mode == "RGBA":
        pixels[: height // 3, :, 3] = 90
    return Image.fromarray(pixels, "RGBA").convert(mode)


def mixed_pages() -> list[Image.Image]:
    """Portrait, landscape, square; colour, transparent and grey."""
    return [page(90, 130, 1), page(170, 60, 2, "RGBA"), page(100, 100, 3, "L"), page(60, 200, 4)]


QUERIES = ["what is it?", "Which page shows the annual energy budget of 2024 by country?", "socket", "größe — 東京"]


def _gemma_tokenizer(named: dict[str, str], **options: Any) -> Any:
    """named: further tokens by the attribute they are found under, such as image_token."""
    specials = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    tokenizer = build_tokenizer(specials, extra_tokens=list(named.values()), max_length=2048, **options)
    tokenizer._set_model_specific_special_tokens(special_tokens=named)
    return tokenizer


def build_paligemma(upstream: str, folder: Path, seed: int = 0) -> None:
    """ColPali, BiPali: 28-pixel images of 4 tokens."""
    import colpali_engine.models as models
    from transformers import PaliGemmaConfig, SiglipImageProcessor

    tokenizer = _gemma_tokenizer({"image_token": "<image>"}, padding_side="right")
    images: Any = SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    processor = models.ColPaliProcessor(image_processor=images, tokenizer=tokenizer)
    config = PaliGemmaConfig(
        text_config=TEXT | {"model_type": "gemma", "vocab_size": len(processor.tokenizer), "head_dim": 16},
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "image_size": 28, "projection_dim": 32},
        image_token_index=processor.image_token_id,
        projection_dim=32,
        hidden_size=32,
        vocab_size=len(processor.tokenizer),
    )
    _save(upstream, config, processor, folder, seed)


def build_gemma3(upstream: str, folder: Path, seed: int = 0) -> None:
    """BiGemma3, ColGemma3: 56-pixel images of 4 tokens."""
    import colpali_engine.models as models
    from transformers import Gemma3Config, Gemma3ImageProcessor

    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = _gemma_tokenizer(named, template="<bos> $A", padding_side="left")
    tokenizer.chat_template = GEMMA_TEMPLATE
    images = Gemma3ImageProcessor(size={"height": 56, "width": 56})
    processor = models.BiGemmaProcessor3(image_processor=images, tokenizer=tokenizer, image_seq_length=4)
    config = Gemma3Config(
        text_config=TEXT | {"vocab_size": len(tokenizer), "head_dim": 16, "sliding_window": 16},
        vision_config=SIGLIP | {"image_size": 56},
        mm_tokens_per_image=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
    )
    _save(upstream, config, processor, folder, seed)


QWEN_TOKENS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def qwen_tokenizer() -> tuple[Any, dict[str, Any]]:
    """A tokenizer, and the config's names of its special tokens."""
    specials = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = build_tokenizer(specials, extra_tokens=QWEN_TOKENS, max_length=2048)
    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    names |= {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
    tokenizer._set_model_specific_special_tokens(special_tokens=names)
    return tokenizer, {f"{name}_id": tokenizer.get_vocab()[token] for name, token in names.items()}


def build_qwen(upstream: str, folder: Path, seed: int = 0) -> None:
    """Col and Bi Qwen2 and Qwen2.5: pages of 1 to 16 tokens of 28 × 28 pixels."""
    import colpali_engine.models as models
    from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    tokenizer, ids = qwen_tokenizer()
    images = Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28})
    processor = models.ColQwen2Processor(
        image_processor=images, tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor()
    )
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope, "bos_token_id": None, "eos_token_id": None}
    vision = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2}
    if "2_5" in upstream:
        vision |= {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "window_size": 56}
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision | {"fullatt_block_indexes": [1]}, **ids)
    else:
        vision |= {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
        config = Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
    _save(upstream, config, processor, folder, seed)


def build_qwen3(upstream: str, folder: Path, seed: int = 0) -> None:
    """Col and Bi Qwen3 and Qwen3.5: pages of 1 to 16 tokens of 32 × 32 pixels."""
    import colpali_engine.models as models
    from transformers import Qwen2VLImageProcessor, Qwen3_5Config, Qwen3VLConfig, Qwen3VLVideoProcessor

    tokenizer, ids = qwen_tokenizer()
    images = Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 32 * 32, "longest_edge": 16 * 32 * 32})
    processor = models.ColQwen3Processor(
        image_processor=images, tokenizer=tokenizer, video_processor=Qwen3VLVideoProcessor()
    )
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_interleaved": True}
    text = TEXT | {"vocab_size": len(tokenizer), "head_dim": 16}
    vision = {"depth": 2, "num_heads": 2, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32}
    vision |= {"patch_size": 16, "spatial_merge_size": 2, "num_position_embeddings": 16}
    if "3_5" in upstream:
        rope |= {"mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25}
        text |= {"layer_types": ["linear_attention", "full_attention"], "rope_parameters": rope}
        text |= {f"linear_{name}_head_dim": 8 for name in ("key", "value")}
        text |= {f"linear_num_{name}_heads": 2 for name in ("key", "value")}
        config = Qwen3_5Config(text_config=text, vision_config=vision, **ids)
    else:
        text |= {"rope_parameters": rope | {"mrope_section": [4, 2, 2]}}
        config = Qwen3VLConfig(text_config=text, vision_config=vision | {"deepstack_visual_indexes": [0]}, **ids)
    _save(upstream, config, processor, folder, seed)


def build_tiled(upstream: str, folder: Path, seed: int = 0) -> None:
    """Col and Bi Idefics3 (ColSmol) and ModernVBert: up to 4 tiles of 28 pixels and the whole page, one token each."""
    import colpali_engine.models as models
    from transformers import Idefics3Config, Idefics3ImageProcessor, ModernVBertConfig

    named = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    named += [
        "<|im_start|>",
        "<|begin_of_text|>",
        *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
    ]
    specials = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    tokenizer = build_tokenizer(specials, extra_tokens=named, max_length=2048)
    images = Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    processor = models.ColIdefics3Processor(image_processor=images, tokenizer=tokenizer, image_seq_len=1)
    ids: dict[str, Any] = {"image_token_id": tokenizer.get_vocab()["<image>"]}
    text = TEXT | {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    vision = SIGLIP | {"image_size": 28}
    if "Idefics3" in upstream:
        text |= {"model_type": "llama"}
        config = Idefics3Config(text_config=text, vision_config=vision, scale_factor=2, pad_token_id=0, **ids)
    else:
        text |= {"cls_token_id": 2, "sep_token_id": 1}
        config = ModernVBertConfig(text_config=text, vision_config=vision, pixel_shuffle_factor=2, **ids)
    _save(upstream, config, processor, folder, seed)


def _save(upstream: str, config: Any, processor: Any, folder: Path, seed: int) -> None:
    import colpali_engine.models as models

    with seeded(seed):
        model = getattr(models, upstream)(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


BUILDERS: dict[str, Callable[[str, Path], None]] = {
    "ColPali": build_paligemma,
    "BiPali": build_paligemma,
    **{f"{kind}Qwen{version}": build_qwen for kind in ("Col", "Bi") for version in ("2", "2_5")},
    **{f"{kind}Qwen{version}": build_qwen3 for kind in ("Col", "Bi") for version in ("3", "3_5")},
    **{f"{kind}{name}": build_tiled for kind in ("Col", "Bi") for name in ("Idefics3", "ModernVBert")},
    "ColGemma3": build_gemma3,
    "BiGemma3": build_gemma3,
}
"""Upstream model class → what writes a tiny checkpoint of it."""


def build(upstream: str, folder: Path) -> Path:
    """Write a tiny checkpoint of that model class into `folder`."""
    BUILDERS[upstream](upstream, folder)
    return folder
