"""What Prometheus reads from a node is what was encoded, as counted by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import raylib
from raylib.cluster.metrics import METRICS
from raylib.models.untrained import build_clip
from tests.cluster.nodes import ray_nodes
from tests.cluster.test_driver_killed import ROOT
from tests.extract.checkpoints import BUILDERS
from tests.extract.made import images_folder
from tests.train.made_runs import write_pairs

pytestmark = pytest.mark.cluster

SECONDS = 60
TEXTS = [" ".join([f"w{n:02d}"] * n) for n in range(1, 13)]
"""Of 1 to 12 words. Batches of 24 tokens, padding included: 12 11 | 10 9 | 8 7 6 | 5 4 3 2 | 1."""
TOKENS, PADDED = 78, 24 + 20 + 24 + 20 + 1


def scraped(cluster, model: str) -> Mapping[tuple[str, str], float]:
    """(name, stage) → value, of all processes, as the node exports it; a bucket's name ends with its bound."""
    (node,) = cluster.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("model") == model:
                name = sample.name + (f" {sample.labels['le']}" if "le" in sample.labels else "")
                found[name.removeprefix("ray_raylib_"), sample.labels["stage"]] += sample.value
    return found


def wait_for(
    cluster, model: str, expected: Mapping[str, float], stage: str = "encode"
) -> Mapping[tuple[str, str], float]:
    """Until the node says so of a stage; processes report every half second."""
    until = time.monotonic() + SECONDS
    while True:
        found = scraped(cluster, model)
        told = {name: found[name, stage] for name in expected}
        if told == expected or time.monotonic() > until:
            assert told == expected
            return found
        time.sleep(0.5)


def encode(model: str, folder: Path, texts: list[str], **settings):
    (folder / "texts.txt").write_text("\n".join(texts))
    given = {"input": str(folder / "texts.txt"), "output": str(folder / "out"), "workers": 2, "quiet": True}
    return raylib.encode(f"tests.cluster.counting_toys:{model}", **given, **settings)


def test_a_node_exports_what_was_encoded(cluster, tmp_path):
    model = "tests.cluster.counting_toys:words"
    assert encode("words", tmp_path, TEXTS, max_batch_tokens=24).ok

    expected = {"contents_total": 12, "tokens_total": TOKENS, "padded_tokens_total": PADDED, "batch_fill_count": 5}
    fills = {"batch_fill_bucket 0.1": 1, "batch_fill_bucket 0.8": 1, "batch_fill_bucket 0.9": 3}
    found = wait_for(
        cluster, model, {**expected, **fills, "store_hits_total": 0, "retries_total": 0, "errors_total": 0}
    )
    assert 0 < found["busy_seconds_total", "encode"] < SECONDS
    assert not [name for name, _ in found if "gpu_memory" in name], "there is no GPU"

    (tmp_path / "texts.txt").unlink()
    assert encode("words", tmp_path, [*TEXTS, "one more"], max_batch_tokens=24, overwrite=True).ok
    wait_for(cluster, model, {"contents_total": 13, "tokens_total": TOKENS + 2, "store_hits_total": 12})
    assert all(any(f"raylib_{name}".startswith(known) for known in METRICS) for name, _ in found)


def test_processes_that_die_are_retries_and_what_they_die_over_an_error(cluster, tmp_path):
    model = "tests.cluster.counting_toys:poisoned"
    found = encode("poisoned", tmp_path, ["one", "two words", "poison"], batch_size=1, allow_errors=1)
    assert found.ok and [content.reason[:1] for content in found.bad] == ["3"]

    wait_for(cluster, model, {"contents_total": 2, "retries_total": 3, "errors_total": 1})
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())["timeline"]
    (stage,) = [stage for stage in told["stages"] if stage["name"] == "encode"]
    assert told["retries"] == stage["retries"] == 3
    assert stage["workers"] == stage["cpus"] and stage["gpus"] == told["gpu_seconds"] == 0
    assert told["cpu_seconds"] == pytest.approx(stage["cpus"] * stage["seconds"], abs=0.01)
    assert told["usd"] is None and told["price"] == "node type unknown"


@pytest.mark.slow
def test_training_tells_examples_and_its_summary_what_it_held(cluster, tmp_path):
    model = str(tmp_path / "clip")
    (tmp_path / "clip").mkdir()
    build_clip(tmp_path / "clip")
    write_pairs(tmp_path / "pairs.jsonl", 60)
    given = {"data": str(tmp_path / "pairs.jsonl"), "batch_size": 9, "max_steps": 4, "log_every": 1, "workers": 2}
    raylib.train(model, output_folder=str(tmp_path / "run"), quiet=True, **given)

    wait_for(cluster, model, {"contents_total": 36, "retries_total": 0}, "train")
    told = json.loads((tmp_path / "run" / "finished.json").read_text())["timeline"]
    assert [(stage["name"], stage["workers"]) for stage in told["stages"]] == [("prepare", 0), ("train", 2)]


@pytest.mark.slow
def test_extraction_tells_rows(cluster, tmp_path):
    model = str(tmp_path / "model")
    BUILDERS["qwen2_5_vl"](tmp_path / "model")
    table, images = images_folder(tmp_path)
    (images / "grey.png").write_bytes((images / "grey.png").read_bytes()[:50])
    given = {"vqa_dataset": str(table), "images_dir": str(images), "batch_size": 4, "allow_errors": 1, "quiet": True}
    found = raylib.extract(model, output_dir=str(tmp_path / "out"), workers=2, **given)
    assert found.ok and found.counts["extracted"] == 7

    wait_for(cluster, model, {"contents_total": 7, "errors_total": 1, "batch_fill_count": 2}, "extract")


@pytest.mark.slow
def test_evaluation_tells_tasks_and_hits(cluster, vidore, tmp_path):
    model, task = "tests.toys:late", "Vidore2ESGReportsRetrieval"
    given = {"tasks": [task], "data_root": vidore, "output_folder": str(tmp_path), "workers": 2, "quiet": True}
    assert raylib.evaluate(model, **given).ok
    outcome = raylib.evaluate(model, overwrite=True, **given)
    assert outcome.ok
    planned = outcome.summaries[0].contents["planned"]

    wait_for(cluster, model, {"contents_total": planned, "store_hits_total": planned})
    wait_for(cluster, model, {"contents_total": 2, "errors_total": 0}, "score")
    assert [stage["name"] for stage in outcome.summaries[0].timeline["stages"]] == ["plan", "encode", "score"]


@pytest.mark.slow
def test_the_price_is_of_the_nodes_labels_and_the_table(tmp_path):
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    (tmp_path / "prices.yaml").write_text("tiny.node: 3600\n")
    command = [sys.executable, "-m", "raylib.cli", "encode", "--model", "raylib/hashed-ngrams", "--workers", "1"]
    command += ["--input", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "out")]
    command += ["--price-table", str(tmp_path / "prices.yaml")]
    with ray_nodes() as nodes:
        nodes.add(4, labels={"raylib.io/node-type": "tiny.node"})
        environment = {**os.environ, "RAY_ADDRESS": nodes.address, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())["timeline"]
    (encode,) = [stage for stage in told["stages"] if stage["name"] == "encode"]
    assert encode["cpus"] == 1 and told["usd"] == pytest.approx(encode["seconds"] / 4, abs=0.01), (
        "a quarter of the node"
    )
    assert told["price"] == "tiny.node at $3600 an hour"
    assert run.stdout.splitlines()[-1].endswith("(tiny.node at $3600 an hour)")
