"""The k nearest documents of every query, from thousands to millions, never as a table of all against all.

"exact" compares everything, block by block. "ivf" looks at the nearest lists of an inverted file (Jégou, Douze and
Schmid, 2011) over whole vectors; some queries are searched exactly as well, the number of visited lists is the least
that finds the recall that is asked for among these, and the recall is reported.

Scores are inner products in float32 of the rows as they are given: rows of length 1, made so by the caller, compare by
cosine. Arrays may be memory maps and of any float type; rows are read, turned to float32 and checked a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from raylib.errors import UserError
from raylib.search.dense import Index
from raylib.search.dense import nearest as nearest_in_block
from raylib.search.quality import recall as recall_of
from raylib.search.topk import TopK

Method = Literal["auto", "exact", "ivf"]

_BLOCK_BYTES = 256 * 2**20
"""Documents that are compared at a time, counted as float32."""

_QUERIES = 16384
"""Queries that are searched at a time: each pass over the documents serves so many."""

_RESULT_CELLS = 2**22
"""Cells of a result that are held for queries at a time, 12 bytes each and about five times that while they merge."""

_EXACT_PAIRS = 4 * 10**9
"""Above so many pairs "auto" takes the inverted file: a minute of comparing on one core."""

_LEAST_FOR_LISTS = 10_000
"""Documents below which an inverted file has too few lists to be of use."""

_SAMPLED = 500
"""Queries whose exact neighbours the recall is measured on."""

_LISTS_PER_ROOT = 4
"""Lists for the square root of the number of documents, as FAISS advises."""

_PER_LIST = 40
"""Vectors for each list that the lists are trained on."""

Found = tuple[np.ndarray, np.ndarray]
"""(scores [n, k] float32, documents [n, k] int64), best first."""


@dataclass(frozen=True)
class SearchFacts:
    """How neighbours were found. recall: share of the exact k best that were found, the mean over `sampled` queries; 1
    for an exact search. lists, visited: of the inverted file, 0 for an exact search. candidates: "pooled" is late
    interaction over so many candidates of a query, the nearest by the mean of their tokens; 0 for other methods."""

    method: Literal["exact", "ivf", "pooled"]
    recall: float = 1.0
    sampled: int = 0
    lists: int = 0
    visited: int = 0
    candidates: int = 0


@dataclass(frozen=True)
class Neighbours:
    """A search that is ready to run. k: documents per query, cut to the number there is.

    blocks: gives (first query, scores, documents) for successive blocks of queries, at most 16,384 of them, so that a
    result larger than memory is never held.
    """

    k: int
    facts: SearchFacts
    blocks: Callable[[], Iterator[tuple[int, np.ndarray, np.ndarray]]]


def nearest(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    *,
    method: Method = "auto",
    recall: float = 0.99,
    among: np.ndarray | None = None,
    seed: int = 0,
) -> Found:
    """(scores [n, k] float32, documents [n, k] int64), best first; of equal scores the lower position first. k is cut
    to the number of documents. -inf and -1 where the lists that "ivf" visits hold fewer than k.

    The arguments and errors are those of `neighbours`. Memory beyond the arguments: 12 · n · k bytes of result, and
    what `neighbours` states.
    """
    search = neighbours(queries, documents, k, method=method, recall=recall, among=among, seed=seed)
    scores = np.empty((len(queries), search.k), dtype=np.float32)
    found = np.empty((len(queries), search.k), dtype=np.int64)
    for first, some_scores, some_found in search.blocks():
        scores[first : first + len(some_scores)] = some_scores
        found[first : first + len(some_found)] = some_found
    return scores, found


def neighbours(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    *,
    method: Method = "auto",
    recall: float = 0.99,
    among: np.ndarray | None = None,
    seed: int = 0,
) -> Neighbours:
    """A search of queries [n, d] among documents [m, d], ready to run.

    recall: what "ivf" must reach on the sampled queries; it visits all lists before it misses it. among: ascending
    positions of the documents that are searched; None for all. seed: of the sample that lists are trained on. "auto":
    exact up to 4 · 10⁹ pairs, an inverted file above where there are 10,000 documents at least.

    Memory beyond the arguments: 256 MiB of documents and 16,384 queries at a time, with their results; "ivf" also holds
    every searched document once, 4 · d + 8 bytes, as its index.
    Raises UserError for arrays that do not fit each other, an empty side, k below 1, rows that are not finite.
    """
    rows = _check(queries, documents, k, method, recall, among)
    k = min(k, len(rows))
    if method == "auto":
        method = "ivf" if len(queries) * len(rows) > _EXACT_PAIRS and len(rows) >= _LEAST_FOR_LISTS else "exact"
    if method == "exact":
        return Neighbours(k, SearchFacts("exact"), lambda: _in_blocks(queries, k, _exact(documents, rows, k)))
    index, facts = _build(queries, documents, rows, k, recall, seed)
    return Neighbours(k, facts, lambda: _in_blocks(queries, k, _visiting(index, rows, k)))


def read_rows(array: np.ndarray, rows: np.ndarray | slice, side: str) -> np.ndarray:
    """[len(rows), d] float32, contiguous. Raises UserError naming the first row that is not finite."""
    found = np.ascontiguousarray(array[rows], dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        sound = np.isfinite(found.sum(axis=1))
    if not sound.all():
        position = int(np.arange(len(array))[rows][int((~sound).argmax())])
        raise UserError(
            f"{side} {position} has a vector that is not finite (NaN, infinite or too large); encode it again"
        )
    return found


def _check(
    queries: np.ndarray, documents: np.ndarray, k: int, method: str, recall: float, among: np.ndarray | None
) -> np.ndarray:
    """The positions of the documents that are searched, [n] int64."""
    for name, array in (("queries", queries), ("documents", documents)):
        if array.ndim != 2 or not len(array):
            raise UserError(f"{name} have the shape {array.shape}; expected [n, dimensions], with a row at least")
    if queries.shape[1] != documents.shape[1]:
        raise UserError(
            f"queries have {queries.shape[1]} dimensions and documents {documents.shape[1]}; expected those of "
            "one model"
        )
    if k < 1:
        raise UserError(f"{k} neighbours were asked for; expected at least 1")
    if method not in get_args(Method):
        raise UserError(f"the search is {method!r}; expected one of {', '.join(get_args(Method))}")
    if not 0 < recall <= 1:
        raise UserError(f"the recall is {recall}; expected a share above 0 and up to 1")
    if among is None:
        return np.arange(len(documents))
    rows = np.asarray(among, dtype=np.int64)
    if not len(rows) or rows[0] < 0 or rows[-1] >= len(documents) or (np.diff(rows) <= 0).any():
        raise UserError("the documents to search among are not ascending positions of documents, one at least")
    return rows


def _in_blocks(
    queries: np.ndarray, k: int, search: Callable[[np.ndarray], Found]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    step = max(1, min(_QUERIES, _RESULT_CELLS // k))
    for first in range(0, len(queries), step):
        yield first, *search(read_rows(queries, slice(first, first + step), "query"))


def _blocks_of(documents: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(positions, vectors) of the documents of `rows`, in order."""
    step = max(1, _BLOCK_BYTES // (4 * documents.shape[1]))
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        whole = part[-1] - part[0] + 1 == len(part)  # neighbours in the array are read without a copy of their own
        yield part, read_rows(documents, slice(part[0], part[-1] + 1) if whole else part, "document")


def _exact(documents: np.ndarray, rows: np.ndarray, k: int) -> Callable[[np.ndarray], Found]:
    def search(query_QD: np.ndarray) -> Found:
        best = TopK(len(query_QD), k)
        every = np.arange(len(query_QD))
        for positions, vectors in _blocks_of(documents, rows):
            scores, at = _best_of_block(query_QD, vectors, min(k, len(vectors)))
            if len(vectors) == len(rows):
                return scores, positions[at]
            found = positions[at]
            query_P = np.repeat(every, found.shape[1])
            best.add_pairs(query_P, scores.ravel(), found.ravel(), -found.ravel())
        return best.scores_QK, best.documents_QK

    return search


def _best_of_block(query_QD: np.ndarray, vectors: np.ndarray, k: int) -> Found:
    """FAISS keeps any of the documents that tie for the last place: one more is asked for, which shows such ties, and
    queries that have them are searched again for as many as tie."""
    asked = min(k + 1, len(vectors))
    scores, found = _by_position(*nearest_in_block(query_QD, vectors, asked))
    open_Q = np.flatnonzero(scores[:, -1] == scores[:, k - 1]) if asked < len(vectors) else np.zeros(0, dtype=np.int64)
    scores, found = scores[:, :k].copy(), found[:, :k].copy()
    while len(open_Q):
        asked = min(4 * asked, len(vectors))
        step, still = max(1, _RESULT_CELLS // asked), []
        for first in range(0, len(open_Q), step):
            some = open_Q[first : first + step]
            wide_scores, wide_found = _by_position(*nearest_in_block(query_QD[some], vectors, asked))
            scores[some], found[some] = wide_scores[:, :k], wide_found[:, :k]
            if asked < len(vectors):
                still.append(some[wide_scores[:, -1] == wide_scores[:, k - 1]])
        open_Q = np.concatenate(still) if still else open_Q[:0]
    return scores, found


def _by_position(scores: np.ndarray, found: np.ndarray) -> Found:
    """Best first, of equal scores the lower position first: rows that have such are sorted again."""
    tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
    if len(tied):
        order = np.lexsort((found[tied], -scores[tied]), axis=-1)
        scores[tied] = np.take_along_axis(scores[tied], order, axis=1)
        found[tied] = np.take_along_axis(found[tied], order, axis=1)
    return scores, found


def _build(
    queries: np.ndarray, documents: np.ndarray, rows: np.ndarray, k: int, recall: float, seed: int
) -> tuple[Index, SearchFacts]:
    """An inverted file over the documents that visits as few lists as reach the recall on the sampled queries."""
    lists = max(1, min(int(_LISTS_PER_ROOT * np.sqrt(len(rows))), len(rows) // _PER_LIST))
    index = Index(f"IVF{lists},Flat", documents.shape[1])
    chosen = np.sort(np.random.default_rng(seed).choice(rows, min(len(rows), _PER_LIST * lists), replace=False))
    index.train(read_rows(documents, chosen, "document"))
    for _, vectors in _blocks_of(documents, rows):
        index.add(vectors)
    at = np.unique(np.linspace(0, len(queries) - 1, _SAMPLED).round().astype(np.int64))
    sample = read_rows(queries, at, "query")
    expected = _exact(documents, rows, k)(sample)[1]
    visited = 1
    while True:
        index.visit(visited)
        reached = recall_of(_visiting(index, rows, k)(sample)[1], expected)[k]
        if reached >= recall or visited == lists:
            return index, SearchFacts("ivf", reached, len(at), lists, visited)
        visited = min(lists, max(visited + 1, visited * 5 // 4))


def _visiting(index: Index, rows: np.ndarray, k: int) -> Callable[[np.ndarray], Found]:
    def search(query_QD: np.ndarray) -> Found:
        scores, at = index.scored(query_QD, k)
        found = np.where(at >= 0, rows[at], -1)
        scores[at < 0] = -np.inf
        return _by_position(scores, found)

    return search
