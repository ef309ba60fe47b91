"""The k nearest documents of every query, from thousands to millions, never as a table of all against all.

"exact" compares everything, block by block. "ivf" looks at the nearest lists of an inverted file over whole vectors;
some queries are searched exactly as well, the number of visited lists is the least that finds the recall that is asked
for among these, and the recall is reported.

Scores are inner products in float32 of the rows as they are given: by cosine where the rows are of length 1, as those
of unit `Vectors` are. Rows are read, turned to float32 and checked a block at a time; arrays may be memory maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from raylib.errors import UserError
from raylib.mine.inverted import InvertedFile
from raylib.mine.options import SearchMethod
from raylib.mine.vectors import Found, Rows, Vectors, as_vectors
from raylib.search.dense import nearest as nearest_in_block
from raylib.search.topk import TopK

_QUERIES = 16384
"""Queries that are searched at a time: each pass over the documents serves so many."""

_JOINED = 131072
"""The same where they visit lists: the more of them visit a list together, the better a processor is used."""

_RESULT_CELLS = 2**24
"""Cells of a result that are held for queries at a time, 12 bytes each and about five times that while they merge."""

_EXACT_PAIRS = 10**9
"""Above so many pairs "auto" takes the inverted file: a quarter of a minute of comparing on one core."""

_LEAST_FOR_LISTS = 10_000
"""Documents below which an inverted file has too few lists to be of use."""

_SAMPLED = 500
"""Queries whose exact neighbours the recall is measured on."""


@dataclass(frozen=True)
class SearchFacts:
    """How neighbours were found. recall: share of the exact k best that were found, the mean over `sampled` queries; 1
    for an exact search. lists, visited: of an inverted file. candidates: of each query that were scored at all, where
    mean vectors choose them ("pooled", see `raylib.mine.late`). What does not apply is 0."""

    method: Literal["exact", "ivf", "pooled"]
    recall: float = 1.0
    sampled: int = 0
    lists: int = 0
    visited: int = 0
    candidates: int = 0


@dataclass(frozen=True)
class Neighbours:
    """A search that is ready to run. k: documents per query, cut to the number there is.

    blocks: gives (first query, scores, documents) for successive blocks of queries, at most 131,072 of them, so that a
    result larger than memory is never held.
    """

    k: int
    facts: SearchFacts
    blocks: Callable[[], Iterator[tuple[int, np.ndarray, np.ndarray]]]


def nearest(queries: Rows, documents: Rows, k: int, **settings: Any) -> Found:
    """(scores [n, k] float32, documents [n, k] int64), best first; of equal scores the lower position first. k is cut
    to the number of documents. -inf and -1 where the lists that "ivf" visits hold fewer than k.

    The settings and errors are those of `neighbours`. Memory beyond the arguments: 12 · n · k bytes of result, and
    what `neighbours` states.
    """
    search = neighbours(queries, documents, k, **settings)
    scores = np.empty((len(queries), search.k), dtype=np.float32)
    found = np.empty((len(queries), search.k), dtype=np.int64)
    for first, some_scores, some_found in search.blocks():
        scores[first : first + len(some_scores)] = some_scores
        found[first : first + len(some_found)] = some_found
    return scores, found


def ranked_documents(search: Neighbours, n_queries: int, n_documents: int) -> np.ndarray:
    """[n_queries, k]: the documents that a search finds, best first, -1 where it finds fewer; int32 where their numbers
    fit, half the memory."""
    found = np.empty((n_queries, search.k), dtype=np.int32 if n_documents < 2**31 else np.int64)
    for first, _, some in search.blocks():
        found[first : first + len(some)] = some
    return found


def neighbours(
    queries: Rows,
    documents: Rows,
    k: int,
    *,
    method: SearchMethod = "auto",
    recall: float = 0.99,
    among: np.ndarray | None = None,
    seed: int = 0,
) -> Neighbours:
    """A search of queries [n, d] among documents [m, d], ready to run.

    recall: what "ivf" must reach on the sampled queries; it visits all lists before it misses it. among: ascending
    positions of the documents that are searched; None for all. seed: of the sample that lists are trained on. "auto":
    exact up to 10⁹ pairs, an inverted file above where there are 10,000 documents at least.

    Memory beyond the arguments: 256 MiB of documents and 16,384 queries at a time, with their results, up to 131,072 of
    them for "ivf", which also holds every searched document once, 4 · d + 16 bytes.
    Raises UserError for arrays that do not fit each other, an empty side, k below 1, rows that are not finite.
    """
    asked = checked(queries, documents, k, method, recall, among)
    if asked.method == "ivf":
        return _through_lists(asked, recall, seed)
    search = exact_search(asked.searched, asked.rows, asked.k)
    return Neighbours(asked.k, SearchFacts("exact"), lambda: _in_blocks(asked, search))


@dataclass(frozen=True)
class Asked:
    """The arguments of `neighbours`, checked. rows int64 [n]: positions of the documents that are searched."""

    queries: Vectors
    documents: Vectors
    rows: np.ndarray
    k: int
    method: Literal["exact", "ivf"]

    @property
    def searched(self) -> Vectors:
        """The documents that are searched."""
        return self.documents.take(None if len(self.rows) == len(self.documents) else self.rows)

    def block_size(self, shards: int = 1) -> int:
        """Queries that are searched at a time; shards: results that are held for each of them."""
        most = _QUERIES if self.method == "exact" else _JOINED
        return max(1, min(most, _RESULT_CELLS // (self.k * shards)))

    def sample(self) -> np.ndarray:
        """[at most 500, d] float32: queries that the recall is measured on, spread evenly."""
        return self.queries[np.unique(np.linspace(0, len(self.queries) - 1, _SAMPLED).round().astype(np.int64))]


def checked(queries: Rows, documents: Rows, k: int, method: str, recall: float, among: np.ndarray | None) -> Asked:
    """What `neighbours` is asked for, with what "auto" stands for. Raises what `neighbours` raises, but for rows that
    are not finite, which are not read."""
    query_rows, document_rows = as_vectors(queries, "query", unit=False), as_vectors(documents, "document", unit=False)
    rows = _check(query_rows, document_rows, k, method, recall, among)
    if method == "auto":
        method = "ivf" if len(queries) * len(rows) > _EXACT_PAIRS and len(rows) >= _LEAST_FOR_LISTS else "exact"
    return Asked(query_rows, document_rows, rows, min(k, len(rows)), "ivf" if method == "ivf" else "exact")


def _check(
    queries: Vectors, documents: Vectors, k: int, method: str, recall: float, among: np.ndarray | None
) -> np.ndarray:
    """The positions of the documents that are searched, [n] int64."""
    if queries.shape[1] != documents.shape[1]:
        raise UserError(
            f"queries have {queries.shape[1]} dimensions and documents {documents.shape[1]}; expected those of "
            "one model"
        )
    if k < 1:
        raise UserError(f"{k} neighbours were asked for; expected at least 1")
    if method not in get_args(SearchMethod):
        raise UserError(f"the search is {method!r}; expected one of {', '.join(get_args(SearchMethod))}")
    if not 0 < recall <= 1:
        raise UserError(f"the recall is {recall}; expected a share above 0 and up to 1")
    if among is None:
        return np.arange(len(documents))
    rows = np.asarray(among, dtype=np.int64)
    if not len(rows) or rows[0] < 0 or rows[-1] >= len(documents) or (np.diff(rows) <= 0).any():
        raise UserError("the documents to search among are not ascending positions of documents, one at least")
    return rows


def _in_blocks(asked: Asked, search: Callable[[np.ndarray], Found]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    step = asked.block_size()
    for first in range(0, len(asked.queries), step):
        yield first, *search(asked.queries[first : first + step])


def exact_search(documents: Vectors, names: np.ndarray, k: int) -> Callable[[np.ndarray], Found]:
    """Queries [n, d] → their k best of these documents, which are named by `names`, int64, ascending."""

    def search(query_QD: np.ndarray) -> Found:
        best = TopK(len(query_QD), k)
        every = np.arange(len(query_QD))
        for part, vectors in documents.blocks():
            scores, at = _best_of_block(query_QD, vectors, min(k, len(vectors)))
            found = names[part][at]
            if len(vectors) == len(documents):
                return scores, found
            query_P = np.repeat(every, found.shape[1])
            best.add_pairs(query_P, scores.ravel(), found.ravel(), -found.ravel())
        return best.scores_QK, best.documents_QK

    return search


def _best_of_block(query_QD: np.ndarray, vectors: np.ndarray, k: int) -> Found:
    """FAISS keeps any of the documents that tie for the last place: one more is asked for, which shows such ties, and
    queries that have them are searched again for as many as tie."""
    asked = min(k + 1, len(vectors))
    scores, found = by_position(*nearest_in_block(query_QD, vectors, asked))
    open_Q = np.flatnonzero(scores[:, -1] == scores[:, k - 1]) if asked < len(vectors) else np.zeros(0, dtype=np.int64)
    scores, found = scores[:, :k].copy(), found[:, :k].copy()
    while len(open_Q):
        asked = min(4 * asked, len(vectors))
        step, still = max(1, _RESULT_CELLS // asked), []
        for first in range(0, len(open_Q), step):
            some = open_Q[first : first + step]
            wide_scores, wide_found = by_position(*nearest_in_block(query_QD[some], vectors, asked))
            scores[some], found[some] = wide_scores[:, :k], wide_found[:, :k]
            if asked < len(vectors):
                still.append(some[wide_scores[:, -1] == wide_scores[:, k - 1]])
        open_Q = np.concatenate(still) if still else open_Q[:0]
    return scores, found


def by_position(scores: np.ndarray, found: np.ndarray) -> Found:
    """Best first, of equal scores the lower position first: rows that have such are sorted again."""
    tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
    if len(tied):
        order = np.lexsort((found[tied], -scores[tied]), axis=-1)
        scores[tied] = np.take_along_axis(scores[tied], order, axis=1)
        found[tied] = np.take_along_axis(found[tied], order, axis=1)
    return scores, found


def _through_lists(asked: Asked, recall: float, seed: int) -> Neighbours:
    """Through an inverted file that visits as few lists as reach the recall on the sampled queries."""
    rows, k = asked.rows, asked.k
    file = InvertedFile(asked.searched, seed)
    sample = asked.sample()
    expected = exact_search(asked.searched, np.arange(len(rows)), k)(sample)[1]
    visits, reached = file.lists_to_visit(sample, expected, recall)

    def search(query_QD: np.ndarray) -> Found:
        scores, found = file.search(query_QD, k, visits)
        return by_position(scores, np.where(found >= 0, rows[found], -1))

    facts = SearchFacts("ivf", reached, len(sample), file.n_lists, visits)
    return Neighbours(k, facts, lambda: _in_blocks(asked, search))
