"""Search through a FAISS index that is built over a corpus, candidates scored again canonically."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raylib.search.blocks import Block, check_dims, prepare
from raylib.search.canonical import exact_pairs
from raylib.search.dense import Index
from raylib.search.engine import Ranked
from raylib.search.options import SearchOptions
from raylib.search.topk import TopK
from raylib.types import Embeddings, Similarity

_TRAINING_BYTES = 768 * 2**20

_QUERIES = 1024
"""Queries that are searched at a time."""


class Corpus(Protocol):
    """Dense documents that need not fit in memory. Their blocks are prepared for the similarity that is searched by,
    and their contents_N count the whole corpus."""

    @property
    def n_contents(self) -> int: ...
    @property
    def dim(self) -> int: ...

    def blocks(self) -> Iterator[Block]:
        """Every content once, in any order."""
        ...

    def blocks_of(self, contents: np.ndarray) -> Iterator[Block]:
        """These contents once each and no others, in any order. contents [n] int64: ascending, distinct."""
        ...


@dataclass(frozen=True)
class BuiltIndex:
    """index: over a whole corpus, in memory; contents_N [n_contents] int64: the content of each of its vectors."""

    index: Index
    contents_N: np.ndarray  # noqa: N815


Keep = Callable[[Callable[[], BuiltIndex]], BuiltIndex]
"""Gives what a function builds, or what it built the last time."""


def rank_by_index(
    queries: Embeddings,
    corpus: Corpus,
    similarity: Similarity,
    k: int,
    ranks_C: np.ndarray,
    options: SearchOptions,
    *,
    keep: Keep = lambda build: build(),
    training_bytes: int = _TRAINING_BYTES,
) -> tuple[Ranked, float]:
    """(the k best contents of each query among `oversample` × k candidates of the index; bytes that the index takes for
    each document).

    ranks_C [n_contents]: as `raylib.search.engine.Search` takes them. keep: where a corpus is searched more than once,
    to build its index once. training_bytes: of the vectors that the index is trained on, at most.
    Raises UserError for a factory string that FAISS does not know, for a corpus too small to train on and for queries
    and documents of different dimensions; BadVectorError for vectors that cannot be compared.
    """
    side = prepare(np.arange(len(queries)), queries, similarity, "query")
    check_dims(queries.dim, corpus.dim)
    built = keep(lambda: _build(options.index or "", corpus, training_bytes))
    query_P, content_P = _candidates(built, side, k * options.oversample)
    best = TopK(len(side), max(1, min(k, corpus.n_contents)))
    for pairs, scores in pair_scores(side, corpus.blocks_of, similarity, query_P, content_P):
        best.add_pairs(query_P[pairs], scores, content_P[pairs], ranks_C[content_P[pairs]])
    return Ranked(best.documents_QK, best.scores_QK), built.index.bytes_per_vector


def _build(factory: str, corpus: Corpus, training_bytes: int) -> BuiltIndex:
    index = Index(factory, corpus.dim)
    if index.training_vectors:
        most = max(1, min(index.training_vectors, training_bytes // (4 * corpus.dim), corpus.n_contents))
        index.train(_sample(corpus, most))
    contents = []
    for block in corpus.blocks():
        index.add(block.vectors.values)
        contents.append(block.contents_N)
    return BuiltIndex(index, np.concatenate(contents))


def _sample(corpus: Corpus, n: int) -> np.ndarray:
    """[n, dim] float32 vectors to train on, the same in every run and however the corpus is cut."""
    chosen = np.sort(np.random.default_rng(0).choice(corpus.n_contents, n, replace=False))
    sample_ND = np.empty((n, corpus.dim), dtype=np.float32)
    for block in corpus.blocks_of(chosen):
        sample_ND[np.searchsorted(chosen, block.contents_N)] = block.vectors.values
    return sample_ND


def _candidates(built: BuiltIndex, side: Block, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(query [P], content [P]): up to `n` contents for each query."""
    n = min(n, len(built.contents_N))
    query_P, content_P = [], []
    for start in range(0, len(side), _QUERIES):
        found = built.index.search(side.vectors.values[start : start + _QUERIES], n)
        at, column = np.nonzero(found >= 0)
        query_P.append(at + start)
        content_P.append(built.contents_N[found[at, column]])
    return np.concatenate(query_P), np.concatenate(content_P)


def pair_scores(
    side: Block,
    blocks_of: Callable[[np.ndarray], Iterable[Block]],
    similarity: Similarity,
    query_P: np.ndarray,
    content_P: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(which of the pairs [m] int64, their canonical scores [m] float32), block of documents by block: every content is
    read once, however many queries it is paired with.

    side: the queries, prepared; query_P: positions in it. content_P: contents, of which `blocks_of` gives some, as
    `Corpus.blocks_of` does.
    """
    order = np.argsort(content_P, kind="stable")
    sorted_P = content_P[order]
    for block in blocks_of(np.unique(content_P)):
        by_content = np.argsort(block.contents_N)
        contents = block.contents_N[by_content]
        first = np.searchsorted(sorted_P, contents, side="left")
        counts = np.searchsorted(sorted_P, contents, side="right") - first
        pairs = order[np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())]
        within = np.repeat(by_content, counts)
        yield pairs, exact_pairs(side.vectors, block.vectors, query_P[pairs], within, similarity)
