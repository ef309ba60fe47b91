"""The command as a user has it: real processes, files, exit status."""

from __future__ import annotations

import csv
import json

import pytest

import raylib
from raylib.bench.config import BenchConfig
from raylib.bench.job import BenchJob, Outcome
from raylib.bench.quality import ndcg_at_5
from raylib.bench.records import Status
from raylib.bench.result_files import read_results, write_results
from raylib.cli import main
from raylib.errors import UserError
from raylib.evaluate.progress import QuietReporter
from raylib.models.protocol import ModelSpec
from tests.bench.made_results import result, round_of

EXITS = "tests.bench.fakes:Exits"


def test_two_cells_in_processes_of_their_own(tmp_path, tiny, monkeypatch, capsys):
    monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    model, out = str(tiny("clip")), tmp_path / "out"
    flags = f"--model {model} --runtimes torch,{EXITS} --towers text --batch-sizes 2 --sequence-lengths 12 --rounds 1"
    flags += f" --duration 0.05 --local --output-folder {out} --csv {tmp_path}/out.csv --node-types desk"
    assert main(["bench", *flags.split()]) == 1
    said = capsys.readouterr()
    assert "torch fp32, batch 2, 12 tokens, 1 thread (1/1): p50" in said.out
    assert "ended with status 7 and gave nothing; it said: the library says farewell" in said.err
    found = {r.cell.runtime: r for r in read_results(str(out))}
    assert (found["torch"].status, found[EXITS].status) == ("measured", "failed")
    assert found["torch"].machine["node_type"] == "desk"
    observed = found["torch"].rounds[0].observed
    assert {**observed, "tokens": [12, 12], "torch_threads": 1, "omp_num_threads": "1", "batch": 2} == observed
    assert (out / "bench.md").is_file() and (out / "bench.html").is_file() and (out / "bench.png").is_file()
    with open(tmp_path / "out.csv", newline="") as stream:
        assert [row["runtime"] for row in csv.DictReader(stream)]


def test_the_summary_is_built_from_files_alone(tmp_path, capsys):
    folder = str(tmp_path / "out")
    assert main(["bench", "--summary-only", "--output-folder", folder]) == 2
    assert "holds no results of `raylib bench`" in capsys.readouterr().err
    write_results(folder, [result(rounds=[round_of(10, 100)])])
    assert main(["bench", "--summary-only", "--output-folder", folder]) == 0
    assert "BAAI/bge-m3" in (tmp_path / "out" / "bench.md").read_text()


@pytest.mark.parametrize(
    ("statuses", "flags", "expected"),
    [
        (["measured", "hole"], [], 0),
        (["measured", "failed"], [], 1),
        (["measured", "refused"], [], 1),
        (["measured", "failed", "refused"], ["--skip-on-error"], 0),
        (["hole"], [], 1),  # nothing was measured
    ],
)
def test_exit_status(statuses: list[Status], flags, expected, monkeypatch, tmp_path):
    outcome = Outcome(str(tmp_path), [result(status=status) for status in statuses])
    monkeypatch.setattr(BenchJob, "run", lambda self: outcome)
    assert main(["bench", "--model", "m", "--local", *flags]) == expected


def test_prices_and_names_are_checked_before_anything_is_measured(tmp_path, node, tiny):
    def job(**settings):
        return BenchJob(BenchConfig(output_folder=str(tmp_path / "out"), **settings), node, QuietReporter())

    with pytest.raises(UserError, match="does not exist"):
        job(model=[str(tmp_path / "nowhere")]).run()
    with pytest.raises(UserError, match="cannot be read"):
        job(model=[str(tiny("clip"))], price_table=str(tmp_path / "no.yaml")).run()
    assert not node.jobs


def test_towers_are_those_that_the_model_has(node, tiny):
    for family, towers in {"clip": ["text", "image"], "sentence-transformers": ["text"]}.items():
        config = BenchConfig(model=[str(tiny(family))])
        assert BenchJob(config, node, QuietReporter())._towers(config.specs()[0]) == towers


def test_a_node_of_each_type_measures_all_cells(tmp_path, node, tiny, monkeypatch):
    monkeypatch.setattr("raylib.bench.measure.LEAST_CONTENTS", 4)
    monkeypatch.setattr("raylib.bench.measure.LEAST_CALLS", 2)
    other = type(node)("big")
    node.type = "small"
    both = type("Both", (), {"nodes": lambda self: [node, other]})()
    config = BenchConfig(
        model=[str(tiny("clip"))],
        towers=["text"],
        runtimes=["torch"],
        batch_sizes=["2"],
        sequence_lengths=["8"],
        rounds=1,
        duration=0.001,
        output_folder=str(tmp_path / "out"),
    )
    outcome = BenchJob(config, both, QuietReporter()).run()
    assert outcome.ok
    assert sorted(r.machine["node_type"] for r in read_results(str(tmp_path / "out"))) == ["big", "small"]


def test_quality_is_that_of_raylib_evaluate(tmp_path):
    model = "raylib/hashed-ngrams"
    found = ndcg_at_5(ModelSpec(model), "StdlibPagesT2T", str(tmp_path / "store"))
    raylib.evaluate(model, tasks=["StdlibPagesT2T"], local=True, output_folder=str(tmp_path / "out"), quiet=True)
    path = next((tmp_path / "out").rglob("StdlibPagesT2T.json"))
    told = [row["ndcg_at_5"] for rows in json.loads(path.read_text())["scores"].values() for row in rows]
    assert found == pytest.approx(sum(told) / len(told))
    assert 0.1 < found < 1
