"""Models of which extract knows next to nothing: LLaVA's kin, whose towers read tiles of one size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .made_up import CLIP, SIDE, SIGLIP, TEMPLATE, id_of, save_as, text_of, tokenizer_of


def build_llava(folder: Path, kind: str = "Llava") -> Path:
    """LLaVA 1.5 and ViP-LLaVA: one image of 28 pixels and 16 patches, a CLIP tower with a class token."""
    import transformers as t

    tokenizer = tokenizer_of({"image_token": "<image>"}, padding_side="left")
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
        text_config=text_of(tokenizer, "llama"),
        vision_config=CLIP,
        image_token_index=id_of(tokenizer, "<image>"),
        image_seq_length=16,
        **some,
    )
    return save_as(f"{kind}ForConditionalGeneration", config, processor, folder)


def build_vipllava(folder: Path) -> Path:
    return build_llava(folder, "VipLlava")


def build_llava_onevision(folder: Path) -> Path:
    import transformers as t

    tokenizer = tokenizer_of({"image_token": "<image>", "video_token": "<video>"})
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
        text_config=text_of(tokenizer, "qwen2"),
        vision_config=SIGLIP,
        image_token_index=id_of(tokenizer, "<image>"),
        video_token_index=id_of(tokenizer, "<video>"),
        image_grid_pinpoints=grid,
    )
    return save_as("LlavaOnevisionForConditionalGeneration", config, processor, folder)


def build_aya_vision(folder: Path) -> Path:
    import transformers as t

    extra = ["<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE"]
    extra += ["TILE_GLOBAL", *(f"TILE_{n}" for n in range(1, 5))]
    tokenizer = tokenizer_of({}, extra)
    processor = t.AyaVisionProcessor(
        t.GotOcr2ImageProcessor(size=SIDE, max_patches=4, crop_to_patches=True),
        tokenizer,
        patch_size=7,
        img_size=28,
        downsample_factor=2,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    config = t.AyaVisionConfig(
        text_config=text_of(tokenizer, "cohere2", sliding_window=8),
        vision_config=SIGLIP,
        image_token_index=id_of(tokenizer, "<|IMG_PATCH|>"),
        downsample_factor=2,
        adapter_layer_norm_eps=1e-6,
    )
    return save_as("AyaVisionForConditionalGeneration", config, processor, folder)


def build_cohere2_vision(folder: Path) -> Path:
    import transformers as t

    named = {"image_token": "<|IMG_PATCH|>", "boi_token": "<|START_OF_IMG|>", "eoi_token": "<|END_OF_IMG|>"}
    named |= {"img_line_break_token": "<|IMG_LINE_BREAK|>"}
    tokens: dict[str, Any] = {"patch_size": 2}
    tokenizer = tokenizer_of(named)
    processor = t.Cohere2VisionProcessor(
        t.Cohere2VisionImageProcessor(size=SIDE, max_patches=4, **tokens),
        tokenizer,
        chat_template=TEMPLATE.replace("IMAGE", "<|IMG_PATCH|>"),
    )
    config = t.Cohere2VisionConfig(
        text_config=text_of(tokenizer, "cohere2", sliding_window=8),
        vision_config=SIGLIP,
        image_token_id=id_of(tokenizer, "<|IMG_PATCH|>"),
        downsample_factor=2,
        alignment_intermediate_size=32,
    )
    return save_as("Cohere2VisionForConditionalGeneration", config, processor, folder)


def build_deepseek_vl(folder: Path) -> Path:
    import transformers as t

    tokenizer = tokenizer_of({"image_token": "<image_placeholder>"})
    processor = t.DeepseekVLProcessor(
        t.DeepseekVLImageProcessor(size=SIDE),
        tokenizer,
        num_image_tokens=16,
        chat_template=TEMPLATE.replace("IMAGE", "<image_placeholder>"),
    )
    config = t.DeepseekVLConfig(
        text_config=text_of(tokenizer, "llama"),
        vision_config=SIGLIP,
        image_token_id=id_of(tokenizer, "<image_placeholder>"),
    )
    return save_as("DeepseekVLForConditionalGeneration", config, processor, folder)


def build_janus(folder: Path) -> Path:
    """A second tower, of images to be drawn, is not run."""
    import transformers as t

    named = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = tokenizer_of(named)
    processor = t.JanusProcessor(
        t.JanusImageProcessor(size=SIDE),
        tokenizer,
        num_image_tokens=16,
        chat_template=TEMPLATE.replace("IMAGE", "<image_placeholder>"),
    )
    vision = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    drawn = {"embed_dim": 4, "num_embeddings": 16, "latent_channels": 8, "base_channels": 32, "num_patches": 4}
    config = t.JanusConfig(
        text_config=text_of(tokenizer, "llama"),
        vision_config=vision | {"projection_dim": 32, "num_image_tokens": 16},
        vq_config=drawn
        | {"channel_multiplier": [1, 1], "num_res_blocks": 1, "projection_dim": 32, "image_token_embed_dim": 32},
        image_token_id=id_of(tokenizer, "<image_placeholder>"),
    )
    return save_as("JanusForConditionalGeneration", config, processor, folder)


def build_perception_lm(folder: Path) -> Path:
    """timm's tower, here a small one of the kind; tiles of 28 pixels and the whole image first."""
    import transformers as t

    tokenizer = tokenizer_of({"image_token": "<|image|>", "video_token": "<|video|>"})
    processor = t.PerceptionLMProcessor(
        t.PerceptionLMVideoProcessor(),
        t.PerceptionLMImageProcessor(tile_size=28, max_num_tiles=4),
        tokenizer,
        patch_size=7,
        pooling_ratio=2,
        chat_template=TEMPLATE.replace("IMAGE", "<|image|>"),
    )
    args = {
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 2,
        "img_size": [28, 28],
        "patch_size": 7,
        "ref_feat_shape": [4, 4],
        "global_pool": "",
        "use_post_transformer_norm": False,
        "init_values": 0.1,
    }
    vision = {"model_type": "timm_wrapper", "architecture": "vit_pe_lang_large_patch14_448", "do_pooling": False}
    config = t.PerceptionLMConfig(
        text_config=text_of(tokenizer, "llama"),
        vision_config=vision | {"model_args": args, "num_features": 24, "num_labels": 24},
        vision_use_cls_token=True,
        projector_pooling_ratio=2,
        image_token_id=id_of(tokenizer, "<|image|>"),
        video_token_id=id_of(tokenizer, "<|video|>"),
    )
    return save_as("PerceptionLMForConditionalGeneration", config, processor, folder)


def build_granite4_vision(folder: Path) -> Path:
    import transformers as t

    tokenizer = tokenizer_of({"image_token": "<image>"})
    grid = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    processor = t.Granite4VisionProcessor(
        t.LlavaNextImageProcessor(size={"shortest_edge": 28}, crop_size=SIDE, image_grid_pinpoints=grid),
        tokenizer,
        patch_size=7,
        vision_feature_select_strategy="full",
        downsample_rate="2/4",
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    config = t.Granite4VisionConfig(
        text_config=text_of(tokenizer, "granite4_vision_text"),
        vision_config=SIGLIP | {"hidden_size": 64},
        image_token_index=id_of(tokenizer, "<image>"),
        image_grid_pinpoints=grid,
        vision_feature_select_strategy="full",
        downsample_rate="2/4",
        deepstack_layer_map=[[-1, 0], [-2, 2]],
    )
    return save_as("Granite4VisionForConditionalGeneration", config, processor, folder)


BUILDERS_C: dict[str, Callable[[Path], Path]] = {
    "llava": build_llava,
    "vipllava": build_vipllava,
    "llava_onevision": build_llava_onevision,
    "aya_vision": build_aya_vision,
    "cohere2_vision": build_cohere2_vision,
    "deepseek_vl": build_deepseek_vl,
    "janus": build_janus,
    "perception_lm": build_perception_lm,
    "granite4_vision": build_granite4_vision,
}
