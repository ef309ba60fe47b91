"""The little that cannot be found in a vision-language model's config and modules, by the config's model_type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Architecture:
    """What to take instead of looking for it; None where it is found.

    tower, layers: dotted paths of modules, from the whole model. image_token: dotted path in the config. prompt: the
    text, with {image} and {question}, where the checkpoint's own template cannot be used. maps: the tower gives maps
    [images, width, rows, columns]. adapter: a folder in the checkpoint with the LoRA that its images need. uncausal:
    the tower's attention is marked causal and must not be. all_layers: the tower gives a list of the states of all its
    layers. reader: how a row becomes tensors, in readers.READERS. joined: see `collate`.
    """

    tower: str | None = None
    layers: str | None = None
    image_token: str | None = None
    prompt: str | None = None
    maps: bool = False
    adapter: str | None = None
    all_layers: bool = False
    reader: Literal["processor", "molmo", "fastvlm"] = "processor"
    uncausal: bool = False
    joined: bool = False


ARCHITECTURES: Mapping[str, Architecture] = {
    "phi4_multimodal": Architecture(
        tower="model.embed_tokens_extend.image_embed.img_processor",
        layers="model.layers",
        image_token="vision_config.image_token_id",
        prompt="<|user|>{image}{question}<|end|><|assistant|>",  # its processor drops the template
        adapter="vision-lora",
        uncausal=True,
    ),
    "fast_vlm": Architecture(maps=True),
    "got_ocr2": Architecture(
        prompt="<|im_start|>system\nYou should follow the instructions carefully and explain your answers in detail."
        "<|im_end|><|im_start|>user\n<img>{image}</img>\n{question}<|im_end|><|im_start|>assistant\n",
        maps=True,
    ),
    "perception_lm": Architecture(joined=True),
    "blip-2": Architecture(prompt="{question}"),  # their processors write the image's tokens before the text
    "instructblip": Architecture(prompt="{question}"),
    # Their code comes with the checkpoint.
    "molmo": Architecture(
        tower="model.vision_backbone.image_vit", layers="model.transformer.blocks", all_layers=True, reader="molmo"
    ),
    "llava_qwen2": Architecture(reader="fastvlm"),
}

PROVEN = frozenset(
    (
        "aria",
        "aya_vision",
        "blip-2",
        "cohere2_vision",
        "deepseek_vl",
        "ernie4_5_vl_moe",
        "exaone4_5",
        "fast_vlm",
        "gemma3",
        "gemma4",
        "glm46v",
        "glm4v",
        "glm_ocr",
        "got_ocr2",
        "granite4_vision",
        "idefics2",
        "idefics3",
        "instructblip",
        "internvl",
        "janus",
        "lfm2_vl",
        "lighton_ocr",
        "llama4",
        "llava",
        "llava_next",
        "llava_onevision",
        "mistral3",
        "mllama",
        "molmo2",
        "ovis2",
        "paddleocr_vl",
        "paligemma",
        "perception_lm",
        "phi4_multimodal",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_5",
        "qwen3_vl",
        "qwen3_vl_moe",
        "smolvlm",
        "video_llama_3",
        "vipllava",
    )
)
"""Those whose states are held against transformers' own, row by row, by tests of raylib."""

_FILE_NAMES: Mapping[str, str] = {
    "google/gemma-3-12b-it": "gemma3_12b",
    "qwen/qwen2.5-vl-7b-instruct": "qwen25vl_7b",
    "huggingfacetb/smolvlm2-2.2b-instruct": "smolvlm_2.2b",
    "meta-llama/llama-3.2-11b-vision-instruct": "llama3_2_11b_vision",
    "microsoft/phi-4-multimodal-instruct": "phi4_multimodal",
    "apple/fastvlm-7b": "fastvlm_7b",
    "llava-hf/llama3-llava-next-8b-hf": "llava_next",
    "allenai/molmo-7b-o-0924": "molmo",
}
"""Models that HALP's scripts were written for → what the names of their files began with."""


def architecture(model_type: str) -> Architecture:
    return ARCHITECTURES.get(model_type, Architecture())


def file_prefix(model: str) -> str:
    """What the names of a model's files begin with: as in HALP for its models, else the name's last part."""
    known = _FILE_NAMES.get(model.lower())
    if known is None:
        last = [part for part in re.split(r"[/\\]", model) if part not in ("", ".", "..")][-1:]
        known = re.sub(r"[^A-Za-z0-9._-]+", "_", last[0]).strip("._-") if last else ""
    return f"{known or 'model'}_embeddings"
