"""What `raylib compare` compares: measures per query of one side, by task, split and subset, wherever they lie."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import UnknownNameError, UserError
from raylib.metrics.measures import DEFAULT_MEASURES, per_query
from raylib.metrics.qrels import read_qrels
from raylib.metrics.runs import read_run

Key = tuple[str, str, str]
"""Task, split, subset; empty where a side has no names for them (a run file)."""

Values = dict[str, dict[str, float]]
"""Measure → query id → value."""

_FILE = "queries.parquet"


@dataclass(frozen=True)
class Side:
    """One side of a comparison. name: for the reader."""

    name: str
    tables: dict[Key, Values]


def read_side(path: str, model: str | None, qrels: str | None, measure: str | None) -> Side:
    """The side that `path` names: an output folder of `raylib score`, a TREC run file, a model's result folder, the
    details folder of one task, or, with `model`, an output folder of `raylib evaluate`.

    qrels, measure: for a run file, what it is scored with. Raises UserError where there is nothing to compare.
    """
    if not storage.exists(path):
        raise UserError(f"{path} does not exist")
    if model is not None:
        folder = _model_folder(path, model)
        return Side(model, _tasks(folder))
    if storage.exists(storage.join(path, _FILE)):
        return Side(path, _table(storage.join(path, _FILE), _task_of(path)))
    if _find(path, f"details/*/{_FILE}"):
        return Side(path, _tasks(path))
    if _is_folder(path):
        raise UserError(
            f"{path} is neither an output folder of `raylib score` nor the result folder of a model (no {_FILE} and no "
            "details folder); for an output folder of `raylib evaluate` add --model NAME"
        )
    if qrels is None:
        raise UserError(f"{path} is a run file; add --qrels FILE to score it")
    measures: list[str] = [*([measure] if measure else []), *DEFAULT_MEASURES]
    values = per_query(read_run(path), read_qrels(qrels), measures)
    if not values[measures[0]]:
        raise UserError(f"no query of {path} is judged in {qrels}")
    return Side(path, {("", "", ""): values})


def _tasks(folder: str) -> dict[Key, Values]:
    tables: dict[Key, Values] = {}
    for path in _find(folder, f"details/*/{_FILE}"):
        tables.update(_table(path, path.split("/")[-2]))
    return tables


def _task_of(folder: str) -> str:
    """The task whose measures lie in a folder: what summary.json says, or the name of a details folder."""
    summary = storage.join(folder, "summary.json")
    if storage.exists(summary):
        try:
            return str(json.loads(storage.read_text(summary))["task"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{summary} is no summary of `raylib score`: {error}") from error
    return folder.rstrip("/").split("/")[-1]


def _table(path: str, task: str) -> dict[Key, Values]:
    """One queries.parquet, by split and subset."""
    try:
        with storage.open_input(path) as source:
            table = pq.read_table(source)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    names = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    if "query_id" not in table.column_names or not names:
        raise UserError(f"{path} has the columns {', '.join(table.column_names)}; expected query_id and measures")
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    blank = [""] * len(table)
    keys = zip(columns.get("split", blank), columns.get("subset", blank), strict=True)
    tables: dict[Key, Values] = defaultdict(lambda: {name: {} for name in names})
    for row, (split, subset) in enumerate(keys):
        for name in names:
            value = columns[name][row]
            if value is not None and not math.isnan(value):
                tables[task, split, subset][name][columns["query_id"][row]] = value
    if not tables:
        raise UserError(f"{path} holds no query")
    return dict(tables)


def _model_folder(output: str, model: str) -> str:
    """The one result folder of a model that has details. Raises UserError where there is none, or several."""
    by_model: dict[str, set[str]] = defaultdict(set)
    for pattern in ("*/*/details/*", "*/*/experiments/*/details/*"):
        for path in _find(output, f"{pattern}/{_FILE}"):
            folder = path.rsplit("/", 3)[0]
            by_model[folder.removeprefix(output.rstrip("/") + "/").split("/")[0]].add(folder)
    name = model.replace("/", "__").replace(" ", "_")
    if name not in by_model:
        known = [found.replace("__", "/", 1) for found in by_model]
        hint = f"{output} has details of: {', '.join(sorted(known)) or 'no model'}."
        raise UnknownNameError("model", model, known, hint=hint)
    folders = sorted(by_model[name])
    if len(folders) > 1:
        raise UserError(
            f"{output} has {len(folders)} results of {model}: {', '.join(folders)}; name one of these folders instead"
        )
    return folders[0]


def _is_folder(path: str) -> bool:
    with storage.filesystem(path) as (store, name):
        return store.isdir(name)


def _find(folder: str, pattern: str) -> list[str]:
    """Paths under `folder` that match, sorted."""
    with storage.filesystem(folder) as (store, root):
        root = root.rstrip("/")
        found = [str(path) for path in store.glob(f"{root}/{pattern}")]
    return sorted(storage.join(folder, path.removeprefix(root + "/")) for path in found)
