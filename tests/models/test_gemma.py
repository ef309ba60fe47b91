"""BiGemma3 against colpali-engine's BiGemma3 and its processor, called by hand on one content at a time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.models.families import family
from raylib.models.gemma import BiGemmaEncoder
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.types import EncodeContext

from . import tiny_vlm
from .helpers import assert_same_directions, vectors

QUERY = EncodeContext("query", "Query: ")
HIDDEN = 32
MAX_DIFFERENCE = 1e-6
"""Of a component of a unit vector in float32, between a batch of four and a batch of one."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm.build("BiGemma3", tmp_path_factory.mktemp("bigemma3"))


@pytest.fixture(scope="session")
def upstream(folder: Path) -> tuple[Any, Any]:
    """Model and processor. The key mapping goes round a bug: without one, BiGemma3.from_pretrained fails."""
    from colpali_engine.models import BiGemma3, BiGemmaProcessor3

    model = BiGemma3.from_pretrained(str(folder), key_mapping={}).eval()
    return model, BiGemmaProcessor3.from_pretrained(str(folder))


def run(model: Any, inputs: Mapping[str, Any], pooling: str) -> np.ndarray:
    """[n, hidden]: upstream's full dimension, 2560, cuts nothing from vectors of 32."""
    import torch

    with torch.no_grad():
        return model(pooling_strategy=pooling, **inputs).numpy()


def ours(folder: Path, **options: Any) -> BiGemmaEncoder:
    encoder = resolve(ModelSpec(str(folder), **options))
    assert isinstance(encoder, BiGemmaEncoder)
    return encoder


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_batches_match_upstream_on_single_contents(pooling: str, folder: Path, upstream: tuple[Any, Any]) -> None:
    """One content has no padding, so that upstream's positions 0 and -1 are real tokens."""
    model, processor = upstream
    encoder, pages = ours(folder, pooling=pooling), tiny_vlm.mixed_pages()
    texts = [run(model, processor.process_texts([text]), pooling) for text in tiny_vlm.QUERIES]
    assert_same_directions(vectors(encoder, "query", text=tiny_vlm.QUERIES), np.concatenate(texts), MAX_DIFFERENCE)
    images = [run(model, processor.process_images([page]), pooling) for page in pages]
    assert_same_directions(vectors(encoder, "document", image=pages), np.concatenate(images), MAX_DIFFERENCE)


def test_pooling_defaults_to_the_last_token(folder: Path) -> None:
    default = vectors(ours(folder), text=tiny_vlm.QUERIES)
    np.testing.assert_array_equal(default, vectors(ours(folder, pooling="last"), text=tiny_vlm.QUERIES))
    assert np.abs(default - vectors(ours(folder, pooling="mean"), text=tiny_vlm.QUERIES)).max() > 0.01


def test_inputs_are_upstream_s_and_images_go_through_as_one_batch(folder: Path, upstream: tuple[Any, Any]) -> None:
    _, processor = upstream
    encoder = ours(folder)
    calls = []
    images = type(encoder.processor.image_processor)
    original = images.__call__

    def counted(self: Any, images: Any, *rest: Any, **options: Any) -> Any:
        calls.append(len(images))
        return original(self, images, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "__call__", counted)
        tensors = encoder.preprocess({"image": tiny_vlm.mixed_pages()}, QUERY)
    assert calls == [4]
    tensors |= encoder.preprocess({"text": tiny_vlm.QUERIES}, QUERY)
    for part, expected in (
        ("image", processor.process_images(tiny_vlm.mixed_pages())),
        ("text", processor.process_texts(tiny_vlm.QUERIES)),
    ):
        assert {name for name in tensors if name.startswith(part)} == {f"{part}.{name}" for name in expected}
        for name, value in expected.items():
            np.testing.assert_array_equal(tensors[f"{part}.{name}"], value.numpy())


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_the_padding_side_does_not_matter(pooling: str, folder: Path) -> None:
    left, right = ours(folder, pooling=pooling), ours(folder, pooling=pooling)
    right.processor.tokenizer.padding_side = "right"
    masks = [encoder.preprocess({"text": tiny_vlm.QUERIES}, QUERY)["text.attention_mask"] for encoder in (left, right)]
    assert not np.array_equal(*masks)
    found = [vectors(encoder, "query", text=tiny_vlm.QUERIES) for encoder in (left, right)]
    assert_same_directions(*found, MAX_DIFFERENCE)


@pytest.mark.parametrize("dim", [1, 16, HIDDEN])
def test_vectors_are_cut_and_then_normalised(dim: int, folder: Path) -> None:
    """The hidden state is not seen here, but cutting before or after normalising differs only in length."""
    full = vectors(ours(folder), text=tiny_vlm.QUERIES)[:, :dim]
    expected = full / np.sqrt((full.astype(np.float64) ** 2).sum(1, keepdims=True))
    got = vectors(ours(folder, embedding_dim=dim), text=tiny_vlm.QUERIES)
    assert got.shape == (4, dim)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_published_dimensions_match_upstream(tmp_path: Path) -> None:
    """768 of 800, which upstream knows too."""
    from colpali_engine.models import BiGemma3, BiGemmaProcessor3

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_vlm.TEXT, "hidden_size", 800)
        folder = tiny_vlm.build("BiGemma3", tmp_path)
    model = BiGemma3.from_pretrained(str(folder), key_mapping={}).eval()
    inputs = BiGemmaProcessor3.from_pretrained(str(folder)).process_texts(["socket"])
    import torch

    with torch.no_grad():
        expected = model(embedding_dim=768, **inputs).numpy()
    got = vectors(ours(folder, embedding_dim=768), "query", text=["socket"])
    assert_same_directions(got, expected, MAX_DIFFERENCE)


def test_fused_contents_are_the_normalised_sum(folder: Path) -> None:
    encoder, texts, pages = ours(folder), tiny_vlm.QUERIES, tiny_vlm.mixed_pages()
    both = vectors(encoder, text=texts) + vectors(encoder, image=pages)
    expected = both / np.sqrt((both**2).sum(1, keepdims=True))
    np.testing.assert_allclose(vectors(encoder, text=texts, image=pages), expected, atol=1e-6)


def test_weights_saved_before_transformers_5(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    old = shutil.copytree(folder, tmp_path / "old")
    weights = load_file(old / "model.safetensors")
    names = {name: re.sub(r"^language_model\.", "language_model.model.", name) for name in weights}
    names |= {name: re.sub(r"^vision_tower\.", "vision_tower.vision_model.", new) for name, new in names.items()}
    save_file({names[n]: w for n, w in weights.items()}, old / "model.safetensors", metadata={"format": "pt"})
    batch = {"text": tiny_vlm.QUERIES, "image": tiny_vlm.mixed_pages()}
    np.testing.assert_array_equal(vectors(ours(old), **batch), vectors(ours(folder), **batch))


def test_options_change_the_fingerprint(folder: Path) -> None:
    options: list[dict[str, Any]] = [{}, {"dtype": "bfloat16"}, {"pooling": "mean"}, {"embedding_dim": 16}]
    assert len({ours(folder, **option).fingerprint for option in options}) == len(options)
    assert ours(folder, pooling="last").fingerprint == ours(folder).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_dim": 768}, "--embedding-dim is 768; .* gives at most 32"),
        ({"embedding_dim": 0}, "--embedding-dim is 0"),
        ({"pooling": "first"}, "'first'; .* has last, mean, cls"),
        ({"max_pixels": 50000}, "no option --max-pixels"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message):
        ours(folder, **options)


def test_the_published_model_is_known_without_its_weights() -> None:
    entry = family("bigemma3")
    assert BiGemmaEncoder(ModelSpec("Cognitive-Lab/NetraEmbed", embedding_dim=1536), entry).similarity == "cosine"
    with pytest.raises(UserError, match="at most 2560"):
        BiGemmaEncoder(ModelSpec("Cognitive-Lab/NetraEmbed", embedding_dim=4096), entry)
