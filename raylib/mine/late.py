"""Late-interaction teachers: queries against documents by MaxSim, exactly, or the best by their mean vectors first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from raylib.errors import UserError
from raylib.evaluate.search import CorpusCache, SearchRequest, SearchStage
from raylib.mine.comparison import Find
from raylib.mine.neighbours import Neighbours, SearchFacts, neighbours
from raylib.mine.vectors import Vectors
from raylib.search.canonical import exact_block, exact_pairs
from raylib.search.quality import recall as recall_of
from raylib.search.quality import sampled
from raylib.store.embeddings import Shelf
from raylib.types import Role

_QUERIES = 4096
"""Queries that are searched at a time: each pass over the documents serves so many."""

_PAIRS = 32768
"""Pairs that are scored in one pass over their documents."""

Found = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class LateComparison:
    """A `raylib.mine.comparison.Comparison` over token matrices in the store.

    query_keys [n], document_keys [m]: keys may repeat. stage: where MaxSim of all documents is computed. candidates:
    None, or how many documents of each query are scored at all, those nearest by mean vectors, which `find` finds; the
    share of the exact best among them is measured on up to 100 queries and is the recall.

    Memory: the tokens of 4,096 queries and of a part of the store at a time; mean vectors of all contents where they
    are asked for, 4 · d bytes each.
    """

    shelf: Shelf
    query_keys: Sequence[bytes]
    document_keys: Sequence[bytes]
    stage: SearchStage
    candidates: int | None = None
    find: Find = neighbours
    _cache: CorpusCache = field(default_factory=CorpusCache, repr=False)
    _single: dict[str, Vectors] = field(default_factory=dict, repr=False)

    @property
    def n_queries(self) -> int:
        return len(self.query_keys)

    @property
    def n_documents(self) -> int:
        return len(self.document_keys)

    def nearest(self, k: int, queries: np.ndarray | None = None, documents: np.ndarray | None = None) -> Neighbours:
        """Raises UserError for fewer candidates than are asked for."""
        queries = np.arange(self.n_queries) if queries is None else queries
        documents = np.arange(self.n_documents) if documents is None else documents
        k = min(k, len(documents))
        if self.candidates is None or self.candidates >= len(documents):
            return Neighbours(k, SearchFacts("exact"), lambda: self._exactly(queries, documents, k))
        if self.candidates < k:
            raise UserError(
                f"--candidates is {self.candidates} and {k} neighbours are looked for; expected at least {k}"
            )
        sample = queries[sampled(len(queries))]
        expected, found = (
            np.concatenate([block for _, _, block in search(sample, documents, k)])
            for search in (self._exactly, self._among_candidates)
        )
        facts = SearchFacts("pooled", recall_of(found, expected)[k], len(sample), candidates=self.candidates)
        return Neighbours(k, facts, lambda: self._among_candidates(queries, documents, k))

    def pairs(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        scores = np.empty(len(queries), dtype=np.float32)
        for first in range(0, len(queries), _PAIRS):
            part = slice(first, first + _PAIRS)
            query_keys, query_at = _distinct([self.query_keys[i] for i in queries[part].tolist()])
            document_keys, document_at = _distinct([self.document_keys[i] for i in documents[part].tolist()])
            query_tokens = self.shelf.get(query_keys)
            order = np.argsort(document_at, kind="stable")
            starts = np.searchsorted(document_at[order], np.arange(len(document_keys) + 1))
            for positions, tokens in self.shelf.scan(document_keys):
                counts = np.diff(starts)[positions]
                shift = np.repeat(starts[positions] - (np.cumsum(counts) - counts), counts)
                at = order[shift + np.arange(counts.sum())]
                within = np.repeat(np.arange(len(positions)), counts)
                scores[first + at] = exact_pairs(query_tokens, tokens, query_at[at], within, "maxsim")
        return scores

    def block(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        query_keys, query_at = _distinct([self.query_keys[i] for i in queries.tolist()])
        document_keys, document_at = _distinct([self.document_keys[i] for i in documents.tolist()])
        scores = exact_block(self.shelf.get(query_keys), self.shelf.get(document_keys), "maxsim")
        return scores[query_at][:, document_at]

    def single(self, role: Role) -> Vectors:
        """The mean of a content's tokens, of length 1."""
        if role not in self._single:
            keys, at = _distinct(self.query_keys if role == "query" else self.document_keys)
            means: np.ndarray | None = None
            for positions, tokens in self.shelf.scan(keys):
                if means is None:
                    means = np.empty((len(keys), tokens.dim), dtype=np.float32)
                sums = np.add.reduceat(tokens.values.astype(np.float32), tokens.offsets[:-1], axis=0)
                means[positions] = sums / tokens.token_counts[:, None]
            assert means is not None, "there is a content at least"
            self._single[role] = Vectors(means, role, rows=at)
        return self._single[role]

    def _exactly(
        self, queries: np.ndarray, documents: np.ndarray, k: int
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Blocks as those of `Neighbours`."""
        document_keys, owners = _distinct([self.document_keys[i] for i in documents.tolist()])
        for first in range(0, len(queries), _QUERIES):
            keys, at = _distinct([self.query_keys[i] for i in queries[first : first + _QUERIES].tolist()])
            found = self.stage(
                SearchRequest(
                    self.shelf,
                    keys,
                    document_keys,
                    owners,
                    ranks=np.arange(len(documents))[::-1],  # of equal scores the higher rank wins: the lower position
                    similarity="maxsim",
                    k=k,
                    query_ids=[f"query {i}" for i in range(len(keys))],
                    document_ids=[f"document {i}" for i in documents.tolist()],
                    cache=self._cache,
                )
            )
            yield first, found.scores_QK[at], documents[found.documents_QK[at]]

    def _among_candidates(
        self, queries: np.ndarray, documents: np.ndarray, k: int
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Blocks as those of `Neighbours`."""
        among = None if len(documents) == self.n_documents else documents
        near = self.find(self.single("query").take(queries), self.single("document"), self.candidates, among=among)
        for first, _, found in near.blocks():
            rows = np.repeat(queries[first : first + len(found)], found.shape[1])
            there = np.flatnonzero(found.ravel() >= 0)
            scores = np.full(found.size, -np.inf, dtype=np.float32)
            scores[there] = self.pairs(rows[there], found.ravel()[there])
            scores = scores.reshape(found.shape)
            order = np.lexsort((found, -scores), axis=-1)[:, :k]
            yield first, np.take_along_axis(scores, order, axis=1), np.take_along_axis(found, order, axis=1)


def _distinct(keys: Sequence[bytes]) -> tuple[list[bytes], np.ndarray]:
    """(each key once, in order of first appearance; for each key its place among those, int64)."""
    numbers: dict[bytes, int] = {}
    at = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), dtype=np.int64, count=len(keys))
    return list(numbers), at
