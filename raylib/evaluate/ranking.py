"""Ranking: results as one table of models and tasks.

Scores are MTEB's: a task's score is the mean of a metric over its splits and subsets, a model's mean is the mean over
tasks. A mean over some of the tasks is no ground for comparison: models are ranked by their mean over the tasks that
every one of them was scored on, where these are at least half of all, and not at all otherwise. Official results and
those on local data are never in one column.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from raylib.evaluate.result_files import Failure, FolderContents, ModelScores, Problem, SubsetScores, TaskScores
from raylib.evaluate.results import PART_REVISION

MAIN = "main_score"
METRICS = tuple(
    f"{name}_at_{k}"
    for name, ks in {"ndcg": (1, 5, 10), "recall": (1, 5, 10, 100), "map": (10,), "mrr": (10,)}.items()
    for k in ks
)
"""What a reader can choose besides the main score, where the results have it."""

MISSING = "–"


@dataclass(frozen=True)
class Column:
    """One task, on the published data or on local data. metric: MTEB's name of the main score, "" where unclear."""

    task: str
    official: bool
    metric: str
    parts: tuple[tuple[str, str], ...]
    """(split, subset), every one that any model was scored on, sorted."""

    data: str = ""
    """What data that is not the published one: "local data", "a part of the data" (--limit), or both."""


@dataclass(frozen=True)
class Cell:
    """One model's score on one task. value: None where missing. complete: scored on all parts of the column."""

    value: float | None = None
    complete: bool = False
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One model in one view. shared_mean: over the tasks all models have. mean: over its `count` complete cells."""

    model: ModelScores
    cells: tuple[Cell, ...]
    shared_mean: Cell
    mean: Cell
    count: int
    rank: int | None
    """1 for the best shared mean; None where too few tasks are shared."""

    @property
    def official(self) -> bool:
        """True when at least one of its results is on published data."""
        return any(scores.official for scores in self.model.tasks.values())

    @property
    def untrained(self) -> bool:
        return any(scores.untrained for scores in self.model.tasks.values())


@dataclass(frozen=True)
class View:
    """The leaderboard under one metric; rows by rank, or else by number of tasks and mean, from the best down."""

    metric: str
    rows: tuple[Row, ...]
    shared: int
    """How many tasks every model was scored on completely."""
    ranked: bool


@dataclass(frozen=True)
class Report:
    """Everything under a folder. problems: files that could not be read; failures: what runs could not do."""

    models: tuple[ModelScores, ...]
    columns: tuple[Column, ...]
    problems: tuple[Problem, ...]
    failures: tuple[Failure, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The main score, and the metrics of METRICS that any result has."""
        present = {name for scores in self._all() for part in scores.subsets for name in part.scores}
        return (MAIN, *(name for name in METRICS if name in present))

    @property
    def notes(self) -> list[str]:
        """What a reader should know before comparing."""
        notes = []
        revisions = defaultdict(set)
        for scores in self._all():
            revisions[scores.task, scores.official].add(scores.dataset_revision)
        for (task, _), found in sorted(revisions.items()):
            if len(found) > 1:
                notes.append(f"{task} was scored on {len(found)} revisions of its data: {', '.join(sorted(found))}.")
        for scores in self._all():
            if any(part.scores[MAIN] is None for part in scores.subsets):
                notes.append(f"{scores.path}: the main score is not a number.")
        return notes

    @property
    def provenance(self) -> str:
        """Dates and versions of MTEB that the results name."""
        dates = sorted(f"{scores.date:%Y-%m-%d}" for scores in self._all() if scores.date)
        versions = sorted({scores.mteb_version for scores in self._all() if scores.mteb_version})
        days = [dates[0]] if dates and dates[0] == dates[-1] else [f"{dates[0]} to {dates[-1]}"] if dates else []
        return " · ".join([*days, *([f"mteb {', '.join(versions)}"] if versions else [])])

    def _all(self) -> list[TaskScores]:
        return [scores for model in self.models for scores in model.tasks.values()]

    def view(self, metric: str = MAIN) -> View:
        """The table under one of `metrics`."""
        table = [
            [_cell(model.tasks.get((c.task, c.official)), c, metric) for c in self.columns] for model in self.models
        ]
        common = [i for i in range(len(self.columns)) if table and all(cells[i].complete for cells in table)]
        ranked = bool(common) and 2 * len(common) >= len(self.columns)
        shared = _mark_best([_mean(cells, common) for cells in table])
        means = [_mean(cells, range(len(self.columns))) for cells in table]
        if len(common) == len(self.columns):
            means = _mark_best(means)
        by_column = [_mark_best(list(column)) for column in zip(*table, strict=True)]
        places = sorted((cell.value or 0.0 for cell in shared), reverse=True)
        rows = [
            Row(
                model,
                tuple(column[i] for column in by_column),
                shared[i],
                means[i],
                sum(cell.complete for cell in table[i]),
                places.index(shared[i].value or 0.0) + 1 if ranked else None,
            )
            for i, model in enumerate(self.models)
        ]
        rows.sort(key=lambda r: (r.rank or 0, -r.count, -(r.mean.value or 0.0), r.model.model.lower()))
        return View(metric, tuple(rows), len(common), ranked)


def rank(contents: FolderContents) -> Report:
    """What was read from a folder as columns and rows: official tasks first, by name."""
    by_column: dict[tuple[str, bool], list[TaskScores]] = defaultdict(list)
    for model in contents.models:
        for key, scores in model.tasks.items():
            by_column[key].append(scores)
    columns = [
        Column(
            task,
            official,
            _main_metric(found),
            tuple(sorted({_part(p) for s in found for p in s.subsets})),
            "" if official else _data(found),
        )
        for (task, official), found in sorted(by_column.items(), key=lambda item: (not item[0][1], item[0][0].lower()))
    ]
    return Report(tuple(contents.models), tuple(columns), tuple(contents.problems), tuple(contents.failures))


def _data(found: Sequence[TaskScores]) -> str:
    limited = [scores.dataset_revision == PART_REVISION for scores in found]
    if all(limited):
        return "a part of the data"
    return "local data, and a part of it" if any(limited) else "local data"


def _part(scores: SubsetScores) -> tuple[str, str]:
    return scores.split, scores.subset


def _main_metric(results: list[TaskScores]) -> str:
    """The one metric that equals the main score everywhere; result files do not name it. "" unless exactly one does."""
    parts = [part.scores for scores in results for part in scores.subsets]
    names = [n for n in parts[0] if n != MAIN and all(p.get(n, "absent") == p[MAIN] for p in parts)]
    return names[0] if len(names) == 1 else ""


def _cell(scores: TaskScores | None, column: Column, metric: str) -> Cell:
    if scores is None:
        return Cell()
    values = [part.scores.get(metric) for part in scores.subsets]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return Cell(note="not a number" if metric == MAIN else f"{metric} is missing")
    covered = len({_part(part) for part in scores.subsets})
    complete = covered == len(column.parts)
    return Cell(
        sum(numbers) / len(numbers),
        complete,
        "" if complete else f"{covered} of {len(column.parts)} splits and subsets",
    )


def _mean(cells: list[Cell], which: range | list[int]) -> Cell:
    """The mean over the complete cells among `which`; complete when all of them are."""
    values = [cells[i].value or 0.0 for i in which if cells[i].complete]
    if not values:
        return Cell()
    return Cell(sum(values) / len(values), len(values) == len(which))


def _mark_best(cells: list[Cell]) -> list[Cell]:
    """The highest complete score, and what ties with it as shown, is the best, where at least two compete."""
    shown = [format_score(cell.value) if cell.complete else None for cell in cells]
    competing = [cell.value for cell in cells if cell.complete and cell.value is not None]
    top = format_score(max(competing)) if len(competing) > 1 else ""
    return [Cell(c.value, c.complete, c.note, s == top) for c, s in zip(cells, shown, strict=True)]


def format_score(value: float | None) -> str:
    """×100 with two decimals, as leaderboards print it."""
    return MISSING if value is None else f"{100 * value:.2f}"
