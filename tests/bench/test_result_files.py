"""Result files: what is written comes back the same, and what is damaged is named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from raylib.bench.records import Parity
from raylib.bench.result_files import read_results, write_results
from raylib.errors import UserError
from tests.bench.made_results import result, round_of


def some():
    return [
        result(rounds=[round_of(1 / 3, 30.1), round_of(1e-9, 3e12, tensor_in={"p50": 0.1, "p99": None}, gpu_mb=12.5)]),
        result(batch=8, load=0.7, clients=4, tokens=None, tower="image"),
        result("ort-rust", status="hole", reason="images: embed_anything's ORT classes take text only\n“Ω”"),
        result("candle", status="refused", parity=Parity(0.923, 0.5, 24), reason="cosine 0.923"),
    ]


def test_what_is_written_comes_back_the_same(tmp_path: Path):
    results = some()
    paths = write_results(str(tmp_path), results)
    names = ["candle", "ort-rust", "torch"]
    assert paths == [f"{tmp_path}/results/BAAI__bge-m3/{name}.json" for name in names]
    back = read_results(str(tmp_path))
    assert back == [results[3], results[2], results[0], results[1]]
    assert isinstance(back[2].rounds[1].tensor_in, dict) and isinstance(back[2].cell.batch, int)


def test_numbers_that_json_does_not_have(tmp_path: Path):
    write_results(str(tmp_path), [result(parity=Parity(math.nan, math.inf, 3))])
    (path,) = tmp_path.glob("results/*/torch.json")
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (back,) = read_results(str(tmp_path))
    assert back.parity is not None and math.isnan(back.parity.cosine) and back.parity.difference == math.inf


def test_other_runtimes_stay(tmp_path: Path):
    write_results(str(tmp_path), some())
    write_results(str(tmp_path), [result("candle", batch=32)])
    found = [(r.cell.runtime, r.cell.batch) for r in read_results(str(tmp_path))]
    assert found == [("candle", 32), ("ort-rust", 1), ("torch", 1), ("torch", 8)]


def test_s3_paths(tmp_path: Path):
    write_results("memory://bench-run", some())
    assert len(read_results("memory://bench-run")) == 4
    assert read_results("memory://bench-run/nothing") == [] and read_results(str(tmp_path / "nothing")) == []


@pytest.mark.parametrize("names", [("a/b", "a__b"), ("./m", "m"), ("../x", "..__x"), ("org/m 1", "org/m_1")])
def test_no_two_models_share_a_file(tmp_path: Path, names: tuple[str, str]):
    written = [write_results(str(tmp_path), [result(model=name)])[0] for name in (*names, "/" + "long" * 99)]
    assert len(set(written)) == 3 and all(Path(path).is_relative_to(tmp_path / "results") for path in written)
    assert {r.cell.model for r in read_results(str(tmp_path))} == {*names, "/" + "long" * 99}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text[: len(text) // 2], "is damaged"),
        (lambda text: "", "is damaged"),
        (lambda text: "[]", "is no result"),
        (lambda text: text.replace('"raylib bench"', '"raylib probe"'), "is no result"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "has version 2 .* reads version 1"),
        (lambda text: text.replace('"batch": 1', '"batch": "many"'), r"damaged \(0.cell.batch: .*integer"),
        (lambda text: text.replace('"status": "hole"', '"status": "whole"'), r"damaged \(0.status: "),
        (lambda text: text.replace('"batch"', '"size": 3, "batch"'), r"damaged \(0.cell.size: "),
        (lambda text: text.replace('"tower"', '"towel"'), r"damaged \(0.cell.tower: "),
        (lambda text: text.replace('"runtime": "ort-rust"', '"runtime": "onnx"', 1), "BAAI/bge-m3 on onnx and holds"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, change, told: str):
    path = write_results(str(tmp_path), some()[2:3])[0]
    Path(path).write_text(change(Path(path).read_text()))
    with pytest.raises(UserError, match=rf"ort-rust.json .*{told}"):
        read_results(str(tmp_path))
