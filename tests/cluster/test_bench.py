"""`raylib bench` on Ray: a node of each type is held alone, and a type that does not come is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import raylib
from raylib.bench.config import BenchConfig
from raylib.bench.job import BenchJob
from raylib.bench.result_files import read_results
from raylib.cluster.bench import NODE_TYPE, RayNodes
from raylib.evaluate.progress import QuietReporter
from raylib.models.untrained import build_clip
from tests.cluster.nodes import ray_nodes
from tests.cluster.test_driver_killed import ROOT

pytestmark = pytest.mark.cluster

QUICK = {
    "runtimes": "torch",
    "towers": "text",
    "batch_sizes": "2",
    "sequence_lengths": "8",
    "rounds": 1,
    "duration": 0.2,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    build_clip(folder)
    return str(folder)


def test_cells_have_the_node_to_themselves(cluster, model, tmp_path):
    seen = []

    class Watching(QuietReporter):
        def say(self, text: str) -> None:
            seen.append(cluster.available_resources().get("CPU", 0.0))

    config, reporter = BenchConfig(model=[model], output_folder=str(tmp_path), **QUICK), Watching()
    outcome = BenchJob(config, RayNodes([], False, 60, reporter), reporter).run()
    assert outcome.ok and [result.status for result in outcome.results] == ["measured"]
    assert seen and set(seen) == {0.0}


@pytest.mark.slow
def test_one_node_of_each_type(model, tmp_path: Path):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    with ray_nodes() as nodes:
        nodes.add(1, {NODE_TYPE: "small"})
        nodes.add(2, {NODE_TYPE: "large"})

        def run(types: str, output: str, *more: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "raylib.cli", "bench", "--model", model, *flags, *more]
            command += ["--node-types", types, "--output-folder", str(tmp_path / output)]
            environment = {**os.environ, "RAY_ADDRESS": nodes.address, "PYTHONPATH": str(ROOT)}
            return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)

        both = run("small,large", "both")
        assert both.returncode == 0, both.stdout + both.stderr
        types = [result.machine["node_type"] for result in read_results(str(tmp_path / "both"))]
        assert sorted(types) == ["large", "small"]
        missing = run("huge", "none", "--timeout=3")
        assert missing.returncode == 2
        assert "no node of type huge came within 3 s" in missing.stderr and "large, small" in missing.stderr


def test_the_python_call_runs_it_too(cluster, model, tmp_path):
    outcome = raylib.bench(model, **QUICK, quiet=True, output_folder=str(tmp_path))
    assert outcome.ok and (tmp_path / "bench.md").exists()
