"""Which models and tasks of an output folder have details, and how a model was run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raylib import storage
from raylib.errors import UnknownNameError, UserError
from raylib.metrics.details import FOLDER, details_folder
from raylib.models.protocol import ModelSpec


@dataclass(frozen=True)
class ModelFolder:
    """The result folder of one model under one set of options. tasks: task name → folder of its details.

    title: the name that tells it from the others of the output folder.
    """

    name: str
    revision: str
    variant: str
    tasks: dict[str, str]

    @property
    def title(self) -> str:
        return self.name + (f" [{self.variant}]" if self.variant else "")

    @property
    def full_title(self) -> str:
        return f"{self.title} @ {self.revision[:12]}"


def models_with_details(results: str) -> list[ModelFolder]:
    """Every model under `results` that has details of a task, by name. Raises UserError where there is none."""
    folders: dict[str, dict[str, str]] = {}
    with storage.filesystem(results) as (store, root):
        if not store.isdir(root):
            raise UserError(f"there is no folder {results}; give the --output-folder of a raylib evaluate run")
        places = [f"{root.rstrip('/')}/*/*/{options}{FOLDER}/*/rankings.parquet" for options in ("", "experiments/*/")]
        paths = sorted(path for place in places for path in store.glob(place))
    for path in paths:
        inside = path.removeprefix(root.rstrip("/") + "/").split("/")
        folder, task = "/".join(inside[:-3]), inside[-2]
        folders.setdefault(folder, {})[task] = details_folder(storage.join(results, folder), task)
    if not folders:
        raise UserError(
            f"{results} has no details of any task. Run raylib evaluate on a retrieval task with --keep-rankings 100, "
            "its default; --overwrite scores what was scored without."
        )
    return sorted((_model(results, f, tasks) for f, tasks in folders.items()), key=lambda m: m.full_title)


def _model(results: str, folder: str, tasks: dict[str, str]) -> ModelFolder:
    """Name and revision from model_meta.json; the names of folders speak where it is missing."""
    organisation_and_name, revision, *experiment = folder.split("/")
    meta: dict[str, Any] = {}
    path = storage.join(results, folder, "model_meta.json")
    if storage.exists(path):
        try:
            meta = dict(json.loads(storage.read_text(path)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read as JSON ({error}); run raylib evaluate again") from error
    name = meta.get("name") or organisation_and_name.replace("__", "/")
    return ModelFolder(name, revision, "/".join(experiment[1:]), tasks)


def choose_model(models: Sequence[ModelFolder], name: str, flag: str = "--model") -> ModelFolder:
    """The model of that name, as the leaderboard or as --model of the run has it; without a name, the only one. Raises
    UserError where several or none fit."""
    fitting = [m for m in models if name in (m.full_title, m.title)]
    fitting = fitting or [m for m in models if not name or m.name in (name, _filed_under(name))]
    if not fitting:
        known = [m.title for m in models]
        raise UnknownNameError("model", name, known, hint=f"With details there are: {_listed(known)}.")
    if len(fitting) > 1:
        titles = [m.title for m in fitting]
        titles = titles if len(set(titles)) == len(titles) else [m.full_title for m in fitting]
        called = f" are called {name}" if name else " have details"
        raise UserError(f"several models{called}; add {flag} with one of {_listed(titles)}")
    return fitting[0]


def _filed_under(name: str) -> str:
    """How the results of a directory or a module:factory are called."""
    return "local/" + (re.sub(r"[^\w.-]+", ".", name) if ":" in name else name.rstrip("/").rpartition("/")[2])


def choose_task(model: ModelFolder, name: str) -> str:
    """The task's name, where this model has details of it; without a name, the only one."""
    if not name and len(model.tasks) == 1:
        return next(iter(model.tasks))
    if not name:
        raise UserError(f"{model.title} has details of several tasks; add --task with one of {_listed(model.tasks)}")
    if name not in model.tasks:
        hint = f"{model.title} has details of {_listed(model.tasks)}. Only retrieval tasks have them."
        raise UnknownNameError("task", name, model.tasks, hint=hint)
    return name


def _listed(names: Any) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")


def run_settings(results: str, fingerprint: str, model: ModelFolder) -> dict[str, Any]:
    """The settings of the last run of this encoder (of the model, where it has no fingerprint), from the run summaries;
    {} where none tells. "model" is what was asked for with --model."""
    found: dict[str, Any] = {}
    for path in storage.list_files(storage.join(results, "runs"), ".json"):
        try:
            summary = json.loads(storage.read_text(path))
            named = model.name in (summary["model"], _filed_under(summary["model"]))
            mine = (
                summary["fingerprint"] == fingerprint if fingerprint else named and summary["variant"] == model.variant
            )
            if mine and summary["timestamp"] >= found.get("timestamp", ""):
                found = {**summary["config"], "model": summary["model"], "timestamp": summary["timestamp"]}
        except (ValueError, TypeError, KeyError):
            continue  # no summary of a run; it names no settings
    return found


def spec_of(settings: dict[str, Any], model: str) -> ModelSpec:
    """The encoder that a run used; without settings, the plain model of that name."""
    options = {name: settings[name] for name in ModelSpec.__dataclass_fields__ if name in settings and name != "name"}
    return ModelSpec(settings.get("model", model), **options)
