"""Rows of the table of families whose vector is the last token of a vision-language model: GME, VLM2Vec, B3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylib.models.family import Family, Member


def _vlm(name: str, encoder: str, model: str, members: Mapping[str, Member], **options: Any) -> Family:
    """A family that pools the last token of a vision-language model. model: its class in transformers."""
    base = {"model": model, "image_token": "<|image_pad|>", "max_tokens": 32768, "page_prompts": _PAGE_PROMPTS}
    settings = {**base, **options.pop("settings")}
    return Family(
        name, f"raylib.models.{encoder}", "dense", ("text", "image"), members=members, settings=settings, **options
    )


_QWEN_PIXELS = {"tile": 28, "min_pixels": 4 * 28**2, "max_pixels": 1280 * 28**2}
_PAGE_PROMPTS = {
    "query": "Find a document image that matches the given query:",
    "document": "Understand the content of the provided document image.",
}

VLM: tuple[Family, ...] = (
    _vlm(
        "gme-qwen2-vl",
        "vlm:GmeEncoder",
        "Qwen2VLForConditionalGeneration",
        {
            "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct": Member(1536, 32768, "ce765ae71b8cdb208203cd8fb64a170b1b84293a"),
            "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct": Member(3584, 32768, "477027a6480f8630363be77751f169cc3434b673"),
        },
        architectures=("GmeQwen2VL",),
        marks=("gme_inference.py", "modeling_gme_qwen2vl.py"),
        # Limits of MTEB's wrapper; the model could read more.
        settings={**_QWEN_PIXELS, "max_tokens": 1800, "instruction": "You are a helpful assistant."},
    ),
    _vlm(
        "vlm2vec",
        "vlm:Vlm2VecEncoder",
        "AutoModelForImageTextToText",
        {
            "VLM2Vec/VLM2Vec-V2.0": Member(1536, 32768, "e39ff079b8275ef876d3656da8c0bddbff3c4dde"),
            "TIGER-Lab/VLM2Vec-Qwen2VL-2B": Member(1536, 32768),
            "TIGER-Lab/VLM2Vec-Qwen2VL-7B": Member(3584, 32768),
        },
        architectures=(
            "Qwen2VLForConditionalGeneration",
            "Qwen2_5_VLForConditionalGeneration",
            "qwen2_vl",
            "qwen2_5_vl",
        ),
        settings=_QWEN_PIXELS,
    ),
    _vlm(
        "b3-qwen2-vl",
        "vlm:Vlm2VecEncoder",
        "Qwen2VLForConditionalGeneration",
        {"raghavlite/B3_Qwen2_2B": Member(1536, 32768), "raghavlite/B3_Qwen2_7B": Member(3584, 32768)},
        settings=_QWEN_PIXELS,
    ),
    _vlm(
        "vlm2vec-llava-next",
        "vlm_llava:LlavaNextEncoder",
        "LlavaNextForConditionalGeneration",
        {"TIGER-Lab/VLM2Vec-LLaVa-Next": Member(4096)},
        architectures=("LlavaNextForConditionalGeneration", "llava_next"),
        settings={"image_token": "<image>"},
    ),
    _vlm(
        "vlm2vec-phi3v",
        "vlm:refuse_phi3v",
        "Phi3VForCausalLM",
        {"TIGER-Lab/VLM2Vec-Full": Member(3072, 131072), "TIGER-Lab/VLM2Vec-LoRA": Member(3072, 131072)},
        architectures=("Phi3VForCausalLM", "phi3_v"),
        settings={},
    ),
)
