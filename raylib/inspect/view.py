"""What the page shows, as plain data: queries, cards of documents, heat maps."""

from __future__ import annotations

from dataclasses import dataclass, field

from raylib.inspect.choose import Hit, QueryId
from raylib.inspect.thumbnails import Thumbnail


@dataclass
class HeatMap:
    """url: a PNG of one frame per token below each other, the sum of all of them first. best: per frame what counted:
    [value, row, column], or [value] where that vector is no patch; of the sum, the MaxSim score."""

    url: str
    rows: int
    columns: int
    best: list[list[float]]


@dataclass
class Card:
    """One document under a query. rank, score: None for one that is not among the kept documents. text: all of it."""

    document: str
    rank: int | None = None
    score: float | None = None
    relevance: int | None = None
    page: Thumbnail | None = None
    text: str | None = None
    problem: str | None = None
    heat: HeatMap | None = None

    @property
    def mark(self) -> str:
        """relevant, not relevant (somebody said so), or unjudged."""
        if self.relevance is None:
            return "unjudged"
        return "relevant" if self.relevance > 0 else "not relevant"


@dataclass
class QueryView:
    """One query. kept: how many documents of its ranking were kept.

    missed: relevant documents that are not among `cards`, those found first at the start; unseen: ids and ranks of
    more of them than there is room for. words: what the frames of the heat maps but the first are of; [] without any.
    """

    query: QueryId
    value: float
    other: float | None
    text: str
    page: Thumbnail | None
    kept: int
    n_relevant: int
    cards: list[Card]
    missed: list[Card]
    unseen: list[tuple[str, int | None]]
    other_cards: list[Card]
    words: list[str] = field(default_factory=list)

    @property
    def all_cards(self) -> list[Card]:
        return [*self.cards, *self.missed, *self.other_cards]


@dataclass
class Chosen:
    """What is known of a query before anything is drawn."""

    query: QueryId
    value: float
    hits: list[Hit]
    other: float | None = None
    other_hits: list[Hit] = field(default_factory=list)


@dataclass
class Drawn:
    """The queries that fit, the pages they show (by `Thumbnail.name`), and what a person should know."""

    queries: list[QueryView]
    pages: dict[str, Thumbnail]
    notes: list[str]
