"""A peft adapter on every kind of model: merged, beside the weights, and put on by peft itself, the same vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.models.families import family
from raylib.models.families_vlm import VLM
from raylib.models.protocol import Encoder
from raylib.models.untrained import seeded
from raylib.types import Embeddings, Role

from . import tiny_intern, tiny_vlm
from .helpers import encoder_for
from .tiny_families import TINY, contents

FAMILIES = ["clip", "siglip", "sentence-transformers", "qwen3-embedding"]
FAMILIES += ["colpali", "colqwen2.5", "biqwen2.5", "colgemma3", "bigemma3"]
FAMILIES += ["gme-qwen2-vl", "vlm2vec", "vlm2vec-llava-next", "colintern"]
MAX_DIFFERENCE = 1e-5
"""Of a component, in float32: a merged weight is rounded once more."""

DOCUMENT: Role = "document"
Tiny = Callable[[str], Path]


def weights(encoder: Any) -> dict[str, Any]:
    """The tensors of the model that an adapter may change."""
    return (encoder.model[0].model if "sentence" in encoder.family.encoder else encoder.model).state_dict()


def backbone(encoder: Any) -> Any:
    """The model that peft adapts: what it is given there, `encoder` runs."""
    if "sentence" in encoder.family.encoder:
        return encoder.model[0].model
    if encoder.family.name == "colintern":
        return encoder.model.language_model
    if encoder.family in VLM:  # adapters are trained on the model with its head
        import transformers

        whole = getattr(transformers, encoder.family.settings["model"]).from_pretrained(encoder.location).eval()
        encoder.model = whole.model
        return whole
    return encoder.model


def configurations() -> dict[str, Any]:
    import peft

    layers = ["q_proj", "v_proj"]
    return {
        "lora": peft.LoraConfig(r=4, lora_alpha=8, target_modules=layers, init_lora_weights=False),
        "dora": peft.LoraConfig(r=4, target_modules=layers, use_dora=True, init_lora_weights=False),
        "loha": peft.LoHaConfig(r=4, target_modules=layers, init_weights=False),
        "ia3": peft.IA3Config(target_modules=layers, feedforward_modules=[], init_ia3_weights=False),
    }


def save_adapter(base: Encoder, folder: Path, kind: str = "lora") -> str:
    """An adapter for that encoder's model with weights that change a lot; beside it, for ColIntern, heads with it."""
    import torch
    from peft import get_peft_model

    with seeded(5):
        trained = get_peft_model(backbone(base), configurations()[kind])
        for name, weight in trained.named_parameters():
            if weight.requires_grad and "magnitude" not in name:
                torch.nn.init.normal_(weight, mean=1.0 if "ia3" in name else 0.0, std=0.2)
    trained.save_pretrained(str(folder), save_embedding_layers=False)
    if base.family.name == "colintern":
        lora = trained, trained.peft_config["default"]
        tiny_intern.save(folder, tiny_intern.heads(Path(base.spec.name), lora=lora))
    return str(folder)


def by_peft(base: Encoder, adapter: str) -> Encoder:
    """`base` with the adapter put on its model in place, by peft alone."""
    from peft import PeftModel

    PeftModel.from_pretrained(backbone(base), adapter).eval()
    return base


def encoded(encoder: Encoder) -> list[Embeddings]:
    context = encoder.context(None, DOCUMENT)
    asked = contents(encoder.family, tiny_vlm.QUERIES, tiny_vlm.mixed_pages())
    return [encoder.encode(dict(columns), context) for columns in asked.values()]


def difference(first: list[Embeddings], second: list[Embeddings]) -> float:
    return max(float(np.abs(a.values - b.values).max()) for a, b in zip(first, second, strict=True))


def assert_adapted(name: str, folder: Path, adapter: str) -> None:
    expected = encoded(by_peft(encoder_for(folder, name), adapter))
    merged, beside = encoder_for(folder, name, adapter=adapter), encoder_for(folder, name, adapter=adapter, merge=False)
    for encoder in (merged, beside):
        found = encoded(encoder)
        assert difference(found, expected) <= MAX_DIFFERENCE
        for got, wanted in zip(found, expected, strict=True):
            lengths = np.linalg.norm(got.values, axis=1) * np.linalg.norm(wanted.values, axis=1)
            assert ((got.values * wanted.values).sum(axis=1) / lengths).min() >= 0.9999
    assert difference(encoded(encoder_for(folder, name)), expected) > 1e-2
    assert working_adapters(merged) == 0 < working_adapters(beside)
    assert merged.fingerprint == beside.fingerprint


def working_adapters(encoder: Any) -> int:
    """Layers that add an adapter's part on every forward."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return sum(isinstance(layer, BaseTunerLayer) and not layer.merged for layer in encoder.model.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_merged_and_beside_are_what_peft_gives(name: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny(name)
    assert_adapted(name, folder, save_adapter(encoder_for(folder, name), tmp_path / "adapter"))


@pytest.mark.parametrize("name", ["clip", "biqwen2.5"])
@pytest.mark.parametrize("kind", ["dora", "loha", "ia3"])
def test_adapters_of_other_kinds(name: str, kind: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny(name)
    assert_adapted(name, folder, save_adapter(encoder_for(folder, name), tmp_path / "adapter", kind))


@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_are_merged_in_float32_before_the_cast(name: str, tiny: Tiny, tmp_path: Path) -> None:
    import torch

    folder = tiny(name)
    adapter = save_adapter(encoder_for(folder, name), tmp_path / "adapter")
    full, half = (weights(encoder_for(folder, name, adapter=adapter, dtype=dtype)) for dtype in ("float32", "bfloat16"))
    adapted = [key for key in half if "q_proj" in key and "lora_" not in key and key.endswith("weight")]
    if name == "colintern":  # its adapters are of the language model
        adapted = [key for key in adapted if key.startswith("language_model")]
    assert adapted and all(half[key].dtype == torch.bfloat16 for key in adapted)
    assert all(torch.equal(half[key], full[key].to(torch.bfloat16)) for key in adapted)
    plain = weights(encoder_for(folder, name))
    for key in adapted:
        assert not torch.equal(plain[key.replace(".base_layer", "")], full[key]), "merged at all"


def test_every_family_that_takes_adapters_loads_them_in_one_of_these_ways() -> None:
    assert {family(name).encoder for name in FAMILIES} == {entry.encoder for entry in TINY}
