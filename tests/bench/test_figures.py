"""Figures of a bench, by what they hold."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from raylib.bench.figures import load_figure, pareto, throughput_figure
from raylib.bench.table import RUNTIMES, build_rows
from raylib.figures import save
from tests.bench.made_results import result, round_of


def lines(ax: Axes) -> dict[str, list[list[float]]]:
    named = {str(line.get_gid()): np.asarray(line.get_xydata()).tolist() for line in ax.lines}
    return {name: points for name, points in named.items() if name != "None"}


def figure_of(*results: Any):
    figure = throughput_figure(build_rows(list(results), None))
    assert figure is not None
    return figure


def test_the_front_is_what_nothing_beats():
    # latency, throughput: b is worse than a in both; c trades one for the other; d is c with more latency; e is c again
    a, b, c, d, e = (10, 100), (20, 90), (30, 200), (40, 200), (30, 200)
    assert pareto([a, b, c, d, e]) == [0, 2, 4]
    assert pareto([a, (10, 90)]) == [0] and pareto([]) == []


def test_a_line_per_runtime_and_precision_over_batches():
    figure = figure_of(
        *(result(rounds=[round_of(p, s)], batch=b) for b, p, s in ((32, 300, 106), (1, 10, 100), (8, 80, 101))),
        result("openvino", "int8", [round_of(5, 200), round_of(7, 100), round_of(6, 150)]),
        result("openvino", rounds=[round_of(9, 1)], load=0.5),
        result("openvino", rounds=[round_of(9, 1)], clients=4),
        result("candle", status="hole"),
    )
    (ax,) = figure.axes
    assert lines(ax) == {
        "torch fp32": [[10, 100], [80, 101], [300, 106]],
        "openvino int8": [[6, 150]],
        "pareto": [[6, 150]],
    }
    assert [t.get_text() for t in ax.texts if t.get_text().isdigit()] == ["1"]  # the batch on the front
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    told = [t.get_text() for t in figure.legends[0].get_texts()]
    assert told == ["torch", "openvino", "fp32", "int8", "Pareto front, with its batch sizes"]
    dashed = {str(line.get_gid()) for line in ax.lines if line.is_dashed() and line.get_gid()}
    assert dashed == {"openvino int8"}


def test_lengths_models_threads_and_images_have_axes_of_their_own():
    rounds = [round_of(1, 1)]
    figure = figure_of(
        result(rounds=rounds),
        result(rounds=rounds, tokens=512),
        result(rounds=rounds, threads=2),
        result(rounds=rounds, tower="image", tokens=None),
        result(rounds=rounds, model="google/siglip"),
    )
    shown = [ax for ax in figure.axes if ax.axison]
    assert [(ax.get_title(loc="left"), ax.texts[-1].get_text()) for ax in shown] == [
        ("BAAI/bge-m3", "texts of 128 tokens · 1 thread · c7i.xlarge"),
        ("BAAI/bge-m3", "texts of 512 tokens · 1 thread · c7i.xlarge"),
        ("BAAI/bge-m3", "texts of 128 tokens · 2 threads · c7i.xlarge"),
        ("BAAI/bge-m3", "images · 1 thread · c7i.xlarge"),
        ("google/siglip", "texts of 128 tokens · 1 thread · c7i.xlarge"),
    ]


def test_latency_under_load():
    made = [result("onnx", rounds=[round_of(p, s)], load=x) for x, p, s in ((0.9, 50, 90), (0.5, 12, 50))]
    figure = load_figure(build_rows([*made, result("onnx", rounds=[round_of(1, 1)])], None))
    assert figure is not None
    assert lines(figure.axes[0]) == {"onnx fp32": [[50, 24], [90, 100]]}  # p95 is twice the p50 in round_of
    assert load_figure(build_rows([result(rounds=[round_of(1, 1)])], None)) is None


def test_nothing_measured_is_no_figure():
    assert throughput_figure(build_rows([result(status="failed", reason="x")], None)) is None
    assert throughput_figure([]) is None


def test_no_two_runtimes_look_the_same_also_in_grey():
    figure = figure_of(*(result(name, rounds=[round_of(i + 1, i + 1)]) for i, name in enumerate(RUNTIMES)))
    drawn = [line for line in figure.axes[0].lines if line.get_gid() in {f"{name} fp32" for name in RUNTIMES}]
    assert len({line.get_color() for line in drawn}) == len({line.get_marker() for line in drawn}) == len(RUNTIMES) == 7


def test_the_same_bytes_and_names_that_are_no_formulas():
    made = [result("$x^", rounds=[round_of(1, 1)], model=r"org/$\frac{a$" + "x" * 60, batch=b) for b in (1, 8)]
    first, second = (save(figure_of(*made), "png") for _ in range(2))
    assert first == second
    assert 800 <= Image.open(io.BytesIO(first)).width <= 1000
