"""What a user may ask of an extractor: number format, attention, device, adapter, all layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.extract.extractor import Extractor
from raylib.models.protocol import ModelSpec
from raylib.models.untrained import seeded
from raylib.store.representations import KINDS, Representation

from .made import rows
from .references import reference
from .test_parity import TOLERANCE, check


def states(folder, layers="0,1/2,-1", **options):
    """The extractor, and the states of the eight rows in one batch."""
    extractor = Extractor(ModelSpec(str(folder), **options), layers)
    return extractor, extractor.forward([extractor.prepare(row.question, row.image) for row in rows()]).values


def cosines(found, wanted):
    """Of each row with itself."""
    return (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)


@pytest.mark.parametrize("name", ["gemma3", "qwen2_5_vl"])
def test_bfloat16_is_near_float32(name, checkpoint):
    _, exact = states(checkpoint(name))
    extractor, rounded = states(checkpoint(name), dtype="bfloat16")
    assert {str(weight.dtype) for weight in extractor.model.parameters()} == {"torch.bfloat16"}
    assert any((found != exact[key]).any() for key, found in rounded.items()), "it was computed in 16 bits"
    for key, found in rounded.items():
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert cosines(found, exact[key]).min() > 0.99, key.path


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_next"])
def test_rotary_frequencies_keep_float32(name, checkpoint):
    """In bfloat16 the positions of a long prompt would be off."""
    extractor, _ = states(checkpoint(name), "0", dtype="bfloat16")
    found = {path: b for path, b in extractor.model.named_buffers() if path.endswith("inv_freq")}
    plain = dict(Extractor(ModelSpec(str(checkpoint(name))), "0").model.named_buffers())
    assert found
    for path, buffer in found.items():
        np.testing.assert_array_equal(buffer.numpy(), plain[path].numpy())


@pytest.mark.parametrize("name", ["gemma3", "smolvlm"])
def test_eager_attention_gives_the_same(name, checkpoint):
    _, usual = states(checkpoint(name))
    extractor, eager = states(checkpoint(name), attention="eager")
    assert extractor.model.config._attn_implementation == "eager"
    for key, found in eager.items():
        np.testing.assert_allclose(found, usual[key], rtol=0, atol=TOLERANCE, err_msg=key.path)


def test_a_device_may_be_named(checkpoint):
    extractor, found = states(checkpoint("paligemma"), device="cpu")
    assert extractor.device == "cpu"
    assert {weight.device.type for weight in extractor.model.parameters()} == {"cpu"}
    _, usual = states(checkpoint("paligemma"))
    for key, values in found.items():
        np.testing.assert_array_equal(values, usual[key])


def test_all_layers(checkpoint):
    folder = checkpoint("qwen3_vl")
    extractor, found = states(folder, "all")
    assert extractor.layers == tuple(range(6))
    assert set(found) == {
        Representation("vision_only"),
        *(Representation(kind, k) for k in range(6) for kind in KINDS if kind != "vision_only"),
    }
    alone = [reference("qwen3_vl", folder, row.image, row.question, extractor.layers) for row in rows()]
    check(found, alone, extractor.layers, "all layers")


@pytest.fixture(scope="module")
def adapted(checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    """A folder with a LoRA over the text model of LLaVA-NeXT, and the model with it as peft runs it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("lora")
    model = AutoModelForImageTextToText.from_pretrained(checkpoint("llava_next"))
    with seeded(7):
        part = r".*language_model.*\.(q_proj|v_proj|down_proj)"
        wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=part)).eval()
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
    wrapped.save_pretrained(str(folder))
    return folder, wrapped


def test_an_adapter_is_merged(checkpoint, adapted):
    import torch
    from transformers import AutoProcessor

    folder, wrapped = adapted
    extractor, found = states(checkpoint("llava_next"), "1/2,-1", adapter=str(folder))
    _, base = states(checkpoint("llava_next"), "1/2,-1")
    vision = Representation("vision_only")
    np.testing.assert_array_equal(found[vision], base[vision])
    processor = AutoProcessor.from_pretrained(checkpoint("llava_next"))
    for i, row in enumerate(rows()):
        content = [{"type": "image", "image": row.image.convert("RGB")}, {"type": "text", "text": row.question}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        kept = []
        blocks = wrapped.base_model.model.model.language_model.layers
        hook = blocks[-1].register_forward_hook(lambda module, args, output, kept=kept: kept.append(output))
        with torch.inference_mode():
            wrapped(**inputs)
        hook.remove()
        query = Representation("query_token", len(blocks) - 1)
        np.testing.assert_allclose(found[query][i], kept[0][0, -1].numpy(), rtol=0, atol=TOLERANCE)
        assert abs(found[query][i] - base[query][i]).max() > 0.1, "it is not the base model"
    assert extractor.identity != Extractor(ModelSpec(str(checkpoint("llava_next"))), "1/2,-1").identity


def test_an_adapter_of_another_model_is_refused(checkpoint, adapted):
    with pytest.raises(UserError, match="does not fit"):
        states(checkpoint("smolvlm"), adapter=str(adapted[0]))


def test_an_adapter_in_bfloat16_is_merged_in_float32(checkpoint, adapted):
    _, exact = states(checkpoint("llava_next"), "-1", adapter=str(adapted[0]))
    extractor, rounded = states(checkpoint("llava_next"), "-1", adapter=str(adapted[0]), dtype="bfloat16")
    assert {str(weight.dtype) for weight in extractor.model.parameters()} == {"torch.bfloat16"}
    for key, found in rounded.items():
        assert cosines(found, exact[key]).min() > 0.99, key.path
