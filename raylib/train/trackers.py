"""Weights & Biases and MLflow, when they are asked for: records are sent to them beside the run's own files."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from raylib import storage
from raylib.errors import UserError

_KEPT = "trackers.json"
"""In the run's folder: by tracker, the id of the run there, which a resumed run goes on with."""
_PROJECT = "raylib"


class Tracker(Protocol):
    """name: for messages. id: of the run at the tracker."""

    name: str
    id: str

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError for one whose package is not installed; starts nothing."""
    for name in names:
        if sys.modules.get(name) is None and importlib.util.find_spec(name) is None:
            raise UserError(f"--track {name}: it is not installed; pip install {name}, or leave --track {name} out")


def open_trackers(
    names: Sequence[str], run_folder: str | Path, settings: Mapping[str, Any], *, resumed: bool = False
) -> list[Tracker]:
    """One for each of the names, "wandb" or "mlflow". settings: of the run, shown beside it. resumed: go on with the
    run that an earlier process of this folder began there.

    Where records go is as the trackers' own variables say (WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI,
    MLFLOW_EXPERIMENT_NAME; project and experiment are "raylib" otherwise). Raises UserError for a package that is not
    installed, and where the tracker refuses.
    """
    check_trackers(names)
    path = storage.join(run_folder, _KEPT)
    known: dict[str, str] = json.loads(storage.read_text(path)) if resumed and storage.exists(path) else {}
    opened: list[Tracker] = []
    for name in names:
        try:
            opened.append(_KINDS[name](str(run_folder), settings, known.get(name)))
        except Exception as error:
            for tracker in opened:
                tracker.close()
            raise UserError(f"--track {name}: {type(error).__name__}: {error}") from error
    if opened:
        storage.write_text(path, json.dumps({**known, **{tracker.name: tracker.id for tracker in opened}}) + "\n")
    return opened


class _Wandb:
    """https://docs.wandb.ai/ref/python"""

    name = "wandb"

    def __init__(self, run_folder: str, settings: Mapping[str, Any], known: str | None) -> None:
        wandb = importlib.import_module("wandb")
        local = {} if storage.is_remote(run_folder) else {"dir": run_folder}
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=run_folder.rstrip("/").rsplit("/", 1)[-1],
            config=dict(settings),
            **({"id": known, "resume": "allow"} if known is not None else {}),
            **local,
        )
        self.id = str(self._run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        # Steps that a resumed run does again are of the same values, and W&B leaves them as they are.
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """https://mlflow.org/docs/latest/python_api/mlflow.html"""

    name = "mlflow"

    def __init__(self, run_folder: str, settings: Mapping[str, Any], known: str | None) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        if known is None and "MLFLOW_EXPERIMENT_NAME" not in os.environ:
            self._mlflow.set_experiment(_PROJECT)
        named = {"run_id": known} if known is not None else {"run_name": run_folder.rstrip("/").rsplit("/", 1)[-1]}
        self.id = str(self._mlflow.start_run(**named).info.run_id)
        if known is None:  # those of a run cannot be changed
            self._mlflow.log_params({name: str(value)[:500] for name, value in settings.items()})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        allowed = {re.sub(r"[^\w./ -]", "_", name): value for name, value in values.items()}
        self._mlflow.log_metrics(allowed, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


_KINDS: dict[str, Any] = {"wandb": _Wandb, "mlflow": _Mlflow}
