"""Gemma 3, PaliGemma, Qwen2.5-VL, Qwen3-VL and LLaVA-NeXT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raylib.models.untrained import build_tokenizer

from .common import TEXT, VISION, ids, save

GEMMA_TEMPLATE = """{{ bos_token -}}
{%- for message in messages -%}
    {%- set speaker = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + speaker + '\n' -}}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim -}}
    {%- else -%}
        {%- for part in message['content'] -%}
            {{ '<start_of_image>' if part['type'] == 'image' else part['text'] | trim -}}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}
"""
"""Writes the BOS, which the tokenizer adds as well when it is not told otherwise."""

QWEN_TEMPLATE = """{%- for message in messages -%}
    {%- if loop.first and system and message['role'] != 'system' -%}
        {{ '<|im_start|>system\n' + system + '<|im_end|>\n' -}}
    {%- endif -%}
    {{ '<|im_start|>' + message['role'] + '\n' -}}
    {%- if message['content'] is string -%}
        {{ message['content'] -}}
    {%- else -%}
        {%- for part in message['content'] -%}
            {{ '<|vision_start|><|image_pad|><|vision_end|>' if part['type'] == 'image' else part['text'] -}}
        {%- endfor -%}
    {%- endif -%}
    {{ '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""
"""No BOS: Qwen's tokenizer has none. `system`: what is said where no system message is given."""

MISTRAL_TEMPLATE = """{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{ '[INST] ' -}}
        {%- for part in message['content'] if part['type'] == 'image' -%}{{ '<image>\n' -}}{%- endfor -%}
        {%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] -}}{%- endfor -%}
        {{ ' [/INST]' -}}
    {%- else -%}
        {%- for part in message['content'] -%}{{ ' ' + part['text'] + eos_token -}}{%- endfor -%}
    {%- endif -%}
{%- endfor -%}
"""
"""No BOS: the tokenizer adds it. All images of a message come first, and the turn's end is the generation prompt."""

GEMMA_SPECIALS = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}


def build_gemma3(folder: Path) -> Path:
    """56-pixel images of 16 patches, pooled to 4 tokens between two marks; all decoder blocks but the last see 8
    tokens back only. Pads on the left."""
    import transformers as t

    named: dict[str, Any] = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    extra = [*named.values(), "<start_of_turn>", "<end_of_turn>"]
    tokenizer = build_tokenizer(
        GEMMA_SPECIALS, template="<bos> $A", extra_tokens=extra, padding_side="left", max_length=2048
    )
    tokenizer._set_model_specific_special_tokens(special_tokens=named)
    images = t.Gemma3ImageProcessor(size={"height": 56, "width": 56})
    processor = t.Gemma3Processor(images, tokenizer, chat_template=GEMMA_TEMPLATE, image_seq_length=4)
    text = TEXT | {"vocab_size": len(tokenizer), "sliding_window": 8, "query_pre_attn_scalar": 16}
    marks: dict[str, Any] = {
        name.replace("token", "token_index"): tokenizer.get_vocab()[mark] for name, mark in named.items()
    }
    config = t.Gemma3Config(
        text_config=text | ids(tokenizer, "pad", "eos", "bos"),
        vision_config=VISION | {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14},
        mm_tokens_per_image=4,
        **marks,
    )
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    special = ids(tokenizer, "pad", "bos") | {"eos_token_id": ends}
    return save(t.Gemma3ForConditionalGeneration, config, processor, folder, seed=11, **special)


def build_paligemma(folder: Path) -> Path:
    """42-pixel images of 9 patches, a token each. No chat template."""
    import transformers as t

    tokenizer = build_tokenizer(GEMMA_SPECIALS, extra_tokens=["<image>"], max_length=2048)
    tokenizer._set_model_specific_special_tokens(special_tokens={"image_token": "<image>"})
    images: Any = t.SiglipImageProcessor(size={"height": 42, "width": 42})
    images.image_seq_length = 9
    processor = t.PaliGemmaProcessor(images, tokenizer)
    tokens = len(tokenizer)  # the processor has just added its places and segments
    special = ids(tokenizer, "pad", "eos", "bos")
    image: Any = tokenizer.convert_tokens_to_ids("<image>")
    config = t.PaliGemmaConfig(
        text_config=TEXT | special | {"model_type": "gemma", "vocab_size": tokens},
        vision_config=VISION | {"model_type": "siglip_vision_model", "image_size": 42, "patch_size": 14},
        image_token_index=image,
        projection_dim=TEXT["hidden_size"],
        hidden_size=TEXT["hidden_size"],
        vocab_size=tokens,
    )
    return save(t.PaliGemmaForConditionalGeneration, config, processor, folder, seed=12, **special)


QWEN_TOKENS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def _qwen_tokenizer() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The tokenizer, the config's names of the tokens around images, and what ends an answer."""
    specials = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = build_tokenizer(specials, extra_tokens=QWEN_TOKENS, max_length=2048)
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    names |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    tokenizer._set_model_specific_special_tokens(special_tokens={f"{name}_token": t for name, t in names.items()})
    generation = {"eos_token_id": [tokenizer.eos_token_id, tokenizer.pad_token_id]} | ids(tokenizer, "pad")
    return tokenizer, {f"{name}_token_id": tokenizer.get_vocab()[t] for name, t in names.items()}, generation


def build_qwen2_5_vl(folder: Path) -> Path:
    """Images of 4 to 24 tokens of 28 × 28 pixels; all blocks of the tower but the last see windows of 4 tokens."""
    import transformers as t

    tokenizer, named, generation = _qwen_tokenizer()
    images = t.Qwen2VLImageProcessor(size={"shortest_edge": 4 * 28 * 28, "longest_edge": 24 * 28 * 28})
    template = "{%- set system = 'You are a helpful assistant.' -%}\n" + QWEN_TEMPLATE
    processor = t.Qwen2_5_VLProcessor(images, tokenizer, t.Qwen2VLVideoProcessor(), chat_template=template)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope}
    text = {name: value for name, value in text.items() if name != "head_dim"}
    vision = {"depth": 3, "hidden_size": 24, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 14, "spatial_merge_size": 2, "window_size": 56, "fullatt_block_indexes": [2]}
    config = t.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **named)
    return save(t.Qwen2_5_VLForConditionalGeneration, config, processor, folder, seed=13, **generation)


def build_qwen3_vl(folder: Path) -> Path:
    """Images of 4 to 24 tokens of 32 × 32 pixels; the tower's first two blocks are added to the states between the
    first decoder blocks."""
    import transformers as t

    tokenizer, named, generation = _qwen_tokenizer()
    images = t.Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 4 * 32 * 32, "longest_edge": 24 * 32 * 32})
    template = "{%- set system = '' -%}\n" + QWEN_TEMPLATE
    processor = t.Qwen3VLProcessor(images, tokenizer, t.Qwen3VLVideoProcessor(), chat_template=template)
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0, "mrope_interleaved": True}
    vision = {"depth": 3, "hidden_size": 24, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"patch_size": 16, "spatial_merge_size": 2, "num_position_embeddings": 16}
    config = t.Qwen3VLConfig(
        text_config=TEXT | {"vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config=vision | {"deepstack_visual_indexes": [0, 1]},
        **named,
    )
    return save(t.Qwen3VLForConditionalGeneration, config, processor, folder, seed=14, **generation)


def build_llava_next(folder: Path) -> Path:
    """A CLIP tower with a class token over tiles of 28 pixels, 4 tokens each: the whole image and, by its shape, 2 to
    4 tiles of it; a Mistral text model. Pads on the left."""
    import transformers as t

    specials = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = build_tokenizer(
        specials, template="<s> $A", extra_tokens=["<image>"], padding_side="left", max_length=4096
    )
    tokenizer._set_model_specific_special_tokens(special_tokens={"image_token": "<image>"})
    grid = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    crop = {"height": 28, "width": 28}
    processor = t.LlavaNextProcessor(
        t.LlavaNextImageProcessor(size={"shortest_edge": 28}, crop_size=crop, image_grid_pinpoints=grid),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=MISTRAL_TEMPLATE,
    )
    special = ids(tokenizer, "pad", "eos", "bos")
    image: Any = tokenizer.convert_tokens_to_ids("<image>")
    vision = VISION | {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, "projection_dim": 24}
    config = t.LlavaNextConfig(
        text_config=TEXT | special | {"model_type": "mistral", "vocab_size": len(tokenizer), "sliding_window": None},
        vision_config=vision,
        image_token_index=image,
        image_grid_pinpoints=grid,
        image_seq_length=4,
    )
    return save(t.LlavaNextForConditionalGeneration, config, processor, folder, seed=15, **special)


BUILDERS_A: dict[str, Callable[[Path], Path]] = {
    "gemma3": build_gemma3,
    "paligemma": build_paligemma,
    "qwen2_5_vl": build_qwen2_5_vl,
    "qwen3_vl": build_qwen3_vl,
    "llava_next": build_llava_next,
}
