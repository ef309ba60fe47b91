"""What `benchmarks/extract.py` measures on: random-weight vision-language models of the true architectures, and
questions about images, all built here."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raylib.models.untrained import TOKENIZER_TEXT, build_tokenizer, seeded

Lengths = Literal["short", "mixed"]

_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] | trim }}"
    "{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_QWEN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}{% for part in message['content'] %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_WORDS = 4096
_LONGEST = 4096


def questions(n: int, lengths: Lengths) -> list[str]:
    """n questions, the same every time: of 5 to 12 words, or of a log-normal number of them (median 16, most 120)."""
    random = np.random.default_rng(2)
    words = TOKENIZER_TEXT.split()
    if lengths == "short":
        counts = random.integers(5, 13, n)
    else:
        counts = np.clip(random.lognormal(np.log(16), 0.8, n), 3, 120).astype(int)
    return [" ".join(words[i] for i in random.integers(0, len(words), count)) + "?" for count in counts]


def write_rows(folder: Path, n: int, lengths: Lengths) -> tuple[Path, Path]:
    """n rows, two to an image, as in the published data set; gives vqa.csv and the folder of images: PNG and JPEG in
    turn, sides of 224 to 640 pixels, with the smooth and the noisy parts that photographs have."""
    from PIL import Image

    random = np.random.default_rng(3)
    images = folder / "images"
    images.mkdir(parents=True)
    names = []
    for i in range((n + 1) // 2):
        width, height = (int(side) for side in random.integers(224, 641, 2))
        small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels[height // 4 : height // 2] += random.integers(-12, 13, (height // 2 - height // 4, width, 3))
        names.append(f"{i:04d}.{'jpg' if i % 2 else 'png'}")
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(images / names[-1])
    table = folder / "vqa.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question_id", "image_name", "question", "gt_answer"])
        for i, question in enumerate(questions(n, lengths)):
            writer.writerow([f"q{i:05d}", names[i % len(names)], question, "yes"])
    return table, images


def build_gemma3(folder: Path, *, width: int, layers: int, tower: int, tower_layers: int, image: int) -> None:
    """A Gemma 3 whose tower sees (image / 14)² patches, a sixteenth of which become tokens, as in the published one.
    width, tower: of the states of decoder and tower; image: pixels."""
    import transformers as t

    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    named: dict[str, Any] = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    tokenizer = build_tokenizer(
        names,
        template="<bos> $A",
        extra_tokens=[*named.values(), "<start_of_turn>", "<end_of_turn>"],
        padding_side="left",
        max_length=_LONGEST,
        vocab_size=_WORDS,
        text=_english(),
    )
    tokenizer._set_model_specific_special_tokens(special_tokens=named)
    tokens = (image // 14 // 4) ** 2
    images = t.Gemma3ImageProcessor(size={"height": image, "width": image})
    processor = t.Gemma3Processor(images, tokenizer, chat_template=_GEMMA_TEMPLATE, image_seq_length=tokens)
    text: dict[str, Any] = _decoder(width, layers, len(tokenizer))
    text |= {"head_dim": width // 4, "query_pre_attn_scalar": width // 4, "sliding_window": 1024}
    text |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "eos", "bos")}
    vision = {"model_type": "siglip_vision_model", "hidden_size": tower, "intermediate_size": 4 * tower}
    vision |= {"num_hidden_layers": tower_layers, "num_attention_heads": 4, "image_size": image, "patch_size": 14}
    marks: dict[str, Any] = {
        name.replace("token", "token_index"): tokenizer.get_vocab()[mark] for name, mark in named.items()
    }
    config = t.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=tokens, **marks)
    _save(t.Gemma3ForConditionalGeneration, config, processor, folder, tokenizer)


def build_qwen2_5_vl(folder: Path) -> None:
    """A Qwen2.5-VL of 8 blocks of width 128 and a tower of 4 blocks of width 64: images of 16 to 144 tokens, four
    patches each."""
    import transformers as t

    tokens = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = build_tokenizer(
        names, extra_tokens=tokens, max_length=_LONGEST, vocab_size=_WORDS, text=_english(), padding_side="left"
    )
    named: dict[str, Any] = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    named |= {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
    tokenizer._set_model_specific_special_tokens(special_tokens=named)
    images = t.Qwen2VLImageProcessor(size={"shortest_edge": 16 * 28 * 28, "longest_edge": 144 * 28 * 28})
    processor = t.Qwen2_5_VLProcessor(images, tokenizer, t.Qwen2VLVideoProcessor(), chat_template=_QWEN_TEMPLATE)
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
    text = _decoder(128, 8, len(tokenizer)) | {"rope_parameters": rope}
    vision = {"depth": 4, "num_heads": 4, "patch_size": 14, "spatial_merge_size": 2, "hidden_size": 64}
    vision |= {"intermediate_size": 256, "out_hidden_size": 128, "window_size": 112, "fullatt_block_indexes": [3]}
    ids: dict[str, Any] = {f"{name}_id": tokenizer.get_vocab()[token] for name, token in named.items()}
    config = t.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    _save(t.Qwen2_5_VLForConditionalGeneration, config, processor, folder, tokenizer)


MODELS: dict[str, Callable[[Path], None]] = {
    "tiny Gemma 3": lambda folder: build_gemma3(folder, width=64, layers=6, tower=64, tower_layers=3, image=112),
    "deep Gemma 3": lambda folder: build_gemma3(folder, width=64, layers=26, tower=64, tower_layers=13, image=112),
    "heavier Gemma 3": lambda folder: build_gemma3(folder, width=128, layers=12, tower=128, tower_layers=6, image=224),
    "tiny Qwen2.5-VL": build_qwen2_5_vl,
}
"""Name in the tables → what writes the checkpoint into a folder."""


def _decoder(width: int, layers: int, words: int) -> dict[str, Any]:
    """What both decoders have: four heads that share two pairs of keys and values."""
    size = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "vocab_size": words}
    return size | {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": _LONGEST}


def _save(model_class: Any, config: Any, processor: Any, folder: Path, tokenizer: Any) -> None:
    """Random weights that keep a vector's size (Gemma 3's projector would be zeros), and no token that ends an answer:
    with either side an answer has as many tokens as were asked for."""
    import torch
    from transformers import GenerationConfig

    with seeded(0), torch.no_grad():
        model = model_class(config)
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, weight[0].numel() ** -0.5)
    model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _english() -> str:
    """Half a megabyte of English that comes with Python, so that words become words and not letters."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))
