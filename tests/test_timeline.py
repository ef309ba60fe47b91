"""Stages, what they held, and prices by hand."""

from __future__ import annotations

import json

import pytest

from raylib import logs, timeline
from raylib.timeline import Held, NodeKind, Stage, Timeline, held_here

PRICES = {"gpu8": 40.0, "gpu1": 3.0, "cpu16": 0.8}
GPU8 = NodeKind(("gpu8",), 2, 8.0, 96.0)
CPU16 = NodeKind(("cpu16",), 3, 0.0, 16.0)
HEAD = NodeKind((), 1, 0.0, 0.0)


@pytest.mark.parametrize(
    ("held", "usd", "at"),
    [
        # 4 of the 16 GPUs of two nodes at 40: a quarter of 80, for a tenth of an hour.
        (Held(4, 4.0, 4.0, (HEAD, GPU8, CPU16)), 2.0, "gpu8 at $40 an hour"),
        # 12 of the 48 CPUs of three nodes at 0.8: a quarter of 2.4; nodes with GPUs are not what it is for.
        (Held(12, 0.0, 12.0, (HEAD, GPU8, CPU16)), 0.06, "cpu16 at $0.8 an hour"),
        # Where there are no others, CPUs of nodes with GPUs: 96 of 192.
        (Held(1, 0.0, 96.0, (GPU8,)), 4.0, "gpu8 at $40 an hour"),
        # 9 of 17 GPUs of two kinds, which cost 83 an hour.
        (Held(9, 9.0, 9.0, (GPU8, NodeKind(("gpu1",), 1, 1.0, 4.0))), 83 * 9 / 17 / 10, None),
        # A label that the table does not have, and a resource that it has.
        (Held(8, 8.0, 8.0, (NodeKind(("mine", "gpu8"), 1, 8.0, 96.0),)), 4.0, "gpu8 at $40 an hour"),
        (Held(8, 8.0, 8.0, (GPU8, NodeKind(("mine",), 1, 8.0, 96.0))), None, "node type mine"),
        (Held(1, 1.0, 4.0, (NodeKind((), 1, 1.0, 4.0),)), None, "node type unknown"),
        (Held(1, 0.0, 4.0), None, "node type unknown"),
    ],
)
def test_a_stage_costs_its_share_of_the_nodes(held, usd, at):
    found, told = Stage("encode", 0.0, 360.0, held).usd(PRICES)
    assert found == (None if usd is None else pytest.approx(usd))
    assert at is None or told == at


def test_the_summary_and_the_line(monkeypatch):
    run = Timeline("some/model", PRICES)
    run.stages = [
        Stage("plan", 1e9, 2.0),
        Stage("encode", 1e9 + 2, 41.0, Held(8, 8.0, 8.0, (GPU8,)), retries=2),
        Stage("score", 1e9 + 43, 9.0, Held(2, 0.0, 4.0, (CPU16,))),
    ]
    encode, score = 80 / 2 * 41 / 3600, 2.4 * 4 / 48 * 9 / 3600
    told = run.as_dict()
    assert told["stages"][1] == {
        "name": "encode",
        "start": "2001-09-09T01:46:42.000+00:00",
        "seconds": 41.0,
        "workers": 8,
        "gpus": 8.0,
        "cpus": 8.0,
        "retries": 2,
    }
    assert (told["gpu_seconds"], told["cpu_seconds"], told["retries"]) == (328.0, 8 * 41 + 4 * 9, 2)
    assert told["usd"] == pytest.approx(encode + score, abs=1e-6)
    assert run.line() == (
        "encode 41 s on 8 GPUs, score 9.0 s on 4 CPUs, 0.091 GPU-hours, "
        "about $0.46 (gpu8 at $40 an hour; cpu16 at $0.8 an hour), 2 retries"
    )
    json.dumps(told)


def test_without_a_price_the_line_says_why():
    run = Timeline(prices=PRICES, stages=[Stage("encode", 0.0, 4.0, Held(1, 1.0, 1.0))])
    assert run.line() == "encode 4.0 s on 1 GPU, 0.0011 GPU-hours, no price for node type unknown"
    assert run.as_dict()["usd"] is None
    assert Timeline(prices=PRICES, stages=[Stage("plan", 0.0, 4.0)]).line() == ""


def test_a_stage_lasts_as_long_as_its_block_and_names_its_lines(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(timeline.time, "perf_counter", lambda: clock[0])
    reused = []
    run = Timeline(prices=PRICES, on_reuse=lambda *told: reused.append(told)).of("some/model")
    with pytest.raises(RuntimeError), run.stage("encode") as stage:
        clock[0] += 3.5
        assert (logs.subject("model"), logs.subject("stage")) == ("some/model", "encode")
        raise RuntimeError("it failed")
    assert stage.seconds == 3.5 and run.stages == [stage] and logs.subject("stage") == ""
    run.reused("encode", 7)
    run.reused("encode", 0)
    assert reused == [("encode", "some/model", 7)]


def test_this_process_holds_the_gpu_it_is_on():
    assert held_here("cuda:0").gpus == 1.0 and held_here("cpu").gpus == 0.0 and held_here().cpus >= 1
