"""Models of which extract knows next to nothing: each with something of its own between tower and decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .common import TEXT, VISION
from .made_up import SIDE, SIGLIP, TEMPLATE, id_of, save_as, text_of, tokenizer_of


def build_idefics2(folder: Path) -> Path:
    """Images keep their shape, with patches of padding in a batch; 4 tokens an image from a resampler."""
    import transformers as t

    named = {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"}
    tokenizer = tokenizer_of(named, ["<end_of_utterance>"])
    processor = t.Idefics2Processor(
        t.Idefics2ImageProcessor(size={"shortest_edge": 28, "longest_edge": 56}, do_image_splitting=False),
        tokenizer,
        image_seq_len=4,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    latents = {"resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8}
    config = t.Idefics2Config(
        text_config=text_of(tokenizer, "mistral"),
        vision_config={k: v for k, v in SIGLIP.items() if k != "model_type"} | {"image_size": 56},
        perceiver_config=latents | {"num_key_value_heads": 1, "hidden_size": 32},
        image_token_id=id_of(tokenizer, "<image>"),
    )
    return save_as("Idefics2ForConditionalGeneration", config, processor, folder)


def build_idefics3(folder: Path) -> Path:
    import transformers as t

    extra = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    extra += [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
    tokenizer = tokenizer_of({"image_token": "<image>"}, extra)
    processor = t.Idefics3Processor(
        t.Idefics3ImageProcessor(size={"longest_edge": 84}, max_image_size={"longest_edge": 28}),
        tokenizer,
        image_seq_len=4,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    config = t.Idefics3Config(
        text_config=text_of(tokenizer, "llama"),
        vision_config={k: v for k, v in SIGLIP.items() if k != "model_type"},
        image_token_id=id_of(tokenizer, "<image>"),
        scale_factor=2,
    )
    return save_as("Idefics3ForConditionalGeneration", config, processor, folder)


def build_got_ocr2(folder: Path) -> Path:
    """The tower gives maps of 8 channels, 16 × 16 of which become the 256 tokens that the processor counts for every
    image; without a block over the whole image, which would have 4,096 patches. No chat template."""
    import transformers as t

    tokenizer = tokenizer_of({}, ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>"])
    processor = t.GotOcr2Processor(t.GotOcr2ImageProcessor(size={"height": 64, "width": 64}), tokenizer)
    vision = {"hidden_size": 24, "output_channels": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 64, "patch_size": 1, "window_size": 8, "global_attn_indexes": [], "mlp_dim": 40}
    config = t.GotOcr2Config(
        text_config=text_of(tokenizer, "qwen2"),
        vision_config=vision,
        image_token_index=id_of(tokenizer, "<imgpad>"),
        image_seq_length=256,
    )
    return save_as("GotOcr2ForConditionalGeneration", config, processor, folder)


def build_ovis2(folder: Path) -> Path:
    """The image's tokens are mixtures of a visual vocabulary's."""
    import transformers as t

    marks = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
    tokenizer = tokenizer_of({}, ["<image>", "<IMG_ATOM>", *marks])
    processor = t.Ovis2Processor(
        t.Ovis2ImageProcessor(size=SIDE, max_patches=4, crop_to_patches=True),
        tokenizer,
        image_seq_length=4,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    vision = VISION | {"image_size": 28, "patch_size": 7, "hidden_stride": 2, "vocab_size": 40}
    config = t.Ovis2Config(
        text_config=text_of(tokenizer, "qwen2"),
        vision_config=vision,
        image_token_id=id_of(tokenizer, "<IMG_ATOM>"),
        visual_indicator_token_ids=[id_of(tokenizer, mark) for mark in marks],
        vocab_size=len(tokenizer),
        hidden_size=TEXT["hidden_size"],
    )
    return save_as("Ovis2ForConditionalGeneration", config, processor, folder)


def build_llama4(folder: Path) -> Path:
    """Every second block is a mixture of experts; the whole model is its own body."""
    import transformers as t

    extra = ["<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>"]
    extra += ["<|tile_x_separator|>", "<|tile_y_separator|>"]
    tokenizer = tokenizer_of({}, extra)
    processor = t.Llama4Processor(
        t.Llama4ImageProcessor(size=SIDE, max_patches=4),
        tokenizer,
        patch_size=7,
        chat_template=TEMPLATE.replace("IMAGE", "<|image|>"),
    )
    text = text_of(tokenizer, "llama4_text", intermediate_size_mlp=48, num_local_experts=4, interleave_moe_layer_step=2)
    vision = VISION | {"image_size": 28, "patch_size": 7, "vision_output_dim": 40, "intermediate_size": 96}
    config = t.Llama4Config(
        text_config=text | {"attention_chunk_size": 64},
        vision_config=vision | {"projector_input_dim": 40, "projector_output_dim": 40},
        image_token_index=id_of(tokenizer, "<|patch|>"),
        boi_token_index=id_of(tokenizer, "<|image_start|>"),
        eoi_token_index=id_of(tokenizer, "<|image_end|>"),
    )
    return save_as("Llama4ForConditionalGeneration", config, processor, folder)


def build_blip2(folder: Path, kind: str = "Blip2") -> Path:
    """A Q-Former with as many blocks as the decoder has; no chat template."""
    import transformers as t

    tokenizer = tokenizer_of({}, ["<image>"])
    images = t.BlipImageProcessor(size=SIDE)
    if kind == "Blip2":
        processor = t.Blip2Processor(images, tokenizer, num_query_tokens=4)
    else:
        processor = t.InstructBlipProcessor(images, tokenizer, tokenizer_of({}), num_query_tokens=4)
    qformer = {k: v for k, v in TEXT.items() if k not in ("num_key_value_heads", "head_dim")}
    text = {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0}
    config = getattr(t, f"{kind}Config")(
        text_config=text_of(tokenizer, "opt") | text,
        vision_config=VISION | {"image_size": 28, "patch_size": 7},
        qformer_config=qformer | {"encoder_hidden_size": 24, "vocab_size": len(tokenizer)},
        num_query_tokens=4,
        image_token_index=id_of(tokenizer, "<image>"),
        image_text_hidden_size=16,
    )
    return save_as(f"{kind}ForConditionalGeneration", config, processor, folder)


def build_instructblip(folder: Path) -> Path:
    return build_blip2(folder, "InstructBlip")


def build_aria(folder: Path) -> Path:
    """Images padded to a square, with a mask; blocks of experts."""
    import transformers as t

    tokenizer = tokenizer_of({"image_token": "<|img|>"})
    processor = t.AriaProcessor(
        t.AriaImageProcessor(max_image_size=980, min_image_size=28),
        tokenizer,
        size_conversion={490: 4, 980: 8},
        chat_template=TEMPLATE.replace("IMAGE", "<|img|>"),
    )
    vision = {k: v for k, v in SIGLIP.items() if k != "model_type"} | {"image_size": 490, "patch_size": 70}
    config = t.AriaConfig(
        text_config=text_of(tokenizer, "aria_text", moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1),
        vision_config=vision | {"model_type": "idefics3_vision"},
        projector_patch_to_query_dict={49: 4, 196: 8},
        image_token_index=id_of(tokenizer, "<|img|>"),
    )
    return save_as("AriaForConditionalGeneration", config, processor, folder)


def build_lfm2_vl(folder: Path) -> Path:
    """Tiles of 32 pixels and a thumbnail that keeps the image's shape, padded to a fixed number of patches; half of the
    decoder's blocks are short convolutions."""
    import transformers as t

    named = {"image_token": "<image>", "image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>"}
    named |= {"image_thumbnail_token": "<|img_thumbnail|>"}
    extra = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)]
    tokenizer = tokenizer_of(named, extra)
    sizes: dict[str, Any] = {"tile_size": 32, "min_image_tokens": 2, "max_image_tokens": 6, "encoder_patch_size": 8}
    processor = t.Lfm2VlProcessor(
        t.Lfm2VlImageProcessor(size={"height": 32, "width": 32}, max_tiles=4, **sizes),
        tokenizer,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    text = text_of(tokenizer, "lfm2", layer_types=["conv", "full_attention"] * 3)
    config = t.Lfm2VlConfig(
        text_config=text,
        vision_config=VISION | {"model_type": "siglip2_vision_model", "patch_size": 8, "num_patches": 16},
        image_token_id=id_of(tokenizer, "<image>"),
        projector_hidden_size=32,
    )
    return save_as("Lfm2VlForConditionalGeneration", config, processor, folder)


def build_molmo2(folder: Path) -> Path:
    """Tokens of the image are pooled from patches that the processor names by their number."""
    import transformers as t

    marks = {"image_start": "<im_start>", "low_res_image_start": "<low_res_im_start>", "image_end": "<im_end>"}
    marks |= {"frame_start": "<frame_start>", "frame_end": "<frame_end>"}
    extra = ["<im_patch>", "<im_col>", "<im_low>", *marks.values()]
    tokenizer = tokenizer_of({"image_token": "<|image|>", "video_token": "<|video|>"}, extra)
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
        image_patch_id=id_of(tokenizer, "<im_patch>"),
        **{f"{name}_token_id": id_of(tokenizer, mark) for name, mark in marks.items()},
    )
    return save_as("Molmo2ForConditionalGeneration", config, processor, folder)


BUILDERS_E: dict[str, Callable[[Path], Path]] = {
    "idefics2": build_idefics2,
    "idefics3": build_idefics3,
    "got_ocr2": build_got_ocr2,
    "ovis2": build_ovis2,
    "llama4": build_llama4,
    "blip-2": build_blip2,
    "instructblip": build_instructblip,
    "aria": build_aria,
    "lfm2_vl": build_lfm2_vl,
    "molmo2": build_molmo2,
}
