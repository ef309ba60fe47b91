"""Figures of training: what is drawn, from which files, and what is refused."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raylib.cli import main
from raylib.errors import UserError
from raylib.train import plots
from raylib.train.plots import curves, loss_figure, metrics_figure, read_training, smoothed


def write_run(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def trained(folder, gain=0.1, tasks=("T2I",), every=(10, 20, 30)):
    """A run of 40 steps, its loss 4, 3, 2, 1; evaluated as often as asked."""
    rows = [{"step": 10 * i, "loss": 5.0 - i, "lr": 1e-3 * (4 - i)} for i in range(1, 5)]
    rows += [{"step": s, **{f"eval/{task}/ndcg_at_5": gain * s for task in tasks}} for s in every]
    return write_run(folder, sorted(rows, key=lambda row: row["step"]))


def evaluated(folder, value, model="org__model"):
    """What `raylib evaluate` and MTEB leave."""
    where = folder / "results" / model / "main"
    where.mkdir(parents=True)
    entries = [{"hf_subset": s, "main_score": 0.1, "ndcg_at_5": value + d, "languages": ["eng-Latn"]} for s, d in PAIR]
    (where / "T2I.json").write_text(
        json.dumps({"task_name": "T2I", "dataset_revision": "1", "mteb_version": "2.26", "scores": {"test": entries}})
    )
    (where / "model_meta.json").write_text(json.dumps({"name": model.replace("__", "/"), "revision": "main"}))
    return str(folder)


PAIR = (("en", -0.25), ("fr", 0.25))


def lines(ax):
    return {str(line.get_gid()): np.asarray(line.get_xydata()) for line in ax.lines}


def one_line(capsys):
    err = capsys.readouterr().err.strip()
    assert err.startswith("raylib: ") and "\n" not in err and "Traceback" not in err
    return err


# The loss.


def test_a_point_is_the_mean_of_it_and_those_before():
    np.testing.assert_allclose(smoothed([4, 2, 6, 0, 1], 3), [4, 3, 4, 8 / 3, 7 / 3])
    np.testing.assert_allclose(smoothed([4, 2, 6], 1), [4, 2, 6])
    np.testing.assert_allclose(smoothed([4, 2, 6], 99), [4, 3, 4])


def test_the_loss_is_drawn_as_it_was_and_smoothed_with_the_learning_rate(tmp_path):
    run = trained(tmp_path / "run")
    loss, rate = loss_figure(read_training(run), 2, "run").axes
    np.testing.assert_allclose(lines(loss)["loss"], [[10, 4], [20, 3], [30, 2], [40, 1]])
    np.testing.assert_allclose(lines(loss)["smoothed"], [[10, 4], [20, 3.5], [30, 2.5], [40, 1.5]])
    np.testing.assert_allclose(lines(rate)["lr"], [[10, 3e-3], [20, 2e-3], [30, 1e-3], [40, np.nan]])
    assert rate.get_yscale() == "log" and rate.get_xlabel() == "step"


def test_a_run_of_the_old_tool_has_a_loss_alone(tmp_path):
    text = "[hf] Epoch 1 iter 50/400 - loss 2.0794\nother\n[hf] Epoch 1 done. avg loss = 1.5\n"
    (tmp_path / "training_loss.txt").write_text(text + "[hf] Epoch 2 iter 1/400 - loss 0.5000\n")
    for run in (tmp_path, tmp_path / "training_loss.txt"):
        (ax,) = loss_figure(read_training(str(run)), 1, "old").axes
        np.testing.assert_allclose(lines(ax)["loss"], [[50, 2.0794], [401, 0.5]])


def test_plot_loss_writes_a_picture(tmp_path, capsys):
    run = trained(tmp_path / "run")
    assert main(["plot", "loss", run, "--smooth", "2"]) == 0
    assert capsys.readouterr().out == f"wrote {run}/loss.png\n"
    picture = Image.open(tmp_path / "run" / "loss.png")
    assert picture.format == "PNG" and picture.width > 800
    assert main(["plot", "loss", f"{run}/metrics.jsonl", "--out", str(tmp_path / "x.svg")]) == 0
    assert "Training loss" in (tmp_path / "x.svg").read_text()
    assert main(["plot", "loss", f"{run}/metrics.jsonl"]) == 0
    assert capsys.readouterr().out.endswith(f"wrote {run}/loss.png\n")


def test_what_has_no_loss_is_one_line(tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    for run, said in [
        (tmp_path / "nowhere", "there is no run "),
        (empty, "empty has no metrics.jsonl and no training_loss.txt; give the --output-folder"),
        (write_run(tmp_path / "young", []), "young has no loss yet"),
    ]:
        assert main(["plot", "loss", str(run)]) == 2
        assert said in one_line(capsys)


# Evaluations.


def test_evaluations_by_task_and_step(tmp_path):
    run = trained(tmp_path / "run", tasks=("A", "B/c"), every=(30, 10))
    assert curves(run, "ndcg_at_5") == {"A": [(10, 1.0), (30, 3.0)], "B/c": [(10, 1.0), (30, 3.0)]}
    assert curves(evaluated(tmp_path / "one", 0.5), "ndcg_at_5") == {"T2I": [(0, 0.5)]}


def test_a_line_for_each_run_and_axes_for_each_task(tmp_path):
    both = trained(tmp_path / "a", tasks=("A", "B"))
    one = trained(tmp_path / "b", gain=0.2, tasks=("B",))
    runs = {"ours": curves(both, "ndcg_at_5"), "base": curves(one, "ndcg_at_5")}
    figure = metrics_figure(runs, "ndcg_at_5")
    first, second = figure.axes
    assert set(lines(first)) == {"ours"} and set(lines(second)) == {"ours", "base"}
    np.testing.assert_allclose(lines(second)["base"], [[10, 2], [20, 4], [30, 6]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "base"]
    assert second.get_ylabel() == "nDCG@5"


def test_four_tasks_take_a_second_row(tmp_path):
    run = trained(tmp_path / "a", tasks=("A", "B", "C", "D"))
    axes = metrics_figure({"a": curves(run, "ndcg_at_5")}, "ndcg_at_5").axes
    assert [ax.get_visible() for ax in axes] == [True] * 4 + [False] * 2


def test_runs_of_one_evaluation_are_bars(tmp_path):
    found = {
        "trained": curves(trained(tmp_path / "a", every=(10,)), "ndcg_at_5"),
        "base": curves(evaluated(tmp_path / "b", 0.5), "ndcg_at_5"),
    }
    (ax,) = metrics_figure(found, "ndcg_at_5").axes
    assert [round(bar.get_height(), 6) for bar in ax.patches] == [1.0, 0.5]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["T2I"]


def test_a_model_that_is_not_in_training_is_a_level_beside_one_that_is(tmp_path):
    found = {"a": {"T": [(10, 0.1), (20, 0.2)]}, "base": {"T": [(0, 0.15)]}}
    (ax,) = metrics_figure(found, "ndcg_at_5").axes
    np.testing.assert_allclose(lines(ax)["base"][:, 1], [0.15, 0.15])
    assert [line.is_dashed() for line in ax.lines] == [False, True]


def test_plot_metrics_writes_a_picture_with_the_labels(tmp_path, capsys, monkeypatch):
    a, b = trained(tmp_path / "x" / "run"), trained(tmp_path / "y" / "run")
    seen = []
    real = metrics_figure
    monkeypatch.setattr(plots, "metrics_figure", lambda runs, metric: seen.append(list(runs)) or real(runs, metric))
    out = str(tmp_path / "out.png")
    assert main(["plot", "metrics", a, b, "--labels", "ours", "base", "--out", out]) == 0
    assert main(["plot", "metrics", a, b, "--out", out]) == 0
    assert main(["plot", "metrics", a, "--out", out]) == 0
    assert seen == [["ours", "base"], [a, b], ["run"]], "folders of one name are told apart by their paths"
    assert Image.open(io.BytesIO(Path(out).read_bytes())).format == "PNG"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: write_run(folder, [{"step": 1, "loss": 1.0}]), "has no evaluations; train with --eval-bench"),
        (
            lambda folder: write_run(folder, [{"step": 1, "eval/T/map": 1.0}]),
            "has no ndcg_at_5; its evaluations gave map",
        ),
        (lambda folder: folder.mkdir() or str(folder), "has no metrics.jsonl and no results"),
        (lambda folder: str(folder), "there is no run "),
        (
            lambda folder: (evaluated(folder, 0.5), evaluated(folder, 0.5, "org__other"))[0],
            "has results of 2 models (org/model, org/other); give the folder of one",
        ),
    ],
)
def test_a_run_without_the_metric_is_one_line(make, said, tmp_path, capsys):
    assert main(["plot", "metrics", make(tmp_path / "run"), "--out", str(tmp_path / "x.png")]) == 2
    assert said in one_line(capsys) and not (tmp_path / "x.png").exists()


def test_settings_that_cannot_be(tmp_path):
    from raylib.train.plot_config import PlotLossConfig, PlotMetricsConfig

    for make, said in [
        (lambda: PlotMetricsConfig(["a", "b"], ["one"]), "--labels has 1 names for 2 runs; give one for each"),
        (lambda: PlotMetricsConfig(), "no run was given"),
        (lambda: PlotMetricsConfig(["a"], out="x.pdf"), "--out is 'x.pdf'; expected a name that ends in .png or .svg"),
        (lambda: PlotLossConfig("a", smooth=0), "--smooth is 0; expected at least 1"),
    ]:
        with pytest.raises(UserError, match=said.replace(".", r"\.")):
            make()
    run = trained(tmp_path / "a")
    with pytest.raises(UserError, match="two runs would both be called 'x'; give each a name of its own with --labels"):
        plots.run_plot_metrics(PlotMetricsConfig([run, run], ["x", "x"]))
