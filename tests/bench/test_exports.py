"""Tables for programs, read back by csv and pyarrow."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raylib.bench.exports import write_csv, write_parquet
from raylib.bench.records import Parity
from raylib.bench.table import build_rows
from tests.bench.made_results import MACHINE, result, round_of

PRICES = {"c7i.xlarge": 0.36}

THE_REPLACED_HARNESS = (
    "timestamp,model,runtime,language,concurrency,qps,p50_latency_ms,p90_latency_ms,p95_latency_ms,p99_latency_ms,"
    "server_cpu_percent,server_memory_mb,client_cpu_percent,client_memory_mb"
)
"""The first line of a results file that it published."""


def rows():
    rounds = [round_of(20, 400, 60, tensor_in={"p50": 18.0}), round_of(22, 320, 70), round_of(21, 360, 80)]
    long = round_of(5, 200, 5, latency_ms={"p50": 5.0, "p90": 6.0, "p95": 7.0, "p99": 9.0}, errors=1)
    return build_rows(
        [
            result(rounds=rounds, batch=8, ndcg_at_5=0.85),
            result("ort-rust", rounds=[long], language="rust", clients=4),
            result("ort-native", rounds=[long], language="c++", load=0.7),
            result(
                "candle", status="hole", reason='no wheel, "sorry"\nfor this', tokens=None, tower="image", machine={}
            ),
        ],
        PRICES,
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_csv_begins_with_the_columns_of_the_replaced_harness(tmp_path: Path):
    write_csv(f"{tmp_path}/out.csv", rows())
    lines, head = read_csv(tmp_path / "out.csv"), THE_REPLACED_HARNESS.split(",")
    assert list(lines[0])[: len(head)] == head
    rust, native, torch, candle = lines
    old = [rust[name] for name in head]
    assert old[:7] == ["2026-11-26 10:57:03", "BAAI/bge-m3", "ONNX Runtime", "Rust", "4", "200.0", "5.0"]
    assert old[7:] == ["6.0", "7.0", "9.0", "", "", "", ""]
    assert (native["language"], native["load"], native["concurrency"]) == ("C++", "0.7", "1")
    assert (torch["runtime"], torch["language"], torch["p99_latency_ms"]) == ("PyTorch", "Python", "")
    assert (candle["runtime"], candle["timestamp"], candle["qps"], candle["errors"]) == ("Candle", "", "", "")


def test_the_csv_has_medians_and_ours_after(tmp_path: Path):
    write_csv(f"{tmp_path}/out.csv", rows())
    _, native, torch, candle = read_csv(tmp_path / "out.csv")
    # the median round embeds 360 contents a second in calls of 8, which are 45 calls
    assert (torch["qps"], torch["contents_per_s"], torch["rounds"]) == ("45.0", "360.0", "3")
    assert (torch["contents_per_s_low"], torch["contents_per_s_high"]) == ("320.0", "400.0")
    assert (torch["p50_latency_ms"], torch["p50_latency_ms_low"], torch["p50_latency_ms_high"]) == (
        "21.0",
        "20.0",
        "22.0",
    )
    assert (torch["tensor_in_p50_latency_ms"], torch["cpu_ms_per_call"]) == ("18.0", "70.0")
    assert float(torch["usd_per_million"]) == pytest.approx(0.36 / 3600 / 360 * 1e6, rel=1e-5)
    assert (torch["runtime_name"], torch["node_type"], torch["tokens"]) == ("torch", "c7i.xlarge", "128")
    assert native["errors"] == "1" and native["throughput_ratio"] == ""
    assert (candle["status"], candle["reason"], candle["tokens"]) == ("hole", 'no wheel, "sorry"\nfor this', "")


def test_parquet_has_each_round_and_each_hole(tmp_path: Path):
    write_parquet(f"{tmp_path}/bench.parquet", rows(), PRICES)
    lines = pq.read_table(tmp_path / "bench.parquet").to_pylist()
    assert [(r["runtime"], r["round"]) for r in lines] == [
        *(("ort-rust", 1), ("ort-native", 1), ("torch", 1), ("torch", 2), ("torch", 3), ("candle", None))
    ]
    second = lines[3]
    assert (second["p50_ms"], second["contents_per_s"], second["cpu_ms_per_call"], second["calls"]) == (
        22,
        320,
        70,
        100,
    )
    assert second["p99_ms"] is None and lines[0]["p99_ms"] == 9.0 and lines[2]["tensor_in_p50_ms"] == 18.0
    assert second["usd_per_million"] == pytest.approx(0.36 / 3600 / 320 * 1e6)
    assert (second["cosine"], second["disk_bytes"], second["gpu"]) == (0.9999999, 143_000_000, None)
    assert json.loads(second["machine"]) == MACHINE and second["processor"] == MACHINE["processor"]
    hole = lines[5]
    assert (hole["status"], hole["reason"]) == ("hole", 'no wheel, "sorry"\nfor this')
    assert hole["p50_ms"] is None and hole["tokens"] is None and hole["usd_per_million"] is None


def test_parquet_types_do_not_depend_on_what_is_in_it(tmp_path: Path):
    write_parquet(f"{tmp_path}/a.parquet", rows(), PRICES)
    write_parquet(f"{tmp_path}/b.parquet", build_rows([result(status="failed", tokens=None)], None), {})
    write_parquet(f"{tmp_path}/c.parquet", [], {})
    schemas = [pq.read_schema(tmp_path / f"{name}.parquet") for name in "abc"]
    assert schemas[0] == schemas[1] == schemas[2]


def test_a_refused_cell_keeps_its_difference(tmp_path: Path):
    refused = build_rows([result(status="refused", reason="no", parity=Parity(0.923, 0.5, 24))], None)
    write_parquet(f"{tmp_path}/bench.parquet", refused, {})
    write_csv(f"{tmp_path}/out.csv", refused)
    (line,) = pq.read_table(tmp_path / "bench.parquet").to_pylist()
    assert (line["cosine"], line["max_difference"], line["parity_contents"]) == (0.923, 0.5, 24)
    assert read_csv(tmp_path / "out.csv")[0]["cosine"] == "0.923"


def test_times_of_other_zones_are_in_utc(tmp_path: Path):
    made = [result(rounds=[round_of(1, 1, started=s)]) for s in ("2026-11-26T12:00:00+02:00",)]
    made += [result("onnx", rounds=[round_of(1, 1, started="yesterday")])]
    write_csv(f"{tmp_path}/out.csv", build_rows(made, None))
    assert [line["timestamp"] for line in read_csv(tmp_path / "out.csv")] == ["2026-11-26 10:00:00", "yesterday"]
