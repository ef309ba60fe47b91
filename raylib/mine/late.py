"""Late-interaction teachers (ColPali, ColQwen, ColIntern): contents are compared by MaxSim of their token vectors.

MaxSim of everything with everything is what mining costs. Where that is too much, candidates are the nearest by the
mean of the tokens, one vector a content, and only those are compared by MaxSim; what that loses is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.evaluate.search import CorpusCache, SearchRequest, SearchStage, search_locally
from raylib.mine.comparison import Find
from raylib.mine.means import mean_vectors
from raylib.mine.neighbours import Neighbours, SearchFacts, neighbours
from raylib.mine.vectors import Found, Vectors
from raylib.search.blocks import BadVectorError, Block, blocks, fusion_advice, prepare
from raylib.search.canonical import exact_block
from raylib.search.indexed import pair_scores
from raylib.search.quality import recall as recall_of
from raylib.search.quality import sampled
from raylib.store.embeddings import Shelf
from raylib.types import Role

_QUERY_BYTES = 256 * 2**20
"""Query tokens that are held at a time, counted as float32: each pass over the documents serves so many."""

_QUERIES = 16384
"""Queries that are searched at a time, however few tokens they have."""

_RESULT_CELLS = 2**22
"""Cells of a result that are held for queries at a time."""


@dataclass(frozen=True)
class LateComparison:
    """A `raylib.mine.comparison.Comparison` by exact MaxSim of the token vectors that lie on a shelf.

    query_keys, document_keys: of the contents, which may repeat. stage: what searches exactly, here or on the cluster.
    candidates: None compares every document; a number, at least the k that is asked for, compares so many of each
    query, the nearest by inner product of the mean vectors of `single`, which `find` finds. `Neighbours.facts` then has
    the share of the exact k best that were found, the mean over up to 100 queries, which are searched by `stage` as
    well whenever `nearest` is asked. folder: where mean vectors lie while they are used, in a file that is gone with
    this process; None for the system's temporary folder.

    Memory: up to 16,384 queries of together 256 MiB of tokens, with 2²² cells of their result (about 100 bytes each
    while they are ordered); three blocks of documents of 64 MiB, or one part of the store where that is larger; 256 MiB
    of working memory. Mean vectors, 4 · dim bytes a content, are computed once, kept in the store beside the tokens,
    and mapped into memory; searching them takes what `neighbours` states. Of a content with more tokens than a block
    holds, all tokens are in memory.

    Raises StoreError for keys that are not stored. Raises UserError for an empty side, a content without a vector and
    contents of different dimensions, at once; for a content with numbers that are not finite, when it is read. They are
    named by position: "query 3", "document 17".
    """

    shelf: Shelf
    query_keys: Sequence[bytes]
    document_keys: Sequence[bytes]
    stage: SearchStage = search_locally
    candidates: int | None = None
    find: Find = neighbours
    folder: str | None = None

    def __post_init__(self) -> None:
        if not len(self.query_keys) or not len(self.document_keys):
            empty = "queries" if not len(self.query_keys) else "documents"
            raise UserError(f"there are no {empty} to compare; give at least one query and one document")
        if self.candidates is not None and self.candidates < 1:
            raise UserError(f"--candidates is {self.candidates}; expected at least 1, or none to compare everything")
        _check_shapes(self.shelf, {"query": self.query_keys, "document": self.document_keys})

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # what was computed is in the store

    @property
    def n_queries(self) -> int:
        return len(self.query_keys)

    @property
    def n_documents(self) -> int:
        return len(self.document_keys)

    def nearest(self, k: int, queries: np.ndarray | None = None, documents: np.ndarray | None = None) -> Neighbours:
        """See `Comparison`. Raises UserError for k below 1 or above the candidates."""
        if k < 1:
            raise UserError(f"{k} neighbours were asked for; expected at least 1")
        query_Q = np.arange(self.n_queries) if queries is None else np.asarray(queries, dtype=np.int64)
        document_N = np.arange(self.n_documents) if documents is None else np.asarray(documents, dtype=np.int64)
        if not len(document_N):
            raise UserError("there are no documents to search among; give at least one")
        k = min(k, len(document_N))
        if self.candidates is None or self.candidates >= len(document_N):
            return Neighbours(k, SearchFacts("exact"), lambda: self._exact(k, query_Q, document_N))
        if self.candidates < k:
            raise UserError(
                f"--candidates is {self.candidates} and {k} neighbours are looked for; expected at least {k}, better "
                "some times as many, or none to compare everything"
            )
        search = self._candidates(query_Q, document_N)
        facts = self._facts(k, query_Q, document_N, search.facts)
        return Neighbours(k, facts, lambda: self._rescored(search, k, query_Q))

    def pairs(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """See `Comparison`. Pairs are scored in the order in which their documents are stored, so that every part of
        the store is read once or few times."""
        scores = np.empty(len(queries), dtype=np.float32)
        if not len(queries):
            return scores
        places = self.shelf.locate([self.document_keys[n] for n in documents.tolist()])
        order = np.concatenate([place.positions for place in places])
        for run in self._runs(queries[order], _RESULT_CELLS):
            at = order[run]
            for some, found in self._scored(queries[at], documents[at]):
                scores[at[some]] = found
        return scores

    def block(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """See `Comparison`."""
        wanted, column_N = np.unique(documents, return_inverse=True)
        scores = np.empty((len(queries), len(wanted)), dtype=np.float32)
        for run in self._runs(queries, _QUERIES):
            side = self._side(queries[run])
            for some in self._documents(wanted):
                at = np.searchsorted(wanted, some.contents_N)
                scores[run, at] = exact_block(side.vectors, some.vectors, "maxsim")
        return scores[:, column_N]

    def single(self, role: Role) -> Vectors:
        """The mean of the tokens of every content, of length 1. They are kept in the store and computed where they are
        missing. Raises UserError for a content whose tokens add up to zero."""
        return self._query_means if role == "query" else self._document_means

    @cached_property
    def _query_means(self) -> Vectors:
        return mean_vectors(self.shelf, self.query_keys, "query", self.folder)

    @cached_property
    def _document_means(self) -> Vectors:
        return mean_vectors(self.shelf, self.document_keys, "document", self.folder)

    @cached_property
    def _query_tokens(self) -> np.ndarray:
        return self.shelf.token_counts(self.query_keys)

    @cached_property
    def _dim(self) -> int:
        return int(self.shelf.dims(self.query_keys[:1])[0])

    def _runs(self, queries: np.ndarray, most: int) -> Iterator[slice]:
        """Runs of up to `most` queries whose tokens can be held; at least one query."""
        ends = np.concatenate([[0], np.cumsum(self._query_tokens[queries])])
        first = 0
        while first < len(queries):
            fit = int(np.searchsorted(ends, ends[first] + _QUERY_BYTES // (4 * self._dim), side="right")) - 1
            last = min(first + most, max(first + 1, fit))
            yield slice(first, last)
            first = last

    def _exact(
        self, k: int, queries: np.ndarray, documents: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        document_keys, owners = _distinct([self.document_keys[n] for n in documents.tolist()])
        document_ids, cache = [str(n) for n in documents.tolist()], CorpusCache()
        for run in self._runs(queries, _at_once(k)):
            some = queries[run].tolist()
            query_keys, query_owners = _distinct([self.query_keys[q] for q in some])
            found = self.stage(
                SearchRequest(
                    self.shelf,
                    query_keys,
                    document_keys,
                    owners,
                    np.arange(len(documents))[::-1],  # of equal scores the higher rank wins
                    "maxsim",
                    k,
                    query_ids=[str(some[at]) for at in np.unique(query_owners, return_index=True)[1]],
                    document_ids=document_ids,
                    cache=cache,
                )
            )
            yield run.start, found.scores_QK[query_owners], documents[found.documents_QK[query_owners]]

    def _candidates(self, queries: np.ndarray, documents: np.ndarray, **settings: Any) -> Neighbours:
        means = self.single("query").take(queries)
        return self.find(means, self.single("document"), self.candidates, among=documents, **settings)

    def _rescored(
        self, search: Neighbours, k: int, queries: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for first, _, found in search.blocks():
            rows = queries[first : first + len(found)]
            for run in self._runs(rows, _at_once(found.shape[1])):
                yield first + run.start, *self._best(rows[run], found[run], k)

    def _best(self, queries: np.ndarray, found_QN: np.ndarray, k: int) -> Found:
        """The k best by MaxSim of each query's candidates, -1 for none."""
        scores_QN = np.full(found_QN.shape, -np.inf, dtype=np.float32)
        at_P, column_P = np.nonzero(found_QN >= 0)
        for some, scores in self._scored(queries[at_P], found_QN[at_P, column_P]):
            scores_QN[at_P[some], column_P[some]] = scores
        order = np.lexsort((found_QN, -scores_QN), axis=-1)[:, :k]
        return np.take_along_axis(scores_QN, order, axis=1), np.take_along_axis(found_QN, order, axis=1)

    def _facts(self, k: int, queries: np.ndarray, documents: np.ndarray, found_by: SearchFacts) -> SearchFacts:
        """The sample's candidates are found by the method that finds everyone's, over an index of its own."""
        sample = queries[sampled(len(queries))]
        search = self._candidates(sample, documents, method=found_by.method)
        found = np.concatenate([found for _, _, found in self._rescored(search, k, sample)])
        exact = np.concatenate([found for _, _, found in self._exact(k, sample, documents)])
        share = recall_of(found, exact)[k]
        return replace(found_by, method="pooled", recall=share, sampled=len(sample), candidates=self.candidates or 0)

    def _scored(self, query_P: np.ndarray, document_P: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(which of the pairs, their scores), by blocks of documents; the queries are held."""
        rows, at_P = np.unique(query_P, return_inverse=True)
        return pair_scores(self._side(rows), self._documents, "maxsim", at_P, document_P)

    def _side(self, queries: np.ndarray) -> Block:
        return prepare(queries, self.shelf.get([self.query_keys[q] for q in queries.tolist()]), "maxsim", "query")

    def _documents(self, documents: np.ndarray) -> Iterator[Block]:
        """documents: distinct. A block's contents are positions among all documents."""
        pieces = self.shelf.scan([self.document_keys[n] for n in documents.tolist()])
        return blocks(((documents[positions], vectors) for positions, vectors in pieces), "maxsim")


def _at_once(width: int) -> int:
    """How many queries have a result, so many documents each, that can be held."""
    return max(1, min(_QUERIES, _RESULT_CELLS // width))


def _distinct(keys: Sequence[bytes]) -> tuple[list[bytes], np.ndarray]:
    """(every key once, in the order of the first of each; [n] int64: which of these each key is)."""
    places: dict[bytes, int] = {}
    owners = np.fromiter((places.setdefault(key, len(places)) for key in keys), dtype=np.int64, count=len(keys))
    return list(places), owners


def _check_shapes(shelf: Shelf, sides: dict[Role, Sequence[bytes]]) -> None:
    """Raises UserError for the first content that no other can be compared with, by what the store says of it."""
    expected = 0
    for role, keys in sides.items():
        empty = np.flatnonzero(shelf.token_counts(keys) == 0)
        if len(empty):
            raise BadVectorError(role, int(empty[0]), "has no vector at all; encode it again, or leave it out")
        dims = shelf.dims(keys)
        expected = expected or int(dims[0])
        other = np.flatnonzero(dims != expected)
        if len(other):
            found = int(dims[other[0]])
            raise UserError(
                f"{role} {other[0]} has {found} dimensions and query 0 has {expected}; expected those of one model"
                + fusion_advice({found, expected})
            )
