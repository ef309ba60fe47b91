"""BiGemma3 and ColGemma3 against colpali-engine's model classes, called by hand on one content at a time.

Their inputs are made by hand too: upstream's own have two <bos>.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.models.families import family
from raylib.models.gemma import BiGemmaEncoder, GemmaEncoder
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.types import EncodeContext

from . import tiny_vlm
from .colpali_helpers import assert_same, encode
from .helpers import assert_same_directions, vectors

QUERY = EncodeContext("query", "Query: ")
HIDDEN = 32
MAX_DIFFERENCE = 1e-6
"""Of a component of a unit vector in float32, between a batch of four and a batch of one."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm.build("BiGemma3", tmp_path_factory.mktemp("bigemma3"))


@pytest.fixture(scope="session")
def late_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm.build("ColGemma3", tmp_path_factory.mktemp("colgemma3"))


def upstream_model(folder: Path) -> Any:
    """The key mapping goes round a bug: without one, BiGemma3.from_pretrained fails."""
    import colpali_engine.models as models

    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(models, name).from_pretrained(str(folder), key_mapping={}).eval()


def text_inputs(folder: Path, texts: list[str], prompt: str = "Query: ") -> Any:
    """Turns written out by hand without <bos>, to which the tokenizer adds its one."""
    from transformers import AutoTokenizer

    turns = [f"<start_of_turn>user\n{(prompt + text).strip()}<end_of_turn>\n" for text in texts]
    return AutoTokenizer.from_pretrained(folder)(turns, padding=True, padding_side="left", return_tensors="pt")


def image_inputs(folder: Path, pages: list[Any], prompt: str = "Describe this image") -> Any:
    """As `text_inputs`, through transformers' own processor."""
    from transformers import AutoImageProcessor, AutoTokenizer, Gemma3Processor

    parts = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    turn = f"<start_of_turn>user\n<start_of_image>{prompt}<end_of_turn>\n"
    return Gemma3Processor(*parts, image_seq_length=4)(
        text=[turn] * len(pages), images=[[page.convert("RGB")] for page in pages], return_tensors="pt"
    )


def run(model: Any, inputs: Mapping[str, Any], **options: Any) -> np.ndarray:
    """[n, hidden], upstream's full dimension, 2560, cutting nothing from vectors of 32; or [n, tokens, 128]."""
    import torch

    with torch.no_grad():
        return model(**options, **inputs).numpy()


def late(folder: Path, **options: Any) -> GemmaEncoder:
    encoder = resolve(ModelSpec(str(folder), **options))
    assert isinstance(encoder, GemmaEncoder) and encoder.late
    return encoder


def ours(folder: Path, **options: Any) -> BiGemmaEncoder:
    encoder = resolve(ModelSpec(str(folder), **options))
    assert isinstance(encoder, BiGemmaEncoder)
    return encoder


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_batches_match_upstream_on_single_contents(pooling: str, folder: Path) -> None:
    """One content has no padding, so that upstream's positions 0 and -1 are real tokens."""
    model, pages = upstream_model(folder), tiny_vlm.mixed_pages()
    encoder = ours(folder, pooling=pooling)
    texts = [run(model, text_inputs(folder, [text]), pooling_strategy=pooling) for text in tiny_vlm.QUERIES]
    assert_same_directions(vectors(encoder, "query", text=tiny_vlm.QUERIES), np.concatenate(texts), MAX_DIFFERENCE)
    images = [run(model, image_inputs(folder, [page]), pooling_strategy=pooling) for page in pages]
    assert_same_directions(vectors(encoder, "document", image=pages), np.concatenate(images), MAX_DIFFERENCE)


def test_late_vectors_match_upstream_on_single_contents(late_folder: Path) -> None:
    model, pages, encoder = upstream_model(late_folder), tiny_vlm.mixed_pages(), late(late_folder)
    texts = [run(model, text_inputs(late_folder, [text]))[0] for text in tiny_vlm.QUERIES]
    images = [run(model, image_inputs(late_folder, [page]))[0] for page in pages]
    assert_same(encode(encoder, {"text": tiny_vlm.QUERIES}, "query"), texts)
    assert_same(encode(encoder, {"image": pages}, "document"), images)
    both = [np.concatenate(pair) for pair in zip(texts, images, strict=True)]
    assert_same(encode(encoder, {"text": tiny_vlm.QUERIES, "image": pages}, "document"), both)


@pytest.mark.parametrize("kind", ["BiGemma3", "ColGemma3"])
@pytest.mark.parametrize(
    ("template", "tokenizer"), [(True, True), (True, False), (False, True)], ids=["both", "template", "tokenizer"]
)
def test_a_turn_has_one_bos(kind: str, template: bool, tokenizer: bool, tmp_path: Path) -> None:
    """Whichever of chat template and tokenizer adds it; upstream has two where both do."""
    folder = tiny_vlm.build(kind, tmp_path)
    if not template:
        chat = folder / "chat_template.jinja"
        chat.write_text(chat.read_text().replace("{{ bos_token }}", ""))
    if not tokenizer:
        files = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps({**files, "post_processor": None}))
    encoder = resolve(ModelSpec(str(folder)))
    assert isinstance(encoder, GemmaEncoder)
    tensors = encoder.preprocess({"text": tiny_vlm.QUERIES, "image": tiny_vlm.mixed_pages()}, QUERY)
    bos = encoder.processor.tokenizer.bos_token_id
    for part in ("text", "image"):
        ids, mask = tensors[f"{part}.input_ids"], tensors[f"{part}.attention_mask"].astype(bool)
        assert ((ids == bos) & mask).sum(axis=1).tolist() == [1, 1, 1, 1]
        assert [row[real][0] for row, real in zip(ids, mask, strict=True)] == [bos] * 4
    if template and tokenizer:
        twice = encoder.processor.process_texts(["socket"])["input_ids"][0].tolist()
        assert twice.count(bos) == 2, "upstream's own"


@pytest.mark.parametrize("kind", ["BiGemma3", "ColGemma3"])
def test_prompts_of_the_user_stand_inside_the_turn(kind: str, folder: Path, late_folder: Path) -> None:
    place = folder if kind == "BiGemma3" else late_folder
    encoder = resolve(ModelSpec(str(place), query_prompt="find: ", document_prompt="Summarise this page"))
    assert isinstance(encoder, GemmaEncoder)
    asked = encoder.preprocess({"text": ["socket"]}, encoder.context(None, "query"))
    np.testing.assert_array_equal(asked["text.input_ids"], text_inputs(place, ["socket"], "find: ")["input_ids"])
    pages = tiny_vlm.mixed_pages()
    shown = encoder.preprocess({"image": pages}, encoder.context(None, "document"))
    expected = image_inputs(place, pages, "Summarise this page")["input_ids"]
    np.testing.assert_array_equal(shown["image.input_ids"], expected)
    silent = encoder.preprocess({"image": pages}, EncodeContext("document", ""))
    np.testing.assert_array_equal(silent["image.input_ids"], image_inputs(place, pages, "")["input_ids"])


def test_pooling_defaults_to_the_last_token(folder: Path) -> None:
    default = vectors(ours(folder), text=tiny_vlm.QUERIES)
    np.testing.assert_array_equal(default, vectors(ours(folder, pooling="last"), text=tiny_vlm.QUERIES))
    assert np.abs(default - vectors(ours(folder, pooling="mean"), text=tiny_vlm.QUERIES)).max() > 0.01


def test_images_go_through_as_one_batch(folder: Path) -> None:
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
    expected = {"image": image_inputs(folder, tiny_vlm.mixed_pages())}
    tensors |= encoder.preprocess({"text": tiny_vlm.QUERIES}, QUERY)
    expected["text"] = text_inputs(folder, tiny_vlm.QUERIES)
    for part, inputs in expected.items():
        names = {f"{part}.{name}" for name in inputs}
        assert names - {"text.token_type_ids"} <= {name for name in tensors if name.startswith(part)}
        for name in names & set(tensors):
            np.testing.assert_array_equal(tensors[name], inputs[name.removeprefix(f"{part}.")].numpy())


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_vlm.TEXT, "hidden_size", 800)
        folder = tiny_vlm.build("BiGemma3", tmp_path)
    expected = run(upstream_model(folder), text_inputs(folder, ["socket"]), embedding_dim=768)
    got = vectors(ours(folder, embedding_dim=768), "query", text=["socket"])
    assert_same_directions(got, expected, MAX_DIFFERENCE)


@pytest.mark.parametrize("how", [None, "sum", "mean", "concat"])
def test_fused_contents(how: str | None, folder: Path) -> None:
    model, pages = upstream_model(folder), tiny_vlm.mixed_pages()
    text = np.concatenate([run(model, text_inputs(folder, [text])) for text in tiny_vlm.QUERIES])
    image = np.concatenate([run(model, image_inputs(folder, [page])) for page in pages])
    both = np.concatenate([text, image], axis=1) if how == "concat" else text + image
    expected = both if how == "concat" else both / np.sqrt((both**2).sum(1, keepdims=True))
    got = vectors(ours(folder, fusion=how), "document", text=tiny_vlm.QUERIES, image=pages)
    assert_same_directions(got, expected, MAX_DIFFERENCE)


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
    options += [{"fusion": "mean"}, {"fusion": "concat"}]
    assert len({ours(folder, **option).fingerprint for option in options}) == len(options)
    assert ours(folder, pooling="last", fusion="sum").fingerprint == ours(folder).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_dim": 768}, "--embedding-dim is 768; .* has 1 to 32"),
        ({"embedding_dim": 0}, "--embedding-dim is 0"),
        ({"fusion": "max"}, "--fusion is 'max'; expected one of sum, mean, concat"),
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
    with pytest.raises(UserError, match="has 1 to 2560"):
        BiGemmaEncoder(ModelSpec("Cognitive-Lab/NetraEmbed", embedding_dim=4096), entry)
