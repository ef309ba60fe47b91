"""Search through a FAISS index that is built over a corpus of the store, candidates scored again canonically."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import UserError
from raylib.search.blocks import Block, blocks, prepare
from raylib.search.canonical import exact_pairs
from raylib.search.dense import Index
from raylib.search.engine import Ranked
from raylib.search.topk import TopK
from raylib.types import Embeddings

if TYPE_CHECKING:
    from raylib.evaluate.search import SearchRequest

_TRAINING_BYTES = 768 * 2**20

_QUERIES = 1024
"""Queries that are searched at a time."""


def rank_by_index(
    request: SearchRequest, queries: Embeddings, corpus: Callable[[], Iterator[Block]], name: bytes
) -> tuple[Ranked, dict[str, Any]]:
    """The k best contents among `oversample` × k candidates of the index, and what to report of it.

    corpus: gives the documents' vectors; name: of that corpus, for which the index is kept. The index holds all of it
    in this process, in as many bytes as its factory string says. Raises UserError for a string that FAISS does not know
    and for a corpus too small to train on.
    """
    side = prepare(np.arange(len(queries)), queries, request.similarity, "query")
    first = request.shelf.get(request.document_keys[:1])
    if first.dim != queries.dim:
        raise UserError(f"queries have {queries.dim} dimensions, documents {first.dim}; encode both with one model")
    index, contents_N = request.cache.index((name, request.options.index), lambda: _built(request, first.dim, corpus()))
    n_candidates = min(request.k * request.options.oversample, len(contents_N))
    query_P, content_P = [], []
    for start in range(0, len(side), _QUERIES):
        found = index.search(side.vectors.values[start : start + _QUERIES], n_candidates)
        at, column = np.nonzero(found >= 0)
        query_P.append(at + start)
        content_P.append(contents_N[found[at, column]])
    ranked = _rescored(request, side, np.concatenate(query_P), np.concatenate(content_P))
    return ranked, {"index": request.options.index, "bytes_per_document": round(index.bytes_per_vector, 1)}


def _built(request: SearchRequest, dim: int, corpus: Iterator[Block]) -> tuple[Index, np.ndarray]:
    """The index over a corpus, and the content of each of its vectors."""
    index = Index(request.options.index or "", dim)
    if index.training_vectors:
        index.train(_sample(request, index.training_vectors, dim))
    places = []
    for block in corpus:
        index.add(block.vectors.values)
        places.append(block.contents_N)
    return index, np.concatenate(places)


def _sample(request: SearchRequest, wanted: int, dim: int) -> np.ndarray:
    """[n, dim] vectors to train on, the same in every run; prepared for the inner product."""
    keys = request.document_keys
    most = max(1, min(wanted, _TRAINING_BYTES // (4 * dim), len(keys)))
    chosen = np.sort(np.random.default_rng(0).choice(len(keys), most, replace=False))
    pieces = blocks(request.shelf.scan([keys[i] for i in chosen]), request.similarity)
    sample_ND = np.empty((most, dim), dtype=np.float32)
    for block in pieces:
        sample_ND[block.contents_N] = block.vectors.values
    return sample_ND


def _rescored(request: SearchRequest, side: Block, query_P: np.ndarray, content_P: np.ndarray) -> Ranked:
    """The candidates with canonical scores; their vectors are read from the store once more."""
    ranks_C = request.content_ranks()
    best = TopK(len(side), max(1, min(request.k, len(request.document_keys))))
    order = np.argsort(content_P, kind="stable")
    query_P, content_P = query_P[order], content_P[order]
    needed = np.unique(content_P)
    pieces = request.shelf.scan([request.document_keys[i] for i in needed])
    for block in blocks(pieces, request.similarity):
        contents = needed[block.contents_N]
        by_content = np.argsort(contents)
        first = np.searchsorted(content_P, contents[by_content], side="left")
        last = np.searchsorted(content_P, contents[by_content], side="right")
        counts = last - first
        pairs = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        within = np.repeat(by_content, counts)
        scores = exact_pairs(side.vectors, block.vectors, query_P[pairs], within, request.similarity)
        best.add_pairs(query_P[pairs], scores, content_P[pairs], ranks_C[content_P[pairs]])
    return Ranked(best.documents_QK, best.scores_QK)
