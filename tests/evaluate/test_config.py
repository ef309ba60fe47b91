"""The settings of the evaluate job."""

import pytest

from raylib.errors import UserError
from raylib.evaluate.config import EvaluateConfig
from raylib.models.protocol import ModelSpec


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("ViDoRe(v1),MTEB(eng, v2)", ["ViDoRe(v1)", "MTEB(eng, v2)"]),
        (["ViDoRe(v1), MTEB(eng, v2)", "StdlibPages"], ["ViDoRe(v1)", "MTEB(eng, v2)", "StdlibPages"]),
        (" a ,, b,", ["a", "b"]),
        (("a", "b"), ["a", "b"]),
        ("", []),
        (None, []),
        ("odd),b", ["odd)", "b"]),
    ],
)
@pytest.mark.parametrize("field", ["model", "benchmarks", "tasks", "languages", "splits"])
def test_commas_divide_names_outside_parentheses(given, names, field):
    assert getattr(EvaluateConfig(**{field: given}), field) == names


@pytest.mark.parametrize(
    "name", ["batch_size", "workers", "min_workers", "cpus_per_worker", "limit", "parallel_models"]
)
@pytest.mark.parametrize("value", [0, -3])
def test_numbers_that_must_be_positive(name, value):
    with pytest.raises(UserError, match=f"^--{name.replace('_', '-')} is {value}; expected at least 1$"):
        EvaluateConfig(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("allow_errors", -1), ("gpus_per_worker", -0.5)])
def test_numbers_that_must_not_be_negative(name, value):
    with pytest.raises(UserError, match=f"^--{name.replace('_', '-')} is {value}; expected 0 or more$"):
        EvaluateConfig(**{name: value})
    EvaluateConfig(**{name: 0})


def test_a_cluster_and_no_cluster_exclude_each_other():
    with pytest.raises(UserError, match="--local runs without Ray and --address names a cluster"):
        EvaluateConfig(local=True, address="ray://head:10001")


def test_something_must_be_evaluated_on_something():
    with pytest.raises(UserError, match=r"no model was given; add --model NAME"):
        EvaluateConfig(tasks=["T"]).check_complete()
    with pytest.raises(UserError, match=r"nothing to evaluate on; add --benchmarks"):
        EvaluateConfig(model=["m"]).check_complete()
    EvaluateConfig(model=["m"], tasks=["T"]).check_complete()


def test_every_model_gets_all_options_once():
    config = EvaluateConfig(
        model=["a", "b", "a"], dtype="float16", max_pixels=100, embedding_dim=8, trust_remote_code=True
    )
    options = {"dtype": "float16", "max_pixels": 100, "embedding_dim": 8, "trust_remote_code": True}
    assert config.specs() == [ModelSpec("a", **options), ModelSpec("b", **options)]


def test_the_store_lies_in_the_output_folder_unless_told_otherwise():
    assert EvaluateConfig(output_folder="out/").store_folder == "out/store"
    assert EvaluateConfig(output_folder="out", store="s3://bucket/store").store_folder == "s3://bucket/store"


def test_what_was_set_is_told_even_when_it_is_zero():
    told = EvaluateConfig(model=["m"], tasks=["T"], gpus_per_worker=0.0, local=True, data_root=None).as_dict()
    assert told["gpus_per_worker"] == 0.0 and told["local"] is True and told["model"] == ["m"]
    assert not {"data_root", "benchmarks", "quiet", "overwrite"} & told.keys()


def test_a_file_url_is_a_local_path():
    config = EvaluateConfig(model=["m"], tasks=["t"], output_folder="file:///data/results", store="file:///data/store")
    assert (config.output_folder, config.store_folder) == ("/data/results", "/data/store")
