"""colpali-engine's families against colpali-engine itself, called by hand on one content at a time."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.errors import UnsupportedOptionError, UserError
from raylib.models.colpali import ColPaliEngineEncoder
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.types import Embeddings

from . import tiny_vlm
from .colpali_helpers import DOCUMENT, FAMILY, QUERY, assert_same, encode, ours, query_inputs, rows, run, upstream_model

UPSTREAM = [name for name in tiny_vlm.BUILDERS if "Gemma3" not in name]  # see test_gemma.py


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Upstream class name → folder with a tiny checkpoint of it, built once."""
    return cache(lambda upstream: tiny_vlm.build(upstream, tmp_path_factory.mktemp(upstream)))


@pytest.mark.parametrize("upstream", UPSTREAM)
def test_batches_match_upstream_on_single_contents(upstream: str, checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint(upstream)
    encoder, (model, processor) = ours(upstream, folder), upstream_model(upstream, folder)
    pages = tiny_vlm.mixed_pages()

    expected = [rows(run(model, processor.process_images([page]))) for page in pages]
    assert_same(encode(encoder, {"image": pages}, DOCUMENT), expected)
    expected = [rows(run(model, query_inputs(upstream, processor, [text]))) for text in tiny_vlm.QUERIES]
    assert_same(encode(encoder, {"text": tiny_vlm.QUERIES}, QUERY), expected)
    assert_same(encode(encoder, {"text": tiny_vlm.QUERIES}, DOCUMENT), expected)  # MTEB treats both sides alike


def test_every_family_with_a_model_class_is_covered() -> None:
    assert set(FAMILY) == set(tiny_vlm.BUILDERS)


@pytest.mark.parametrize("upstream", ["ColQwen2_5", "ColIdefics3"])
def test_padding_rows_are_left_out_and_the_others_unchanged(upstream: str, checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint(upstream)
    model, processor = upstream_model(upstream, folder)
    inputs = processor.process_images(tiny_vlm.mixed_pages())
    padded = run(model, inputs)
    real = inputs["attention_mask"].numpy() == 1
    assert not real.all() and not np.nan_to_num(padded[~real]).any()  # a zero row over its norm is NaN

    got = encode(ours(upstream, folder), {"image": tiny_vlm.mixed_pages()}, DOCUMENT)
    np.testing.assert_array_equal(got.values, padded[real])
    np.testing.assert_array_equal(got.token_counts, real.sum(1))
    np.testing.assert_allclose(np.linalg.norm(got.values, axis=1), 1, atol=1e-6)


def test_augmentation_tokens_of_colpali_count_as_real(checkpoint: Callable[[str], Path]) -> None:
    """They are padding tokens by name: <bos>, "Query: …", then ten <pad> that the mask keeps."""
    encoder = ours("ColPali", checkpoint("ColPali"))
    words = len(encoder.processor.tokenizer.tokenize("Query: socket"))
    got = encode(encoder, {"text": ["socket", "a much longer question that makes the first one padded"]}, QUERY)
    assert got.token_counts[0] == 1 + words + 10


@pytest.mark.parametrize(
    ("upstream", "fuse"),
    [
        ("ColQwen2", lambda text, image: np.concatenate([text, image])),
        ("BiQwen2_5", lambda text, image: text + image),
        ("ColQwen3_5", lambda text, image: image),  # MTEB's wrapper looks at the image only
    ],
)
def test_fused_contents(upstream: str, fuse: Callable[..., np.ndarray], checkpoint: Callable[[str], Path]) -> None:
    encoder = ours(upstream, checkpoint(upstream))
    texts, pages = tiny_vlm.QUERIES, tiny_vlm.mixed_pages()
    text, image = encode(encoder, {"text": texts}, DOCUMENT), encode(encoder, {"image": pages}, DOCUMENT)
    both = encode(encoder, {"text": texts, "image": pages}, DOCUMENT)
    for index in range(len(texts)):
        np.testing.assert_array_equal(both[index], fuse(text[index], image[index]))


@pytest.mark.parametrize("how", ["sum", "mean", "concat"])
def test_fusion_of_a_dense_family_is_the_one_asked_for(how: str, checkpoint: Callable[[str], Path]) -> None:
    """The family's own sum, which is MTEB's, is not normalised; one that is asked for is."""
    folder, texts, pages = checkpoint("BiQwen2_5"), tiny_vlm.QUERIES, tiny_vlm.mixed_pages()
    plain, asked = ours("BiQwen2_5", folder), ours("BiQwen2_5", folder, fusion=how)
    text, image = encode(plain, {"text": texts}, DOCUMENT).values, encode(plain, {"image": pages}, DOCUMENT).values
    both = np.concatenate([text, image], axis=1) if how == "concat" else text + image
    expected = both if how == "concat" else both / np.linalg.norm(both, axis=1, keepdims=True)
    got = encode(asked, {"text": texts, "image": pages}, DOCUMENT).values
    np.testing.assert_allclose(got, expected, atol=1e-6)
    others = [ours("BiQwen2_5", folder, fusion=name) for name in ("sum", "mean", "concat")]
    assert len({encoder.fingerprint for encoder in [plain, *others]}) == 4


def test_mteb_wrapper_gives_the_same_vectors(checkpoint: Callable[[str], Path]) -> None:
    """MTEB's own wrapper over pages with text, the vectors of both side by side and padded with zeros."""
    from datasets import Dataset, Image
    from mteb.models.model_implementations.colqwen_models import ColQwen2_5Wrapper
    from torch.utils.data import DataLoader

    folder, texts = checkpoint("ColQwen2_5"), tiny_vlm.QUERIES
    pages = [page.convert("RGB") for page in tiny_vlm.mixed_pages()]
    contents = Dataset.from_dict({"text": texts, "image": pages}).cast_column("image", Image())
    loader: Any = DataLoader(
        contents, batch_size=2, collate_fn=lambda items: {k: [i[k] for i in items] for k in items[0]}
    )
    wrapper = ColQwen2_5Wrapper(str(folder), device="cpu")
    padded: Any = wrapper.encode(loader, task_metadata=None, hf_split="test", hf_subset="default")  # pyright: ignore

    got = encode(ours("ColQwen2_5", folder), {"text": texts, "image": pages}, DOCUMENT)
    assert_same(got, [item[item.abs().sum(1) > 0].numpy() for item in padded])


@pytest.mark.parametrize("upstream", ["ColPali", "ColQwen2", "ColIdefics3"])
def test_a_batch_can_be_halved_between_preprocess_and_forward(upstream: str, checkpoint: Callable[[str], Path]) -> None:
    encoder = ours(upstream, checkpoint(upstream))
    batch = {"text": tiny_vlm.QUERIES, "image": tiny_vlm.mixed_pages()}
    tensors = encoder.preprocess(batch, encoder.context(None, DOCUMENT))
    assert all(isinstance(array, np.ndarray) and len(array) == 4 for array in tensors.values())
    halves = [encoder.forward({n: a[part] for n, a in tensors.items()}) for part in (slice(0, 1), slice(1, 4))]
    whole = encoder.forward(tensors)
    assert_same(Embeddings.concatenate(halves), list(whole))


def test_max_pixels_bounds_the_visual_tokens(checkpoint: Callable[[str], Path]) -> None:
    """100 × 100 pixels are 4 × 4 tokens of 28 pixels; a budget of 56 × 56 pixels leaves 2 × 2, one of 28 × 28 one."""
    page = {"image": [tiny_vlm.page(100, 100)]}
    counts = {
        budget: encode(ours("ColQwen2_5", checkpoint("ColQwen2_5"), max_pixels=budget), page, DOCUMENT).token_counts[0]
        for budget in (None, 56 * 56, 28 * 28)
    }
    assert counts[None] - counts[56 * 56] == 16 - 4
    assert counts[56 * 56] - counts[28 * 28] == 4 - 1


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_dense_poolings_match_upstream(pooling: str, checkpoint: Callable[[str], Path]) -> None:
    """A batch of one has no padding, so that upstream's position 0 is the first real token."""
    folder = checkpoint("BiQwen2_5")
    model, processor = upstream_model("BiQwen2_5", folder)
    singles = [query_inputs("BiQwen2_5", processor, [text]) for text in tiny_vlm.QUERIES]
    expected = [run(model, inputs, pooling_strategy=pooling) for inputs in singles]
    encoder = ours("BiQwen2_5", folder, pooling=pooling)
    assert_same(encode(encoder, {"text": tiny_vlm.QUERIES}, QUERY), expected)
    pages = [run(model, processor.process_images([page]), pooling_strategy=pooling) for page in tiny_vlm.mixed_pages()]
    assert_same(encode(encoder, {"image": tiny_vlm.mixed_pages()}, DOCUMENT), pages)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str, checkpoint: Callable[[str], Path]) -> None:
    batch = {"image": tiny_vlm.mixed_pages()}
    full = encode(ours("ColPali", checkpoint("ColPali")), batch, DOCUMENT)
    half = encode(ours("ColPali", checkpoint("ColPali"), dtype=dtype), batch, DOCUMENT)
    assert half.values.dtype == np.float16 and full.values.dtype == np.float32
    values = half.values.astype(np.float32)
    assert ((values * full.values).sum(1) / np.linalg.norm(values, axis=1)).min() > 0.999


def test_options_change_the_fingerprint_and_nothing_else_does(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = checkpoint("BiQwen2")
    options: list[dict[str, Any]] = [{}, {"dtype": "float16"}, {"max_pixels": 3136}, {"pooling": "mean"}]
    assert len({ours("BiQwen2", folder, **option).fingerprint for option in options}) == len(options)
    copied = shutil.copytree(folder, tmp_path / "copied")
    same = [ours("BiQwen2", folder, pooling="last"), ours("BiQwen2", folder, dtype="float32"), ours("BiQwen2", copied)]
    assert {encoder.fingerprint for encoder in same} == {ours("BiQwen2", folder).fingerprint}


@pytest.mark.parametrize(
    ("upstream", "options", "error", "message"),
    [
        ("ColPali", {"max_pixels": 50000}, UnsupportedOptionError, "--max-pixels"),
        ("ColQwen2", {"pooling": "mean"}, UnsupportedOptionError, "--pooling"),
        ("ColQwen2", {"fusion": "mean"}, UnsupportedOptionError, "--fusion"),
        ("BiQwen2", {"fusion": "max"}, UserError, "'max'; expected one of sum, mean, concat"),
        ("BiQwen2", {"embedding_dim": 16}, UnsupportedOptionError, "--embedding-dim"),
        ("BiQwen2", {"pooling": "max"}, UserError, "'max'.*last, mean, cls"),
        ("ColQwen2", {"max_pixels": 100}, UserError, "--max-pixels is 100; colqwen2 needs 784"),
        ("ColQwen3", {"max_pixels": 784}, UserError, "needs 1024"),
    ],
)
def test_options_that_cannot_be_used(
    upstream: str, options: dict[str, Any], error: type[Exception], message: str, checkpoint: Callable[[str], Path]
) -> None:
    with pytest.raises(error, match=message):
        ours(upstream, checkpoint(upstream), **options)


def test_batches_that_cannot_be_used(checkpoint: Callable[[str], Path]) -> None:
    encoder = ours("ColPali", checkpoint("ColPali"))
    with pytest.raises(UserError, match=r"columns \['audio', 'text'\] has no text and no image"):
        encoder.preprocess({"audio": [b""], "text": [None]}, encoder.context(None, QUERY))
    with pytest.raises(UserError, match="1 of 2 contents of one batch have no image"):
        encoder.preprocess({"image": [tiny_vlm.page(30, 30), None]}, encoder.context(None, DOCUMENT))


def test_a_loaded_encoder_travels_without_its_weights(checkpoint: Callable[[str], Path]) -> None:
    encoder = ours("ColPali", checkpoint("ColPali"))
    batch = {"text": ["socket"]}
    expected = encode(encoder, batch, QUERY)
    data = pickle.dumps(encoder)
    assert len(data) < 10_000
    np.testing.assert_array_equal(encode(pickle.loads(data), batch, QUERY).values, expected.values)


def test_the_untrained_colpali(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = set()
    for folder in ("one", "two"):
        monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / folder))
        encoder = resolve(ModelSpec("raylib/untrained-colpali"))
        assert isinstance(encoder, ColPaliEngineEncoder)
        fingerprints.add(encoder.fingerprint)
        pages = [tiny_vlm.page(210, 297, seed) for seed in (1, 2)]
        got = encode(encoder, {"image": pages}, DOCUMENT)
        prompt = encoder.processor.tokenizer.tokenize("<bos><bos>Describe the image.\n")
        assert got.token_counts.tolist() == [64 + len(prompt)] * 2
        assert got.dim == 128 and np.abs(got[0] - got[1]).max() > 1e-3
    assert len(fingerprints) == 1
