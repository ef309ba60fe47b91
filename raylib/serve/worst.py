"""The worst queries of evaluation runs, read from the folder that `raylib evaluate` wrote."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from raylib.errors import RaylibError
from raylib.inspect.choose import (
    Distribution,
    QueryId,
    distribution,
    first_relevant,
    hits_of,
    in_order,
    kept,
    measure_values,
)
from raylib.inspect.draw import Drawer, excerpt
from raylib.inspect.heat_maps import HeatMaps
from raylib.inspect.results import ModelFolder, choose_model, choose_task, models_with_details, run_settings
from raylib.inspect.run import default_measure, fingerprint_of, task_of
from raylib.inspect.view import Card, Chosen, QueryView
from raylib.metrics.details import Details, read_details
from raylib.tasks.retrieval_data import RetrievalSubset

SHOWN = 3
"""Documents of a ranking that are shown, and relevant ones further down."""

_BYTES = 12_000_000
"""Most bytes of thumbnails in one answer: more than 50 queries come to."""

_KEPT_DATA = 2
"""Data sets that stay loaded; images are read from disk when they are asked for."""


@dataclass(frozen=True)
class WorstQuery:
    """text: None where the question is not known, or is an image alone. found: the first documents of the ranking;
    expected: relevant ones that are not among those; n_relevant: of all."""

    query: QueryId
    text: str | None
    value: float
    found: list[Card]
    expected: list[Card]
    n_relevant: int


@dataclass(frozen=True)
class Worst:
    """measures: all that were kept. parts: every (split, subset). pages: thumbnail name → data URL. notes: what is
    missing, and why."""

    run: str
    task: str
    measure: str
    measures: list[str]
    parts: list[tuple[str, str]]
    spread: Distribution
    queries: list[WorstQuery]
    pages: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Runs:
    """The runs in one folder. Thread-safe: one thing is loaded at a time."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._data: OrderedDict[tuple[str, str], Mapping[tuple[str, str], RetrievalSubset]] = OrderedDict()

    def list(self) -> list[ModelFolder]:
        """Raises UserError where the folder holds no details of any task."""
        return models_with_details(self.folder)

    def worst(
        self,
        run: str,
        task: str,
        measure: str | None = None,
        start: int = 0,
        count: int = 10,
        split: str | None = None,
        subset: str | None = None,
    ) -> Worst:
        """Queries from place `start` on of all, worst first. run, task: "" where there is one. Raises UserError,
        UnknownNameError among them, for names that the folder does not have."""
        model = choose_model(self.list(), run)
        task = choose_task(model, task)
        whole = read_details(model.tasks[task])
        rankings, rows = (kept(table, split, subset) for table in (whole.rankings, whole.queries))
        notes: list[str] = []
        with self._lock:
            main_score, data = self._loaded(model, task, whole, notes)
            chosen_measure = measure or default_measure(rows, main_score)
            values = measure_values(rows, chosen_measure)
            queries = in_order(values, first_relevant(rankings), "worst")[start : start + count]
            hits = hits_of(rankings, queries)
            chosen = [Chosen(query, values[query], hits[query]) for query in queries]
            drawn, pages = self._drawn(chosen, data, notes)
        measures = [name for name in rows.column_names if name not in ("split", "subset", "query_id", "n_relevant")]
        parts = sorted({(query.split, query.subset) for query in measure_values(whole.queries, chosen_measure)})
        spread = distribution([*values.values()])
        return Worst(model.full_title, task, chosen_measure, measures, parts, spread, drawn, pages, notes)

    def _loaded(
        self, model: ModelFolder, task: str, details: Details, notes: list[str]
    ) -> tuple[str, Mapping[tuple[str, str], RetrievalSubset]]:
        """(The task's main score, its data); ("", {}) and a note where the data cannot be had."""
        from raylib.tasks.retrieval_data import load_retrieval

        key = (model.full_title, task)
        try:
            settings = run_settings(self.folder, fingerprint_of(details), model)
            found = task_of(task, details, settings)
            if key not in self._data:
                self._data[key] = load_retrieval(found)
        except RaylibError:  # its message may name folders of the server
            notes.append("The questions and pages of this task cannot be read here; shown are their ids.")
            return "", {}
        self._data.move_to_end(key)
        while len(self._data) > _KEPT_DATA:
            self._data.popitem(last=False)
        return found.metadata.main_score, self._data[key]

    def _drawn(
        self, chosen: list[Chosen], data: Mapping[tuple[str, str], RetrievalSubset], notes: list[str]
    ) -> tuple[list[WorstQuery], dict[str, str]]:
        missing = sorted(
            {f"{c.query.split}/{c.query.subset}" for c in chosen if (c.query.split, c.query.subset) not in data}
        )
        if missing or not data:
            if data:
                notes.append(f"The data of this task has no {', '.join(missing)} any more; shown are ids.")
            return [_by_id(one) for one in chosen], {}
        drawn = Drawer(data, SHOWN, HeatMaps(None)).draw(chosen, _BYTES)
        notes += drawn.notes
        return [_of_view(view) for view in drawn.queries], {name: page.url for name, page in drawn.pages.items()}


def _of_view(view: QueryView) -> WorstQuery:
    for card in view.all_cards:
        card.text = excerpt(card.text) if card.text else None
    return WorstQuery(view.query, view.text or None, view.value, view.cards, view.missed, view.n_relevant)


def _by_id(one: Chosen) -> WorstQuery:
    """Without the task's data: relevant documents are those of the kept ranking."""
    cards = [Card(hit.document, hit.rank, hit.score, hit.relevance) for hit in one.hits]
    first, later = cards[:SHOWN], [card for card in cards[SHOWN:] if (card.relevance or 0) > 0]
    n_relevant = len(later) + sum((card.relevance or 0) > 0 for card in first)
    return WorstQuery(one.query, None, one.value, first, later[:SHOWN], n_relevant)
