"""colpali-engine's families against colpali-engine itself, called by hand on one content at a time."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.errors import ModelError, UnsupportedOptionError, UserError
from raylib.models import untrained
from raylib.models.colpali import ColPaliEngineEncoder
from raylib.models.families import COLPALI_ENGINE, Family, family
from raylib.models.protocol import ModelSpec
from raylib.types import Embeddings, EncodeContext

from . import tiny_vlm
from .helpers import encoder_for

DOCUMENT, QUERY = EncodeContext("document"), EncodeContext("query")
FAMILY: Mapping[str, Family] = {entry.settings["model"]: entry for entry in COLPALI_ENGINE}
UPSTREAM = [name for name in tiny_vlm.BUILDERS if name != "BiGemma3"]

MAX_DIFFERENCE = 1e-6
"""Of a component of a unit vector in float32, between a batch of four and a batch of one."""

PROCESSOR = {
    "ColPali": "ColPaliProcessor",
    "BiPali": "ColPaliProcessor",
    "ColQwen2": "ColQwen2Processor",
    "ColQwen2_5": "ColQwen2_5_Processor",
    "BiQwen2": "BiQwen2Processor",
    "BiQwen2_5": "BiQwen2_5_Processor",
    "ColQwen3": "ColQwen3Processor",
    "BiQwen3": "BiQwen3Processor",
    "ColQwen3_5": "ColQwen3_5Processor",
    "BiQwen3_5": "BiQwen3_5Processor",
    "ColIdefics3": "ColIdefics3Processor",
    "BiIdefics3": "BiIdefics3Processor",
    "ColModernVBert": "ColModernVBertProcessor",
    "BiModernVBert": "BiModernVBertProcessor",
    "ColGemma3": "ColGemmaProcessor3",
}
PREFIX = dict.fromkeys(("ColPali", "ColQwen2", "ColQwen2_5", "ColIdefics3"), "Query: ")
"""What MTEB's wrappers put before a text; the others put nothing."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Upstream class name → folder with a tiny checkpoint of it, built once."""
    return cache(lambda upstream: tiny_vlm.build(upstream, tmp_path_factory.mktemp(upstream)))


def upstream_model(upstream: str, folder: Path) -> tuple[Any, Any]:
    """Model and processor as colpali-engine loads them. The key mapping goes round a bug in its Bi classes."""
    import colpali_engine.models as models

    options = {"key_mapping": {}} if upstream in ("BiQwen2", "BiQwen2_5") else {}
    model = getattr(models, upstream).from_pretrained(str(folder), **options)
    return model.eval(), getattr(models, PROCESSOR[upstream]).from_pretrained(str(folder))


def run(model: Any, inputs: Mapping[str, Any], **options: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(**options, **{name: value for name, value in inputs.items() if name != "labels"}).numpy()


def query_inputs(upstream: str, processor: Any, texts: list[str]) -> Any:
    """As MTEB's ColPaliEngineWrapper; ColGemma3, which MTEB lacks, as upstream's own process_queries."""
    if upstream == "ColGemma3":
        return processor.process_queries(texts)
    suffix = processor.query_augmentation_token * 10
    return processor.process_texts([PREFIX.get(upstream, "") + text + suffix for text in texts])


def ours(upstream: str, folder: Path, **options: Any) -> ColPaliEngineEncoder:
    encoder = encoder_for(folder, FAMILY[upstream].name, **options)
    assert isinstance(encoder, ColPaliEngineEncoder)
    return encoder


def assert_same(got: Embeddings, expected: list[np.ndarray], tolerance: float = MAX_DIFFERENCE) -> None:
    """The same number of vectors for every content, each in the same direction and none further off than tolerance."""
    assert got.token_counts.tolist() == [len(item) for item in expected]
    wanted = np.concatenate(expected)
    cosines = (got.values * wanted).sum(1) / np.linalg.norm(got.values, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosines.min() >= 0.9999
    assert np.abs(got.values - wanted).max() <= tolerance


def rows(output: np.ndarray) -> np.ndarray:
    """[tokens, dim] of a batch of one: dense output is one row, and nothing is padding."""
    return output if output.ndim == 2 else output[0]


@pytest.mark.parametrize("upstream", UPSTREAM)
def test_batches_match_upstream_on_single_contents(upstream: str, checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint(upstream)
    encoder, (model, processor) = ours(upstream, folder), upstream_model(upstream, folder)
    pages = tiny_vlm.mixed_pages()

    expected = [rows(run(model, processor.process_images([page]))) for page in pages]
    assert_same(encoder.encode({"image": pages}, DOCUMENT), expected)
    expected = [rows(run(model, query_inputs(upstream, processor, [text]))) for text in tiny_vlm.QUERIES]
    assert_same(encoder.encode({"text": tiny_vlm.QUERIES}, QUERY), expected)
    assert_same(encoder.encode({"text": tiny_vlm.QUERIES}, DOCUMENT), expected)  # MTEB treats both sides alike


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

    got = ours(upstream, folder).encode({"image": tiny_vlm.mixed_pages()}, DOCUMENT)
    np.testing.assert_array_equal(got.values, padded[real])
    np.testing.assert_array_equal(got.token_counts, real.sum(1))
    np.testing.assert_allclose(np.linalg.norm(got.values, axis=1), 1, atol=1e-6)


def test_augmentation_tokens_of_colpali_count_as_real(checkpoint: Callable[[str], Path]) -> None:
    """They are padding tokens by name: <bos>, "Query: …", then ten <pad> that the mask keeps."""
    encoder = ours("ColPali", checkpoint("ColPali"))
    words = len(encoder.processor.tokenizer.tokenize("Query: socket"))
    got = encoder.encode({"text": ["socket", "a much longer question that makes the first one padded"]}, QUERY)
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
    text, image = encoder.encode({"text": texts}, DOCUMENT), encoder.encode({"image": pages}, DOCUMENT)
    both = encoder.encode({"text": texts, "image": pages}, DOCUMENT)
    for index in range(len(texts)):
        np.testing.assert_array_equal(both[index], fuse(text[index], image[index]))


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

    got = ours("ColQwen2_5", folder).encode({"text": texts, "image": pages}, DOCUMENT)
    assert_same(got, [item[item.abs().sum(1) > 0].numpy() for item in padded])


@pytest.mark.parametrize("upstream", ["ColPali", "ColQwen2", "ColIdefics3"])
def test_a_batch_can_be_halved_between_preprocess_and_forward(upstream: str, checkpoint: Callable[[str], Path]) -> None:
    encoder = ours(upstream, checkpoint(upstream))
    batch = {"text": tiny_vlm.QUERIES, "image": tiny_vlm.mixed_pages()}
    tensors = encoder.preprocess(batch, DOCUMENT)
    assert all(isinstance(array, np.ndarray) and len(array) == 4 for array in tensors.values())
    halves = [encoder.forward({n: a[part] for n, a in tensors.items()}) for part in (slice(0, 1), slice(1, 4))]
    whole = encoder.forward(tensors)
    assert_same(Embeddings.concatenate(halves), list(whole))


def test_max_pixels_bounds_the_visual_tokens(checkpoint: Callable[[str], Path]) -> None:
    """100 × 100 pixels are 4 × 4 tokens of 28 pixels; a budget of 56 × 56 pixels leaves 2 × 2, one of 28 × 28 one."""
    page = {"image": [tiny_vlm.page(100, 100)]}
    counts = {
        budget: ours("ColQwen2_5", checkpoint("ColQwen2_5"), max_pixels=budget).encode(page, DOCUMENT).token_counts[0]
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
    assert_same(encoder.encode({"text": tiny_vlm.QUERIES}, QUERY), expected)
    pages = [run(model, processor.process_images([page]), pooling_strategy=pooling) for page in tiny_vlm.mixed_pages()]
    assert_same(encoder.encode({"image": tiny_vlm.mixed_pages()}, DOCUMENT), pages)


def save_adapter(upstream: str, base: Path, folder: Path) -> Any:
    """Write a LoRA over every q_proj and the projection into `folder`; gives the adapted model."""
    import torch
    from peft import LoraConfig, get_peft_model

    model, _ = upstream_model(upstream, base)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=r".*(q_proj|custom_text_proj)$", init_lora_weights=False)
    with untrained.seeded(3):
        adapted = get_peft_model(model, config).eval()
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(folder)
    return adapted


def test_adapters_as_option_and_as_checkpoint(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    base = checkpoint("ColQwen2_5")
    model, adapter = save_adapter("ColQwen2_5", base, tmp_path / "adapter"), tmp_path / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    _, processor = upstream_model("ColQwen2_5", base)
    expected = [rows(run(model, processor.process_images([page]))) for page in tiny_vlm.mixed_pages()]

    plain = ours("ColQwen2_5", base)
    option, whole = ours("ColQwen2_5", base, adapter=str(adapter)), ours("ColQwen2_5", adapter)
    batch = {"image": tiny_vlm.mixed_pages()}
    for encoder in (option, whole):
        assert_same(encoder.encode(batch, DOCUMENT), expected, tolerance=2e-6)
    assert np.abs(plain.encode(batch, DOCUMENT).values - np.concatenate(expected)).max() > 0.01
    assert len({plain.fingerprint, option.fingerprint, whole.fingerprint}) == 3

    other = shutil.copytree(base, tmp_path / "other base")
    (other / "config.json").write_text((base / "config.json").read_text() + "\n")
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))
    assert ours("ColQwen2_5", adapter).fingerprint != whole.fingerprint


def rewrite_weights(folder: Path, rename: Callable[[str], str | None]) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = {rename(name): weight for name, weight in load_file(path).items()}
    save_file({n: w for n, w in weights.items() if n is not None}, path, metadata={"format": "pt"})


def test_missing_weights_are_an_error(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("ColQwen2"), tmp_path / "headless")
    rewrite_weights(folder, lambda name: None if name.startswith("custom_text_proj") else name)
    with pytest.raises(ModelError, match=r"2 weights of ColQwen2 are not in the checkpoint \(custom_text_proj.bias"):
        ours("ColQwen2", folder).load()


@pytest.mark.parametrize(
    ("upstream", "new", "old"),
    [
        ("BiQwen2_5", r"^language_model\.", "model."),
        ("ColQwen2", r"^language_model\.", "model."),
        ("ColGemma3", r"^language_model\.", "language_model.model."),
    ],
)
def test_names_of_older_checkpoints(
    upstream: str, new: str, old: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint(upstream), tmp_path / "old")
    rewrite_weights(folder, lambda name: re.sub(new, old, name))
    batch = {"text": tiny_vlm.QUERIES}
    expected = ours(upstream, checkpoint(upstream)).encode(batch, QUERY)
    np.testing.assert_array_equal(ours(upstream, folder).encode(batch, QUERY).values, expected.values)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str, checkpoint: Callable[[str], Path]) -> None:
    batch = {"image": tiny_vlm.mixed_pages()}
    full = ours("ColPali", checkpoint("ColPali")).encode(batch, DOCUMENT)
    half = ours("ColPali", checkpoint("ColPali"), dtype=dtype).encode(batch, DOCUMENT)
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
        ("BiQwen2", {"embedding_dim": 16}, UnsupportedOptionError, "--embedding-dim"),
        ("BiQwen2", {"pooling": "max"}, UserError, "'max'.*last, mean, cls"),
        ("ColQwen2", {"max_pixels": 100}, UserError, "--max-pixels is 100; colqwen2 needs 784"),
        ("ColQwen3", {"max_pixels": 784}, UserError, "needs 1024"),
    ],
)
def test_options_that_cannot_be_used(
    upstream: str, options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        ours(upstream, tmp_path, **options)


def test_batches_that_cannot_be_used(checkpoint: Callable[[str], Path]) -> None:
    encoder = ours("ColPali", checkpoint("ColPali"))
    with pytest.raises(UserError, match=r"columns \['audio', 'text'\] has no text and no image"):
        encoder.preprocess({"audio": [b""], "text": [None]}, QUERY)
    with pytest.raises(UserError, match="1 of 2 contents of one batch have no image"):
        encoder.preprocess({"image": [tiny_vlm.page(30, 30), None]}, DOCUMENT)


def test_a_loaded_encoder_travels_without_its_weights(checkpoint: Callable[[str], Path]) -> None:
    encoder = ours("ColPali", checkpoint("ColPali"))
    batch = {"text": ["socket"]}
    expected = encoder.encode(batch, QUERY)
    data = pickle.dumps(encoder)
    assert len(data) < 10_000
    np.testing.assert_array_equal(pickle.loads(data).encode(batch, QUERY).values, expected.values)


def test_the_untrained_colpali(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = set()
    for folder in ("one", "two"):
        monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / folder))
        encoder = ColPaliEngineEncoder(ModelSpec("raylib/untrained-colpali"), family("colpali"))
        fingerprints.add(encoder.fingerprint)
        pages = [tiny_vlm.page(210, 297, seed) for seed in (1, 2)]
        got = encoder.encode({"image": pages}, DOCUMENT)
        prompt = encoder.processor.tokenizer.tokenize("<bos><bos>Describe the image.\n")
        assert got.token_counts.tolist() == [64 + len(prompt)] * 2
        assert got.dim == 128 and np.abs(got[0] - got[1]).max() > 1e-3
    assert len(fingerprints) == 1
