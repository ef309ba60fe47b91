"""Draws the chosen queries: texts, thumbnails and heat maps, within a budget of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from raylib.inspect.choose import Hit, QueryId
from raylib.inspect.heat_maps import HeatMaps
from raylib.inspect.thumbnails import Thumbnail, thumbnail
from raylib.inspect.view import Card, Chosen, Drawn, QueryView
from raylib.tasks.retrieval_data import Item, RetrievalSubset

EXCERPT = 600
"""Characters of a text document that are shown."""

_BLOCK = 50
"""Queries whose vectors are read together: a file of the store once for all; 250 MB for pages of 1,000 vectors."""

_PAGE_BYTES, _QUERY_BYTES, _CARD_BYTES = 30_000, 2000, 1000
"""Of HTML around everything, one query and one document, besides texts, pictures and heat maps, for the budget."""


class Drawer:
    """Draws queries one by one."""

    def __init__(self, data: Mapping[tuple[str, str], RetrievalSubset], top_k: int, heat_maps: HeatMaps) -> None:
        self.data, self.top_k, self.heat_maps = data, top_k, heat_maps
        self.pages: dict[str, Thumbnail] = {}
        self.notes: list[str] = []
        self._thumbnails: dict[tuple[str, str, str], Thumbnail | str] = {}

    def draw(self, chosen: Sequence[Chosen], max_bytes: int) -> Drawn:
        """As many of the chosen queries as fit, at least one: first the later heat maps are left out, then queries."""
        views: list[QueryView] = []
        used, limit = _PAGE_BYTES, f"--max-bytes is {max_bytes:,}"
        for view in self._views(chosen):
            pages = {page.name: page for page in (view.page, *(card.page for card in view.all_cards)) if page}
            cost = _bytes_of(view) + sum(len(page.url) for name, page in pages.items() if name not in self.pages)
            if views and used + cost > max_bytes:
                self.notes.append(f"{len(chosen) - len(views)} more queries are left out: {limit}.")
                break
            heat = self.heat_maps.add(view)
            if used + cost + heat > max_bytes:
                self.heat_maps.end(view, f"Heat maps are left out from query {len(views) + 1} on: {limit}.")
                heat = 0
            used += cost + heat
            self.pages |= pages
            views.append(view)
        return Drawn(views, self.pages, [*self.heat_maps.notes, *self.notes])

    def _views(self, chosen: Sequence[Chosen]) -> Iterator[QueryView]:
        """Without heat maps, for which their vectors are at hand: those of one block of queries at a time."""
        for start in range(0, len(chosen), _BLOCK):
            views = [self._query(one) for one in chosen[start : start + _BLOCK]]
            self.heat_maps.read(views)
            yield from views

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


def excerpt(text: str) -> str:
    """The start of a text, without empty lines."""
    text = re.sub(r"\n\s*\n", "\n", text.strip())
    return text if len(text) <= EXCERPT else text[:EXCERPT].rstrip() + " …"


def _bytes_of(view: QueryView) -> int:
    """Of a query's HTML without pictures."""
    texts = [view.text, *(card.document + excerpt(card.text or "") for card in view.all_cards)]
    return _QUERY_BYTES + len(view.all_cards) * _CARD_BYTES + sum(len(text.encode()) for text in texts)
