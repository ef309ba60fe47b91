"""Classes that extract has no code for: the same states as by the plain procedure, or an error that says why."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from raylib.errors import ModelError
from raylib.extract import collate
from raylib.extract import extractor as extractor_module
from raylib.extract.anatomy import dissect, image_token
from raylib.extract.architectures import PROVEN
from raylib.extract.extractor import Extractor
from raylib.models.protocol import ModelSpec

from .checkpoints import BUILDERS, MORE
from .made import rows
from .references_c import reference
from .test_parity import check


@pytest.mark.parametrize("name", MORE)
def test_a_batch_of_mixed_rows_equals_the_rows_alone(name, tmp_path):
    folder = MORE[name](tmp_path)
    extractor = Extractor(ModelSpec(str(folder)), "0,1/2,-1")
    prepared = [extractor.prepare(row.question, row.image) for row in rows()]
    alone = [reference(name, folder, row.image, row.question, extractor.layers) for row in rows()]
    assert [(list(row.span.image), row.span.query) for row in prepared] == [
        (row.image_positions, row.query_position) for row in alone
    ]
    check(extractor.forward(prepared, "right").values, alone, extractor.layers, "padding on the right")
    check(extractor.forward(prepared[::-1], "left").values, alone[::-1], extractor.layers, "padding on the left")
    check(extractor.forward(prepared[3:4]).values, alone[3:4], extractor.layers, "one row")


def on_meta(model: str, **config):
    """A model without weights, of a class and its default config."""
    import torch
    import transformers

    kind = getattr(transformers, model)
    with torch.device("meta"):
        return kind(kind.config_class(**config))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("Florence2ForConditionalGeneration", "an encoder-decoder"),
        ("T5Gemma2ForConditionalGeneration", "an encoder-decoder"),
        ("FuyuForCausalLM", "no vision tower found"),
        ("Mistral4ForCausalLM", "no vision tower found"),
    ],
)
def test_what_has_not_the_parts_is_refused_with_the_reason(model, reason):
    with pytest.raises(ModelError, match=reason):
        dissect(on_meta(model), "some-model")


@pytest.mark.parametrize("model", ["IdeficsForVisionText2Text", "Kosmos2ForConditionalGeneration", "GitForCausalLM"])
def test_a_config_without_an_image_token_is_refused(model):
    import transformers

    config = getattr(transformers, model).config_class()
    with pytest.raises(ModelError, match="no image token found"):
        image_token(config, None, "some-model")


def test_an_image_token_that_also_begins_texts_is_refused():
    """As Kosmos-2.5's."""
    from types import SimpleNamespace

    config = SimpleNamespace(model_type="kosmos-2.5")
    tokenizer = SimpleNamespace(bos_token_id=0, eos_token_id=2, image_token_id=0)
    with pytest.raises(ModelError, match="its image token 0 also begins or ends texts"):
        image_token(config, SimpleNamespace(tokenizer=tokenizer), "some-model")
    tokenizer.image_token_id = 7
    assert image_token(config, SimpleNamespace(tokenizer=tokenizer), "some-model") == 7


def test_a_class_that_no_test_has_proven_is_checked_with_its_first_batch(monkeypatch, tmp_path):
    """Molmo 2, as if nothing were known of how it numbers patches."""
    folder = str(MORE["molmo2"](tmp_path))
    monkeypatch.setattr(collate, "_PATCH_NUMBERS", "")
    monkeypatch.setattr(extractor_module, "PROVEN", frozenset())
    extractor = Extractor(ModelSpec(folder), "-1")
    prepared = [extractor.prepare(row.question, row.image) for row in rows()[:3]]
    with pytest.raises(ModelError, match=r"row 3 of a batch has another .* than alone.*--batch-size 1"):
        extractor.forward(prepared)
    for row in prepared:
        extractor.forward([row])
    monkeypatch.undo()
    monkeypatch.setattr(extractor_module, "PROVEN", frozenset())
    calls = []
    hook = extractor.anatomy.tower.register_forward_hook(lambda *_: calls.append(1))
    extractor.forward(prepared)
    extractor.forward(prepared)
    hook.remove()
    assert len(calls) == 3, "two forwards and, once, one of a row alone"


def test_what_is_called_proven_is_proven():
    assert {name.partition("3.5")[0].rstrip("3") if "internvl" in name else name for name in BUILDERS} | set(
        MORE
    ) == PROVEN


def test_a_decoder_is_not_taken_for_a_q_former():
    """Both have twelve blocks."""
    model = on_meta("Blip2ForConditionalGeneration")
    assert model.config.qformer_config.num_hidden_layers == model.config.text_config.num_hidden_layers
    blocks = dissect(model, "some-model").blocks
    assert blocks[0] is model.get_submodule("language_model.model.decoder.layers.0")


def test_of_two_lists_that_could_be_the_decoder_none_is_taken():
    from torch import nn

    model = on_meta("LlavaForConditionalGeneration")
    language = model.model.language_model
    language.others = nn.ModuleList(copy.copy(layer) for layer in language.layers)
    with pytest.raises(ModelError, match="no decoder found; looked for one list of 32 modules"):
        dissect(model, "some-model")


def test_of_two_towers_none_is_taken():
    model = on_meta("LlavaForConditionalGeneration")
    model.model.vision_encoder = copy.copy(model.model.vision_tower)
    with pytest.raises(ModelError, match="no vision tower found; looked for one module named vision_tower, visual"):
        dissect(model, "some-model")


def test_a_row_of_another_layout_than_its_prompt_is_refused(checkpoint):
    """A decoder that reads something else than the prompt, as a Q-Former does."""
    extractor = Extractor(ModelSpec(str(checkpoint("gemma3"))), "0")
    prepared = [extractor.prepare(row.question, row.image) for row in rows()[:2]]
    block = extractor.anatomy.blocks[0]
    hook = block.register_forward_hook(lambda module, inputs, output: output[:, :-1])
    with pytest.raises(ModelError, match="expected a state for each of"):
        extractor.forward(prepared)
    hook.remove()
    assert all(np.isfinite(found).all() for found in extractor.forward(prepared).values.values())
