"""What is said of a model in which something is not found."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raylib.errors import ModelError
from raylib.extract.anatomy import decoder_depth, dissect, image_token
from raylib.extract.extractor import Extractor
from raylib.models.protocol import ModelSpec
from raylib.models.untrained import build_tokenizer

from .made import rows


def config(model_type="strange_vlm", depth: int | None = 3, **others):
    made = SimpleNamespace(model_type=model_type, num_hidden_layers=depth, **others)
    made.get_text_config = lambda: made
    return made


def model(blocks=3, **parts):
    """A model with a decoder of so many blocks, and these modules beside it."""
    from torch import nn

    made = nn.Module()
    made.decoder = nn.ModuleList([nn.Linear(2, 2) for _ in range(blocks)])
    for name, part in parts.items():
        setattr(made, name, part)
    made.config = config()
    return made


@pytest.fixture
def text_only(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer({"eos_token": "</s>", "pad_token": "<pad>"})
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return Extractor(ModelSpec(str(tmp_path)), "0")


def test_a_model_of_text_alone_has_no_image_token(text_only):
    assert text_only.layers == (0,)
    with pytest.raises(ModelError, match=r"\(llama\): no image token found; looked for image_token_id.*Is it a v"):
        text_only.prepare("Why?", rows()[0].image)


def test_a_model_of_text_alone_cannot_be_loaded(text_only):
    with pytest.raises(ModelError, match=r"\(llama\): no model of this kind reads images and text; looked in"):
        text_only.load()


def test_a_tower_that_is_not_found_is_named():
    from torch import nn

    with pytest.raises(ModelError, match=r"m \(strange_vlm\): no vision tower found; looked for .*vision_tower"):
        dissect(model(eyes=nn.Linear(2, 2)), "some/m")
    assert dissect(model(vision_tower=nn.Linear(2, 2)), "some/model").blocks


def test_a_decoder_that_is_not_found_is_named():
    from torch import nn

    with pytest.raises(ModelError, match=r"no decoder found; looked for .*list of 3 modules"):
        dissect(model(blocks=4, vision_tower=nn.Linear(2, 2)), "some/model")
    with pytest.raises(ModelError, match=r"its config has no num_hidden_layers; is it a language model"):
        decoder_depth(config(depth=None), "some/model")


def test_an_image_token_may_be_the_configs_the_processors_or_the_tokenizers():
    nothing = SimpleNamespace()
    assert image_token(config(image_token_index=7), nothing, "some/model") == 7
    assert image_token(config(), SimpleNamespace(image_token_id=8), "some/model") == 8
    assert image_token(config(), SimpleNamespace(tokenizer=SimpleNamespace(image_token_id=9)), "some/model") == 9
    with pytest.raises(ModelError, match=r"\(strange_vlm\): no image token found; looked for image_token_id"):
        image_token(config(), nothing, "some/model")
