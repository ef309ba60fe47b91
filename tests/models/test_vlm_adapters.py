"""VLM2Vec's and B3's checkpoints are adapters (DoRA) over Qwen2-VL, saved by peft under transformers 4."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.errors import ModelError, UserError
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.models.untrained import seeded
from raylib.models.vlm import Vlm2VecEncoder

from . import tiny_qwen
from .helpers import assert_same_directions, encoder_for, vectors
from .test_colpali_loading import rename_weights
from .tiny_vlm import QUERIES, mixed_pages

BATCH = {"text": QUERIES, "image": mixed_pages()}
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "fc1"]
MAX_DIFFERENCE = 2e-5
"""Merged weights round otherwise than the sum of two products."""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen.build("2", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session", params=["lora", "dora"])
def adapter(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with an adapter over `base`, and the model with it as peft runs it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2VLForConditionalGeneration

    folder = tmp_path_factory.mktemp(request.param)
    model: Any = Qwen2VLForConditionalGeneration.from_pretrained(base)
    with seeded(3):
        config = LoraConfig(r=4, lora_alpha=8, target_modules=MODULES, use_dora=request.param == "dora")
        adapted = get_peft_model(model, config).eval()
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(str(folder))
    return folder, adapted


def by_peft(adapted: Any, base: Path) -> np.ndarray:
    """The fused contents of BATCH, one at a time, from the model that peft wraps."""
    import torch
    from transformers import AutoTokenizer, Qwen2VLImageProcessor

    tokenizer, images = AutoTokenizer.from_pretrained(base), Qwen2VLImageProcessor()
    images.size = {"shortest_edge": 4 * 784, "longest_edge": 1280 * 784}
    rows = []
    for text, image in zip(*BATCH.values(), strict=True):
        pixels = images(images=[image.convert("RGB")], return_tensors="pt")
        marks = "<|image_pad|>" * (int(pixels["image_grid_thw"].prod()) // 4)
        ids = torch.tensor([tokenizer(f"{marks} {text}")["input_ids"]])
        with torch.inference_mode():
            found = adapted(
                input_ids=ids, position_ids=torch.arange(ids.shape[1])[None], output_hidden_states=True, **pixels
            )
        row = found.hidden_states[-1][0, -1].numpy()
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


def ours(folder: Path, **options: Any) -> Vlm2VecEncoder:
    encoder = resolve(ModelSpec(str(folder), **options))
    assert isinstance(encoder, Vlm2VecEncoder)
    return encoder


@pytest.mark.parametrize("old_names", [False, True])
def test_merged_attached_and_as_a_checkpoint(
    old_names: bool, base: Path, adapter: tuple[Path, Any], tmp_path: Path
) -> None:
    """old_names: as transformers 4 named the layers of both towers."""
    folder = shutil.copytree(adapter[0], tmp_path / "adapter")
    if old_names:
        names = {"model.model.language_model.": "model.model.", "model.model.visual.": "model.visual."}
        rename_weights(
            folder / "adapter_model.safetensors",
            lambda name: next(name.replace(new, old) for new, old in names.items() if new in name),
        )
    expected = by_peft(adapter[1], base)
    plain = vectors(ours(base), **BATCH)
    assert np.abs(plain - expected).max() > 0.01
    published = shutil.copytree(folder, tmp_path / "published")  # with the base's config.json beside the adapter
    shutil.copy(base / "config.json", published)
    encoders = {
        "option": ours(base, adapter=str(folder)),
        "attached": ours(base, adapter=str(folder), merge=False),
        "folder": ours(folder),
        "published": ours(published),
        "by name": encoder_for(published, "b3-qwen2-vl"),
    }
    for name, encoder in encoders.items():
        assert_same_directions(vectors(encoder, **BATCH), expected, MAX_DIFFERENCE)
        assert hasattr(encoder.model.language_model.layers[0].self_attn.q_proj, "lora_A"), name
    prints = {name: encoder.fingerprint for name, encoder in encoders.items()}
    assert prints["option"] == prints["attached"] == prints["folder"]
    assert len({*prints.values(), ours(base).fingerprint}) == 4


def test_the_base_of_an_adapter_is_part_of_its_identity(base: Path, adapter: tuple[Path, Any], tmp_path: Path) -> None:
    published = shutil.copytree(adapter[0], tmp_path / "published")
    shutil.copy(base / "config.json", published)
    before = ours(published).fingerprint
    other = shutil.copytree(base, tmp_path / "other")
    (other / "config.json").write_text((base / "config.json").read_text() + "\n")
    path = published / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(base)}))
    same = ours(published).identity["base"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(other)}))
    assert ours(published).identity["base"] != same and ours(published).fingerprint != before


def test_half_precision_is_cast_after_the_merge(base: Path, adapter: tuple[Path, Any]) -> None:
    import torch

    layer = ours(base, adapter=str(adapter[0]), dtype="bfloat16").model.language_model.layers[0].mlp.down_proj
    whole = ours(base, adapter=str(adapter[0])).model.language_model.layers[0].mlp.down_proj
    assert torch.equal(layer.base_layer.weight, whole.base_layer.weight.to(torch.bfloat16))


def test_adapters_that_cannot_be_used(base: Path, adapter: tuple[Path, Any], tmp_path: Path) -> None:
    published = shutil.copytree(adapter[0], tmp_path / "published")
    shutil.copy(base / "config.json", published)
    with pytest.raises(UserError, match="is an adapter itself; name its base"):
        ours(published, adapter=str(adapter[0])).load()
    with pytest.raises(UserError, match=r"no adapter_config\.json there"):
        ours(base, adapter=str(base)).load()
    part = shutil.copytree(adapter[0], tmp_path / "part")
    rename_weights(part / "adapter_model.safetensors", lambda name: None if "layers.1" in name else name)
    with pytest.raises(ModelError, match=r"weights of the adapter .* are missing"):
        ours(base, adapter=str(part)).load()
    other = tiny_qwen.build("2.5", tmp_path / "other")
    rename_weights(other / "model.safetensors", lambda name: None if "norm.weight" in name else name)
    with pytest.raises(ModelError, match="weights of Qwen2_5_VLForConditionalGeneration are not in the checkpoint"):
        ours(other).load()
