"""Which models and tasks have details, and how they were run, from folders written by hand."""

import json
from typing import Any

import pytest

from raylib.errors import UnknownNameError, UserError
from raylib.inspect.results import choose_model, choose_task, models_with_details, run_settings, spec_of
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve


@pytest.fixture
def results(tmp_path):
    """org/a twice (plain and with a limit), org/b under two revisions, org/c without details."""

    def write(folder, name, *tasks):
        for task in tasks:
            (tmp_path / folder / "details" / task).mkdir(parents=True)
            (tmp_path / folder / "details" / task / "rankings.parquet").touch()
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        if name:
            (tmp_path / folder / "model_meta.json").write_text(json.dumps({"name": name}))

    write("org__a/r1", "org/a", "One", "Two")
    write("org__a/r1/experiments/limit_5", "org/a", "One")
    write("org__b/1111111111112222", "org/b", "One")
    write("org__b/3333333333334444", None, "One")
    write("org__c/r1", "org/c")
    return tmp_path


def test_every_model_with_details(results):
    models = models_with_details(str(results))
    assert [m.full_title for m in models] == [
        "org/a @ r1",
        "org/a [limit_5] @ r1",
        "org/b @ 111111111111",
        "org/b @ 333333333333",
    ]
    assert models[0].tasks == {task: f"{results}/org__a/r1/details/{task}" for task in ("One", "Two")}
    assert models[1].tasks == {"One": f"{results}/org__a/r1/experiments/limit_5/details/One"}


def test_an_object_store():
    import fsspec

    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/bucket/out/org__a/r1/details/One/rankings.parquet", b"")
    filesystem.pipe("/bucket/out/store/0123456789abcdef/part-1.parquet", b"")
    (model,) = models_with_details("memory://bucket/out")
    assert model.title == "org/a" and model.tasks == {"One": "memory://bucket/out/org__a/r1/details/One"}


def test_a_model_by_name(results):
    models = models_with_details(str(results))
    assert choose_model(models, "org/a") is models[0], "the plain run goes before one with options"
    assert choose_model(models, "org/a [limit_5]") is models[1]
    assert choose_model(models, "org/b @ 333333333333") is models[3]
    assert choose_model(models[:1], "") is models[0]
    with pytest.raises(UserError, match=r"several models are called org/b; add --with with one of 'org/b @ 1111"):
        choose_model(models, "org/b", "--with")
    with pytest.raises(UnknownNameError, match=r"unknown model 'org/c'.*With details there are: 'org/a'"):
        choose_model(models, "org/c")


def test_a_model_by_the_name_it_was_run_under(results):
    for folder, name in (("local__pkg.mod.make", "local/pkg.mod.make"), ("local__weights", "local/weights")):
        (results / folder / "r" / "details" / "One").mkdir(parents=True)
        (results / folder / "r" / "details" / "One" / "rankings.parquet").touch()
        (results / folder / "r" / "model_meta.json").write_text(json.dumps({"name": name}))
    models = models_with_details(str(results))
    assert choose_model(models, "pkg.mod:make").name == "local/pkg.mod.make"
    assert choose_model(models, "/models/weights/").name == "local/weights"


def test_a_task_by_name(results):
    plain, limited, *_ = models_with_details(str(results))
    assert choose_task(plain, "Two") == "Two" and choose_task(limited, "") == "One"
    with pytest.raises(UserError, match=r"several tasks; add --task with one of 'One', 'Two'"):
        choose_task(plain, "")
    with pytest.raises(UnknownNameError, match=r"unknown task 'Twos'. Did you mean Two\?"):
        choose_task(plain, "Twos")


def test_damaged_metadata_is_named(results):
    (results / "org__a" / "r1" / "model_meta.json").write_text("{")
    with pytest.raises(UserError, match=r"org__a/r1/model_meta.json cannot be read as JSON"):
        models_with_details(str(results))


def write_summary(results, name, model, fingerprint, when, config):
    (results / "runs").mkdir(exist_ok=True)
    summary = {"model": model, "variant": "", "fingerprint": fingerprint, "timestamp": when, "config": config}
    (results / "runs" / f"{name}.json").write_text(json.dumps(summary))


def test_the_settings_of_the_last_run_of_the_same_encoder(results):
    model = models_with_details(str(results))[0]
    half = {"model": ["org/a", "org/b"], "dtype": "float16"}
    write_summary(results, "1", "org/a", "aa", "2026-01-02", half)
    write_summary(results, "2", "org/a", "aa", "2026-01-03", {**half, "max_pixels": 1000, "batch_size": 8})
    write_summary(results, "3", "org/a", "bb", "2026-01-04", {"dtype": "float32"})
    (results / "runs" / "4.json").write_text("[1]")
    (results / "runs" / "5.json").write_text("no summary")

    found = run_settings(str(results), "aa", model)
    assert spec_of(found, "org/a") == ModelSpec("org/a", dtype="float16", max_pixels=1000)
    assert run_settings(str(results), "", model)["dtype"] == "float32", "by name, where there is no fingerprint"
    assert run_settings(str(results), "cc", model) == {}
    assert spec_of({}, "org/a") == ModelSpec("org/a")


def test_a_model_named_by_its_adapter_is_found_again(tmp_path):
    """It runs as its base with that adapter, and the summary says so."""
    from raylib.evaluate.config import EvaluateConfig
    from raylib.evaluate.model_run import ModelRun

    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": f"{tmp_path}/base"}))
    config = EvaluateConfig(model=[f"{tmp_path}/lora"], tasks=["One"], dtype="float16")
    encoder = resolve(config.specs()[0])
    unused: Any = None
    summary = ModelRun(encoder, config, unused, unused, unused, unused).summary
    assert spec_of({**summary.config, "model": summary.model}, "") == encoder.spec
    assert (encoder.spec.adapter, encoder.spec.dtype) == (f"{tmp_path}/lora", "float16")
