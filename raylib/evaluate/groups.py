"""Scores of groups of tasks: MMEB's meta-tasks, MMEB-V2's kinds of visual documents, and the overall score of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raylib.evaluate.ranking import MAIN, MISSING, Report, format_score
from raylib.evaluate.result_files import ModelScores, TaskScores
from raylib.tasks.mmeb_table import GroupMean, group_means, group_names


@dataclass(frozen=True)
class GroupTable:
    """One benchmark, on published or on local data. heads: its groups. rows: the cells of each model as they are shown,
    a mean over a part of a group with "scored/total" behind it."""

    title: str
    heads: Sequence[str]
    rows: Sequence[tuple[ModelScores, Sequence[str]]]


def group_tables(report: Report) -> list[GroupTable]:
    """A table of each benchmark that has groups and of which anything was scored; models in the leaderboard's order."""
    models = [row.model for row in report.view().rows]
    tables = []
    for official in (True, False):
        found = {id(model): _means(model, official) for model in models}
        for benchmark in dict.fromkeys(mean.benchmark for means in found.values() for mean in means):
            heads = group_names(benchmark)
            rows = []
            for model in models:
                shown = {mean.group: _cell(mean) for mean in found[id(model)] if mean.benchmark == benchmark}
                if shown:
                    rows.append((model, [shown.get(head, MISSING) for head in heads]))
            tables.append(GroupTable(benchmark + ("" if official else " (not official)"), heads, rows))
    return tables


def summary_groups(scores: Mapping[str, float]) -> dict[str, dict[str, dict[str, Any]]]:
    """Task name → main score, as the run summary tells it: benchmark → group → {score, scored, total}."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for mean in group_means(scores):
        told = {"score": mean.value, "scored": mean.scored, "total": mean.total}
        found.setdefault(mean.benchmark, {})[mean.group] = told
    return found


def _means(model: ModelScores, official: bool) -> list[GroupMean]:
    """A task without a number is as one that was not scored."""
    values = {task: _score(scores) for (task, is_official), scores in model.tasks.items() if is_official == official}
    return group_means({task: value for task, value in values.items() if value is not None})


def _score(scores: TaskScores) -> float | None:
    values = [part.scores.get(MAIN) for part in scores.subsets]
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(values) else None


def _cell(mean: GroupMean) -> str:
    return format_score(mean.value) + ("" if mean.complete else f" ({mean.scored}/{mean.total})")
