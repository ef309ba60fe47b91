"""Where colpali-engine's weights come from: whole checkpoints old and new, adapters, and those that do not fit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.errors import ModelError
from raylib.models import untrained

from . import tiny_vlm
from .colpali_helpers import DOCUMENT, QUERY, assert_same, encode, ours, rows, run, upstream_model
from .helpers import encoder_for


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Upstream class name → folder with a tiny checkpoint of it, built once."""
    return cache(lambda upstream: tiny_vlm.build(upstream, tmp_path_factory.mktemp(upstream)))


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


def point_adapter_at(base: Path, adapter: Path) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(base)}))


@pytest.mark.parametrize("old_names", [False, True])
def test_adapters_as_option_and_as_checkpoint(
    old_names: bool, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """old_names: as transformers 4 named the layers that published adapters were trained on."""
    base, adapter = checkpoint("ColQwen2_5"), tmp_path / "adapter"
    model = save_adapter("ColQwen2_5", base, adapter)
    point_adapter_at(base, adapter)
    if old_names:
        rename_weights(adapter / "adapter_model.safetensors", lambda name: name.replace(".language_model.", ".model."))
    _, processor = upstream_model("ColQwen2_5", base)
    expected = [rows(run(model, processor.process_images([page]))) for page in tiny_vlm.mixed_pages()]

    plain, option = ours("ColQwen2_5", base), ours("ColQwen2_5", base, adapter=str(adapter))
    whole = encoder_for(adapter, "colqwen2.5")  # as a hub name that is an adapter
    batch = {"image": tiny_vlm.mixed_pages()}
    for encoder in (option, whole, ours("ColQwen2_5", adapter)):
        assert_same(encode(encoder, batch, DOCUMENT), expected)
    assert np.abs(encode(plain, batch, DOCUMENT).values - np.concatenate(expected)).max() > 0.01
    assert len({plain.fingerprint, option.fingerprint, whole.fingerprint}) == 3

    other = shutil.copytree(base, tmp_path / "other base")
    (other / "config.json").write_text((base / "config.json").read_text() + "\n")
    point_adapter_at(other, adapter)
    assert encoder_for(adapter, "colqwen2.5").fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (lambda name: None if "layers.1" in name else name, "2 weights of the adapter .* are missing"),
        (lambda name: name.replace("custom_text_proj", "another_proj"), "are missing .*custom_text_proj"),
    ],
)
def test_an_adapter_that_does_not_fit(
    rename: Callable[[str], str | None], message: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    save_adapter("ColQwen2_5", checkpoint("ColQwen2_5"), tmp_path)
    rename_weights(tmp_path / "adapter_model.safetensors", rename)
    with pytest.raises(ModelError, match=message):
        ours("ColQwen2_5", checkpoint("ColQwen2_5"), adapter=str(tmp_path)).load()


def rename_weights(path: Path, rename: Callable[[str], str | None]) -> None:
    """None drops the weight."""
    from safetensors.torch import load_file, save_file

    weights = {rename(name): weight for name, weight in load_file(path).items()}
    save_file({n: w for n, w in weights.items() if n is not None}, path, metadata={"format": "pt"})


def test_missing_weights_are_an_error(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("ColQwen2"), tmp_path / "headless")
    rename_weights(folder / "model.safetensors", lambda name: None if name.startswith("custom_text_proj") else name)
    with pytest.raises(ModelError, match=r"2 weights of ColQwen2 are not in the checkpoint: .*custom_text_proj.bias"):
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
    rename_weights(folder / "model.safetensors", lambda name: re.sub(new, old, name))
    batch = {"text": tiny_vlm.QUERIES}
    expected = encode(ours(upstream, checkpoint(upstream)), batch, QUERY)
    np.testing.assert_array_equal(encode(ours(upstream, folder), batch, QUERY).values, expected.values)
