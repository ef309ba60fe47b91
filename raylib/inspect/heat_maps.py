"""Adds heat maps to the queries that are shown, as long as there is nothing against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raylib.inspect.choose import QueryId
from raylib.inspect.heat import Match, film, shared_scale
from raylib.inspect.thumbnails import data_url
from raylib.inspect.vectors import NoHeatMapError, StoredVectors
from raylib.inspect.view import Card, HeatMap, QueryView


class HeatMaps:
    """notes: what a person should know, each once. `vectors` None draws nothing."""

    def __init__(self, vectors: StoredVectors | None) -> None:
        self.vectors = vectors
        self.notes: list[str] = []
        self._keys: dict[QueryId, tuple[bytes | None, dict[str, bytes]]] = {}
        self._read: dict[bytes, np.ndarray] = {}

    def read(self, views: Sequence[QueryView]) -> None:
        """Read the vectors of these queries, and let go of those before."""
        if self.vectors is None:
            return
        self._keys = {}
        for view in views:
            query_key = self.vectors.keys(view.query, "query", [view.query.id]).get(view.query.id)
            pages = [card.document for card in _pages(view)]
            self._keys[view.query] = (query_key, self.vectors.keys(view.query, "document", pages) if pages else {})
        self._read = {}  # before the next ones, or both would be held
        complete = [(query, pages) for query, pages in self._keys.values() if query is not None and pages]
        try:
            self._read = self.vectors.read([key for query, pages in complete for key in (query, *pages.values())])
        except NoHeatMapError as error:
            self._give_up(error)

    def add(self, view: QueryView) -> int:
        """Add its heat maps to a query that was read; gives their bytes."""
        try:
            matches = self._matches(view)
        except NoHeatMapError as error:
            self._give_up(error)
            return 0
        if not matches:
            return 0
        low, high = shared_scale([_frames(found) for _, found in matches])
        size = 0
        for card, found in matches:
            url = data_url("image/png", film(_frames(found), low, high))
            card.heat = HeatMap(url, *found.total.shape, best=_best(found))
            size += len(url) + 16 * len(card.heat.best)
            if card.score is not None and abs(found.score - card.score) > 0.01 * max(1.0, abs(card.score)):
                self._note("The run scored other vectors than the stored ones, which the heat maps show.")
        return size

    def end(self, view: QueryView, note: str) -> None:
        """Take the heat maps of this query away again, and draw no more."""
        view.words = []
        for card in view.all_cards:
            card.heat = None
        self.vectors = None
        self._note(note)

    def _give_up(self, error: NoHeatMapError) -> None:
        self.vectors = None
        self._note(f"No heat maps: {error}.")

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _matches(self, view: QueryView) -> list[tuple[Card, Match]]:
        query_key, keys = self._keys.get(view.query, (None, {}))
        if self.vectors is None or query_key is None or not keys:
            return []
        query_TD = self._read[query_key]
        found: list[tuple[Card, Match]] = []
        reason = ""
        for card in _pages(view):
            if card.document in keys and card.page is not None:
                size = (card.page.width, card.page.height)
                one = self.vectors.patches.match(query_TD, self._read[keys[card.document]], size, card.text)
                if isinstance(one, str):
                    reason = one
                else:
                    found.append((card, one))
        if not found:
            raise NoHeatMapError(reason)
        view.words = self.vectors.patches.words(view.text or None, len(query_TD))
        return found


def _pages(view: QueryView) -> list[Card]:
    return [card for card in (*view.cards, *view.missed) if card.page is not None]


def _frames(found: Match) -> np.ndarray:
    """[1 + query tokens, rows, columns]: the sum, then every token."""
    return np.concatenate([found.total[None], found.maps])


def _best(found: Match) -> list[list[Any]]:
    tokens = zip(found.best.tolist(), found.cells, strict=True)
    return [[_short(found.score)], *([_short(value), *(cell or ())] for value, cell in tokens)]


def _short(value: float) -> float:
    """As many digits as are shown, and one."""
    return float(f"{value:.5g}")
