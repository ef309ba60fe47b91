"""The tiny checkpoints load as published ones do, and their references tell images and questions apart."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .checkpoints import BUILDERS
from .checkpoints.group_a import BUILDERS_A
from .made import images_folder, rows
from .references import ReferenceRow
from .references_a import REFERENCES_A

Checkpoint = Callable[[str], Path]
NAMES = list(BUILDERS_A)
LAYERS = [0, 1, 3, 4, 5]
SQUARE, WIDE, TALL = (row.image for row in rows()[:3])


def load(folder: Path) -> tuple[Any, Any]:
    import transformers as t

    return t.AutoModelForImageTextToText.from_pretrained(folder).eval(), t.AutoProcessor.from_pretrained(folder)


def inputs_of(name: str, processor: Any, asked: list[tuple[Image.Image, str]]) -> Any:
    """The padded batch of images and questions."""
    prompts = []
    for _, question in asked:
        turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        prompt = processor.apply_chat_template([turn], add_generation_prompt=True) if processor.chat_template else None
        prompts.append(prompt or f"<image>{question}")
    bos = name not in ("gemma3", "paligemma")  # whose prompts have one already
    images = [[image] for image, _ in asked]
    inputs = processor(text=prompts, images=images, padding=True, add_special_tokens=bos, return_tensors="pt")
    inputs.pop("labels", None)
    return inputs


def refer(checkpoint: Checkpoint, name: str, image: Image.Image, question: str) -> ReferenceRow:
    return REFERENCES_A[name](checkpoint(name), image, question, LAYERS)


def test_every_builder_of_this_half_has_a_reference() -> None:
    assert list(REFERENCES_A) == NAMES
    assert set(NAMES) <= set(BUILDERS)


@pytest.mark.parametrize("name", NAMES)
def test_loads_by_the_auto_classes_and_generates_in_a_batch(name: str, checkpoint: Checkpoint) -> None:
    """Two rows of different lengths, padded on the left, go on as each of them alone."""
    import torch

    model, processor = load(checkpoint(name))
    processor.tokenizer.padding_side = "left"
    two = [(SQUARE, "Why?"), (WIDE, "Which page describes the figure on the left?")]
    answers = []
    for asked in [two, two[:1], two[1:]]:
        inputs = inputs_of(name, processor, asked)
        with torch.inference_mode():
            grown = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False)
        answers += grown[:, inputs["input_ids"].shape[1] :].tolist()
    assert type(model).__name__.endswith("ForConditionalGeneration")
    assert model.config.model_type == name
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id
    assert answers[:2] == answers[2:]
    assert answers[0] != answers[1]


PROMPTS = {
    "gemma3": "<bos><start_of_turn>user\n\n\n<start_of_image>IMAGE<end_of_image>\n\nWhy?<end_of_turn>\n"
    "<start_of_turn>model\n",
    "paligemma": "IMAGE<bos>Why?\n",
    "qwen2_5_vl": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    "<|vision_start|>IMAGE<|vision_end|>Why?<|im_end|>\n<|im_start|>assistant\n",
    "qwen3_vl": "<|im_start|>user\n<|vision_start|>IMAGE<|vision_end|>Why?<|im_end|>\n<|im_start|>assistant\n",
    "llava_next": "<s>[INST] IMAGE\nWhy? [/INST]",
}


@pytest.mark.parametrize("name", NAMES)
def test_prompt_is_that_of_the_published_model(name: str, checkpoint: Checkpoint) -> None:
    """One BOS where the model has one, and the image's tokens in one piece."""
    model, processor = load(checkpoint(name))
    found = refer(checkpoint, name, SQUARE, "Why?")
    text = processor.tokenizer.decode(found.input_ids)
    token = processor.tokenizer.convert_ids_to_tokens(model.config.image_token_id)
    places = found.image_positions
    assert text == PROMPTS[name].replace("IMAGE", token * len(places))
    assert places == list(range(places[0], places[0] + len(places)))
    assert found.query_position == len(found.input_ids) - 1


# What an image must take, from the sizes alone: by width and height, (40, 40), (90, 30) and (200, 120).
TOKENS = {
    "gemma3": [4, 4, 4],  # mm_tokens_per_image
    "paligemma": [9, 9, 9],  # (42 / 14)²
    "qwen2_5_vl": [4, 8, 18],  # 56 × 56, 112 × 56 and 168 × 84 pixels in squares of 28
    "qwen3_vl": [4, 8, 24],  # 64 × 64, 128 × 64 and 192 × 128 pixels in squares of 32
    # The whole image's 4; then, of 2 × 2, 3 × 1 and 2 × 2 tiles, the grid of patches less padding, and a mark a row
    "llava_next": [4 + 4 * 4 + 4, 4 + 2 * 6 + 2, 4 + 2 * 4 + 2],
}


@pytest.mark.parametrize("name", NAMES)
def test_image_tokens_by_size_of_image(name: str, checkpoint: Checkpoint) -> None:
    images = [SQUARE, WIDE, rows()[3].image]
    assert [len(refer(checkpoint, name, image, "Why?").image_positions) for image in images] == TOKENS[name]


@pytest.mark.parametrize("name", NAMES)
def test_states_tell_images_and_questions_apart(name: str, checkpoint: Checkpoint) -> None:
    """At the last token by both; at the image's last token by the image, and by the question only where a prompt is
    read both ways. The vision tower knows no question."""
    wide, tall, other = (
        refer(checkpoint, name, image, question) for image, question in [(WIDE, "Why?"), (TALL, "Why?"), (WIDE, "Who?")]
    )
    assert np.array_equal(wide.vision_only, other.vision_only)
    assert np.abs(wide.vision_only - tall.vision_only).max() > 0.1
    for layer in LAYERS:
        a, b, c = (found.layers[layer] for found in (wide, tall, other))
        assert a.shape == (len(wide.input_ids), 32)
        image, question = np.abs(a[-1] - b[-1]).max(), np.abs(a[-1] - c[-1]).max()
        # Gemma 3's blocks see 7 tokens back each: the first one what follows the question, the second no image yet.
        assert image > 0.01 if name != "gemma3" or layer > 1 else image < 1e-5
        assert question > 0.1 if name != "gemma3" or layer > 0 else question < 1e-5
        seen = [states[row.image_positions[-1]] for states, row in ((a, wide), (b, tall), (c, other))]
        assert np.abs(seen[0] - seen[1]).max() > 0.1
        ahead = np.abs(seen[0] - seen[2]).max()
        assert ahead > 0.1 if name == "paligemma" else ahead < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_states_are_not_what_the_final_norm_gives(name: str, checkpoint: Checkpoint) -> None:
    """Nor the layer before: transformers' hidden_states[k + 1] is block k's output, but for the last."""
    import torch

    model, processor = load(checkpoint(name))
    found = refer(checkpoint, name, SQUARE, "Why?")
    inputs = inputs_of(name, processor, [(SQUARE, "Why?")])
    with torch.inference_mode():
        out = model.model(**inputs, use_cache=False, output_hidden_states=True)
        normed = model.model.language_model.norm(torch.from_numpy(found.layers[5]))
    assert len(out.hidden_states) == 7
    for layer in LAYERS[:-1]:
        assert np.abs(out.hidden_states[layer + 1][0].numpy() - found.layers[layer]).max() < 1e-5
    assert np.abs(out.last_hidden_state[0].numpy() - normed.numpy()).max() < 1e-5
    assert np.abs(out.last_hidden_state[0].numpy() - found.layers[5]).max() > 0.5


def test_vision_towers_have_the_width_and_patches_of_their_config(checkpoint: Checkpoint) -> None:
    """vision_only is a mean over every patch, not over merged or chosen ones: of Qwen, whose tower is narrower than
    its text model, and of LLaVA-NeXT, whose tower has a class token and three to five tiles."""
    import torch

    for name in NAMES:
        assert refer(checkpoint, name, WIDE, "Why?").vision_only.shape == (24,)
    model, processor = load(checkpoint("llava_next"))
    counts = [processor.image_processor(images=row.image.convert("RGB"))["pixel_values"][0].shape[0] for row in rows()]
    assert set(counts) == {3, 4, 5}
    pixels = processor.image_processor(images=WIDE, return_tensors="pt")["pixel_values"][0]
    with torch.inference_mode():
        one_by_one = [model.model.vision_tower(tile[None]).last_hidden_state[0] for tile in pixels]
    by_hand = torch.cat(one_by_one).mean(0).numpy()
    assert torch.cat(one_by_one).shape == (4 * (1 + 4), 24)
    assert np.abs(refer(checkpoint, "llava_next", WIDE, "Why?").vision_only - by_hand).max() < 1e-5


def test_built_twice_is_the_same(tmp_path: Path, checkpoint: Checkpoint) -> None:
    for name in NAMES:
        again = BUILDERS[name](tmp_path / name)
        for file in ("model.safetensors", "config.json", "tokenizer.json"):
            assert (again / file).read_bytes() == (checkpoint(name) / file).read_bytes()
        assert json.loads((again / "config.json").read_text())["model_type"] == name


def test_rows_are_mixed_and_written_as_they_are(tmp_path: Path) -> None:
    table, folder = images_folder(tmp_path)
    with table.open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    made = rows()
    assert [(w["question_id"], w["question"], w["gt_answer"]) for w in written] == [
        (row.question_id, row.question, row.gt_answer) for row in made
    ]
    lengths = [len(row.question.split()) for row in made]
    assert (len(made), min(lengths), max(lengths)) == (8, 1, 30)
    assert {row.image.mode for row in made} == {"RGB", "L", "RGBA", "P"}
    for row, line in zip(made, written, strict=True):
        with Image.open(folder / line["image_name"]) as image:
            assert image.mode == row.image.mode
            assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(row.image.convert("RGB")))
