"""Figures, by what they hold: lines, bands, titles; and that they are the same bytes each time."""

from __future__ import annotations

import io
import re
import threading

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from raylib.figures import save
from raylib.probe import figures
from tests.probe.made_results import many, probe, scores


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_gid()): np.asarray(line.get_xydata()) for line in ax.lines}


def test_overview_has_a_line_per_kind_and_classifier():
    results = many()
    best = next(r for r in results if r.name == "query_token_layer36")
    figure = figures.overview(results, best, num_layers=48)
    (ax,) = figure.axes
    found = lines(ax)
    kinds = [f"{k}:{c}" for c in ("mlp", "logistic") for k in ("vision_only", "vision_token", "query_token")]
    assert set(found) == {*kinds, "chance", "best"}
    np.testing.assert_allclose(found["query_token:mlp"], [[0, 0.72], [12, 0.81], [24, 0.9], [36, 0.93], [47, 0.92]])
    np.testing.assert_allclose(found["vision_only:mlp"][:, 1], 0.68)
    np.testing.assert_allclose(found["chance"][:, 1], 0.5)
    np.testing.assert_allclose(found["best"], [[36, 0.93]])
    dashed = {str(line.get_gid()) for line in ax.lines if line.is_dashed()}
    assert dashed == {*(k for k in kinds if k.endswith("logistic")), "chance"}


def test_overview_has_bands_a_depth_and_a_legend():
    figure = figures.overview(many(), many()[0], num_layers=49)
    (ax,) = figure.axes
    bands = [c.get_paths()[0].get_extents() for c in ax.collections]
    assert [(round(b.y0, 2), round(b.y1, 2)) for b in bands] == [(0.58, 0.77), (0.68, 0.96)]
    assert [(round(p.get_y(), 2), round(p.get_height(), 2)) for p in ax.patches] == [(0.64, 0.07)]  # of vision_only
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0\n0%", "12\n25%", "24\n50%", "36\n75%", "47\n98%"]
    told = [t.get_text() for t in figure.legends[0].get_texts()]
    assert told == ["vision only", "vision token", "query token", "MLP", "logistic", "best by validation"]
    assert ax.get_ylabel() == "test AUROC" and ax.get_xlabel() == "decoder layer, and its depth"


def test_one_classifier_has_its_bands_and_no_key_of_dashes():
    figure = figures.overview([r for r in many() if r.classifier == "logistic"])
    assert len(figure.axes[0].collections) == 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["vision only", "vision token", "query token"]
    assert figure.axes[0].get_xticklabels()[1].get_text() == "12"  # how deep that is, nobody said


def test_probes_without_an_auroc_are_left_out():
    figure = figures.overview(
        [probe("query_token/layer_1", None), probe("query_token/layer_2"), probe("vision_only", None)]
    )
    found = lines(figure.axes[0])
    np.testing.assert_allclose(found["query_token:mlp"], [[2, 0.9]])
    assert "vision_only:mlp" not in found


def test_many_layers_have_ticks_that_can_be_read():
    figure = figures.overview([probe(f"query_token/layer_{i}") for i in range(80)])
    assert len(figure.axes[0].get_xticks()) == 12


def test_roc_is_of_the_test_rows():
    result = probe(
        "query_token/layer_24", test_labels=np.array([0, 1, 0, 1]), test_scores=np.array([0.1, 0.4, 0.6, 0.9])
    )
    (ax,) = figures.roc_curve(result).axes
    assert ax.get_title(loc="left") == "Test AUROC 0.900 [0.860, 0.930]"
    np.testing.assert_allclose(lines(ax)["roc"], [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]])


def test_roc_of_one_class_says_so():
    result = probe("vision_only", None, test=scores(None, 8, 0), test_labels=np.zeros(8))
    (ax,) = figures.roc_curve(result).axes
    assert "roc" not in lines(ax) and "one class" in ax.texts[0].get_text()


def test_confusion_has_counts_and_shares():
    train, test = figures.confusion_matrix(probe("vision_only")).axes
    assert [t.get_text() for t in test.texts if t.get_text()[0].isdigit()] == [
        *("4", "80.0%", "1", "20.0%", "1", "33.3%", "2", "66.7%")
    ]
    assert train.get_title(loc="left") == "train: 30 rows" and test.get_title(loc="left") == "test: 8 rows"


def test_history_has_losses_and_measures_apart():
    losses, measures = figures.training_history(probe("vision_only")).axes
    np.testing.assert_allclose(losses.lines[0].get_xydata(), [[1, 0.7], [2, 0.4], [3, 0.25]])
    assert [t.get_text() for t in losses.get_legend().get_texts()] == ["training loss"]  # pyright: ignore
    assert [t.get_text() for t in measures.get_legend().get_texts()] == ["validation AUROC"]  # pyright: ignore


@pytest.mark.parametrize("form", ["png", "svg"])
def test_the_same_bytes_also_from_threads(form):
    results = many()[:7]
    found: list[bytes] = []

    def draw() -> None:
        found.append(save(figures.overview(results, results[0]), form))

    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    draw()
    assert len(found) == 3 and len(set(found)) == 1
    assert b"20" + b"26-" not in found[0]


def test_sizes_and_text():
    figure = figures.overview(many()[:3], many()[0])
    assert 800 <= Image.open(io.BytesIO(save(figure, "png"))).width <= 1000
    svg = save(figure, "svg").decode()
    assert re.search(r"<text[^>]*>AUROC by layer</text>", svg)  # a reader, and a search, finds it


def test_names_are_neither_formulas_nor_markup():
    hostile = probe("query_token/layer_1", model_name=r"$\frac{a$ <script>alert(1)</script>" + "\n\x00", target="a$b$c")
    svg = save(figures.overview([hostile], hostile), "svg").decode()
    assert "<script>" not in svg and "$\\frac{a$ &lt;script&gt;" in svg and "a$b$c" in svg and "\x00" not in svg
    for draw in (figures.roc_curve, figures.confusion_matrix, figures.training_history):
        assert save(draw(hostile), "png").startswith(b"\x89PNG")
