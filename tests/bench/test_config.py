"""Flags, what they are by default, and which cells they make."""

from __future__ import annotations

import pytest

from raylib.bench.cells import Workload, workloads
from raylib.bench.config import BenchConfig
from raylib.bench.runtimes.table import RUNTIMES, load_runtime
from raylib.cli import parse
from raylib.errors import UnknownNameError, UserError


def test_flags_take_the_place_of_defaults():
    flags = "--model a,b --runtimes torch,onnx --precision int8 --batch-sizes 2 --sequence-lengths 8,9 --threads 1,2"
    flags += " --concurrency 4 --load 0.5,0.9 --towers text --rounds 2 --duration 1.5 --device cuda --timeout 5"
    found = parse(BenchConfig, flags.split(), prog="raylib bench")
    assert [spec.name for spec in found.specs()] == ["a", "b"]
    assert (found.runtimes, found.precision, found.towers) == (["torch", "onnx"], ["int8"], ["text"])
    numbers = {name: found.numbers(name, int) for name in ("batch_sizes", "sequence_lengths", "threads", "concurrency")}
    assert numbers == {"batch_sizes": [2], "sequence_lengths": [8, 9], "threads": [1, 2], "concurrency": [4]}
    assert found.numbers("load", float) == [0.5, 0.9]
    assert (found.rounds, found.duration, found.timeout) == (2, 1.5, 5.0)
    assert found.specs()[0].device == "cuda"


def test_defaults():
    found = BenchConfig(model=["m"])
    assert found.runtimes == list(RUNTIMES)
    assert [spec.device for spec in found.specs()] == ["cpu"]
    assert workloads(found, "text") == [Workload(1, batch, n) for n in (16, 128, 512) for batch in (1, 8, 32)]
    assert workloads(found, "image") == [Workload(1, batch, None) for batch in (1, 8, 32)]


def test_settings_may_be_numbers():
    found = BenchConfig(model=["m"], batch_sizes=[1, 8], threads=2, load=[0.5])  # pyright: ignore[reportArgumentType]
    assert found.numbers("batch_sizes", int) == [1, 8]
    assert found.numbers("threads", int) == [2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runtimes": ["opnvino"]}, r"unknown runtime 'opnvino'. Did you mean openvino"),
        ({"precision": ["fp23"]}, r"unknown precision 'fp23'. Did you mean fp32"),
        ({"towers": ["images"]}, r"unknown tower 'images'. Did you mean image"),
        ({"batch_sizes": ["0"]}, r"--batch-sizes has '0'; expected a whole number, 1 or more"),
        ({"sequence_lengths": ["16.5"]}, r"--sequence-lengths has '16.5'; expected a whole number"),
        ({"load": ["nan"]}, r"--load has 'nan'; expected a number above 0"),
        ({"rounds": 0}, r"--rounds is 0; expected at least 1"),
        ({"duration": 0.0}, r"--duration is 0.0; expected seconds, more than 0"),
        ({"device": "auto"}, r"--device is 'auto'; expected cpu or cuda"),
        ({"local": True, "address": "x"}, r"--local runs without Ray"),
        ({"local": True, "node_types": ["a,b"]}, r"--node-types names 2; give one"),
    ],
)
def test_what_cannot_be_is_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        BenchConfig(model=["m"], **settings)


def test_a_model_is_needed_to_measure_and_not_to_summarise():
    with pytest.raises(UserError, match="no model was given"):
        BenchConfig().check_complete()
    BenchConfig(summary_only=True).check_complete()


def test_clients_and_chance_arrivals_are_calls_of_one_content():
    config = BenchConfig(
        model=["m"], batch_sizes=["8"], sequence_lengths=["16"], threads=["2"], concurrency=["1", "4"], load=["0.5"]
    )
    assert workloads(config, "text") == [
        Workload(2, 8, 16),
        Workload(2, 1, 16),
        Workload(2, 1, 16, clients=4),
        Workload(2, 1, 16, load=0.5),
    ]
    assert [w.words for w in workloads(config, "image")] == [
        "batch 8, 2 threads",
        "batch 1, 2 threads",
        "batch 1, 4 clients, 2 threads",
        "batch 1, load 0.5, 2 threads",
    ]


def test_a_runtime_is_found_by_name_and_by_module():
    assert load_runtime("torch").name == "torch"
    assert load_runtime("tests.bench.fakes:Idle").name == "idle"
    with pytest.raises(UnknownNameError, match="a runtime of your own is module:class"):
        load_runtime("torhc")
