"""A content's vectors do not depend on its neighbours nor on where padding goes, in every family."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.models.family import Family
from raylib.models.protocol import Encoder
from raylib.types import Embeddings, Role

from . import tiny_vlm
from .helpers import TEXTS, encoder_for
from .tiny_families import TINY, contents

MAX_DIFFERENCE = 5e-6
"""Of a component in float32; unit vectors but for CLIP's and SigLIP's, whose length is below 3."""

ALWAYS_RIGHT = ("clip", "siglip", "colintern")

DOCUMENT: Role = "document"
PAGES = [*tiny_vlm.mixed_pages(), *(tiny_vlm.page(40 + 31 * i, 150 - 23 * i, 9 + i) for i in range(4))]
CASES = [pytest.param(entry, what, id=f"{entry.name}-{what}") for entry in TINY for what in contents(entry, [], [])]


def in_batches_of(size: int, encoder: Encoder, columns: dict[str, list[Any]]) -> Embeddings:
    context = encoder.context(None, DOCUMENT)
    parts = [{name: values[at : at + size] for name, values in columns.items()} for at in range(0, 8, size)]
    return Embeddings.concatenate(encoder.encode(part, context) for part in parts)


def assert_same(got: Embeddings, expected: Embeddings) -> None:
    assert got.token_counts.tolist() == expected.token_counts.tolist()
    lengths = np.linalg.norm(got.values, axis=1) * np.linalg.norm(expected.values, axis=1)
    assert ((got.values * expected.values).sum(axis=1) / lengths).min() >= 0.9999
    assert np.abs(got.values - expected.values).max() <= MAX_DIFFERENCE


@pytest.mark.parametrize(("entry", "what"), CASES)
def test_eight_together_are_what_they_are_alone(entry: Family, what: str, tiny: Callable[[str], Path]) -> None:
    encoder = encoder_for(tiny(entry.name), entry.name)
    columns = contents(entry, TEXTS, PAGES)[what]
    assert_same(in_batches_of(8, encoder, columns), in_batches_of(1, encoder, columns))


@pytest.mark.parametrize("entry", TINY, ids=lambda entry: entry.name)
def test_the_padding_side_of_a_tokenizer_does_not_matter(
    entry: Family, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """Neither what the checkpoint's files say nor, but for families that always pad on the right, what comes out."""
    found, masks = [], []
    for side in ("left", "right"):
        folder = shutil.copytree(tiny(entry.name), tmp_path / side)
        settings = folder / "tokenizer_config.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "padding_side": side}))
        encoder: Any = encoder_for(folder, entry.name)
        found.append(encode(encoder, TEXTS)[1])
        if entry.name not in ALWAYS_RIGHT:  # upstream's processors have a side of their own too
            getattr(encoder.processor, "tokenizer", encoder.processor).padding_side = side
            mask, again = encode(encoder, TEXTS)
            masks.append(mask)
            assert_same(again, found[0])
    assert_same(*found)
    assert not masks or not np.array_equal(*masks), "the sides were those asked for"


DENSE_SEEING = [entry for entry in TINY if entry.kind == "dense" and "image" in entry.modalities]


@pytest.mark.parametrize("entry", DENSE_SEEING, ids=lambda entry: entry.name)
def test_fusion_is_an_option_where_two_vectors_become_one(entry: Family, tiny: Callable[[str], Path]) -> None:
    """The other families read text and image in one forward."""
    encoder = encoder_for(tiny(entry.name), entry.name)
    context, pages = encoder.context(None, DOCUMENT), tiny_vlm.mixed_pages()
    fused = encoder.encode({"text": TEXTS[:4], "image": pages}, context)
    two = encoder.fuse(encoder.encode({"text": TEXTS[:4]}, context), encoder.encode({"image": pages}, context))
    of_two = np.abs(unit(two) - unit(fused)).max() <= MAX_DIFFERENCE
    assert of_two == ("fusion" in encoder.supported_options)


def unit(vectors: Embeddings) -> np.ndarray:
    return vectors.values / np.linalg.norm(vectors.values, axis=1, keepdims=True)


def encode(encoder: Encoder, texts: list[str]) -> tuple[np.ndarray, Embeddings]:
    """(the mask of the tokens, the vectors)"""
    tensors = encoder.preprocess({"text": texts}, encoder.context(None, DOCUMENT))
    return next(array for name, array in tensors.items() if name.endswith("attention_mask")), encoder.forward(tensors)
