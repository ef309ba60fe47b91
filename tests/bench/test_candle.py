"""Candle through embed_anything against PyTorch, on tiny checkpoints of the five published architectures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from raylib.bench.protocol import Runner, Target
from raylib.bench.runtimes import candle as candle_module
from raylib.bench.runtimes.candle import CandleRuntime
from raylib.bench.runtimes.hub_layout import embed_texts, panics_told
from raylib.errors import ModelError
from raylib.models.untrained import build_clip
from tests.models.helpers import save_sentence, save_siglip

from .foreign import LONG, SHORT, assert_torchs, batches, target, torchs
from .tiny_towers import build

pytest.importorskip("embed_anything")

Models = Callable[[str], Path]
CASES = [("gemma", "text"), ("qwen", "text"), ("bge-m3", "text")]
CASES += [(shape, tower) for shape in ("siglip", "clip") for tower in ("text", "image")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return cache(lambda shape: build(shape, tmp_path_factory.mktemp(shape)))


def loaded(asked: Target) -> Runner:
    runtime = CandleRuntime()
    assert runtime.hole(asked) is None
    runtime.build(asked)
    return runtime.load(asked)


def snapshot(asked: Target) -> Path:
    layout = candle_module._layout(asked)
    return layout.folder(layout.home)


@pytest.mark.parametrize(("shape", "tower"), CASES)
def test_vectors_are_torchs(models: Models, tmp_path: Path, shape: str, tower: str) -> None:
    asked = target(models(shape), tmp_path, tower)  # pyright: ignore[reportArgumentType]
    assert_torchs(loaded(asked), asked, long=CandleRuntime().max_tokens(asked) is None)


def test_it_says_where_it_cuts_otherwise_than_the_model(models: Models, tmp_path: Path) -> None:
    limits = {shape: CandleRuntime().max_tokens(target(models(shape), tmp_path)) for shape, _ in CASES}
    assert limits == {"gemma": 64, "qwen": 64, "bge-m3": None, "siglip": None, "clip": None}
    asked = target(models("qwen"), tmp_path)
    found, expected = loaded(asked).embed({"text": [LONG]}), torchs(asked, {"text": [LONG]})
    assert (found * expected).sum() < 0.999, "or the limit could go"


def test_another_pooling_and_a_cut_vector(models: Models, tmp_path: Path) -> None:
    for options in ({"pooling": "mean"}, {"embedding_dim": 8}):
        asked = target(models("bge-m3"), tmp_path, **options)
        assert_torchs(loaded(asked), asked)


def test_weights_are_linked_where_they_stay_as_they_are(models: Models, tmp_path: Path) -> None:
    for shape, tower, linked in (
        ("gemma", "text", True),
        ("qwen", "text", True),
        ("siglip", "image", True),
        ("clip", "text", True),
        ("bge-m3", "text", False),
        ("clip", "image", False),
    ):
        asked = target(models(shape), tmp_path, tower)  # pyright: ignore[reportArgumentType]
        runner = loaded(asked)
        weights = snapshot(asked) / "model.safetensors"
        assert weights.is_symlink() is linked, (shape, tower)
        assert runner.disk_bytes > weights.stat().st_size


def test_another_checkpoint_in_its_place_is_built_anew(tmp_path: Path) -> None:
    folder = build("bge-m3", tmp_path / "model")
    asked = target(folder, tmp_path / "cache")
    loaded(asked)
    config = folder / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ModelError, match="build it first"):
        CandleRuntime().load(asked)


def test_what_candle_would_compute_otherwise_is_a_hole(models: Models, tmp_path: Path) -> None:
    def hole(asked: Target) -> str:
        return CandleRuntime().hole(asked) or "none"

    heads, masked, first = tmp_path / "heads", tmp_path / "masked", tmp_path / "first"
    save_sentence(heads, "gemma", query_pre_attn_scalar=8)
    save_siglip(masked)
    build_clip(first)
    assert "key-value heads of Gemma 3 to be 1; here it is 2" in hole(target(heads / "model", tmp_path))
    assert "padding of SigLIP to be read as text; here it is masked" in hole(target(masked, tmp_path))
    assert "side of an image in pixels to be 224; here it is 32" in hole(target(masked, tmp_path, "image"))
    assert "highest token id; here the end is 1" in hole(target(first, tmp_path))
    assert "pooling of Gemma 3 to be mean; here it is cls" in hole(target(models("gemma"), tmp_path, pooling="cls"))
    assert "pools BERT by mean, cls; this model by lasttoken" in hole(
        target(models("bge-m3"), tmp_path, pooling="last")
    )
    assert "has no image tower" in hole(target(models("qwen"), tmp_path, "image"))
    assert "int8 is not offered" in hole(target(models("qwen"), tmp_path, precision="int8"))


def test_scaled_attention_of_gemma_is_a_hole(models: Models, tmp_path: Path) -> None:
    folder = shutil.copytree(models("gemma"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"query_pre_attn_scalar": 256}))
    assert "head_dim" in (CandleRuntime().hole(target(folder, tmp_path)) or "")


def test_without_the_package_the_hole_says_what_to_install(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candle_module, "find_spec", lambda name: None)
    assert "raylib-cluster[candle]" in (CandleRuntime().hole(target(models("qwen"), tmp_path)) or "")


def test_a_panic_is_a_model_error(models: Models, tmp_path: Path) -> None:
    """embed_anything's CLIP panics over a text that its tokenizer.json does not cut."""
    asked = target(models("clip"), tmp_path)
    CandleRuntime().build(asked)
    path = snapshot(asked) / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": None}))
    runner = CandleRuntime().load(asked)
    with pytest.raises(ModelError, match="Candle cannot embed it: PanicException"):
        runner.embed({"text": [LONG]})
    assert np.isfinite(runner.embed({"text": SHORT[:3]})).all(), "the process lives on"


def test_damaged_weights_are_a_model_error(models: Models, tmp_path: Path) -> None:
    asked = target(models("bge-m3"), tmp_path)
    CandleRuntime().build(asked)
    (snapshot(asked) / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="Candle cannot load it"):
        CandleRuntime().load(asked)


def test_what_ends_a_process_is_no_model_error() -> None:
    with pytest.raises(KeyboardInterrupt), panics_told("model", "it cannot"):
        raise KeyboardInterrupt


def test_a_vector_that_is_left_out_is_an_error() -> None:
    class Forgets:
        def embed_query(self, texts: list[str], config: object) -> list[object]:
            return []

    with pytest.raises(ModelError, match="0 vectors for 2 texts"):
        embed_texts(Forgets(), ["a", "b"])


def test_the_environment_is_left_as_it_was(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/somewhere")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    loaded(target(models("qwen"), tmp_path))
    assert os.environ["HF_HOME"] == "/somewhere" and "HF_HUB_CACHE" not in os.environ


_ALONE = """
import os, sys
from pathlib import Path
from raylib.bench.protocol import Target
from raylib.bench.runtimes.candle import CandleRuntime
from raylib.models.protocol import ModelSpec

runner = CandleRuntime().load(Target(ModelSpec(sys.argv[1]), "text", "fp32", 3, Path(sys.argv[2])))
runner.embed({"text": ["word " * 60] * 8})
print(*(name for name in ("torch", "transformers") if name in sys.modules), os.environ["RAYON_NUM_THREADS"])
"""


def test_a_process_that_embeds_texts_holds_candle_alone(models: Models, tmp_path: Path) -> None:
    CandleRuntime().build(target(models("qwen"), tmp_path))
    command = [sys.executable, "-c", _ALONE, str(models("qwen")), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["3"], done.stderr


def test_images_come_back_in_order(models: Models, tmp_path: Path) -> None:
    runner = loaded(target(models("clip"), tmp_path, "image"))
    images = batches("image")[-1]["image"]
    alone = np.concatenate([runner.embed({"image": [image]}) for image in images])
    assert np.abs(runner.embed({"image": images}) - alone).max() <= 1e-6
