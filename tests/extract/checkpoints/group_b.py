"""Tiny random checkpoints of SmolVLM2, InternVL3 and 3.5, Llama-3.2-Vision, Phi-4-multimodal and FastVLM: the true
architecture, its whole processor with a chat template, and a generation config.

The templates are written anew, with the published ones' special tokens, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raylib.models.untrained import build_tokenizer, seeded

from .common import ids

TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
"""Eight decoder blocks: 0, 1/4, 1/2, 3/4 and the last are five different ones."""

VISION: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2}

SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for turn in messages %}{{ turn['role'].capitalize() }}:"
    "{% if turn['content'][0]['type'] != 'image' %}{{ ' ' }}{% endif %}"
    "{% for part in turn['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{{ 'Assistant:' if add_generation_prompt else '' }}"
)

QWEN_TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] + '\n' }}"
    "{% for part in turn['content'] %}{{ 'IMAGE\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<|im_end|>{{ '\n' }}{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt else '' }}"
)
"""Of InternVL; IMAGE stands for the placeholder."""

FASTVLM_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system{{ '\n' }}You are a helpful assistant.<|im_end|>"
    "{{ '\n' }}{% endif %}" + QWEN_TEMPLATE.replace("IMAGE", "<image>")
)

LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}<|start_header_id|>{{ turn['role'] }}<|end_header_id|>{{ '\n\n' }}"
    "{% for part in turn['content'] %}{{ '<|image|>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}"
    "<|eot_id|>{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' if add_generation_prompt else '' }}"
)

PHI_TEMPLATE = (
    "{% for turn in messages %}<|{{ turn['role'] }}|>"
    "{% for part in turn['content'] %}{{ '<|image|>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<|end|>{% endfor %}{{ '<|assistant|>' if add_generation_prompt else '' }}"
)


def _save(model_class: Any, config: Any, processor: Any, folder: Path, seed: int) -> Path:
    """Write a model with random weights in which everything shows: no gate, scale or embedding stays at zero or one."""
    import torch
    from transformers import GenerationConfig

    with seeded(seed):
        model = model_class(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim > 1 and "norm" not in name:
                    weight.normal_(std=0.2)
                elif "norm" in name and name.endswith("weight"):
                    weight.normal_(mean=1.0, std=0.1)
                else:
                    weight.normal_(mean=0.5 if "gate" in name or "lambda" in name else 0.0, std=0.1)
    model.generation_config = GenerationConfig(do_sample=False, **ids(processor.tokenizer, "bos", "eos", "pad"))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _id(tokenizer: Any, token: str) -> Any:
    return tokenizer.get_vocab()[token]


def build_smolvlm(folder: Path, seed: int = 11) -> Path:
    """SmolVLM2: tiles of 28 pixels with 4 tokens each, up to 3 rows and 3 columns, and the whole image as the last."""
    import transformers as t

    named = ["<image>", "<fake_token_around_image>", "<global-img>", "<video>"]
    named += [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
    specials = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"}
    tokenizer = build_tokenizer(specials, extra_tokens=named, max_length=4096, padding_side="left")
    processor = t.SmolVLMProcessor(
        image_processor=t.SmolVLMImageProcessor(size={"longest_edge": 84}, max_image_size={"longest_edge": 28}),
        tokenizer=tokenizer,
        video_processor=t.SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template=SMOLVLM_TEMPLATE,
    )
    config = t.SmolVLMConfig(
        text_config=TEXT | ids(tokenizer, "bos", "eos", "pad") | {"model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config=VISION | {"num_hidden_layers": 2, "image_size": 28, "patch_size": 7},
        image_token_id=_id(tokenizer, "<image>"),
        scale_factor=2,
    )
    return _save(t.SmolVLMForConditionalGeneration, config, processor, folder, seed)


def _build_internvl(folder: Path, text: dict[str, Any], seed: int) -> Path:
    import transformers as t

    named: dict[str, Any] = {"start_image_token": "<img>", "end_image_token": "</img>"}
    named |= {"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    tokenizer = build_tokenizer(
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        extra_tokens=["<|im_start|>", *named.values()],
        max_length=4096,
        padding_side="left",
    )
    tokenizer._set_model_specific_special_tokens(special_tokens=named)
    images = t.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, max_patches=4)
    processor = t.InternVLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=t.InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=QWEN_TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>"),
    )
    config = t.InternVLConfig(
        text_config=TEXT | ids(tokenizer, "bos", "eos", "pad") | text | {"vocab_size": len(tokenizer)},
        vision_config=VISION | {"num_hidden_layers": 3, "image_size": [28, 28], "patch_size": [7, 7]},
        image_token_id=_id(tokenizer, "<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    return _save(t.InternVLForConditionalGeneration, config, processor, folder, seed)


def build_internvl3(folder: Path, seed: int = 12) -> Path:
    """InternVL3, with Qwen2: up to 4 tiles of 28 pixels with 4 tokens each, and the whole image as the last."""
    return _build_internvl(folder, {"model_type": "qwen2"}, seed)


def build_internvl35(folder: Path, seed: int = 13) -> Path:
    """InternVL3.5, with Qwen3; tiles as in InternVL3."""
    return _build_internvl(folder, {"model_type": "qwen3", "head_dim": 8}, seed)


def build_mllama(folder: Path, seed: int = 14) -> Path:
    """Llama-3.2-Vision: up to 4 tiles of 28 pixels, 17 vision tokens each, read by blocks 2 and 5 of the decoder.

    As published, the image token's id is the first one past the language model's vocabulary.
    """
    import transformers as t

    specials = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|finetune_right_pad_id|>"}
    tokenizer = build_tokenizer(
        specials,
        template="<|begin_of_text|> $A",
        extra_tokens=["<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"],
        max_length=4096,
        padding_side="left",
    )
    vocabulary = len(tokenizer)
    tokenizer.add_tokens(["<|image|>"], special_tokens=True)
    images = t.MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4)
    processor = t.MllamaProcessor(image_processor=images, tokenizer=tokenizer, chat_template=LLAMA_TEMPLATE)
    vision = {"hidden_size": 24, "intermediate_size": 32, "attention_heads": 2, "num_hidden_layers": 3}
    vision |= {"num_global_layers": 2, "intermediate_layers_indices": [0, 2], "vision_output_dim": 72}
    config = t.MllamaConfig(
        text_config=TEXT
        | ids(tokenizer, "bos", "eos", "pad")
        | {"vocab_size": vocabulary, "cross_attention_layers": [2, 5]},
        vision_config=vision | {"image_size": 28, "patch_size": 7, "max_num_tiles": 4},
        image_token_index=_id(tokenizer, "<|image|>"),
    )
    return _save(t.MllamaForConditionalGeneration, config, processor, folder, seed)


def build_phi4(folder: Path, seed: int = 15) -> Path:
    """Phi-4-multimodal: up to 2 crops of 64 pixels and the whole image.

    The processor counts 16 × 16 tokens for a crop whatever its size, so that a crop has 32 × 32 patches here too.
    """
    import transformers as t

    specials = {"bos_token": "<|endoftext|>", "eos_token": "<|end|>", "pad_token": "<|endoftext|>"}
    named: dict[str, Any] = {"image_token": "<|image|>", "audio_token": "<|audio|>"}
    tokenizer = build_tokenizer(
        specials,
        extra_tokens=["<|user|>", "<|assistant|>", "<|system|>", *named.values()],
        max_length=4096,
        padding_side="left",
    )
    tokenizer._set_model_specific_special_tokens(special_tokens=named)
    processor = t.Phi4MultimodalProcessor(
        image_processor=t.Phi4MultimodalImageProcessor(size={"height": 64, "width": 64}, patch_size=2, dynamic_hd=2),
        audio_processor=t.Phi4MultimodalFeatureExtractor(),
        tokenizer=tokenizer,
        chat_template=PHI_TEMPLATE,
    )
    vision = VISION | {"num_hidden_layers": 3, "image_size": 64, "crop_size": 64, "patch_size": 2}
    audio = {"hidden_size": 16, "intermediate_size": 16, "num_blocks": 1, "num_attention_heads": 2}
    audio |= {"ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16, "nemo_conv_channels": 8}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
    rope |= {"short_factor": [1.0, 1.1, 1.2], "long_factor": [1.0, 2.0, 4.0], "factor": 2.0}
    text: dict[str, Any] = TEXT | {"vocab_size": len(tokenizer), "max_position_embeddings": 8192}
    config = t.Phi4MultimodalConfig(
        **(text | ids(tokenizer, "bos", "eos", "pad")),
        original_max_position_embeddings=4096,
        rope_parameters=rope,
        vision_config=vision | {"image_token_id": _id(tokenizer, "<|image|>")},
        audio_config=audio | {"audio_token_id": _id(tokenizer, "<|audio|>")},
    )
    return _save(t.Phi4MultimodalForCausalLM, config, processor, folder, seed)


def build_fastvlm(folder: Path, seed: int = 16) -> Path:
    """FastVLM, with a ConvNeXt in the place of timm's FastViT-HD, which gives channels first as that one does."""
    import transformers as t

    tokenizer = build_tokenizer(
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        extra_tokens=["<|im_start|>", "<image>"],
        max_length=4096,
        padding_side="left",
    )
    side = {"height": 64, "width": 64}
    images = t.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=side, image_mean=[0.0] * 3, image_std=[1.0] * 3)
    processor = t.LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="full",
        chat_template=FASTVLM_TEMPLATE,
    )
    tower = {"model_type": "convnext", "hidden_sizes": [12, 24], "depths": [1, 1], "num_stages": 2, "patch_size": 8}
    config = t.FastVlmConfig(
        text_config=TEXT | ids(tokenizer, "bos", "eos", "pad") | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config=tower | {"hidden_size": 24},
        image_token_index=_id(tokenizer, "<image>"),
        image_seq_length=16,
    )
    return _save(t.FastVlmForConditionalGeneration, config, processor, folder, seed)


BUILDERS_B: dict[str, Callable[[Path], Path]] = {
    "smolvlm": build_smolvlm,
    "internvl3": build_internvl3,
    "internvl3.5": build_internvl35,
    "mllama": build_mllama,
    "phi4_multimodal": build_phi4,
    "fast_vlm": build_fastvlm,
}
"""Name → what writes the checkpoint into a folder and returns the folder."""
