"""The tiny checkpoints of group B load as published ones do, and their references tell images and questions apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.tiny_vlm import page

from .checkpoints.group_b import BUILDERS_B
from .references_b import REFERENCES_B

LAYERS = (0, 2, 4, 6, 7)
WIDE, TALL = page(170, 60, 2), page(60, 200, 4)
NAMES = list(BUILDERS_B)
Checkpoint = Callable[[str], Path]


def test_every_builder_has_a_reference() -> None:
    assert list(REFERENCES_B) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_loads_by_the_auto_classes_and_generates(name: str, checkpoint: Checkpoint) -> None:
    """Phi-4-multimodal is no image-text-to-text model to transformers; the wider class knows it."""
    import transformers as t

    folder = checkpoint(name)
    wide = name == "phi4_multimodal"
    model: Any = (t.AutoModelForMultimodalLM if wide else t.AutoModelForImageTextToText).from_pretrained(folder)
    processor: Any = t.AutoProcessor.from_pretrained(folder)
    template = processor.chat_template or processor.tokenizer.chat_template
    content = [{"type": "image", "image": WIDE}, {"type": "text", "text": "Why?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    grown = model.generate(**inputs, max_new_tokens=3)
    assert model.config.model_type == json.loads((folder / "config.json").read_text())["model_type"]
    assert (folder / "generation_config.json").exists()
    assert 1 <= grown.shape[1] - inputs["input_ids"].shape[1] <= 3


PROMPTS = {
    "smolvlm": "<|im_start|>User:IMAGEWhy?<end_of_utterance>\nAssistant:",
    "internvl3": "<|im_start|>user\n<img>IMAGE</img>\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "internvl3.5": "<|im_start|>user\n<img>IMAGE</img>\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "mllama": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nIMAGEWhy?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "phi4_multimodal": "<|user|>IMAGEWhy?<|end|><|assistant|>",
    "fast_vlm": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nIMAGE\nWhy?<|im_end|>\n<|im_start|>assistant\n",
}
"""As the published templates write them; IMAGE: the expanded image."""

_TILE = "<fake_token_around_image><row_{}_col_{}>" + "<image>" * 4
_WHOLE = "<fake_token_around_image><global-img>" + "<image>" * 4 + "<fake_token_around_image>"
IMAGES = {
    "smolvlm": "".join("".join(_TILE.format(row, column) for column in (1, 2, 3)) + "\n" for row in (1, 2))
    + f"\n{_WHOLE}",  # 84 pixels wide: 3 tiles; 30 high: 2
    "internvl3": "<IMG_CONTEXT>" * 4 * 4,  # 170 : 60 is nearest to 3 : 1, and there is the whole image
    "internvl3.5": "<IMG_CONTEXT>" * 4 * 4,
    "mllama": "<|image|>",
    "phi4_multimodal": "<|image|>" * (12 * (32 + 1) + 1 + 16 * (16 + 1)),  # 128 × 64 pixels, the last 19 rows padding
    "fast_vlm": "<image>" * 16,
}
"""Of the wide image."""


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_is_the_published_one_and_the_image_tokens_are_found(name: str, checkpoint: Checkpoint) -> None:
    import transformers as t

    row = REFERENCES_B[name](checkpoint(name), WIDE, "Why?", LAYERS)
    tokenizer: Any = t.AutoTokenizer.from_pretrained(checkpoint(name))
    image_token = {"smolvlm": "<image>", "fast_vlm": "<image>", "mllama": "<|image|>", "phi4_multimodal": "<|image|>"}
    found = {tokenizer.decode([row.input_ids[place]]) for place in row.image_positions}
    assert tokenizer.decode(row.input_ids) == PROMPTS[name].replace("IMAGE", IMAGES[name])
    assert found == {image_token.get(name, "<IMG_CONTEXT>")}
    assert len(row.image_positions) == IMAGES[name].count(found.pop())
    assert row.query_position == len(row.input_ids) - 1 > row.image_positions[-1]


@pytest.mark.parametrize("name", NAMES)
def test_states_tell_images_and_questions_apart(name: str, checkpoint: Checkpoint) -> None:
    """In every layer: the last token knows both, the last image token does not know the question behind it."""
    folder = checkpoint(name)
    rows = {
        (picture, question): REFERENCES_B[name](folder, image, question, LAYERS)
        for picture, image in (("wide", WIDE), ("tall", TALL))
        for question in ("Why?", "Who?")
    }
    base = rows["wide", "Why?"]
    assert base.vision_only.dtype == np.float32 and base.vision_only.ndim == 1
    assert not np.allclose(base.vision_only, rows["tall", "Why?"].vision_only, atol=0.01)
    np.testing.assert_array_equal(base.vision_only, rows["wide", "Who?"].vision_only)
    seeing = [layer for layer in LAYERS if layer >= (2 if name == "mllama" else 0)]  # blocks 2 and 5 read the image
    for layer in LAYERS:
        assert base.layers[layer].shape == (len(base.input_ids), 32)
        assert np.isfinite(base.layers[layer]).all()
        other = rows["wide", "Who?"].layers[layer]
        last = base.image_positions[-1]
        assert np.abs(base.layers[layer][-1] - other[-1]).max() > 0.01
        np.testing.assert_allclose(base.layers[layer][last], other[last], atol=1e-4)
    for layer in seeing:
        other = rows["tall", "Why?"].layers[layer]
        assert np.abs(base.layers[layer][-1] - other[-1]).max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_layers_and_places_differ(name: str, checkpoint: Checkpoint) -> None:
    """An extractor that takes a neighbouring layer or token is found out."""
    row = REFERENCES_B[name](checkpoint(name), TALL, "What does the table show?", range(8))
    for layer in range(1, 8):
        assert np.abs(row.layers[layer] - row.layers[layer - 1]).max(axis=1).min() > 0.01
        for place in (row.image_positions[-1], row.query_position):
            assert np.abs(row.layers[layer][place] - row.layers[layer][place - 1]).max() > 0.05


def test_the_reference_of_phi4_sees_an_image_both_ways(checkpoint: Checkpoint) -> None:
    """No patch of a square image is padding. Its first token, which comes before all others, knows the last patch."""
    image = page(64, 64, 5)
    other = image.copy()
    other.paste((255, 0, 0), (48, 48, 64, 64))
    rows = [
        REFERENCES_B["phi4_multimodal"](checkpoint("phi4_multimodal"), each, "Why?", [0]) for each in (image, other)
    ]
    first = rows[0].image_positions[0]
    assert np.abs(rows[0].layers[0][first] - rows[1].layers[0][first]).max() > 1e-3


def test_a_build_is_the_same_every_time(checkpoint: Checkpoint, tmp_path: Path) -> None:
    again = BUILDERS_B["mllama"](tmp_path / "again")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (again / name).read_bytes() == (checkpoint("mllama") / name).read_bytes()
