"""Synthetic pages in the hub's layouts, for tests and benchmarks: the real ViDoRe tasks run on them offline.

Every page shows random words, a coloured band and a bar chart, so that no two pages are alike; the questions are
words of the page that answers them. Everything follows from the seed.

    write("v2", "data/vidore/esg_reports_v2", pages=60, queries=20)
    raylib evaluate --tasks Vidore2ESGReportsRetrieval --data-root data ...
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raylib import storage
from raylib.errors import UserError
from raylib.tasks.hub_layout import HubFolder, retrieval_columns

Layout = Literal["v1", "v2", "v3", "v3.1"]

EXAMPLES: dict[Layout, tuple[str, str]] = {
    "v1": ("VidoreArxivQARetrieval", "mteb/arxivqa_test_subsampled_beir"),
    "v2": ("Vidore2ESGReportsRetrieval", "vidore/esg_reports_v2"),
    "v3": ("Vidore3FinanceEnRetrieval", "vidore/vidore_v3_finance_en_mteb_format"),
    "v3.1": ("Vidore3FinanceEnRetrieval.v2", "mteb/Vidore3FinanceEnOCRRetrieval"),
}
"""Layout → one MTEB task that reads it, and where on the hub that task's data set is."""

OPENINGS = {
    "french": "Sur quelle page lit-on",
    "spanish": "En qué página se lee",
    "english": "Which page says",
    "german": "Auf welcher Seite steht",
    "italian": "In quale pagina si legge",
    "portuguese": "Em que página se lê",
}
"""Language, as ViDoRe names its subsets, → how a question starts in it. ViDoRe v2 has the first four."""

_SYLLABLES = tuple(consonant + "aouei"[n % 5] for n, consonant in enumerate("bcdfghjklmnprstvwxyz"))
VOCABULARY = tuple(first + middle + last for first in _SYLLABLES for middle in _SYLLABLES[:5] for last in _SYLLABLES)
"""2,000 words of three syllables."""


@dataclass(frozen=True)
class SyntheticPage:
    """One page: PNG bytes, and the words that are printed on it."""

    png: bytes
    text: str


def draw_pages(pages: int, size: tuple[int, int] = (96, 128), seed: int = 0) -> list[SyntheticPage]:
    """`pages` distinct RGB pages of `size` (width, height) pixels; A4 at 100 dpi is (827, 1170).

    A page holds 12 words or, where it is large, about as many lines as a printed page.
    """
    from PIL import Image, ImageDraw, ImageFont

    width, height = size
    font_size = max(8, height // 70)
    per_line, n_lines = max(2, width // (font_size * 4)), max(6, round(height * 0.6 / (font_size * 1.4)))
    font = ImageFont.load_default(font_size)
    drawn = []
    for number in range(pages):
        rng = np.random.default_rng([seed, number])
        words = rng.choice(VOCABULARY, size=per_line * n_lines)
        text = "\n".join(" ".join(words[start : start + per_line]) for start in range(0, len(words), per_line))
        image = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(image)
        colour = tuple(int(value) for value in rng.integers(0, 200, size=3))
        pen.rectangle((0, 0, width, height // 16), fill=colour)
        pen.multiline_text((width // 20, height // 12), text, font=font, fill="black", spacing=font_size * 0.3)
        _bar_chart(pen, rng.random(8), (width // 10, int(height * 0.76), width * 9 // 10, int(height * 0.96)), colour)
        stream = io.BytesIO()
        image.save(stream, format="PNG")
        drawn.append(SyntheticPage(stream.getvalue(), text))
    return drawn


def _bar_chart(pen, values: np.ndarray, box: tuple[int, int, int, int], colour: tuple[int, ...]) -> None:
    left, top, right, bottom = box
    step = (right - left) / len(values)
    for index, value in enumerate(values):
        x = left + index * step
        pen.rectangle((x, bottom - value * (bottom - top), x + step * 0.7, bottom), fill=colour)


def write(
    layout: Layout,
    folder: str,
    pages: int = 24,
    queries: int = 12,
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
) -> str:
    """Write a data set of `pages` pages and `queries` questions a language in one of ViDoRe's layouts → `folder`.

    v1: one language, one relevant page each (grade 1). v2: four languages over one corpus. v3: six languages, each
    with its own copy of the corpus. v3.1: v3 with the pages' text beside the images. v2 and later grade the page
    that answers 2 and another one 1. Raises UserError for counts that make no data set.
    """
    if pages < 2 or not 1 <= queries <= pages:
        raise UserError(f"got {pages} pages and {queries} queries; expected at least 2 pages and 1 to {pages} queries")
    drawn = draw_pages(pages, size, seed)
    out = HubFolder(folder)
    if layout == "v1":
        _write_shared(out, drawn, queries, ["english"], graded=False)
    elif layout == "v2":
        _write_shared(out, drawn, queries, list(OPENINGS)[:4], graded=True)
    elif layout in ("v3", "v3.1"):
        _write_separate(out, drawn, queries, with_text=layout == "v3.1")
    else:
        raise UserError(f"unknown layout {layout!r}; expected one of {', '.join(EXAMPLES)}")
    out.finish(f"# Synthetic pages in the layout of ViDoRe {layout}\n\n{pages} pages, {queries} queries a language.")
    return folder


def write_example(layout: Layout, data_root: str, **options) -> str:
    """`write` for the task of EXAMPLES, at its place under `data_root` → the task's name."""
    task, hub_path = EXAMPLES[layout]
    write(layout, storage.join(data_root, hub_path), **options)
    return task


def question(page: SyntheticPage, language: str) -> str:
    """Five words of the page, asked for in one language."""
    return f"{OPENINGS[language]}: {' '.join(page.text.split()[3:8])}?"


def _relevant(query: str, home: int, pages: int, graded: bool) -> list[tuple[str, str, int]]:
    if not graded:
        return [(query, str(home), 1)]
    return [(query, str(home), 2), (query, str((home + 1) % pages), 1)]


def _write_shared(out: HubFolder, pages: list[SyntheticPage], queries: int, languages: list[str], graded: bool) -> None:
    """ViDoRe v1 and v2: configs queries, corpus and qrels; ids are integers."""
    asked = [(language, home) for language in languages for home in range(queries)]
    texts, relevant = retrieval_columns(
        ((str(n), question(pages[home], language)) for n, (language, home) in enumerate(asked)),
        (row for n, (_, home) in enumerate(asked) for row in _relevant(str(n), home, len(pages), graded)),
    )
    by_language = {"language": [language for language, _ in asked]} if graded else {}
    out.add("queries", {**texts, "query-id": [int(n) for n in texts["query-id"]], **by_language})
    out.add("corpus", {"corpus-id": list(range(len(pages))), "image": [page.png for page in pages]})
    out.add("qrels", {name: [int(value) for value in values] for name, values in relevant.items()})


def _write_separate(out: HubFolder, pages: list[SyntheticPage], queries: int, with_text: bool) -> None:
    """ViDoRe v3 and v3.1: three configs a language; ids are strings."""
    ids = [str(number) for number in range(len(pages))]
    text = {"text": [page.text for page in pages]} if with_text else {}
    for language in OPENINGS:
        asked, relevant = retrieval_columns(
            ((f"q{home}", question(pages[home], language)) for home in range(queries)),
            (row for home in range(queries) for row in _relevant(f"q{home}", home, len(pages), graded=True)),
        )
        out.add(f"{language}-queries", {"id": asked["query-id"], "text": asked["query"]})
        out.add(f"{language}-corpus", {"id": ids, "image": [page.png for page in pages], **text})
        out.add(f"{language}-qrels", relevant)
