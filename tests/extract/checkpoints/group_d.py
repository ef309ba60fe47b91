"""Models of which extract knows next to nothing: towers that read the patches of images of any shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .common import TEXT, VISION, ids
from .made_up import TEMPLATE, id_of, save_as, text_of, tokenizer_of

QWEN = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
QWEN |= {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
QWEN_TEMPLATE = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")


def _qwen(folder: Path, kind: str, patch: int, text: dict[str, Any], vision: dict[str, Any], rope: Any) -> Path:
    import transformers as t

    tokenizer = tokenizer_of(QWEN)
    area = (2 * patch) ** 2
    images = t.Qwen2VLImageProcessor(patch_size=patch, size={"shortest_edge": 4 * area, "longest_edge": 24 * area})
    old = kind == "Qwen2VL"
    videos = t.Qwen2VLVideoProcessor() if old else t.Qwen3VLVideoProcessor()
    processor = (t.Qwen2VLProcessor if old else t.Qwen3VLProcessor)(
        images, tokenizer, videos, chat_template=QWEN_TEMPLATE
    )
    known = {"depth": 3, "num_heads": 2, "patch_size": patch, "spatial_merge_size": 2}
    some = TEXT | {"vocab_size": len(tokenizer), "rope_parameters": {"rope_type": "default", "rope_theta": 1e4} | rope}
    config = getattr(t, f"{kind}Config")(
        text_config=some | text,
        vision_config=known | vision,
        **{f"{name}_id": id_of(tokenizer, token) for name, token in QWEN.items()},
    )
    return save_as(f"{kind}ForConditionalGeneration", config, processor, folder)


QWEN3_VISION = {"hidden_size": 24, "intermediate_size": 40, "out_hidden_size": 32, "num_position_embeddings": 16}


def build_qwen2_vl(folder: Path) -> Path:
    vision = {"embed_dim": 24, "hidden_size": 32, "mlp_ratio": 2}
    return _qwen(folder, "Qwen2VL", 14, {"head_dim": None}, vision, {"mrope_section": [2, 3, 3]})


def build_qwen3_vl_moe(folder: Path) -> Path:
    text = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    vision = QWEN3_VISION | {"deepstack_visual_indexes": [0, 1]}
    return _qwen(folder, "Qwen3VLMoe", 16, text, vision, {"mrope_section": [4, 2, 2], "mrope_interleaved": True})


def build_qwen3_5(folder: Path) -> Path:
    """Half of the decoder's blocks have linear attention, whose state runs through the prompt."""
    text: dict[str, Any] = {"layer_types": ["linear_attention", "full_attention"] * 3}
    text |= {f"linear_{name}_head_dim": 8 for name in ("key", "value")}
    text |= {f"linear_num_{name}_heads": 2 for name in ("key", "value")}
    rope = {"mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25, "mrope_interleaved": True}
    return _qwen(folder, "Qwen3_5", 16, text, QWEN3_VISION, rope)


def build_mistral3(folder: Path) -> Path:
    """Images of any shape in one list of patches; four to a token, with a token at the end of each line."""
    import transformers as t

    extra = ["[IMG_BREAK]", "[IMG_END]"]
    tokenizer = tokenizer_of({"image_token": "[IMG]"}, extra)
    processor = t.PixtralProcessor(
        t.PixtralImageProcessor(size={"longest_edge": 84}, patch_size={"height": 7, "width": 7}),
        tokenizer,
        patch_size=7,
        spatial_merge_size=2,
        chat_template=TEMPLATE.replace("IMAGE", "[IMG]"),
    )
    config = t.Mistral3Config(
        text_config=text_of(tokenizer, "mistral"),
        vision_config=VISION | {"model_type": "pixtral", "image_size": 84, "patch_size": 7, "head_dim": 12},
        image_token_index=id_of(tokenizer, "[IMG]"),
    )
    return save_as("Mistral3ForConditionalGeneration", config, processor, folder)


def build_gemma4(folder: Path) -> Path:
    """The tower's patches are pooled by nine; the last two blocks share keys and values of earlier ones."""
    import transformers as t

    named = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    named |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    tokenizer = tokenizer_of(named, ["<|video|>"])
    processor = t.Gemma4Processor(
        t.Gemma4AudioFeatureExtractor(),
        t.Gemma4ImageProcessor(patch_size=4, max_soft_tokens=70),
        tokenizer,
        t.Gemma4VideoProcessor(patch_size=4),
        chat_template=TEMPLATE.replace("IMAGE", "<|image|>"),
    )
    text = text_of(tokenizer, "gemma4_text") | {
        "sliding_window": 8,
        "vocab_size_per_layer_input": len(tokenizer),
        "hidden_size_per_layer_input": 8,
    }
    text |= {"layer_types": ["sliding_attention", "full_attention"] * 3, "num_kv_shared_layers": 2}
    text |= {"use_bidirectional_attention": "vision", "global_head_dim": 16, "num_global_key_value_heads": 1}
    vision = VISION | {"head_dim": 12, "num_key_value_heads": 2, "patch_size": 4, "position_embedding_size": 128}
    config = t.Gemma4Config(
        text_config=text,
        vision_config=vision,
        audio_config=None,
        image_token_id=id_of(tokenizer, "<|image|>"),
        boi_token_id=id_of(tokenizer, "<|image>"),
        eoi_token_id=id_of(tokenizer, "<image|>"),
        video_token_id=id_of(tokenizer, "<|video|>"),
        audio_token_id=id_of(tokenizer, "<|audio|>"),
    )
    return save_as("Gemma4ForConditionalGeneration", config, processor, folder)


def _glm(folder: Path, kind: str, images: str, model: str, processors: str | None = None) -> Path:
    import transformers as t

    named = {"image_token": "<|image|>", "video_token": "<|video|>"}
    extra = ["<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"]
    tokenizer = tokenizer_of(named, extra)
    processor = getattr(t, f"{processors or kind}Processor")(
        getattr(t, f"{images}ImageProcessor")(size={"shortest_edge": 4 * 28 * 28, "longest_edge": 24 * 28 * 28}),
        tokenizer,
        getattr(t, f"{images}VideoProcessor")(),
        chat_template=TEMPLATE.replace("IMAGE", "<|begin_of_image|><|image|><|end_of_image|>"),
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 2, 1], "partial_rotary_factor": 0.5}
    text = {k: v for k, v in TEXT.items() if k != "head_dim"}
    vision = {"depth": 3, "hidden_size": 24, "num_heads": 2, "intermediate_size": 40, "out_hidden_size": 32}
    places = {f"{name}_token_id": id_of(tokenizer, f"<|{name}|>") for name in ("image", "video")}
    for side, word in (("start", "begin"), ("end", "end")):
        places |= {f"{n}_{side}_token_id": id_of(tokenizer, f"<|{word}_of_{n}|>") for n in ("image", "video")}
    config = getattr(t, f"{kind}Config")(
        text_config=text | {"vocab_size": len(tokenizer), "rope_parameters": rope} | ids(tokenizer, "pad"),
        vision_config=vision | {"image_size": 56, "patch_size": 14, "spatial_merge_size": 2},
        **places,
    )
    return save_as(model, config, processor, folder)


def build_glm4v(folder: Path) -> Path:
    """The tower's last states are already merged by fours."""
    return _glm(folder, "Glm4v", "Glm4v", "Glm4vForConditionalGeneration")


def build_glm46v(folder: Path) -> Path:
    return _glm(folder, "Glm46V", "Glm46V", "Glm46VForConditionalGeneration")


def build_paddleocr_vl(folder: Path) -> Path:
    import transformers as t

    named = {"image_token": "<|IMAGE_PLACEHOLDER|>", "video_token": "<|VIDEO|>"}
    named |= {"vision_start_token": "<|IMAGE_START|>", "vision_end_token": "<|IMAGE_END|>"}
    tokenizer = tokenizer_of(named)
    processor = t.PaddleOCRVLProcessor(
        t.PaddleOCRVLImageProcessor(size={"shortest_edge": 4 * 28 * 28, "longest_edge": 24 * 28 * 28}),
        tokenizer,
        chat_template=TEMPLATE.replace("IMAGE", "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"),
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    config = t.PaddleOCRVLConfig(
        text_config=TEXT
        | ids(tokenizer, "pad", "eos", "bos")
        | {"vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=VISION | {"image_size": 56, "patch_size": 14},
        **{f"{name}_id": id_of(tokenizer, token) for name, token in named.items()},
    )
    return save_as("PaddleOCRVLForConditionalGeneration", config, processor, folder)


def build_video_llama_3(folder: Path) -> Path:
    import transformers as t

    tokenizer = tokenizer_of(QWEN)
    processor = t.VideoLlama3Processor(
        t.VideoLlama3ImageProcessor(size={"shortest_edge": 4 * 14 * 14, "longest_edge": 24 * 14 * 14}),
        tokenizer,
        t.VideoLlama3VideoProcessor(),
        chat_template=QWEN_TEMPLATE,
    )
    config = t.VideoLlama3Config(
        text_config=text_of(tokenizer, "qwen2"),
        vision_config=VISION | {"patch_size": 14, "model_type": "video_llama_3_vision"},
        image_token_id=id_of(tokenizer, "<|image_pad|>"),
        video_token_id=id_of(tokenizer, "<|video_pad|>"),
    )
    return save_as("VideoLlama3ForConditionalGeneration", config, processor, folder)


def build_lighton_ocr(folder: Path) -> Path:
    import transformers as t

    named = {"image_token": "<|image_pad|>", "image_break_token": "<|vision_pad|>", "image_end_token": "<|vision_end|>"}
    tokenizer = tokenizer_of(named)
    processor = t.LightOnOcrProcessor(
        t.PixtralImageProcessor(size={"longest_edge": 84}, patch_size={"height": 7, "width": 7}),
        tokenizer,
        patch_size=7,
        chat_template=TEMPLATE.replace("IMAGE", "<|image_pad|>"),
    )
    config = t.LightOnOcrConfig(
        text_config=text_of(tokenizer, "qwen3"),
        vision_config=VISION | {"model_type": "pixtral", "image_size": 84, "patch_size": 7, "head_dim": 12},
        image_token_id=id_of(tokenizer, "<|image_pad|>"),
    )
    return save_as("LightOnOcrForConditionalGeneration", config, processor, folder)


def build_glm_ocr(folder: Path) -> Path:
    return _glm(folder, "GlmOcr", "Glm46V", "GlmOcrForConditionalGeneration", "Glm46V")


def build_ernie4_5_vl_moe(folder: Path) -> Path:
    """Words and patches have experts of their own."""
    import transformers as t

    named = {"image_token": "<|IMAGE_PLACEHOLDER|>", "video_token": "<|VIDEO_PLACEHOLDER|>"}
    named |= {"image_start_token": "<|IMAGE_START|>", "image_end_token": "<|IMAGE_END|>"}
    named |= {"video_start_token": "<|VIDEO_START|>", "video_end_token": "<|VIDEO_END|>"}
    tokenizer = tokenizer_of(named)
    processor = t.Ernie4_5_VLMoeProcessor(
        t.Ernie4_5_VLMoeImageProcessor(size={"shortest_edge": 4 * 28 * 28, "longest_edge": 24 * 28 * 28}),
        tokenizer,
        t.Ernie4_5_VLMoeVideoProcessor(draw_on_frames=False),
        chat_template=TEMPLATE.replace("IMAGE", "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"),
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]}
    experts = {"moe_intermediate_size": [24, 16], "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1}
    text = TEXT | ids(tokenizer, "pad", "eos", "bos") | experts
    vision = {"depth": 3, "hidden_size": 24, "num_heads": 2, "intermediate_size": 40}
    config = t.Ernie4_5_VLMoeConfig(
        text_config={k: v for k, v in text.items() if k != "head_dim"}
        | {"vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=vision,
        **{f"{name}_id": id_of(tokenizer, token) for name, token in named.items()},
    )
    return save_as("Ernie4_5_VLMoeForConditionalGeneration", config, processor, folder)


def build_exaone4_5(folder: Path) -> Path:
    import transformers as t

    tokenizer = tokenizer_of(QWEN)
    processor = t.Exaone4_5_Processor(
        t.Qwen2VLImageProcessor(size={"shortest_edge": 4 * 784, "longest_edge": 24 * 784}),
        tokenizer,
        t.Qwen2VLVideoProcessor(),
        chat_template=QWEN_TEMPLATE,
    )
    vision = {"depth": 3, "hidden_size": 24, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 32}
    config = t.Exaone4_5_Config(
        text_config=text_of(tokenizer, "exaone4", sliding_window=None, layer_types=["full_attention"] * 6),
        vision_config=vision | {"window_size": 56, "fullatt_block_indexes": [2], "num_key_value_heads": 1},
        image_token_id=id_of(tokenizer, "<|image_pad|>"),
        video_token_id=id_of(tokenizer, "<|video_pad|>"),
    )
    return save_as("Exaone4_5_ForConditionalGeneration", config, processor, folder)


BUILDERS_D: dict[str, Callable[[Path], Path]] = {
    "qwen2_vl": build_qwen2_vl,
    "qwen3_vl_moe": build_qwen3_vl_moe,
    "qwen3_5": build_qwen3_5,
    "mistral3": build_mistral3,
    "gemma4": build_gemma4,
    "glm4v": build_glm4v,
    "glm46v": build_glm46v,
    "paddleocr_vl": build_paddleocr_vl,
    "video_llama_3": build_video_llama_3,
    "lighton_ocr": build_lighton_ocr,
    "glm_ocr": build_glm_ocr,
    "ernie4_5_vl_moe": build_ernie4_5_vl_moe,
    "exaone4_5": build_exaone4_5,
}
