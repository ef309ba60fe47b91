"""Why a page was found: which of its patches every word of the question is like.

The same maps as `raylib inspect-run` draws, of vectors that are served; what a token says is put together to words.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylib.inspect.heat import Match, film, shared_scale
from raylib.inspect.thumbnails import upright_size
from raylib.inspect.vectors import NoHeatMapError, Patches
from raylib.inspect.words import Word, words_of
from raylib.models.protocol import Encoder
from raylib.serve.protocol import Document
from raylib.types import Embeddings


@dataclass(frozen=True)
class Explained:
    """One question against one page.

    words [words]; maps [words, rows, columns] float32: the similarity of each patch to a word, summed over the word's
    tokens. scores [words]: what each added to MaxSim. cells [words]: (row, column) of the patches that counted, one a
    token, without those of tokens that matched a vector outside the page. film: a PNG [(1 + words) × rows, columns] of
    the sum of the question's own words, then every word, one below the other; clear up to the median similarity of all
    pages that share the scale, red at the highest.
    """

    words: list[Word]
    maps: np.ndarray
    scores: list[float]
    cells: list[list[tuple[int, int]]]
    film: bytes


class Explainer:
    """Explains the pages of one model. Thread-safe; the processor is loaded with the first page."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._patches = Patches(encoder)
        self._lock = threading.Lock()  # tokenizers must not be used by two threads at once

    def explain(
        self, question: str, query_TD: np.ndarray, pages: Sequence[Document], vectors: Embeddings
    ) -> Explained | str:
        """The first of the pages; the others only share the scale of its colours, so that equal colours are equal
        similarities. vectors: of the pages, in order. A reason where there is nothing to show."""
        try:
            with self._lock:
                words = self._words(question, len(query_TD))
                matches = [self._match(query_TD, page, page_TD) for page, page_TD in zip(pages, vectors, strict=True)]
        except NoHeatMapError as error:
            return str(error)
        first = matches[0]
        if isinstance(first, str):
            return first
        frames = [_frames(found, words) for found in matches if not isinstance(found, str)]
        _, high = shared_scale(frames)
        return Explained(
            words,
            frames[0][1:],
            [float(first.best[list(word.tokens)].sum()) for word in words],
            [[cell for token in word.tokens if (cell := first.cells[token]) is not None] for word in words],
            film(frames[0], _middle(frames), high),
        )

    def _words(self, question: str, n_vectors: int) -> list[Word]:
        tokens = self._patches.tokens(question, n_vectors)
        if tokens is None:
            return [Word(str(i + 1), (i,)) for i in range(n_vectors)]
        return words_of(tokens, question, self.encoder.context(None, "query").prompt)

    def _match(self, query_TD: np.ndarray, page: Document, page_TD: np.ndarray) -> Match | str:
        if page.content.image is None:
            return "the document is a text, which has no patches"
        size = upright_size(page.content.image)
        if size is None:
            return "the image cannot be read"
        return self._patches.match(query_TD, page_TD, size, page.content.text if self.encoder.fuses else None)


def _middle(frames: Sequence[np.ndarray]) -> np.ndarray:
    """[frames]: the median over the patches of all pages. Where every patch is somewhat alike, as on empty paper, that
    is what a match stands out from; the lowest value would colour all of it."""
    return np.median(np.concatenate([page.reshape(len(page), -1) for page in frames], axis=1), axis=1)


def _frames(found: Match, words: Sequence[Word]) -> np.ndarray:
    """[1 + words, rows, columns] float32: the sum of the question's own words, then every word. What a model adds to
    every question says nothing of this one; where there is nothing else, it is the sum."""
    maps = np.stack([found.maps[list(word.tokens)].sum(axis=0) for word in words])
    own = [place for place, word in enumerate(words) if not word.special] or list(range(len(words)))
    return np.concatenate([maps[own].sum(axis=0)[None], maps])
