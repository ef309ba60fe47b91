"""StdlibCards, a built-in benchmark that a small visual model can learn: cards of a few large words, and questions.

A card shows the name of a function or class of the standard library and a few words of its summary. They are as easy
as they can be made: one word a line, one size, black on white, and every line on a row of the 16-pixel patches that
small vision towers see. What is hard is left: which words a card holds must be read from its pixels.

Cards are divided for good into a test and a train part by a hash of their summaries, so that a model trained on one has
seen no card of the other, whatever the Python version. Words are shared, as between any two documents.

    python -m raylib.tasks.stdlib_cards FOLDER      writes the training part for `raylib train --data FOLDER`
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raylib.tasks import docstrings, hub_layout, page_layout, page_queries
from raylib.tasks.built_once import built_once, no_sources
from raylib.tasks.stdlib_pages import Split, share_of

if TYPE_CHECKING:
    from PIL import Image

VERSION = 1
"""Goes up whenever the cards or the questions change: scores of two versions do not compare."""

SIDE = 128
"""Width and height of a card in pixels."""

LINE = 16
"""Height of a line in pixels; a line begins at a multiple of it."""

TYPE_SIZE = 14
INDENT, RISE = 2, 2
"""White before the letters, and how much higher than Pillow's own place they stand: tails end above the next line."""

NAME_WORDS, SUMMARY_WORDS, FEWEST_WORDS = 3, 5, 2
"""At most so many words of the name and of the summary; a card with fewer words of the summary says too little."""

FEWEST_ENTRIES = 3
"""A word of the summaries of fewer entries than this is not printed: nobody could learn to read it."""

TEST_SHARE = 0.125
"""The part of cards, by a hash of their summaries, that is evaluated on."""

MAX_CARDS = {"test": 300, "train": 2400}
"""At most so many cards per part; which ones is decided by a hash of their words."""

_PLAIN_LIST = """
a an and any are as at be been being but by can do does for from has have how if in into is it its may more no nor not
of on or our so some such than that the their them then there these they this to up was we were when where which while
who will with you your return returns"""
_PLAIN = frozenset(_PLAIN_LIST.split())


@dataclass(frozen=True)
class Card:
    """entry: the full name of what is described, which is the card's id. name, words: what is printed, in lower case.
    question: of the summary, without the name; "" where no good one can be made."""

    entry: str
    name: tuple[str, ...]
    words: tuple[str, ...]
    question: str

    @property
    def lines(self) -> tuple[str, ...]:
        return self.name + self.words

    @property
    def text(self) -> str:
        """All that is printed, one word a line."""
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Query:
    """A question and the card, by its entry, that answers it."""

    id: str
    text: str
    entry: str


def split_of(summary: str) -> Split:
    """The part of a card with this summary; what is not printed of it does not count."""
    return "test" if share_of(f"card:{' '.join(_words(summary))}") < TEST_SHARE else "train"


def build(split: Split, modules: Iterable[docstrings.Module] | None = None) -> tuple[list[Card], list[Query]]:
    """The cards of one part in order of their entries, all different, and the questions; nothing is drawn yet.

    modules: by default every public module of this Python.
    """
    modules = docstrings.collect() if modules is None else modules
    entries = [entry for module in modules for entry in module.entries if entry.kind != "module"]
    summaries = [page_queries.summary_of(entry.docstring) for entry in entries]
    seen_in = Counter(word for summary in summaries for word in set(_words(summary)))
    cards: dict[Split, dict[tuple[str, ...], Card]] = {"test": {}, "train": {}}
    for entry, summary in zip(entries, summaries, strict=True):
        card = _card(entry, summary, seen_in)
        if len(card.words) >= FEWEST_WORDS and _fits(card):
            cards[split_of(summary)].setdefault(card.lines, card)
    # Two summaries may differ in rare words alone, which are not printed.
    tested = {card.words for card in cards["test"].values()}
    found = [card for card in cards[split].values() if split == "test" or card.words not in tested]
    by_hash = sorted(found, key=lambda card: (share_of(f"kept:{card.text}"), card.entry))
    kept = sorted(by_hash[: MAX_CARDS[split]], key=lambda card: card.entry)
    return kept, _queries(kept)


def _words(text: str) -> list[str]:
    """Words of letters alone, in order, without those that every sentence has."""
    return [word for word in re.findall(r"[a-z]{3,}", text.lower()) if word not in _PLAIN]


def _card(entry: docstrings.Entry, summary: str, seen_in: Counter[str]) -> Card:
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", entry.name)
    name = tuple(part.lower() for part in parts[:NAME_WORDS])
    words = dict.fromkeys(w for w in _words(summary) if w not in name and seen_in[w] >= FEWEST_ENTRIES)
    question = page_queries.query_of(summary, entry.name)
    return Card(f"{entry.module}.{entry.qualname}", name, tuple(words)[:SUMMARY_WORDS], question)


def _fits(card: Card) -> bool:
    return max(page_layout.width_of(line, TYPE_SIZE) for line in card.lines) <= SIDE - 2 * INDENT


def _queries(cards: Sequence[Card]) -> list[Query]:
    """Up to two questions a card: its summary's, and its name with the last words of it. None that two cards answer."""
    asked = [(text, card.entry) for card in cards for text in (card.question, _keywords(card)) if text]
    homes: dict[str, set[str]] = defaultdict(set)
    for text, entry in asked:
        homes[text.casefold()].add(entry)
    clear = [(text, entry) for text, entry in asked if len(homes[text.casefold()]) == 1]
    return [Query(str(number), text, entry) for number, (text, entry) in enumerate(clear)]


def _keywords(card: Card) -> str:
    return " ".join((*card.name, *card.words[-2:]))


def draw(card: Card) -> Image.Image:
    """The card as an RGB image of SIDE × SIDE pixels."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    for row, line in enumerate(card.lines):
        pen.text((INDENT, row * LINE - RISE), line, font=page_layout.font_of(TYPE_SIZE), fill=(0, 0, 0))
    return image


def write(folder: str, cards: Sequence[Card], queries: Sequence[Query], split: Split) -> None:
    """Draw the cards and write everything to `folder` in the layout of ViDoRe: queries, corpus, qrels."""
    out = hub_layout.HubFolder(folder, split)
    questions, relevant = hub_layout.retrieval_columns(
        ((query.id, query.text) for query in queries), ((query.id, query.entry, 1) for query in queries)
    )
    out.add("queries", questions)
    out.add(
        "corpus",
        {
            "corpus-id": [card.entry for card in cards],
            "image": [page_layout.to_png(draw(card)) for card in cards],
            "text": [card.text for card in cards],
        },
    )
    out.add("qrels", relevant)
    out.finish(f"# StdlibCards {VERSION}, part `{split}`\n\n{len(cards)} cards and {len(queries)} questions.")


def revision() -> str:
    """What tells two data sets of this benchmark apart: its version and Python's."""
    import platform

    return f"v{VERSION}-py{platform.python_version()}"


def ensure_built(split: Split = "test") -> str:
    """The folder of one part; built on first use, in a few seconds. See `built_once`."""

    def write_part(folder: str) -> None:
        write(folder, *_build_or_refuse(split), split)

    return built_once("StdlibCards", revision(), split, write_part)


def _build_or_refuse(split: Split) -> tuple[list[Card], list[Query]]:
    cards, queries = build(split)
    if not queries:
        raise no_sources("StdlibCards")
    return cards, queries


def write_training(folder: str) -> str:
    """Write the training part as pairs → `folder`, a data set of the columns id, query and image that `raylib train`,
    `raylib mine` and `read_examples` read. An example's id is its card's entry and the number of its question.

    Raises UserError for a Python without the sources of its library.
    """
    cards, queries = _build_or_refuse("train")
    pictures = {card.entry: page_layout.to_png(draw(card)) for card in cards}
    numbers: Counter[str] = Counter()
    ids = []
    for query in queries:
        numbers[query.entry] += 1
        ids.append(f"{query.entry}#{numbers[query.entry]}")
    out = hub_layout.HubFolder(folder, "train")
    columns = {"id": ids, "query": [q.text for q in queries], "image": [pictures[q.entry] for q in queries]}
    out.add("pairs", columns)
    out.finish(f"# StdlibCards {VERSION}, training pairs\n\n{len(queries)} questions to {len(numbers)} cards.")
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m raylib.tasks.stdlib_cards FOLDER")
    print(write_training(sys.argv[1]))
