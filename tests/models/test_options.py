"""The flags of models, and the specs they make."""

import dataclasses

import pytest

from raylib.errors import UnknownNameError, UnsupportedOptionError, UserError
from raylib.evaluate.config import EvaluateConfig
from raylib.models.options import ModelOptions
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.train.config import TrainConfig


def test_every_option_of_a_spec_is_a_flag_with_the_same_default():
    spec = {f.name: f.default for f in dataclasses.fields(ModelSpec) if f.name not in ("name", "copied")}
    flags = {f.name: f.default for f in dataclasses.fields(ModelOptions) if f.name != "model"}
    assert flags == spec


def test_options_that_change_no_vector_do_not_tell_runs_apart():
    spec = ModelSpec("m", adapter="a", merge=False, attention="eager", compile=True, device="cpu", query_prompt="")
    assert spec.given() == {"adapter": "a", "merge": False, "attention": "eager", "compile": True, "query_prompt": ""}
    assert spec.options() == {"adapter": "a", "query_prompt": ""}
    assert ModelSpec("m").given() == ModelSpec("m").options() == {}
    assert ModelSpec("m", endpoint="http://h/v1").options() == {"endpoint": "http://h/v1"}


def test_the_runtime_that_runs_a_model_anyway_is_none():
    assert ModelSpec("m", runtime="torch").given() == ModelSpec("m", runtime="torch").options() == {}
    spec = ModelSpec("m", runtime="openvino", precision="bf16")
    assert spec.options() == {"runtime": "openvino", "precision": "bf16"}


def test_the_precision_of_training_is_none_of_the_models():
    config = TrainConfig(model=["m"], data=["d.jsonl"], precision="bf16")
    assert config.spec == ModelSpec("m") and config.precision == "bf16"


def test_an_option_that_a_family_does_not_have_is_refused_by_its_flag():
    with pytest.raises(UnsupportedOptionError, match="has no option --compile, --no-merge; it has: none"):
        resolve(ModelSpec("raylib/hashed-ngrams", merge=False, compile=True))


@pytest.mark.parametrize(
    ("gpus", "device", "expected"), [(2, None, "auto"), (2, "cuda:1", "cuda:1"), (1, None, None), (None, None, None)]
)
def test_a_worker_with_several_gpus_holds_one_model(gpus, device, expected):
    (spec,) = EvaluateConfig(model=["m"], gpus_per_worker=gpus, device=device).specs()
    assert spec.device == expected


def test_a_family_can_be_named_where_files_do_not_tell(tmp_path):
    found = resolve(ModelSpec(str(tmp_path), family="siglip"))
    assert found.family.name == "siglip"
    with pytest.raises(UnknownNameError, match=r"unknown family 'siglipp'\. Did you mean siglip"):
        resolve(ModelSpec(str(tmp_path), family="siglipp"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "flash"}, "--attention is 'flash'; expected one of sdpa, eager, flash_attention_2"),
        ({"attention": "flash_attention_2"}, "add --dtype bfloat16 or float16"),
    ],
)
def test_attention_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        resolve(ModelSpec("openai/clip-vit-base-patch16", **options))
