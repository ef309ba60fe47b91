"""The settings of mining: flags and YAML say the same, and what cannot be right is said before anything is read."""

import dataclasses
from pathlib import Path

import pytest

from raylib.cli import parse
from raylib.errors import UserError
from raylib.mine.config import BatchesConfig, NegativesConfig

SHARED = {
    "data": ["a.jsonl", "b.parquet"],
    "root": "images",
    "data_root": "copies",
    "hub_name": "owner/name",
    "split": "train",
    "group_by": "source",
    "store": "s3://bucket/store",
    "search": "ivf",
    "recall": 0.9,
    "candidates": 500,
    "encode_batch_size": 8,
    "max_batch_tokens": 4096,
    "limit": 7,
    "seed": 3,
    "allow_errors": 2,
    "overwrite": True,
    "dry_run": True,
    "quiet": True,
    "model": ["teacher"],
    "dtype": "float16",
    "workers": 4,
}
NEGATIVES = {
    "output": "mined.jsonl",
    "k": 30,
    "num_negatives": 5,
    "range_min": 2,
    "range_max": 100,
    "max_score": 0.9,
    "min_score": 0.1,
    "positive_fraction": 0.95,
    "sampling": "random",
}
BATCHES = {
    "output": "plan.parquet",
    "batch_size": 64,
    "cluster_size": 16,
    "skip_top": ["20", "DocVQA=70"],
    "neighbours": 50,
    "hard_negatives": 5,
    "method": "growth-swaps",
    "duplicate_similarity": 0.98,
    "suspect_above": 0.9,
    "remainder": "drop",
    "allow_duplicates": True,
    "split_above": 1000,
}
KINDS = [(NegativesConfig, NEGATIVES), (BatchesConfig, BATCHES)]


def as_flags(settings):
    flags = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            flags += [flag] if one is True else [flag, str(one)]
    return flags


@pytest.mark.parametrize(("kind", "own"), KINDS)
def test_flags_yaml_and_python_say_the_same(kind, own, tmp_path):
    import yaml

    settings = {**SHARED, **own}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({name.replace("_", "-"): value for name, value in settings.items()}))
    said = kind(**settings)
    assert vars(parse(kind, as_flags(settings), prog="x")) == vars(said)
    assert vars(parse(kind, ["--config", str(path)], prog="x")) == vars(said)
    inherited = {
        f.name for base in kind.__mro__[2:] if dataclasses.is_dataclass(base) for f in dataclasses.fields(base)
    }
    told = {f.name for f in dataclasses.fields(kind)} - inherited - {"absolute_margin", "relative_margin"}
    assert told <= set(settings), "every setting of mining but those that exclude another is in this test"
    assert all(getattr(kind(), name) != settings[name] for name in told)


@pytest.fixture
def read_yaml(tmp_path):
    def read(kind, text):
        (tmp_path / "x.yaml").write_text(text)
        return parse(kind, ["--config", str(tmp_path / "x.yaml")], prog="x")

    return read


@pytest.mark.parametrize(("kind", "name"), [(NegativesConfig, "negatives"), (BatchesConfig, "batches")])
def test_the_examples_of_jobs_can_be_read_and_what_they_offer_in_comments_too(kind, name, read_yaml):
    text = (Path(__file__).parents[2] / "jobs" / f"mine-{name}.yaml").read_text()
    read_yaml(kind, text).check_complete()
    comments = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    offered = [line for line in comments if line.split(":")[0].replace("-", "_") in kind.__dataclass_fields__]
    assert len(offered) >= 4
    for line in offered:
        name = line.split(":")[0].replace("-", "_")
        assert getattr(read_yaml(kind, line), name) not in (None, [])


def test_numbers_of_a_yaml_list_are_what_flags_say(read_yaml):
    assert read_yaml(BatchesConfig, "skip-top: [30, DocVQA=70]").skip_top == ["30", "DocVQA=70"]
    assert read_yaml(BatchesConfig, "skip-top: 30").skip_top == ["30"]
    assert BatchesConfig(skip_top=30).skip_top == ["30"]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recall": 0}, "--recall is 0; expected a share above 0 and up to 1"),
        ({"search": "hnsw"}, "unknown search 'hnsw'. Expected one of auto, exact, ivf"),
        ({"limit": 0}, "--limit is 0; expected at least 1"),
        ({"candidates": 0}, "--candidates is 0; expected at least 1"),
        ({"allow_errors": -1}, "--allow-errors is -1; expected 0 or more"),
        ({"encode_batch_size": 0}, "--encode-batch-size is 0; expected at least 1"),
        ({"encode_batch_size": "auto", "max_batch_tokens": 9}, "--encode-batch-size auto finds the bound"),
        ({"local": True, "address": "x"}, "--local runs without Ray"),
        ({"k": 0}, "--k is 0; expected at least 1"),
        ({"num_negatives": 21}, "--num-negatives is 21 and --k 20; expected at most as many"),
        ({"range_min": -1}, "--range-min is -1; expected 0 or more"),
        ({"range_min": 10, "range_max": 29}, "--range-min 10 to --range-max 29 hold fewer than 20 documents"),
        ({"relative_margin": -0.1}, "--relative-margin is -0.1; expected 0 or more"),
        ({"positive_fraction": 1.5}, "--positive-fraction is 1.5; expected above 0 and up to 1"),
        ({"positive_fraction": 0.0}, "--positive-fraction is 0.0; expected above 0 and up to 1"),
        ({"min_score": 0.5, "max_score": 0.4}, "--min-score 0.5 is above --max-score 0.4"),
        ({"max_score": float("nan")}, "--max-score is nan; expected a number"),
        ({"absolute_margin": 0.1, "relative_margin": 0.1}, "--absolute-margin and --relative-margin each bound"),
        ({"relative_margin": 0.1, "positive_fraction": 0.9}, "--relative-margin and --positive-fraction each bound"),
        ({"sampling": "all"}, "unknown sampling 'all'. Expected one of top, random"),
    ],
    ids=str,
)
def test_negatives_that_cannot_be_asked_for(settings, message):
    with pytest.raises(UserError, match=message):
        NegativesConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 100}, "batch_size is 100 and cluster_size 32; expected a .* multiple of cluster_size, e.g. 96"),
        ({"batch_size": 16}, "batch_size is 16 and cluster_size 32; expected a .* e.g. 32 or 64"),
        ({"batch_size": 0}, "--batch-size is 0; expected at least 1"),
        ({"cluster_size": 0}, "--cluster-size is 0; expected at least 1"),
        ({"neighbours": 0}, "--neighbours is 0; expected at least 1"),
        ({"split_above": 0}, "--split-above is 0; expected at least 1"),
        ({"hard_negatives": -1}, "--hard-negatives is -1; expected 0 or more"),
        (
            {"hard_negatives": 1, "method": "random"},
            "--hard-negatives come from clusters, and --method random has none",
        ),
        ({"method": "metiss"}, "unknown method 'metiss'. Did you mean metis"),
        ({"remainder": "keep"}, "unknown remainder 'keep'. Expected one of short, drop"),
        ({"duplicate_similarity": 1.5}, "--duplicate-similarity is 1.5; expected a cosine above 0 and up to 1"),
        ({"suspect_above": 0.0}, "--suspect-above is 0.0; expected a share above 0 and up to 1"),
    ],
    ids=str,
)
def test_batches_that_cannot_be_asked_for(settings, message):
    with pytest.raises(UserError, match=message):
        BatchesConfig(**settings)


def test_plans_by_chance_need_no_clusters_to_fill_a_batch():
    assert BatchesConfig(batch_size=100, method="random").batch_size == 100


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": [], "hub_name": None}, "there is no training data; add --data FILE, or --hub-name OWNER/NAME"),
        ({"model": []}, "no teacher was given; add --model NAME"),
        ({"model": "a,b"}, "--model names 2 models; data is mined with one teacher"),
        ({"output": None}, "no place for the result; add --output FILE"),
        ({"output": "mined.csv"}, "--output mined.csv: expected a file that ends with .jsonl or .parquet"),
    ],
    ids=str,
)
def test_what_is_missing(changed, message):
    settings = {"data": "train.jsonl", "model": "teacher", "output": "mined.jsonl", **changed}
    with pytest.raises(UserError, match=message):
        NegativesConfig(**settings).check_complete()


def test_a_plan_by_chance_needs_no_teacher_and_is_parquet():
    BatchesConfig(data=["x"], output="plan.parquet", method="sequential").check_complete()
    with pytest.raises(UserError, match=r"expected a file that ends with \.parquet"):
        BatchesConfig(data=["x"], output="plan.jsonl", method="random").check_complete()
    with pytest.raises(UserError, match="no teacher was given"):
        BatchesConfig(data=["x"], output="plan.parquet").check_complete()


def test_what_is_written_lies_beside_the_output():
    config = NegativesConfig(output="file:///some/mined.v2.jsonl")
    assert (config.output_file, config.beside(".json")) == ("/some/mined.v2.jsonl", "/some/mined.v2.json")
    assert config.store_folder == "/some/store"
    assert NegativesConfig(output="mined.jsonl").store_folder == "store"
    assert NegativesConfig(output="s3://b/x/mined.jsonl").store_folder == "s3://b/x/store"
