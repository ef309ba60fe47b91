"""VLM2Vec over LLaVA-NeXT against transformers' own processor and model, called on one content at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.models.vlm_llava import LlavaNextEncoder

from .helpers import assert_same_directions, vectors
from .tiny_vlm import QUERIES, mixed_pages

MAX_DIFFERENCE = 5e-6
PROMPT = "Understand the content of the provided document image."


@pytest.fixture
def folder(tiny: Callable[[str], Path]) -> Path:
    return tiny("vlm2vec-llava-next")


def reference(folder: Path, texts: list[str], images: list[Any]) -> np.ndarray:
    import torch
    import transformers as t

    model = t.LlavaNextForConditionalGeneration.from_pretrained(folder).eval()
    processor: Any = t.LlavaNextProcessor(
        image_processor=t.LlavaNextImageProcessor.from_pretrained(folder),
        tokenizer=t.AutoTokenizer.from_pretrained(folder),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    rows = []
    for text, image in zip(texts, images, strict=True):
        shown = None if image is None else image.convert("RGB")
        inputs = processor(text=text, images=shown, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            row = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1].numpy()
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


def test_batches_match_transformers_on_single_contents(folder: Path) -> None:
    encoder = resolve(ModelSpec(str(folder)))
    assert isinstance(encoder, LlavaNextEncoder)
    pages, nothing = mixed_pages(), [None] * 4
    got = vectors(encoder, "query", "Find:", text=QUERIES)
    assert_same_directions(got, reference(folder, [f"Find: {text}" for text in QUERIES], nothing), MAX_DIFFERENCE)
    got = vectors(encoder, "document", PROMPT, image=pages)
    assert_same_directions(got, reference(folder, [f"<image> {PROMPT}"] * 4, pages), MAX_DIFFERENCE)
    expected = reference(folder, [f"<image> {PROMPT} {text}" for text in QUERIES], pages)
    got = vectors(encoder, "document", PROMPT, text=QUERIES, image=pages)
    assert_same_directions(got, expected, MAX_DIFFERENCE)
    mixed = vectors(encoder, "document", PROMPT, text=QUERIES, image=[pages[0], None, pages[2], None])
    assert_same_directions(mixed[::2], expected[::2], MAX_DIFFERENCE)
    alone = vectors(encoder, "document", PROMPT, text=QUERIES[1::2])
    assert_same_directions(mixed[1::2], alone, MAX_DIFFERENCE)


def test_its_images_have_no_budget(folder: Path) -> None:
    with pytest.raises(UserError, match="no option --max-pixels"):
        resolve(ModelSpec(str(folder), max_pixels=784))


def test_phi_is_refused_saying_what_works(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["Phi3VForCausalLM"], "model_type": "phi3_v"}')
    for name in (str(tmp_path), "TIGER-Lab/VLM2Vec-Full", "TIGER-Lab/VLM2Vec-LoRA"):
        with pytest.raises(UserError, match=r"Phi-3\.5-V.*no way to load it.*VLM2Vec-V2\.0"):
            resolve(ModelSpec(name))
