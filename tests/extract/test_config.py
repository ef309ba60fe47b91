"""The flags of `raylib extract`: every one is read, from the command line and from YAML."""

import dataclasses

import pytest

from raylib.cli import parse
from raylib.errors import UserError
from raylib.extract.architectures import file_prefix
from raylib.extract.config import ExtractConfig

VALUES = {
    "workers": 3, "min_workers": 2, "gpus_per_worker": 0.5, "cpus_per_worker": 2, "address": "auto", "local": True,
    "model": "some/vlm", "vqa_dataset": "vqa.csv", "images_dir": "images", "output_dir": "out", "image_column": "scan",
    "layers": "all", "boundary": "legacy", "generate": True, "max_new_tokens": 20, "batch_size": "auto",
    "checkpoint_interval": 50, "format": "parquet", "compression": "lzf", "revision": "main", "adapter": "lora",
    "dtype": "bfloat16", "attention": "eager", "device": "cpu", "trust_remote_code": True, "cache_dir": "cache",
    "test": True, "allow_errors": 2, "overwrite": True, "quiet": True,
    "price_table": "prices.yaml", "log_format": "json",
}  # fmt: skip


def test_there_is_a_value_for_every_flag():
    assert set(VALUES) == {f.name for f in dataclasses.fields(ExtractConfig)}


@pytest.mark.parametrize("name", VALUES)
def test_every_flag_is_read_from_the_command_line_and_from_yaml(name, tmp_path):
    value, flag = VALUES[name], "--" + name.replace("_", "-")
    (tmp_path / "run.yaml").write_text(f"{flag[2:]}: {value}\n")
    for arguments in ([flag] if value is True else [flag, str(value)], ["--config", str(tmp_path / "run.yaml")]):
        found = parse(ExtractConfig, arguments, prog="raylib extract")
        assert getattr(found, name) == value
        assert dataclasses.asdict(found) == dataclasses.asdict(ExtractConfig()) | {name: value}, (
            "nothing else is changed"
        )


def test_a_model_spread_over_gpus_and_a_test_folder():
    config = ExtractConfig(model="some/vlm", gpus_per_worker=2, test=True, output_dir="out/", revision="main")
    assert (config.spec.device, config.spec.revision, config.folder) == ("auto", "main", "out/test")


def test_local_and_address_exclude_each_other():
    with pytest.raises(UserError, match="--local runs without Ray"):
        ExtractConfig(local=True, address="auto")


@pytest.mark.parametrize(
    ("model", "prefix"),
    [
        ("google/gemma-3-12b-it", "gemma3_12b_embeddings"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen25vl_7b_embeddings"),
        ("google/gemma-3-4b-it", "gemma-3-4b-it_embeddings"),
        ("/models/my model/", "my_model_embeddings"),
        ("..", "model_embeddings"),
    ],
)
def test_files_begin_as_those_of_the_old_scripts(model, prefix):
    assert file_prefix(model) == prefix
