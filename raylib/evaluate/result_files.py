"""Reading result files back: whatever lies under a folder, raylib's or MTEB's, into plain Python.

Needs nothing but the files, and not MTEB (whose import takes seconds). A file that cannot be used becomes a Problem
with its name; it never stops the others. Text from files is untrusted: control characters are taken out here, and
what shows it escapes it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raylib.errors import UserError
from raylib.evaluate.results import LOCAL_REVISION, PART_REVISION, ResultRecord, read_records
from raylib.storage import filesystem, is_remote, join, read_text

_UNUSABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, RecursionError)
"""What reading a file of unknown making can raise."""


@dataclass(frozen=True)
class Problem:
    """A file that could not be read as what it should be. path: relative to the folder that was read."""

    path: str
    reason: str


@dataclass(frozen=True)
class Failure:
    """What the last run of a model could not do. task: "" when the model as a whole failed."""

    model: str
    variant: str
    task: str
    error: str


@dataclass(frozen=True)
class SubsetScores:
    """One entry of a TaskResult: metric → score in MTEB's unit (0 to 1 as a rule); None where it is undefined."""

    split: str
    subset: str
    languages: tuple[str, ...]
    scores: Mapping[str, float | None]


@dataclass(frozen=True)
class TaskScores:
    """One result file."""

    task: str
    official: bool
    untrained: bool
    subsets: tuple[SubsetScores, ...]
    dataset_revision: str
    mteb_version: str
    date: datetime | None
    path: str


@dataclass
class ModelScores:
    """All results of one model, revision and variant (MTEB's experiment), by task name and whether it is official."""

    model: str
    revision: str
    variant: str
    tasks: dict[tuple[str, bool], TaskScores] = field(default_factory=dict)


@dataclass
class FolderContents:
    """What a folder holds. models: in the order of their names."""

    models: list[ModelScores]
    problems: list[Problem]
    failures: list[Failure]


def read_folder(folder: str | Path) -> FolderContents:
    """Every result under `folder`, however deep: <model>/<revision>/<Task>.json and its experiments/<name>/.

    A result is a JSON object with task_name and scores; other JSON is left alone unless it lies beside a
    model_meta.json, where MTEB would take it for a result. Raises UserError where there is no such folder.
    """
    paths = _json_files(folder)
    problems: list[Problem] = []
    metas = _model_metas(folder, [path for path in paths if path.endswith("/model_meta.json")], problems)
    records: dict[str, dict[str, ResultRecord]] = {}
    models: dict[tuple[str, str, str], ModelScores] = {}
    summaries: list[dict[str, Any]] = []
    for path in paths:
        if path.endswith("/model_meta.json"):
            continue
        name, parent = _relative(path, folder), _parent(path)
        try:
            text = read_text(path)
            data = json.loads(text)
            if isinstance(data, dict) and {"status", "timestamp", "model"} <= data.keys():
                summaries.append(data)
            elif isinstance(data, dict) and {"task_name", "scores"} <= data.keys():
                record = records.setdefault(parent, read_records(parent)).get(str(data["task_name"]))
                _add(models, _identity(parent, metas.get(parent, {})), _task_scores(data, name, text, record))
            elif parent in metas:
                problems.append(Problem(_clean(name), "not a result: it has no task_name and scores"))
        except _UNUSABLE as error:
            problems.append(Problem(_clean(name), _reason(error)))
    ordered = sorted(models.values(), key=lambda m: (m.model.lower(), m.revision, m.variant))
    return FolderContents(ordered, problems, _failures(summaries))


def _model_metas(folder: str | Path, paths: list[str], problems: list[Problem]) -> dict[str, dict[str, Any]]:
    """Folder → its model_meta.json; one that cannot be read is a problem, and the folder names speak for the model."""
    metas: dict[str, dict[str, Any]] = {}
    for path in paths:
        metas[_parent(path)] = {}
        try:
            meta = json.loads(read_text(path))
            if not isinstance(meta, dict):
                raise ValueError(f"model_meta.json holds {type(meta).__name__}; expected an object")
            metas[_parent(path)] = meta
        except _UNUSABLE as error:
            problems.append(Problem(_clean(_relative(path, folder)), _reason(error)))
    return metas


def _json_files(folder: str | Path) -> list[str]:
    """Full paths of the finished .json files under `folder`, sorted; hidden files and folders are left out."""
    with filesystem(folder) as (store, root):
        if not store.isdir(root):
            raise UserError(f"there is no folder {folder}; give one that holds results, the --output-folder of a run.")
        paths = store.find(root)
    found = []
    for path in paths:
        inside = path.removeprefix(root.rstrip("/") + "/")
        if inside.endswith(".json") and not any(part.startswith(".") for part in inside.split("/")):
            found.append(join(folder, inside))
    return sorted(found)


def _parent(path: str) -> str:
    return path.rsplit("/", 1)[0]


def _relative(path: str, folder: str | Path) -> str:
    return path.removeprefix(str(folder).rstrip("/") + "/")


def _identity(folder: str, meta: Mapping[str, Any]) -> tuple[str, str, str]:
    """(model, revision, variant) of a folder of results: model_meta.json says, or else the names of the folders."""
    parts = (folder if is_remote(folder) else str(Path(folder).absolute())).split("/")
    variant = ""
    if len(parts) > 2 and parts[-2] == "experiments":
        variant, parts = parts[-1], parts[:-2]
    revision, model = parts[-1], parts[-2].replace("__", "/") if len(parts) > 1 else parts[-1]
    model, revision = meta.get("name") or model, meta.get("revision") or revision
    options = meta.get("experiment_kwargs") if variant else None
    if isinstance(options, dict) and options:
        variant = ", ".join(f"{name}={value}" for name, value in sorted(options.items()))
    return _clean(model), _clean(revision), _clean(variant)


def _task_scores(data: dict[str, Any], name: str, text: str, record: ResultRecord | None) -> TaskScores:
    """A result file's JSON as TaskScores. Raises ValueError, KeyError, TypeError for what MTEB would not write."""
    if record is not None and record.sha256 != hashlib.sha256(text.encode()).hexdigest():
        record = None  # something else wrote the file since: what the record says is not about it
    subsets = [
        SubsetScores(_clean(split), _clean(entry["hf_subset"]), _languages(entry), _numbers(entry))
        for split, entries in data["scores"].items()
        for entry in entries
    ]
    if not subsets:
        raise ValueError("it holds no scores")
    revision, date = str(data.get("dataset_revision", "")), data.get("date")
    return TaskScores(
        task=_clean(data["task_name"]),
        official=revision not in (LOCAL_REVISION, PART_REVISION) and (record is None or record.official),
        untrained=record is not None and record.untrained,
        subsets=tuple(subsets),
        dataset_revision=_clean(revision),
        mteb_version=_clean(data.get("mteb_version") or ""),
        date=_date(date) if date else None,
        path=_clean(name),
    )


def _add(models: dict[tuple[str, str, str], ModelScores], identity: tuple[str, str, str], scores: TaskScores) -> None:
    """Of two files for one task of one model (a folder that holds two caches) the later one counts."""
    tasks = models.setdefault(identity, ModelScores(*identity)).tasks
    key, oldest = (scores.task, scores.official), datetime.min.replace(tzinfo=UTC)
    if key not in tasks or (tasks[key].date or oldest) <= (scores.date or oldest):
        tasks[key] = scores


def _languages(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_clean(language) for language in entry.get("languages") or ())


def _numbers(entry: Mapping[str, Any]) -> dict[str, float | None]:
    """The metrics of one entry. nAUC values, two thirds of the file, are of no use in a leaderboard."""
    found = {}
    for metric, value in entry.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not metric.startswith("nauc"):
            found[metric] = float(value) if math.isfinite(value) else None
    main = entry["main_score"]
    if main is None:
        found["main_score"] = None
    elif "main_score" not in found:
        raise ValueError(f"main_score is {main!r}; expected a number")
    return found


def _date(value: Any) -> datetime:
    """MTEB writes seconds since 1970, or ISO 8601 in older files."""
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    date = datetime.fromisoformat(str(value))
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _failures(summaries: list[dict[str, Any]]) -> list[Failure]:
    """What failed and was not mended by a later run of the same model and variant."""
    open_failures: dict[tuple[str, str, str], Failure] = {}
    for summary in sorted(summaries, key=lambda s: str(s["timestamp"])):
        model, variant = _clean(summary["model"]), _clean(summary.get("variant") or "")
        done = summary["results"] if isinstance(summary.get("results"), dict) else {}
        failed = _dicts(summary.get("tasks_failed"))
        for task in ["", *(_clean(t.get("task_name")) for t in _dicts(done.get("task_results")))]:
            open_failures.pop((model, variant, task), None)
        if summary.get("error"):
            failed.insert(0, {"task_name": "", "error": summary["error"]})
        for item in failed:
            key = (model, variant, _clean(item.get("task_name", "")))
            open_failures[key] = Failure(*key, _clean(item.get("error", "no reason was given")))
    return [open_failures[key] for key in sorted(open_failures)]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _reason(error: Exception) -> str:
    """One line for the report."""
    if isinstance(error, json.JSONDecodeError):
        return f"broken JSON: {error}"
    if isinstance(error, UnicodeDecodeError):
        return "broken JSON: not UTF-8 text"
    if isinstance(error, KeyError):
        return f"not an MTEB result: {error.args[0]} is missing"
    return _clean(f"not an MTEB result: {error}")


def _clean(value: Any) -> str:
    """Text for a table: no line breaks, no control or direction characters (a name may come from anyone)."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(str(value).split()))
