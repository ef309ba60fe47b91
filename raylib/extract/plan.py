"""How rows become parts and batches. Both follow from the data set and the settings alone, whatever workers there are:
a run that was killed finds its batches again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from raylib.evaluate.batching import sample_by_length, tokens_by_length
from raylib.evaluate.contents import BadContentError, decode_image
from raylib.extract.batches import RowBatch
from raylib.extract.collate import PreparedRow
from raylib.extract.extractor import Extractor
from raylib.extract.rows import VqaRow

_SAMPLE, _LEAST_SAMPLE, _SAMPLE_SHARE = 24, 4, 32
"""Rows that are processed before the run, to see what makes a prompt long: at most, at least, and one of so many in
between, as the run processes them again."""

_HEADER_THREADS = 16


@dataclass(frozen=True)
class Part:
    """Consecutive rows of the data set that become one file. number: from 1; rows: those that can be used."""

    number: int
    rows: list[VqaRow]

    @property
    def ids(self) -> list[str]:
        return [row.question_id for row in self.rows]

    @property
    def digest(self) -> str:
        """SHA-256, hex, over all that is kept of its rows and decides their states: texts, and which images they
        are."""
        told = [[row.question_id, row.image_id, row.question, row.answer, row.mark, row.carried] for row in self.rows]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def split_parts(rows: Sequence[VqaRow], interval: int) -> list[Part]:
    """Part k holds the usable ones of rows (k - 1) × interval up to k × interval of the data set; a part without any is
    left out, and its number with it, so that mending one row changes one part."""
    found: dict[int, list[VqaRow]] = {}
    for row in rows:
        found.setdefault(row.number // interval + 1, []).append(row)
    return [Part(number, members) for number, members in sorted(found.items())]


@dataclass(frozen=True)
class Lengths:
    """Estimated tokens of each row's prompt, [rows], by the row's number, and the longest row that was looked at."""

    tokens: dict[int, int]
    longest: PreparedRow | None


def estimate_lengths(extractor: Extractor, rows: Sequence[VqaRow]) -> Lengths:
    """How long the prompts are, from a sample that is processed: questions by their characters, images by their pixels
    where a larger image has more tokens."""
    characters = np.array([len(row.question) for row in rows])
    most = min(_SAMPLE, max(_LEAST_SAMPLE, len(rows) // _SAMPLE_SHARE))
    sample = sample_by_length(characters, most)
    prepared = _prepared(extractor, rows, sample)
    if not prepared:
        return Lengths({row.number: 1 for row in rows}, None)
    images = [len(row.span.image) for row in prepared.values()]
    if len(set(images)) > 1:
        pixels = _pixels(rows)
        prepared |= _prepared(extractor, rows, [i for i in sample_by_length(pixels, most) if i not in prepared])
        image_tokens = _by(pixels, {i: len(row.span.image) for i, row in prepared.items()})
    else:
        image_tokens = np.full(len(rows), images[0])
    tokens = image_tokens + _by(characters, {i: row.tokens - len(row.span.image) for i, row in prepared.items()})
    longest = max(prepared.values(), key=lambda row: row.tokens)
    return Lengths({row.number: int(n) for row, n in zip(rows, tokens, strict=True)}, longest)


def cut_batches(part: Part, lengths: Lengths, size: int, settings: str) -> Iterator[RowBatch]:
    """The rows of a part, alike in length, longest first, `size` to a batch. settings: digest of what else decides the
    states; it is in the batches' names."""
    ordered = sorted(part.rows, key=lambda row: (-lengths.tokens[row.number], row.number))
    for first in range(0, len(ordered), size):
        rows = ordered[first : first + size]
        told = [settings, Part(part.number, rows).digest, [row.number for row in rows]]
        name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
        yield RowBatch(part.number, name, rows)


def _by(lengths: np.ndarray, counted: dict[int, int]) -> np.ndarray:
    at = sorted(counted)
    return tokens_by_length(lengths, at, np.array([counted[i] for i in at]))


def _prepared(extractor: Extractor, rows: Sequence[VqaRow], at: Sequence[int]) -> dict[int, PreparedRow]:
    """The rows at these places that can be processed; the others are found again, and reported, where they are run."""
    found = {}
    for i in at:
        try:
            found[i] = extractor.prepare(rows[i].question, decode_image(rows[i].image.read()))
        except BadContentError:
            continue
    return found


def _pixels(rows: Sequence[VqaRow]) -> np.ndarray:
    """[rows] int64: of each image, from its header; 0 where there is none to read."""
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        return np.array(list(pool.map(lambda row: row.image.pixels(), rows)), dtype=np.int64)
