"""Sentences about results made by hand."""

from __future__ import annotations

import math

import pytest

from raylib.bench.findings import cheapest, cosine_text, fastest, gaps, loss_text, machines, notes, sections
from raylib.bench.records import Parity, Result
from raylib.bench.table import build_rows
from tests.bench.made_results import MACHINE, result, round_of


def said(results: list[Result], prices: dict[str, float] | None = None) -> list[tuple[str, str]]:
    return [(f.where, f.says) for section in sections(build_rows(results, prices)) for f in fastest(section)]


def test_the_fastest_and_what_it_costs():
    results = [
        result(rounds=[round_of(100, 10)], ndcg_at_5=0.85),
        result("openvino", rounds=[round_of(50, 20)], ndcg_at_5=0.85),
        result("openvino", "int8", [round_of(25, 40)], ndcg_at_5=0.8459, parity=Parity(0.99955, 2e-3, 24)),
    ]
    ((where, says),) = said(results, {"c7i.xlarge": 0.36})
    assert where == "128 tokens, batch 1"
    assert says == (
        "openvino int8 gives 40.0 embeddings per second at a p50 of 25.0 ms, 4.00 times PyTorch's fp32. "
        "It costs 0.0041 of nDCG@5, the lowest cosine to PyTorch's fp32 is 0.99955; a million embeddings cost 2.50 USD "
        "on c7i.xlarge. The fastest in fp32 is openvino with 20.0 per second."
    )


def test_each_batch_and_length_has_its_own():
    results = [result("onnx", rounds=[round_of(1, 5)], batch=8), result(rounds=[round_of(1, 9)], tokens=16)]
    results += [result("onnx", rounds=[round_of(1, 2)], tokens=16), result(rounds=[round_of(1, 4)], batch=8)]
    found = said(results)
    assert [where for where, _ in found] == ["16 tokens, batch 1", "128 tokens, batch 8"]
    assert found[0][1].startswith("torch fp32 gives 9.00") and found[1][1].startswith("onnx fp32 gives 5.00")
    assert "what the others are compared with" in found[0][1] and "It costs no quality" in found[1][1]


def test_quality_that_was_not_measured_is_said_so():
    ((_, says),) = said([result("onnx", "int8", [round_of(1, 5)], parity=Parity(0.9987, 0.01, 3))])
    assert "The lowest cosine to PyTorch's fp32 is 0.99870; what it costs on a task was not measured." in says
    ((_, says),) = said([result("onnx", "int8", [round_of(1, 5)], parity=None)])
    assert "What it costs on a task was not measured." in says


def test_rounds_that_overlap_tell_nothing_apart():
    a = result(rounds=[round_of(1, 10), round_of(1, 12)])
    b = result("onnx", rounds=[round_of(1, 11), round_of(1, 15)])
    c = result("candle", rounds=[round_of(1, 8), round_of(1, 9)])
    ((_, says),) = said([a, b, c])
    assert "do not tell it from torch fp32: their ranges" in says
    ((_, says),) = said([a, result("onnx", rounds=[round_of(1, 13), round_of(1, 15)]), c])
    assert "do not tell" not in says


def test_under_load_nothing_is_the_fastest():
    assert said([result(rounds=[round_of(1, 5)], load=0.5), result(rounds=[round_of(1, 5)], clients=4)]) == []


def test_the_cheapest_of_several_node_types():
    big = {**MACHINE, "node_type": "g6.xlarge"}
    results = [result(rounds=[round_of(1, 10)]), result(rounds=[round_of(1, 100)], machine=big, batch=32)]
    (found,) = cheapest(build_rows(results, {"c7i.xlarge": 0.36, "g6.xlarge": 0.72}))  # 10 against 2 USD
    assert found.where == "BAAI/bge-m3 · 128 tokens"
    assert found.says == "torch fp32 on g6.xlarge, batch 32, 1 thread: a million embeddings cost 2.00 USD."
    assert cheapest(build_rows(results, {"c7i.xlarge": 0.36})) == []


def test_gaps_have_their_reasons_and_say_which_cells():
    results = [
        result("ort-rust", status="hole", reason="takes\ntext only", batch=1),
        result("ort-rust", status="hole", reason="takes\ntext only", batch=8),
        result("candle", status="refused", reason="not PyTorch's", parity=Parity(0.923, 0.5, 24), batch=1),
        result("candle", rounds=[round_of(1, 1)], batch=8),
        result("onnx", status="failed", batch=8),
        result("onnx", batch=1),
    ]
    (section,) = sections(build_rows(results, None))
    found = [(g.status, g.name, g.cells, g.reason) for g in gaps(section)]
    assert found == [
        ("hole", "ort-rust fp32", "", "takes text only"),
        (
            *("refused", "candle fp32", "128 tokens, batch 1"),
            "not PyTorch's (lowest cosine 0.92300, largest difference 0.5, 24 contents)",
        ),
        ("failed", "onnx fp32", "128 tokens, batch 8", "no reason was given"),
        ("measured", "onnx fp32", "128 tokens, batch 1", "no round has ended"),
    ]


def test_a_hole_that_knows_no_node_belongs_to_each():
    other = {**MACHINE, "node_type": "m7i.xlarge"}
    hole = result("candle", status="hole", reason="no wheel", machine={})
    results = [hole, result(rounds=[round_of(1, 1)]), result(rounds=[round_of(1, 1)], machine=other)]
    results += [result("openvino", status="hole", machine={}, threads=2)]
    found = sections(build_rows(results, None))
    assert [s.title for s in found] == [
        "BAAI/bge-m3 · text · 2 threads",
        "BAAI/bge-m3 · text · 1 thread · c7i.xlarge",
        "BAAI/bge-m3 · text · 1 thread · m7i.xlarge",
    ]
    both = ["torch", "candle"]
    assert [[r.result.cell.runtime for r in s.rows] for s in found] == [["openvino"], both, both]


def test_machines_and_notes():
    newer = {**MACHINE, "versions": {"torch": "2.14.0"}, "gpu": "NVIDIA L4"}
    rounds = [round_of(1, 1, errors=2), round_of(1, 1, errors=1)]
    rows = build_rows([result(rounds=rounds), result("onnx", machine=newer), result("candle", machine={})], {"x": 1.0})
    (known,) = machines(rows)
    assert known == {
        "node": "c7i.xlarge",
        "about": {
            "processor": "Intel(R) Xeon(R) Platinum 8488C",
            "gpu": "NVIDIA L4",
            "versions": "onnxruntime 1.22.0, torch 2.13.0, torch 2.14.0",
        },
    }
    assert notes(rows) == [
        "torch fp32, BAAI/bge-m3, 128 tokens, batch 1: 3 calls failed and are not in the figures",
        "No price per million embeddings: the price table has no c7i.xlarge",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.00000"),
        (0.99955, "0.99955"),
        (0.9999998, "0.9999998"),
        (0.99999999999, "0.999999999"),
        (0.923, "0.92300"),
        (-0.5, "-0.50000"),
        (math.nan, "nan"),
    ],
)
def test_a_cosine_has_the_digits_that_tell_it_from_one(value: float, text: str):
    assert cosine_text(value) == text


def test_a_loss_of_nothing_has_no_sign():
    assert [loss_text(v) for v in (0.00412, -0.00412, -0.00001)] == ["0.0041", "-0.0041", "0.0000"]
