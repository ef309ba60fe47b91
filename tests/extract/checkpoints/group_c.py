"""Models that extract has no line of code for: what is found in their config and modules must do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raylib.models.untrained import build_tokenizer

from .common import TEXT, VISION, ids, save

TEMPLATE = (
    "{% for turn in messages %}<s>{{ turn['role'] }}: {% for part in turn['content'] %}"
    "{{ 'IMAGE' if part['type'] == 'image' else part['text'] }}{% endfor %}</s>{% endfor %}"
    "{{ '<s>assistant: ' if add_generation_prompt else '' }}"
)
"""No model's own; IMAGE stands for what its processor replaces by the image's tokens."""

SIGLIP = VISION | {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7}
CLIP = VISION | {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 7, "projection_dim": 24}
SIDE = {"height": 28, "width": 28}
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def _tokenizer(named: dict[str, str], extra: Sequence[str] = (), **options: Any) -> Any:
    """named: the tokenizer's names of tokens beside the usual: {"image_token": "<image>"}."""
    tokens = list(dict.fromkeys([*named.values(), *extra]))
    tokenizer = build_tokenizer(SPECIALS, extra_tokens=tokens, max_length=4096, **options)
    if named:
        given: Any = named
        tokenizer._set_model_specific_special_tokens(special_tokens=given)
    return tokenizer


def _text(tokenizer: Any, model_type: str, **others: Any) -> dict[str, Any]:
    return (
        TEXT | ids(tokenizer, "pad", "eos", "bos") | {"model_type": model_type, "vocab_size": len(tokenizer)} | others
    )


def _id(tokenizer: Any, token: str) -> Any:
    return tokenizer.get_vocab()[token]


def _save(model: str, config: Any, processor: Any, folder: Path) -> Path:
    import transformers as t

    special = ids(processor.tokenizer, "pad", "eos", "bos")
    return save(getattr(t, model), config, processor, folder, seed=21, **special)


def build_llava(folder: Path, kind: str = "Llava") -> Path:
    """LLaVA 1.5 and ViP-LLaVA: one image of 28 pixels and 16 patches, a CLIP tower with a class token."""
    import transformers as t

    tokenizer = _tokenizer({"image_token": "<image>"}, padding_side="left")
    processor = t.LlavaProcessor(
        t.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=SIDE),
        tokenizer,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    some = {"vision_feature_layers": [-1, -2]} if kind == "VipLlava" else {}
    config = getattr(t, f"{kind}Config")(
        text_config=_text(tokenizer, "llama"),
        vision_config=CLIP,
        image_token_index=_id(tokenizer, "<image>"),
        image_seq_length=16,
        **some,
    )
    return _save(f"{kind}ForConditionalGeneration", config, processor, folder)


def build_vipllava(folder: Path) -> Path:
    return build_llava(folder, "VipLlava")


def build_llava_onevision(folder: Path) -> Path:
    import transformers as t

    tokenizer = _tokenizer({"image_token": "<image>", "video_token": "<video>"})
    grid = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    processor = t.LlavaOnevisionProcessor(
        t.LlavaOnevisionImageProcessor(size=SIDE, image_grid_pinpoints=grid),
        tokenizer,
        t.LlavaOnevisionVideoProcessor(size=SIDE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    config = t.LlavaOnevisionConfig(
        text_config=_text(tokenizer, "qwen2"),
        vision_config=SIGLIP,
        image_token_index=_id(tokenizer, "<image>"),
        video_token_index=_id(tokenizer, "<video>"),
        image_grid_pinpoints=grid,
    )
    return _save("LlavaOnevisionForConditionalGeneration", config, processor, folder)


def build_idefics2(folder: Path) -> Path:
    """Images keep their shape, with patches of padding in a batch; 4 tokens an image from a resampler."""
    import transformers as t

    named = {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"}
    tokenizer = _tokenizer(named, ["<end_of_utterance>"])
    processor = t.Idefics2Processor(
        t.Idefics2ImageProcessor(size={"shortest_edge": 28, "longest_edge": 56}, do_image_splitting=False),
        tokenizer,
        image_seq_len=4,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    latents = {"resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8}
    config = t.Idefics2Config(
        text_config=_text(tokenizer, "mistral"),
        vision_config={k: v for k, v in SIGLIP.items() if k != "model_type"} | {"image_size": 56},
        perceiver_config=latents | {"num_key_value_heads": 1, "hidden_size": 32},
        image_token_id=_id(tokenizer, "<image>"),
    )
    return _save("Idefics2ForConditionalGeneration", config, processor, folder)


def build_idefics3(folder: Path) -> Path:
    import transformers as t

    extra = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    extra += [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
    tokenizer = _tokenizer({"image_token": "<image>"}, extra)
    processor = t.Idefics3Processor(
        t.Idefics3ImageProcessor(size={"longest_edge": 84}, max_image_size={"longest_edge": 28}),
        tokenizer,
        image_seq_len=4,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    config = t.Idefics3Config(
        text_config=_text(tokenizer, "llama"),
        vision_config={k: v for k, v in SIGLIP.items() if k != "model_type"},
        image_token_id=_id(tokenizer, "<image>"),
        scale_factor=2,
    )
    return _save("Idefics3ForConditionalGeneration", config, processor, folder)


QWEN = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
QWEN |= {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
QWEN_TEMPLATE = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")


def _qwen(folder: Path, kind: str, patch: int, text: dict[str, Any], vision: dict[str, Any], rope: Any) -> Path:
    import transformers as t

    tokenizer = _tokenizer(QWEN)
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
        **{f"{name}_id": _id(tokenizer, token) for name, token in QWEN.items()},
    )
    return _save(f"{kind}ForConditionalGeneration", config, processor, folder)


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
    tokenizer = _tokenizer({"image_token": "[IMG]"}, extra)
    processor = t.PixtralProcessor(
        t.PixtralImageProcessor(size={"longest_edge": 84}, patch_size={"height": 7, "width": 7}),
        tokenizer,
        patch_size=7,
        spatial_merge_size=2,
        chat_template=TEMPLATE.replace("IMAGE", "[IMG]"),
    )
    config = t.Mistral3Config(
        text_config=_text(tokenizer, "mistral"),
        vision_config=VISION | {"model_type": "pixtral", "image_size": 84, "patch_size": 7, "head_dim": 12},
        image_token_index=_id(tokenizer, "[IMG]"),
    )
    return _save("Mistral3ForConditionalGeneration", config, processor, folder)


def build_gemma4(folder: Path) -> Path:
    """The tower's patches are pooled by nine; the last two blocks share keys and values of earlier ones."""
    import transformers as t

    named = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    named |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    tokenizer = _tokenizer(named, ["<|video|>"])
    processor = t.Gemma4Processor(
        t.Gemma4AudioFeatureExtractor(),
        t.Gemma4ImageProcessor(patch_size=4, max_soft_tokens=70),
        tokenizer,
        t.Gemma4VideoProcessor(patch_size=4),
        chat_template=TEMPLATE.replace("IMAGE", "<|image|>"),
    )
    text = _text(tokenizer, "gemma4_text") | {
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
        image_token_id=_id(tokenizer, "<|image|>"),
        boi_token_id=_id(tokenizer, "<|image>"),
        eoi_token_id=_id(tokenizer, "<image|>"),
        video_token_id=_id(tokenizer, "<|video|>"),
        audio_token_id=_id(tokenizer, "<|audio|>"),
    )
    return _save("Gemma4ForConditionalGeneration", config, processor, folder)


def build_aya_vision(folder: Path) -> Path:
    import transformers as t

    extra = ["<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE"]
    extra += ["TILE_GLOBAL", *(f"TILE_{n}" for n in range(1, 5))]
    tokenizer = _tokenizer({}, extra)
    processor = t.AyaVisionProcessor(
        t.GotOcr2ImageProcessor(size=SIDE, max_patches=4, crop_to_patches=True),
        tokenizer,
        patch_size=7,
        img_size=28,
        downsample_factor=2,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    config = t.AyaVisionConfig(
        text_config=_text(tokenizer, "cohere2", sliding_window=8),
        vision_config=SIGLIP,
        image_token_index=_id(tokenizer, "<|IMG_PATCH|>"),
        downsample_factor=2,
        adapter_layer_norm_eps=1e-6,
    )
    return _save("AyaVisionForConditionalGeneration", config, processor, folder)


def build_cohere2_vision(folder: Path) -> Path:
    import transformers as t

    named = {"image_token": "<|IMG_PATCH|>", "boi_token": "<|START_OF_IMG|>", "eoi_token": "<|END_OF_IMG|>"}
    named |= {"img_line_break_token": "<|IMG_LINE_BREAK|>"}
    tokenizer = _tokenizer(named)
    processor = t.Cohere2VisionProcessor(
        t.Cohere2VisionImageProcessor(size=SIDE, max_patches=4, patch_size=2),
        tokenizer,
        chat_template=TEMPLATE.replace("IMAGE", "<|IMG_PATCH|>"),
    )
    config = t.Cohere2VisionConfig(
        text_config=_text(tokenizer, "cohere2", sliding_window=8),
        vision_config=SIGLIP,
        image_token_id=_id(tokenizer, "<|IMG_PATCH|>"),
        downsample_factor=2,
        alignment_intermediate_size=32,
    )
    return _save("Cohere2VisionForConditionalGeneration", config, processor, folder)


def _glm(folder: Path, kind: str, images: str, model: str) -> Path:
    import transformers as t

    named = {"image_token": "<|image|>", "video_token": "<|video|>"}
    extra = ["<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"]
    tokenizer = _tokenizer(named, extra)
    processor = getattr(t, f"{kind}Processor")(
        getattr(t, f"{images}ImageProcessor")(size={"shortest_edge": 4 * 28 * 28, "longest_edge": 24 * 28 * 28}),
        tokenizer,
        getattr(t, f"{images}VideoProcessor")(),
        chat_template=TEMPLATE.replace("IMAGE", "<|begin_of_image|><|image|><|end_of_image|>"),
    )
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 2, 1], "partial_rotary_factor": 0.5}
    text = {k: v for k, v in TEXT.items() if k != "head_dim"}
    vision = {"depth": 3, "hidden_size": 24, "num_heads": 2, "intermediate_size": 40, "out_hidden_size": 32}
    places = {f"{name}_token_id": _id(tokenizer, f"<|{name}|>") for name in ("image", "video")}
    for side, word in (("start", "begin"), ("end", "end")):
        places |= {f"{n}_{side}_token_id": _id(tokenizer, f"<|{word}_of_{n}|>") for n in ("image", "video")}
    config = getattr(t, f"{kind}Config")(
        text_config=text | {"vocab_size": len(tokenizer), "rope_parameters": rope} | ids(tokenizer, "pad"),
        vision_config=vision | {"image_size": 56, "patch_size": 14, "spatial_merge_size": 2},
        **places,
    )
    return _save(model, config, processor, folder)


def build_glm4v(folder: Path) -> Path:
    """The tower's last states are already merged by fours."""
    return _glm(folder, "Glm4v", "Glm4v", "Glm4vForConditionalGeneration")


def build_glm46v(folder: Path) -> Path:
    return _glm(folder, "Glm46V", "Glm46V", "Glm46VForConditionalGeneration")


def build_got_ocr2(folder: Path) -> Path:
    """The tower gives maps of 8 channels, 16 × 16 of which become the 256 tokens that the processor counts for every
    image; without a block over the whole image, which would have 4,096 patches. No chat template."""
    import transformers as t

    tokenizer = _tokenizer({}, ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>"])
    processor = t.GotOcr2Processor(t.GotOcr2ImageProcessor(size={"height": 64, "width": 64}), tokenizer)
    vision = {"hidden_size": 24, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 64, "patch_size": 1, "window_size": 8, "global_attn_indexes": [], "mlp_dim": 40}
    config = t.GotOcr2Config(
        text_config=_text(tokenizer, "qwen2"),
        vision_config=vision,
        image_token_index=_id(tokenizer, "<imgpad>"),
        image_seq_length=256,
    )
    return _save("GotOcr2ForConditionalGeneration", config, processor, folder)


def build_ovis2(folder: Path) -> Path:
    """The image's tokens are mixtures of a visual vocabulary's."""
    import transformers as t

    marks = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
    tokenizer = _tokenizer({}, ["<image>", "<IMG_ATOM>", *marks])
    processor = t.Ovis2Processor(
        t.Ovis2ImageProcessor(size=SIDE, max_patches=4, crop_to_patches=True),
        tokenizer,
        image_seq_length=4,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    vision = VISION | {"image_size": 28, "patch_size": 7, "hidden_stride": 2, "vocab_size": 40}
    config = t.Ovis2Config(
        text_config=_text(tokenizer, "qwen2"),
        vision_config=vision,
        image_token_id=_id(tokenizer, "<IMG_ATOM>"),
        visual_indicator_token_ids=[_id(tokenizer, mark) for mark in marks],
        vocab_size=len(tokenizer),
        hidden_size=TEXT["hidden_size"],
    )
    return _save("Ovis2ForConditionalGeneration", config, processor, folder)


def build_lfm2_vl(folder: Path) -> Path:
    """Tiles of 32 pixels and a thumbnail that keeps the image's shape, padded to a fixed number of patches; half of the
    decoder's blocks are short convolutions."""
    import transformers as t

    named = {"image_token": "<image>", "image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>"}
    named |= {"image_thumbnail_token": "<|img_thumbnail|>"}
    extra = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)]
    tokenizer = _tokenizer(named, extra)
    sizes: dict[str, Any] = {"tile_size": 32, "min_image_tokens": 2, "max_image_tokens": 6, "encoder_patch_size": 8}
    processor = t.Lfm2VlProcessor(
        t.Lfm2VlImageProcessor(size={"height": 32, "width": 32}, max_tiles=4, **sizes),
        tokenizer,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    text = _text(tokenizer, "lfm2", layer_types=["conv", "full_attention"] * 3)
    config = t.Lfm2VlConfig(
        text_config=text,
        vision_config=VISION | {"model_type": "siglip2_vision_model", "patch_size": 8, "num_patches": 16},
        image_token_id=_id(tokenizer, "<image>"),
        projector_hidden_size=32,
    )
    return _save("Lfm2VlForConditionalGeneration", config, processor, folder)


def build_molmo2(folder: Path) -> Path:
    """Tokens of the image are pooled from patches that the processor names by their number."""
    import transformers as t

    marks = {"image_start": "<im_start>", "low_res_image_start": "<low_res_im_start>", "image_end": "<im_end>"}
    marks |= {"frame_start": "<frame_start>", "frame_end": "<frame_end>"}
    extra = ["<im_patch>", "<im_col>", "<im_low>", *marks.values()]
    tokenizer = _tokenizer({"image_token": "<|image|>", "video_token": "<|video|>"}, extra)
    processor = t.Molmo2Processor(
        t.Molmo2ImageProcessor(size=SIDE, max_crops=4, patch_size=7, overlap_margins=[1, 1]),
        t.Molmo2VideoProcessor(size=SIDE, patch_size=7),
        tokenizer,
        chat_template=TEMPLATE.replace("IMAGE", "<|image|>"),
    )
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 12}
    config = t.Molmo2Config(
        text_config=TEXT | {"vocab_size": len(tokenizer) - 1, "additional_vocab_size": 1},
        vision_config=VISION | heads | {"image_size": [28, 28], "patch_size": 7, "num_position_embeddings": 16},
        adapter_config=heads
        | {"hidden_size": 24, "intermediate_size": 40, "text_hidden_size": 32, "vision_feature_layer": [-1, -2]},
        image_patch_id=_id(tokenizer, "<im_patch>"),
        **{f"{name}_token_id": _id(tokenizer, mark) for name, mark in marks.items()},
    )
    return _save("Molmo2ForConditionalGeneration", config, processor, folder)


def build_paddleocr_vl(folder: Path) -> Path:
    import transformers as t

    named = {"image_token": "<|IMAGE_PLACEHOLDER|>", "video_token": "<|VIDEO|>"}
    named |= {"vision_start_token": "<|IMAGE_START|>", "vision_end_token": "<|IMAGE_END|>"}
    tokenizer = _tokenizer(named)
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
        **{f"{name}_id": _id(tokenizer, token) for name, token in named.items()},
    )
    return _save("PaddleOCRVLForConditionalGeneration", config, processor, folder)


def build_llama4(folder: Path) -> Path:
    """Every second block is a mixture of experts; the whole model is its own body."""
    import transformers as t

    extra = ["<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>"]
    extra += ["<|tile_x_separator|>", "<|tile_y_separator|>"]
    tokenizer = _tokenizer({}, extra)
    processor = t.Llama4Processor(
        t.Llama4ImageProcessor(size=SIDE, max_patches=4),
        tokenizer,
        patch_size=7,
        chat_template=TEMPLATE.replace("IMAGE", "<|image|>"),
    )
    text = _text(tokenizer, "llama4_text", intermediate_size_mlp=48, num_local_experts=4, interleave_moe_layer_step=2)
    vision = VISION | {"image_size": 28, "patch_size": 7, "vision_output_dim": 40, "intermediate_size": 96}
    config = t.Llama4Config(
        text_config=text | {"attention_chunk_size": 64},
        vision_config=vision | {"projector_input_dim": 40, "projector_output_dim": 40},
        image_token_index=_id(tokenizer, "<|patch|>"),
        boi_token_index=_id(tokenizer, "<|image_start|>"),
        eoi_token_index=_id(tokenizer, "<|image_end|>"),
    )
    return _save("Llama4ForConditionalGeneration", config, processor, folder)


def build_blip2(folder: Path, kind: str = "Blip2") -> Path:
    """A Q-Former with as many blocks as the decoder has; no chat template."""
    import transformers as t

    tokenizer = _tokenizer({}, ["<image>"])
    images = t.BlipImageProcessor(size=SIDE)
    if kind == "Blip2":
        processor = t.Blip2Processor(images, tokenizer, num_query_tokens=4)
    else:
        processor = t.InstructBlipProcessor(images, tokenizer, _tokenizer({}), num_query_tokens=4)
    qformer = {k: v for k, v in TEXT.items() if k not in ("num_key_value_heads", "head_dim")}
    text = {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0}
    config = getattr(t, f"{kind}Config")(
        text_config=_text(tokenizer, "opt") | text,
        vision_config=VISION | {"image_size": 28, "patch_size": 7},
        qformer_config=qformer | {"encoder_hidden_size": 24, "vocab_size": len(tokenizer)},
        num_query_tokens=4,
        image_token_index=_id(tokenizer, "<image>"),
        image_text_hidden_size=16,
    )
    return _save(f"{kind}ForConditionalGeneration", config, processor, folder)


def build_instructblip(folder: Path) -> Path:
    return build_blip2(folder, "InstructBlip")


def build_video_llama_3(folder: Path) -> Path:
    import transformers as t

    tokenizer = _tokenizer(QWEN)
    processor = t.VideoLlama3Processor(
        t.VideoLlama3ImageProcessor(size={"shortest_edge": 4 * 14 * 14, "longest_edge": 24 * 14 * 14}),
        tokenizer,
        t.VideoLlama3VideoProcessor(),
        chat_template=QWEN_TEMPLATE,
    )
    config = t.VideoLlama3Config(
        text_config=_text(tokenizer, "qwen2"),
        vision_config=VISION | {"patch_size": 14, "model_type": "video_llama_3_vision"},
        image_token_id=_id(tokenizer, "<|image_pad|>"),
        video_token_id=_id(tokenizer, "<|video_pad|>"),
    )
    return _save("VideoLlama3ForConditionalGeneration", config, processor, folder)


def build_deepseek_vl(folder: Path) -> Path:
    import transformers as t

    tokenizer = _tokenizer({"image_token": "<image_placeholder>"})
    processor = t.DeepseekVLProcessor(
        t.DeepseekVLImageProcessor(size=SIDE),
        tokenizer,
        num_image_tokens=16,
        chat_template=TEMPLATE.replace("IMAGE", "<image_placeholder>"),
    )
    config = t.DeepseekVLConfig(
        text_config=_text(tokenizer, "llama"),
        vision_config=SIGLIP,
        image_token_id=_id(tokenizer, "<image_placeholder>"),
    )
    return _save("DeepseekVLForConditionalGeneration", config, processor, folder)


def build_aria(folder: Path) -> Path:
    """Images padded to a square, with a mask; blocks of experts."""
    import transformers as t

    tokenizer = _tokenizer({"image_token": "<|img|>"})
    processor = t.AriaProcessor(
        t.AriaImageProcessor(max_image_size=980, min_image_size=28),
        tokenizer,
        size_conversion={490: 4, 980: 8},
        chat_template=TEMPLATE.replace("IMAGE", "<|img|>"),
    )
    vision = {k: v for k, v in SIGLIP.items() if k != "model_type"} | {"image_size": 490, "patch_size": 70}
    config = t.AriaConfig(
        text_config=_text(tokenizer, "aria_text", moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1),
        vision_config=vision | {"model_type": "idefics3_vision"},
        projector_patch_to_query_dict={49: 4, 196: 8},
        image_token_index=_id(tokenizer, "<|img|>"),
    )
    return _save("AriaForConditionalGeneration", config, processor, folder)


def build_lighton_ocr(folder: Path) -> Path:
    import transformers as t

    named = {"image_token": "<|image_pad|>", "image_break_token": "<|vision_pad|>", "image_end_token": "<|vision_end|>"}
    tokenizer = _tokenizer(named)
    processor = t.LightOnOcrProcessor(
        t.PixtralImageProcessor(size={"longest_edge": 84}, patch_size={"height": 7, "width": 7}),
        tokenizer,
        patch_size=7,
        chat_template=TEMPLATE.replace("IMAGE", "<|image_pad|>"),
    )
    config = t.LightOnOcrConfig(
        text_config=_text(tokenizer, "qwen3"),
        vision_config=VISION | {"model_type": "pixtral", "image_size": 84, "patch_size": 7, "head_dim": 12},
        image_token_id=_id(tokenizer, "<|image_pad|>"),
    )
    return _save("LightOnOcrForConditionalGeneration", config, processor, folder)


BUILDERS_C: dict[str, Callable[[Path], Path]] = {
    "llava": build_llava,
    "vipllava": build_vipllava,
    "llava_onevision": build_llava_onevision,
    "idefics2": build_idefics2,
    "idefics3": build_idefics3,
    "qwen2_vl": build_qwen2_vl,
    "qwen3_vl_moe": build_qwen3_vl_moe,
    "qwen3_5": build_qwen3_5,
    "mistral3": build_mistral3,
    "gemma4": build_gemma4,
    "aya_vision": build_aya_vision,
    "cohere2_vision": build_cohere2_vision,
    "glm4v": build_glm4v,
    "glm46v": build_glm46v,
    "got_ocr2": build_got_ocr2,
    "ovis2": build_ovis2,
    "lfm2_vl": build_lfm2_vl,
    "molmo2": build_molmo2,
    "paddleocr_vl": build_paddleocr_vl,
    "llama4": build_llama4,
    "blip-2": build_blip2,
    "instructblip": build_instructblip,
    "video_llama_3": build_video_llama_3,
    "deepseek_vl": build_deepseek_vl,
    "aria": build_aria,
    "lighton_ocr": build_lighton_ocr,
}
