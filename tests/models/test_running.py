"""How a model is run does not decide its vectors: merged or beside, compiled, spread. Its prompt does."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.errors import ModelError
from raylib.models.loading import split_over_gpus
from raylib.models.untrained import build_clip
from tests.models.helpers import TEXTS, assert_same_directions, encoder_for, pictures, vectors


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build_clip(tmp_path_factory.mktemp("running") / "clip")
    return tmp_path_factory.getbasetemp() / "running0" / "clip"


@pytest.fixture(scope="module")
def lora(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    folder = tmp_path_factory.mktemp("lora")
    get_peft_model(AutoModel.from_pretrained(clip), config).save_pretrained(folder)  # pyright: ignore[reportArgumentType]
    return str(folder)


def test_an_adapter_beside_the_weights_gives_what_a_merged_one_gives(clip: Path, lora: str) -> None:
    merged, beside = encoder_for(clip, "clip", adapter=lora), encoder_for(clip, "clip", adapter=lora, merge=False)
    assert_same_directions(vectors(beside, text=TEXTS), vectors(merged, text=TEXTS), max_difference=1e-5)
    assert np.abs(vectors(merged, text=TEXTS) - vectors(encoder_for(clip, "clip"), text=TEXTS)).max() > 1e-3
    kinds = [Counter(type(m).__name__ for m in encoder.model.modules()) for encoder in (merged, beside)]
    assert "lora_A" not in str(merged.model) and kinds[0]["Linear"] < kinds[1]["Linear"]
    assert merged.fingerprint == beside.fingerprint


def test_an_adapter_is_merged_in_float32_before_the_model_is_cast(clip: Path, lora: str) -> None:
    import torch

    full = encoder_for(clip, "clip", adapter=lora).model.state_dict()
    half = encoder_for(clip, "clip", adapter=lora, dtype="bfloat16").model.state_dict()
    assert all(torch.equal(half[name], full[name].to(half[name].dtype)) for name in full)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_compiled_layers_give_the_same_vectors(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    calls: Counter[str] = Counter()
    original = torch.nn.Module.compile

    def counted(self: Any, *arguments: Any, **options: Any) -> None:
        calls[type(self).__name__] += 1
        original(self, *arguments, **options)

    monkeypatch.setattr(torch.nn.Module, "compile", counted)
    plain, fast = encoder_for(clip, "clip"), encoder_for(clip, "clip", compile=True)
    for batch in ({"text": TEXTS}, {"text": TEXTS[:3]}):
        assert_same_directions(vectors(fast, **batch), vectors(plain, **batch), max_difference=1e-5)
    config = plain.model.config
    layers = config.text_config.num_hidden_layers + config.vision_config.num_hidden_layers
    assert calls == {"CLIPEncoderLayer": layers}, "layers, and nothing that holds them"
    assert fast.fingerprint == plain.fingerprint


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_attention_is_the_one_asked_for(kind: str, clip: Path) -> None:
    encoder = encoder_for(clip, "clip", attention=kind)
    assert encoder.model.config.text_config._attn_implementation == kind
    assert_same_directions(vectors(encoder, text=TEXTS), vectors(encoder_for(clip, "clip"), text=TEXTS), 1e-5)
    assert encoder.fingerprint == encoder_for(clip, "clip").fingerprint


def test_flash_attention_that_is_not_installed_is_said(clip: Path) -> None:
    with pytest.raises(ModelError, match=r"weights cannot be loaded: ImportError: .*[Ff]lash"):
        encoder_for(clip, "clip", attention="flash_attention_2", dtype="bfloat16").load()


def test_prompts_of_the_user_come_before_every_other(clip: Path) -> None:
    encoder = encoder_for(clip, "clip", query_prompt="find: ", document_prompt="")
    contexts = {role: encoder.context(None, role) for role in ("query", "document", None)}  # pyright: ignore[reportArgumentType]
    assert {role: context.prompt for role, context in contexts.items()} == {"query": "find: ", "document": "", None: ""}
    asked = encoder.encode({"text": TEXTS[:3]}, contexts["query"]).dense()
    by_hand = vectors(encoder_for(clip, "clip"), text=["find: " + text for text in TEXTS[:3]])
    np.testing.assert_array_equal(asked, by_hand)
    images = vectors(encoder, "query", image=pictures(2))
    np.testing.assert_array_equal(images, vectors(encoder_for(clip, "clip"), image=pictures(2)))


def test_a_model_is_split_between_blocks_over_two_gpus(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.utils.modeling.get_max_memory", lambda memory: memory)  # which GPUs there are
    model = encoder_for(clip, "clip").model
    total = sum(p.numel() * p.element_size() for p in model.parameters())
    places = split_over_gpus(model, {0: total * 8 // 10, 1: 2 * total})
    layers = {name: gpu for name, gpu in places.items() if ".layers." in name}
    assert layers == {"text_model.encoder.layers.0": 0, "text_model.encoder.layers.1": 1}, "cut between two layers"
    assert places["text_model.embeddings"] == 0 and places["vision_model"] == places["text_projection"] == 1
    with pytest.raises(ModelError, match="does not fit the GPUs of one worker; raise --gpus-per-worker"):
        split_over_gpus(model, {0: total // 4, 1: total // 4})
