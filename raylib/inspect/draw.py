"""Draws the chosen queries: texts, thumbnails and heat maps, within a budget of bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raylib.inspect.choose import Hit, QueryId
from raylib.inspect.heat import Match, film, shared_scale
from raylib.inspect.thumbnails import Thumbnail, data_url, thumbnail
from raylib.inspect.vectors import NoHeatMapError, StoredVectors
from raylib.inspect.view import Card, Chosen, Drawn, HeatMap, QueryView
from raylib.tasks.retrieval_data import Item, RetrievalSubset

EXCERPT = 600
"""Characters of a text document that are shown."""

_CARD_BYTES, _QUERY_BYTES = 700, 1500
"""Of HTML around one document and one query, besides texts, pictures and heat maps: what the budget counts."""


class Drawer:
    """Draws queries one by one; `vectors` None draws no heat maps."""

    def __init__(
        self, data: Mapping[tuple[str, str], RetrievalSubset], top_k: int, vectors: StoredVectors | None
    ) -> None:
        self.data, self.top_k, self.vectors = data, top_k, vectors
        self.pages: dict[str, Thumbnail] = {}
        self.notes: list[str] = []
        self._thumbnails: dict[tuple[str, str, str], Thumbnail | str] = {}

    def draw(self, chosen: Sequence[Chosen], max_bytes: int) -> Drawn:
        """As many of the chosen queries as fit, at least one: first the later heat maps are left out, then queries."""
        views: list[QueryView] = []
        used, limit = 0, f"--max-bytes is {max_bytes:,}"
        for one in chosen:
            view = self._query(one)
            pages = {page.name: page for page in (view.page, *(card.page for card in view.all_cards)) if page}
            cost = _bytes_of(view) + sum(len(page.url) for name, page in pages.items() if name not in self.pages)
            if views and used + cost > max_bytes:
                self.notes.append(f"{len(chosen) - len(views)} more queries are left out: {limit}.")
                break
            heat = self._heat(view)
            if used + cost + heat > max_bytes:
                _without_heat(view)
                self.vectors, heat = None, 0
                self.notes.append(f"Heat maps end at query {len(views)}: {limit}.")
            used += cost + heat
            self.pages |= pages
            views.append(view)
        return Drawn(views, self.pages, list(dict.fromkeys(self.notes)))

    def _query(self, one: Chosen) -> QueryView:
        subset = self.data[one.query.split, one.query.subset]
        grades = {str(d): grade for d, grade in subset.relevant.get(one.query.id, {}).items()}
        relevant = [d for d, grade in grades.items() if grade > 0]
        shown, ranks = one.hits[: self.top_k], {hit.document: hit for hit in one.hits}
        missed = [d for d in relevant if d not in {hit.document for hit in shown}]
        missed.sort(key=lambda d: (ranks[d].rank if d in ranks else 2**31, -grades[d]))
        others = one.other_hits[: self.top_k]
        wanted = [hit.document for hit in (*shown, *others)] + missed[: self.top_k]
        items = subset.items("document", dict.fromkeys(wanted))
        query = subset.items("query", [one.query.id]).get(one.query.id)
        page = self._thumbnail(one.query, "query", one.query.id, query.image) if query and query.image else None

        def card(document: str, hit: Hit | None) -> Card:
            found = Card(document, relevance=grades.get(document))
            if hit is not None:
                found.rank, found.score = hit.rank, hit.score
                found.relevance = hit.relevance if found.relevance is None else found.relevance
            return self._filled(found, one.query, items.get(document))

        return QueryView(
            one.query,
            one.value,
            one.other,
            text=(query.text or "") if query else "",
            page=page if isinstance(page, Thumbnail) else None,
            kept=len(one.hits),
            n_relevant=len(relevant),
            cards=[card(hit.document, hit) for hit in shown],
            missed=[card(d, ranks.get(d)) for d in missed[: self.top_k]],
            unseen=[(d, ranks[d].rank if d in ranks else None) for d in missed[self.top_k :]],
            other_cards=[card(hit.document, hit) for hit in others],
        )

    def _filled(self, card: Card, query: QueryId, item: Item | None) -> Card:
        """The card with its page or text."""
        if item is None:
            card.problem = "not in the data set as it is now"
            return card
        card.text = item.text
        if item.image is not None:
            page = self._thumbnail(query, "document", card.document, item.image)
            card.page, card.problem = (page, None) if isinstance(page, Thumbnail) else (None, page)
        return card

    def _thumbnail(self, query: QueryId, role: str, name: str, image: bytes) -> Thumbnail | str:
        """Made once for every page of a subset; equal pages of several subsets share their name."""
        where = (f"{query.split}/{query.subset}", role, name)
        if where not in self._thumbnails:
            self._thumbnails[where] = thumbnail(image)
        return self._thumbnails[where]

    def _heat(self, view: QueryView) -> int:
        """Add heat maps to the cards of a query; gives their bytes. A reason against them becomes a note, once."""
        cards = [card for card in (*view.cards, *view.missed) if card.page is not None]
        if self.vectors is None or not cards:
            return 0
        try:
            matches = self._matches(self.vectors, view, cards)
        except NoHeatMapError as error:
            self.vectors = None
            self.notes.append(f"No heat maps: {error}.")
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
                self.notes.append("The run scored other vectors than the stored ones, which the heat maps show.")
        return size

    def _matches(self, vectors: StoredVectors, view: QueryView, cards: Sequence[Card]) -> list[tuple[Card, Match]]:
        query_key = vectors.keys(view.query, "query", [view.query.id]).get(view.query.id)
        keys = vectors.keys(view.query, "document", [card.document for card in cards])
        if query_key is None or not keys:
            return []
        read = vectors.read([query_key, *keys.values()])
        found = []
        for card in cards:
            if card.document in keys and card.page is not None:
                size = (card.page.width, card.page.height)
                one = vectors.match(read[query_key], read[keys[card.document]], size, card.text)
                found += [] if one is None else [(card, one)]
        if not found:
            raise NoHeatMapError("this model does not say where its vectors are on a page")
        view.words = vectors.words(view.text or None, len(read[query_key]))
        return found


def excerpt(text: str) -> str:
    """The start of a text, without empty lines."""
    text = re.sub(r"\n\s*\n", "\n", text.strip())
    return text if len(text) <= EXCERPT else text[:EXCERPT].rstrip() + " …"


def _bytes_of(view: QueryView) -> int:
    """Of a query's HTML without pictures."""
    texts = [view.text, *(card.document + excerpt(card.text or "") for card in view.all_cards)]
    return _QUERY_BYTES + len(view.all_cards) * _CARD_BYTES + sum(len(text.encode()) for text in texts)


def _without_heat(view: QueryView) -> None:
    view.words = []
    for card in view.all_cards:
        card.heat = None


def _frames(found: Match) -> np.ndarray:
    """[1 + query tokens, rows, columns]: the sum, then every token."""
    return np.concatenate([found.total[None], found.maps])


def _best(found: Match) -> list[list[Any]]:
    tokens = zip(found.best.tolist(), found.cells, strict=True)
    return [[_short(found.score)], *([_short(value), *(cell or ())] for value, cell in tokens)]


def _short(value: float) -> float:
    """As many digits as are shown, and one."""
    return float(f"{value:.5g}")
