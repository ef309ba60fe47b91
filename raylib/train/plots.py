"""`raylib plot loss` and `raylib plot metrics`: what a training run was like, as figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib import storage
from raylib.errors import UserError
from raylib.figures import INK, LINE, SOFT, draw_head, new_figure, plain, save, turns
from raylib.train.plot_config import PlotLossConfig, PlotMetricsConfig
from raylib.train.records import LOSSES, METRICS, parse_metrics, read_losses, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = list[tuple[int, float]]
"""(step, value), by step."""
_COLUMNS = 3


@dataclass(frozen=True)
class Losses:
    """By record: steps, losses, and learning rates, which an old run does not have (None)."""

    steps: list[int]
    losses: list[float]
    rates: list[float] | None


def run_plot_loss(config: PlotLossConfig) -> int:
    """Raises UserError where there is no run, or no loss in it."""
    found = read_training(config.run)
    points = config.smooth or max(1, len(found.steps) // 20)
    is_file = config.run.endswith((".jsonl", ".txt"))
    folder = config.run.rpartition("/")[0] or "." if is_file else config.run
    _write(loss_figure(found, points, _name(config.run)), config.out or storage.join(folder, "loss.png"))
    return 0


def run_plot_metrics(config: PlotMetricsConfig) -> int:
    """Raises UserError where there is no run, or nothing of the metric in one."""
    names = [_name(run) for run in config.runs]
    labels = config.labels or (names if len(set(names)) == len(names) else config.runs)
    if len(set(labels)) < len(labels):
        raise UserError(f"two runs would both be called {_twice(labels)!r}; give each a name of its own with --labels")
    found = {label: curves(run, config.metric) for label, run in zip(labels, config.runs, strict=True)}
    _write(metrics_figure(found, config.metric), config.out)
    return 0


def _twice(names: Sequence[str]) -> str:
    return next(name for i, name in enumerate(names) if name in names[:i])


def _write(figure: Figure, path: str) -> None:
    with storage.atomic_write(path) as stream:
        stream.write(save(figure, "svg" if path.endswith(".svg") else "png"))
    print(f"wrote {path}")


def _name(run: str) -> str:
    return run.rstrip("/").rsplit("/", 1)[-1]


# What is drawn.


def read_training(run: str) -> Losses:
    """Of a run's folder, or of its metrics.jsonl or training_loss.txt. Raises UserError."""
    if not storage.exists(run):
        raise UserError(f"there is no run {run}; give the --output-folder of a `raylib train`")
    metrics, old = storage.join(run, METRICS), storage.join(run, LOSSES)
    if run.endswith((".jsonl", ".txt")):
        metrics, old = (run, "") if run.endswith(".jsonl") else ("", run)
    if metrics and storage.exists(metrics):
        rows = parse_metrics(storage.read_text(metrics).splitlines(), metrics)
        found = [row for row in rows if row.get("loss") is not None]
        rates = [math.nan if row.get("lr") is None else float(row["lr"]) for row in found]
        losses = Losses([row["step"] for row in found], [float(row["loss"]) for row in found], rates)
    elif old and storage.exists(old):
        steps = read_losses(old)
        losses = Losses([step for step, _ in steps], [loss for _, loss in steps], None)
    else:
        raise UserError(f"{run} has no {METRICS} and no {LOSSES}; give the --output-folder of a `raylib train`")
    if not losses.steps:
        raise UserError(f"{run} has no loss yet; wait for the first line of its log")
    return losses


def smoothed(values: Sequence[float], points: int) -> np.ndarray:
    """float64 [n]: the mean of each value and those before it, `points` in all; at the start of fewer."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    ends = np.arange(1, len(sums))
    firsts = np.maximum(0, ends - points)
    return (sums[ends] - sums[firsts]) / (ends - firsts)


def curves(run: str, metric: str) -> dict[str, Curve]:
    """By task, what the evaluations of a training gave; of an evaluation's folder the mean over splits and subsets, as
    one point at step 0. Raises UserError where there is none."""
    if not storage.exists(run):
        raise UserError(f"there is no run {run}; give the --output-folder of a `raylib train` or a `raylib evaluate`")
    if not storage.exists(storage.join(run, METRICS)):
        return _evaluated(run, metric)
    found: dict[str, dict[int, float]] = {}
    there: set[str] = set()
    for row in read_metrics(run):
        for name, value in row.items():
            if name.startswith("eval/") and value is not None:
                task, _, measure = name.removeprefix("eval/").rpartition("/")
                there.add(measure)
                if measure == metric:
                    found.setdefault(task, {})[row["step"]] = float(value)
    if not there:
        raise UserError(f"{run} has no evaluations; train with --eval-benchmarks NAME")
    if not found:
        raise UserError(f"{run} has no {metric}; its evaluations gave {', '.join(sorted(there))}")
    return {task: sorted(values.items()) for task, values in found.items()}


def _evaluated(run: str, metric: str) -> dict[str, Curve]:
    from raylib.evaluate.result_files import read_folder

    models = read_folder(run).models
    if not models:
        raise UserError(f"{run} has no {METRICS} and no results; give the --output-folder of a `raylib train`")
    if len(models) > 1:
        names = ", ".join(model.model for model in models[:5])
        raise UserError(f"{run} has results of {len(models)} models ({names}); give the folder of one of them")
    found: dict[str, Curve] = {}
    for scores in models[0].tasks.values():
        values = [value for subset in scores.subsets if (value := subset.scores.get(metric)) is not None]
        if values:
            found[scores.task] = [(0, float(np.mean(values)))]
    if not found:
        raise UserError(f"{run} has no {metric}; give another --metric")
    return found


# How it is drawn.


def loss_figure(found: Losses, points: int, name: str) -> Figure:
    """The losses, faint, and the mean of `points` records; below it the learning rate, where it is known."""
    with_rates = found.rates is not None and np.nanmax([0.0, *found.rates]) > 0
    figure, axes = new_figure(8.6, 5.8 if with_rates else 4.4, heights=(3, 1) if with_rates else (1,))
    colour = turns(1)[0]
    marker = "o" if len(found.steps) < 3 else ""
    axes[0].plot(found.steps, found.losses, color=colour, alpha=0.3, linewidth=1, gid="loss")
    axes[0].plot(found.steps, smoothed(found.losses, points), color=colour, linewidth=2, marker=marker, gid="smoothed")
    _axis(axes[0], "loss")
    told = f"{name} · mean of {points} records" if points > 1 else name
    draw_head(axes[0], "Training loss", told)
    if with_rates and found.rates is not None:
        positive = [rate if rate > 0 else math.nan for rate in found.rates]  # a logarithm of 0 there is none
        axes[1].plot(found.steps, positive, color=SOFT, linewidth=1.6, marker=marker, gid="lr")
        axes[1].set_yscale("log")
        axes[1].set_xlim(axes[0].get_xlim())
        _axis(axes[1], "learning rate")
    axes[-1].set_xlabel("step", color=INK, fontsize=11)
    return figure


def metrics_figure(runs: Mapping[str, Mapping[str, Curve]], metric: str) -> Figure:
    """runs: label → task → curve. A line for each run and axes for each task; bars where each has one evaluation."""
    tasks = list(dict.fromkeys(task for found in runs.values() for task in found))
    colours = dict(zip(runs, turns(len(runs)), strict=True))
    if all(len(curve) == 1 for found in runs.values() for curve in found.values()):
        figure, (ax,) = new_figure(max(5.8, 1.8 + 0.5 * len(runs) * len(tasks)), 4.6)
        _bars(ax, runs, tasks, colours)
        draw_head(ax, _measure(metric), "one evaluation of each run")
        _axis(ax, _measure(metric))
    else:
        columns = min(_COLUMNS, len(tasks))
        rows = -(-len(tasks) // columns)
        figure, axes = new_figure(1.2 + 4.6 * columns + (2.8 if columns == 1 else 0), 4.4 * rows, columns, (1,) * rows)
        for ax, task in zip(axes, tasks, strict=False):
            _lines(ax, {label: found[task] for label, found in runs.items() if task in found}, colours)
            draw_head(ax, task, f"{_measure(metric)} by step")
            _axis(ax, _measure(metric))
            ax.set_xlabel("step", color=INK, fontsize=11)
        for ax in axes[len(tasks) :]:
            ax.set_visible(False)
    _key(figure, colours)
    return figure


def _lines(ax: Axes, found: Mapping[str, Curve], colours: Mapping[str, str]) -> None:
    for label, curve in found.items():
        if curve[0][0] == 0 and len(curve) == 1:  # of a model that is not in training: a level to compare with
            ax.axhline(curve[0][1], color=colours[label], linewidth=1.6, linestyle=(0, (5, 2.5)), gid=label)
            continue
        steps, values = zip(*curve, strict=True)
        marker = "o" if len(curve) <= 30 else ""
        ax.plot(steps, values, color=colours[label], linewidth=2, marker=marker, markersize=4.5, gid=label)


def _bars(ax: Axes, runs: Mapping[str, Mapping[str, Curve]], tasks: Sequence[str], colours: Mapping[str, str]) -> None:
    width = 0.8 / len(runs)
    for i, (label, found) in enumerate(runs.items()):
        places = [(at, found[task][0][1]) for at, task in enumerate(tasks) if task in found]
        x = [at + (i - (len(runs) - 1) / 2) * width for at, _ in places]
        drawn = ax.bar(x, [value for _, value in places], width * 0.92, color=colours[label], label=plain(label, 40))
        ax.bar_label(drawn, fmt="%.3f", color=INK, fontsize=9, padding=2)
    ax.set_xticks(range(len(tasks)), [plain(task, 30) for task in tasks])


def _measure(metric: str) -> str:
    """As it is written: nDCG@5."""
    return metric.replace("ndcg", "nDCG").replace("_at_", "@")


def _axis(ax: Axes, label: str) -> None:
    ax.set_ylabel(label, color=INK, fontsize=11)
    ax.grid(axis="y", color=LINE, linewidth=0.8)


def _key(figure: Figure, colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    items: list[Any] = [Line2D([], [], color=c, linewidth=3, label=plain(label, 40)) for label, c in colours.items()]
    figure.legend(
        handles=items, loc="outside lower center", ncols=min(4, len(items)), frameon=False, fontsize=10, labelcolor=INK
    )
