"""`raylib inspect-run`: from a folder of results to one page."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raylib import storage
from raylib.errors import UserError
from raylib.inspect.choose import (
    QueryId,
    distribution,
    first_relevant,
    hits_of,
    in_order,
    kept,
    measure_values,
)
from raylib.inspect.config import InspectConfig
from raylib.inspect.draw import Drawer
from raylib.inspect.heat_maps import HeatMaps
from raylib.inspect.page import Summary, render
from raylib.inspect.results import ModelFolder, choose_model, choose_task, models_with_details, run_settings
from raylib.inspect.vectors import NoHeatMapError, open_vectors
from raylib.inspect.view import Chosen
from raylib.metrics.details import Details, read_details

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask


@dataclass(frozen=True)
class Written:
    """The page that was made. queries: how many are on it; notes: what is missing from it."""

    path: str
    n_bytes: int
    queries: int
    notes: list[str]


def run_inspect(config: InspectConfig) -> int:
    """The command: writes the page and says where it is."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    import datasets

    datasets.disable_progress_bars()
    for name in ("mteb", "datasets", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    written = inspect_run(config)
    for note in written.notes:
        print(note)
    print(f"wrote {written.path}: {written.queries} queries, {written.n_bytes / 1e6:.1f} MB")
    return 0


def inspect_run(config: InspectConfig) -> Written:
    """Write the page that `config` asks for.

    Raises UserError for a model, task, split, subset or measure without details, and where the task's data cannot be
    had. What stands in the way of heat maps only is a note on the page.
    """
    from raylib.tasks.retrieval_data import load_retrieval

    models = models_with_details(config.results)
    model = choose_model(models, config.model)
    task_name = choose_task(model, config.task)
    details = _read(model, task_name, config)
    settings = run_settings(config.results, fingerprint_of(details), model)
    task = task_of(task_name, details, settings, config.data_root)
    measure = config.measure or default_measure(details.queries, task.metadata.main_score)
    values = measure_values(details.queries, measure)
    summary = Summary(
        model.title, task_name, measure, _part(config), config.order, config.top_k, distribution([*values.values()])
    )
    others: dict[QueryId, float] | None = None
    other_details = None
    if config.compare_with is not None:
        other = choose_model(models, config.compare_with, "--compare-with")
        other_details = _read(other, choose_task(other, task_name), config)
        others = measure_values(other_details.queries, measure)
        _compare(summary, other.title, values, others)
    queries = in_order(values, first_relevant(details.rankings), config.order, others)[: config.queries]
    chosen = _chosen(queries, values, details.rankings, others, other_details)
    data = load_retrieval(task)
    missing = sorted({f"{q.split}/{q.subset}" for q in queries if (q.split, q.subset) not in data})
    if missing:
        raise UserError(f"{task_name} has no {', '.join(missing)}, which the details are of; its data has changed")
    drawn = Drawer(data, config.top_k, _heat_maps(config, details.contents, settings)).draw(chosen, config.max_bytes)
    path = config.output or storage.join(config.results, "inspect", f"{_file_name(f'{model.title}_{task_name}')}.html")
    content = render(summary, drawn).encode()
    with storage.atomic_write(path) as stream:
        stream.write(content)
    return Written(path, len(content), len(drawn.queries), drawn.notes)


def _read(model: ModelFolder, task: str, config: InspectConfig) -> Details:
    """The details of a task, cut to the split and subset that are asked for."""
    found = read_details(model.tasks[task])
    rankings, queries = (kept(table, config.split, config.subset) for table in (found.rankings, found.queries))
    return Details(rankings, queries, found.contents)


def task_of(name: str, details: Details, settings: dict[str, Any], data_root: str | None = None) -> AbsTask:
    """The task as the run saw it, not loaded: the splits and subsets of its details, from where the run read them.
    settings: see `run_settings`. Raises UserError for a task that is not known any more."""
    from raylib.tasks.mmeb_table import PREFIX, options_of
    from raylib.tasks.selection import select_tasks

    subsets, splits = (sorted(set(details.queries.column(column).to_pylist())) for column in ("subset", "split"))
    mmeb = options_of(settings) if name.startswith(PREFIX) else None
    root = data_root or settings.get("data_root")
    (task,) = select_tasks(tasks=[name], languages=subsets, splits=splits, data_root=root, mmeb=mmeb)
    return task


def fingerprint_of(details: Details) -> str:
    """The encoder's; "" for a model without vectors."""
    metadata = (details.contents.schema.metadata or {}) if details.contents is not None else {}
    return metadata.get(b"fingerprint", b"").decode()


def default_measure(queries: pa.Table, main_score: str) -> str:
    """The task's main score where it was kept, else one that is much the same. Raises UserError without measures."""
    known = [name for name in queries.column_names if "_at_" in name]
    if not known:
        raise UserError(f"the details have no measure, only {', '.join(queries.column_names)}")
    return next((name for name in (main_score, "ndcg_at_10", "ndcg_at_5") if name in known), known[0])


def _compare(summary: Summary, title: str, values: Mapping[QueryId, float], others: Mapping[QueryId, float]) -> None:
    shared = [query for query in values if query in others]
    if not shared:
        raise UserError(f"{summary.model} and {title} share no query of {summary.task}")
    signs = [(values[q] > others[q]) - (values[q] < others[q]) for q in shared]
    summary.other, summary.other_spread = title, distribution([*others.values()])
    summary.counts = (signs.count(1), signs.count(0), signs.count(-1))
    summary.n_alone = len(values) + len(others) - 2 * len(shared)


def _chosen(
    queries: list[QueryId],
    values: Mapping[QueryId, float],
    rankings: pa.Table,
    others: Mapping[QueryId, float] | None,
    other_details: Details | None,
) -> list[Chosen]:
    hits = hits_of(rankings, queries)
    other_hits = hits_of(other_details.rankings, queries) if other_details is not None else {}
    return [Chosen(q, values[q], hits[q], (others or {}).get(q), other_hits.get(q, [])) for q in queries]


def _heat_maps(config: InspectConfig, contents: pa.Table | None, settings: dict[str, Any]) -> HeatMaps:
    if not config.heat_map:
        return HeatMaps(None)
    try:
        return HeatMaps(open_vectors(contents, settings, config.results))
    except NoHeatMapError as error:
        found = HeatMaps(None)
        found.notes.append(f"No heat maps: {error}.")
        return found


def _part(config: InspectConfig) -> str:
    return " / ".join(part for part in (config.split, config.subset) if part)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)[-150:]
