"""Rows of tables: medians, spreads, ratios and prices worked out by hand."""

from __future__ import annotations

import random
from typing import Any

import pytest

from raylib.bench.records import Result
from raylib.bench.table import Row, Spread, build_rows, number
from tests.bench.made_results import MACHINE, result, round_of


def torch(**changed: Any) -> Result:
    rounds = [round_of(100, 10, 50), round_of(120, 8, 70), round_of(110, 9, 60)]
    return result(rounds=rounds, ndcg_at_5=0.85, **changed)


def openvino(**changed: Any) -> Result:
    rounds = [round_of(25, 36, 15), round_of(27, 40.5, 25)]
    return result("openvino", "int8", rounds, ndcg_at_5=0.8459, **changed)


def row_of(rows: list[Row], runtime: str) -> Row:
    (found,) = (row for row in rows if row.result.cell.runtime == runtime)
    return found


def test_medians_and_spreads_over_rounds():
    row = row_of(build_rows([torch()], None), "torch")
    assert row.measures["p50_ms"] == Spread(110, 100, 120)
    assert row.measures["contents_per_s"] == Spread(9, 8, 10)
    assert row.measures["cpu_ms_per_call"] == Spread(60, 50, 70)
    assert row.measures["p95_ms"] == Spread(220, 200, 240)
    assert "p99_ms" not in row.measures and "tensor_in_p50_ms" not in row.measures and "gpu_mb" not in row.measures
    assert row.usd_per_million is None and row.no_price == ""


def test_an_even_number_of_rounds_and_a_measure_that_some_have():
    long = round_of(10, 100, latency_ms={"p50": 10.0, "p99": 30.0}, tensor_in={"p50": 8.0})
    row = row_of(build_rows([result("onnx", rounds=[round_of(12, 90), long])], None), "onnx")
    assert row.measures["p50_ms"] == Spread(11, 10, 12) and row.measures["p99_ms"] == Spread(30, 30, 30)
    assert row.measures["tensor_in_p50_ms"] == Spread(8, 8, 8)


def test_ratios_and_the_loss_are_against_torch_in_fp32():
    rows = build_rows([openvino(), torch()], None)
    row = row_of(rows, "openvino")
    assert row.cpu_ratio == pytest.approx(60 / 20) and row.throughput_ratio == pytest.approx(38.25 / 9)
    assert row.ndcg_loss == pytest.approx(0.0041)
    base = row_of(rows, "torch")
    assert (base.cpu_ratio, base.throughput_ratio, base.ndcg_loss) == (1, 1, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"model": "google/embeddinggemma-300m"},
        {"tower": "image", "tokens": None},
        {"batch": 8},
        {"tokens": 512},
        {"threads": 2},
        {"clients": 4},
        {"load": 0.5},
        {"machine": {**MACHINE, "node_type": "m7i.xlarge"}},
    ],
)
def test_another_cell_is_not_compared_with(other: dict[str, Any]):
    row = row_of(build_rows([openvino(**other), torch()], None), "openvino")
    assert row.cpu_ratio is None and row.throughput_ratio is None


def test_low_precision_and_failed_cells_of_torch_are_no_baseline():
    failed = result(rounds=[round_of(1, 1)], status="failed")
    rows = build_rows([openvino(), result("torch", "bf16", [round_of(1, 1)]), failed], None)
    assert row_of(rows, "openvino").cpu_ratio is None


def test_where_calls_arrive_by_chance_the_throughput_is_no_result():
    row = row_of(build_rows([openvino(load=0.5), torch(load=0.5)], None), "openvino")
    assert row.throughput_ratio is None and row.cpu_ratio == pytest.approx(3)


def test_quality_is_of_the_model_in_whatever_cell_it_was_measured():
    other = openvino(batch=32)
    assert row_of(build_rows([torch(), other], None), "openvino").ndcg_loss == pytest.approx(0.0041)
    assert row_of(build_rows([torch(tower="image"), other], None), "openvino").ndcg_loss is None


def test_price_of_a_million_embeddings():
    # 1.377 USD per hour are 0.0003825 per second; at 38.25 per second one embedding costs 0.00001
    assert build_rows([openvino()], {"c7i.xlarge": 1.377})[0].usd_per_million == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"machine": {**MACHINE, "node_type": "our-box"}}, "the price table has no our-box"),
        ({"machine": {}}, "the node type is not known"),
        ({"rounds": [round_of(1, 0.0)]}, "nothing was embedded"),
    ],
)
def test_a_price_that_is_not_known_is_none_with_a_reason(changed: dict[str, Any], why: str):
    made = result(**{"rounds": [round_of(1, 10)], **changed})
    (row,) = build_rows([made], {"c7i.xlarge": 1.0})
    assert row.usd_per_million is None and row.no_price == why


def test_what_was_not_measured_has_no_figures():
    for status in ("hole", "refused", "failed"):
        (row,) = build_rows([result(status=status, rounds=[round_of(1, 1)])], {"c7i.xlarge": 1.0})
        assert not row.measures and not row.measured and row.usd_per_million is None and row.no_price == ""


def test_the_order_does_not_depend_on_that_of_the_results():
    results = [
        *(result(name) for name in ("torch", "torch-compile", "onnx", "ort-native", "ort-rust", "openvino", "candle")),
        result("openvino", "bf16"),
        result("openvino", "int8"),
        result("my-runtime"),
        result(load=0.5),
        result(clients=4),
        result(batch=8),
        result(tokens=512),
        result(tower="image", tokens=None),
        result(model="google/siglip"),
        result(status="hole", reason="b"),
        result(status="hole", reason="a"),
    ]
    first = [row.result for row in build_rows(results, None)]
    mixed = list(results)
    random.Random(7).shuffle(mixed)
    assert [row.result for row in build_rows(mixed, None)] == first
    names = [f"{r.cell.runtime} {r.cell.precision}" for r in first if r.cell.batch == 1 and r.cell.tokens == 128]
    assert names[2:12] == [
        *("torch fp32", "torch-compile fp32", "onnx fp32", "ort-native fp32", "ort-rust fp32"),
        *("openvino fp32", "openvino bf16", "openvino int8", "candle fp32", "my-runtime fp32"),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (1234.5, "1,234"),
        (99.96, "100"),
        (56.14, "56.1"),
        (9.996, "10.0"),
        (9.99, "9.99"),
        (0.99949, "0.999"),
        (0.04123, "0.0412"),
        (0.43, "0.430"),
        (0.0, "0.00"),
        (-12.34, "-12.3"),
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str):
    assert number(value) == text
