"""StdlibPages, the built-in benchmark: the standard library's docstrings as document pages, and questions to them.

`build` makes the pages and the questions; `ensure_built` keeps them on disk, in ViDoRe's own layout, under
RAYLIB_CACHE (default ~/.cache/raylib). Modules are divided for good into a test and a train part, so that a model
trained on one has seen no page of the other. Both are the same for one Python version on any machine.
"""

from __future__ import annotations

import hashlib
import platform
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from raylib.tasks import docstrings, hub_layout, page_layout, page_queries
from raylib.tasks.built_once import built_once, no_sources
from raylib.tasks.page_layout import Block, Page, Style

VERSION = 1
"""Goes up whenever the pages or the questions change: scores of two versions do not compare."""

TEST_SHARE = 0.6
"""The part of top-level modules, by a hash of their names, that is evaluated on; the others are for training."""

MAX_QUERIES = {"test": 600, "train": 2000}
"""At most so many questions per part; which ones is decided by a hash of their text."""

MIN_MODULE_CHARS = 400
"""A module with less documentation than this makes no page worth finding."""

ACCENTS = ((30, 60, 120), (120, 30, 40), (20, 90, 70), (60, 60, 60), (90, 50, 120))

Split = Literal["test", "train"]


@dataclass(frozen=True)
class Query:
    """A question, the page that answers it, and where it comes from: the summary line on that page, and the full
    name of what the line describes."""

    id: str
    text: str
    page_id: str
    source: str
    entry: str


def split_of(module: str) -> Split:
    """The part that a module belongs to: all modules of one top-level package are in the same."""
    return "test" if share_of(f"split:{module.partition('.')[0]}") < TEST_SHARE else "train"


def build(split: Split, modules: Iterable[docstrings.Module] | None = None) -> tuple[dict[str, Page], list[Query]]:
    """The pages by id, in order, and the questions of one part; nothing is drawn yet.

    modules: by default every public module of this Python.
    """
    pages: dict[str, Page] = {}
    candidates: list[Query] = []
    for module in docstrings.collect() if modules is None else modules:
        enough = sum(len(entry.docstring) for entry in module.entries) >= MIN_MODULE_CHARS
        if not enough or split_of(module.name) != split:
            continue
        documents = [_blocks(entry) for entry in module.entries]
        laid_out, homes = page_layout.lay_out(module.name, documents, _style(module.name))
        ids = [f"{module.name}-{number}" for number in range(1, len(laid_out) + 1)]
        pages.update(zip(ids, laid_out, strict=True))
        for entry, home in zip(module.entries, homes, strict=True):
            source = page_queries.summary_of(entry.docstring)
            text = page_queries.query_of(source, entry.name) if entry.kind != "module" else ""
            if text and source in laid_out[home].text:  # not where the page shows it as a table
                candidates.append(Query("", text, ids[home], source, f"{module.name}.{entry.qualname}"))
    return pages, _choose(candidates, MAX_QUERIES[split])


def _choose(candidates: list[Query], limit: int) -> list[Query]:
    """One of each question, none that two pages answer, at most `limit`; numbered in the order of the pages."""
    homes: dict[str, set[str]] = defaultdict(set)
    for query in candidates:
        homes[query.text.casefold()].add(query.page_id)
    clear = [query for query in candidates if len(homes[query.text.casefold()]) == 1]
    unique = list({query.text.casefold(): query for query in reversed(clear)}.values())[::-1]
    kept = set(sorted((share_of(f"query:{query.text}"), query.entry) for query in unique)[:limit])
    chosen = [query for query in unique if (share_of(f"query:{query.text}"), query.entry) in kept]
    return [Query(str(n), q.text, q.page_id, q.source, q.entry) for n, q in enumerate(chosen)]


def _blocks(entry: docstrings.Entry) -> list[Block]:
    body = page_layout.parse_blocks(entry.docstring)
    return body if entry.kind == "module" else [Block("heading", entry.heading), *body]


def _style(module: str) -> Style:
    """Documents differ: a third have two columns, some are set larger, each top-level package has its colour."""
    columns = 2 if share_of(f"columns:{module}") < 0.33 else 1
    size = 15 if columns == 1 and share_of(f"size:{module}") < 0.4 else 14
    accent = ACCENTS[int(share_of(f"accent:{module.partition('.')[0]}") * len(ACCENTS))]
    return Style(columns=columns, size=size, margin=64 if columns == 1 else 56, accent=accent)


def share_of(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def write(folder: str, pages: dict[str, Page], queries: list[Query], split: Split) -> None:
    """Draw the pages and write everything to `folder` in the layout of ViDoRe: queries, corpus, qrels."""
    out = hub_layout.HubFolder(folder, split)
    questions, relevant = hub_layout.retrieval_columns(
        ((query.id, query.text) for query in queries), ((query.id, query.page_id, 1) for query in queries)
    )
    out.add("queries", {**questions, "source": [q.source for q in queries], "entry": [q.entry for q in queries]})
    out.add(
        "corpus",
        {
            "corpus-id": list(pages),
            "image": [page_layout.to_png(page_layout.draw(page)) for page in pages.values()],
            "text": [page.text for page in pages.values()],
        },
    )
    out.add("qrels", relevant)
    out.finish(
        f"# StdlibPages {VERSION}, part `{split}`\n\n{len(pages)} pages and {len(queries)} questions, made from the "
        f"docstrings of Python {platform.python_version()}. The questions are the summary lines of functions and "
        "classes (`source`) without the name of what they describe (`entry`); the relevant page holds the full text."
    )


def revision() -> str:
    """What tells two data sets of this benchmark apart: its version and Python's."""
    return f"v{VERSION}-py{platform.python_version()}"


def ensure_built(split: Split = "test") -> str:
    """The folder of one part; built on first use, in some 15 seconds on one core. See `built_once`."""

    def write_part(folder: str) -> None:
        pages, queries = build(split)
        if not pages:
            raise no_sources("StdlibPages")
        write(folder, pages, queries, split)

    return built_once("StdlibPages", revision(), split, write_part)
