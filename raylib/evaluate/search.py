"""Search over the store: what is asked, what is found, and the stage that does it in this process.

A `SearchStage` is `search_locally` or the cluster's; both give the same rankings and the same bits.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.evaluate.pooled import pool_missing, pooled_shelf
from raylib.search.blocks import Block, blocks
from raylib.search.compress import bytes_per_token
from raylib.search.engine import Ranked, Search, content_ranks, documents_of
from raylib.search.indexed import rank_by_index
from raylib.search.naming import Names, named_by_id
from raylib.search.options import SearchOptions
from raylib.search.quality import losses, sampled, sizes
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings, Similarity


class CorpusCache:
    """The last corpus, where it is small, and the last index: the languages of a task share one. Not for several
    threads at a time."""

    def __init__(self, limit: int = 512 * 2**20) -> None:
        self.limit = limit
        self._name = b""
        self._blocks: list[Block] = []
        self._index: tuple[Any, Any] = (None, None)

    def index(self, name: Any, build: Callable[[], Any]) -> Any:
        """What `build` gives, or gave the last time where `name` is that of the last index."""
        if self._index[0] != name:
            self._index = (None, None)
            self._index = (name, build())
        return self._index[1]

    def blocks(self, name: bytes, n_contents: int, read: Callable[[], Iterator[Block]]) -> Iterator[Block]:
        """The blocks that `read` gives; from memory where `name` is that of the last corpus. n_contents: of all blocks;
        a corpus that will be too large is not kept from the start."""
        if self._name == name:
            yield from self._blocks
            return
        self._name, self._blocks = b"", []  # let go of the old one before the new one is read
        kept: list[Block] | None = []
        size = seen = 0
        for block in read():
            size, seen = size + block.vectors.values.nbytes, seen + len(block)
            if kept is not None and max(size, size / seen * n_contents) <= self.limit:
                kept.append(block)
            else:
                kept = None
            yield block
        if kept is not None:
            self._name, self._blocks = name, kept

    def __reduce__(self):
        return (CorpusCache, (self.limit,))


@dataclass(frozen=True)
class SearchRequest:
    """Queries and a corpus, by their keys in the store.

    query_keys, document_keys: distinct contents. owners [n_documents] int64: document → position in document_keys;
    ranks [n_documents]: `tie_ranks` of the documents' ids. similarity: cosine normalises here, vectors lie in the store
    as they were encoded. k: documents per query. query_ids [n query_keys], document_ids [n_documents]: for messages.
    """

    shelf: Shelf
    query_keys: Sequence[bytes]
    document_keys: Sequence[bytes]
    owners: np.ndarray
    ranks: np.ndarray
    similarity: Similarity
    k: int
    options: SearchOptions = field(default_factory=SearchOptions)
    query_ids: Sequence[str] = ()
    document_ids: Sequence[str] = ()
    cache: CorpusCache = field(default_factory=CorpusCache)

    def content_ranks(self) -> np.ndarray:
        """[n document_keys] int64, as `raylib.search.engine.Search` takes them."""
        return content_ranks(self.owners, self.ranks, len(self.document_keys))

    def document_shelf(self) -> Shelf:
        """Where the documents' vectors are: with token pooling on a shelf of their own."""
        return pooled_shelf(self.shelf, self.options.token_pooling)


@dataclass(frozen=True)
class Found:
    """documents_QK int64: positions in the corpus, and scores_QK float32: canonical, best first; one row per query key.

    quality: empty for exact search, else what the options cost: "recall_at_10" … (the share of the exact best k that
    was found), "sampled_queries" (over how many queries), "bytes_per_document" (what is compared) and
    "bytes_per_document_float32".
    """

    documents_QK: np.ndarray  # noqa: N815
    scores_QK: np.ndarray  # noqa: N815
    quality: dict[str, Any] = field(default_factory=dict)


SearchStage = Callable[[SearchRequest], Found]


def search_locally(request: SearchRequest) -> Found:
    """Search in this process, the corpus read from the store part by part: it need not fit in memory.

    Raises UserError for options that the similarity does not have, for an empty side and for vectors that cannot be
    compared (named by id), StoreError where a part of the store cannot be read (named).
    """
    check(request)
    with naming(request):
        return finish(request, *rank_locally(request), search_locally)


def rank_locally(request: SearchRequest) -> tuple[Ranked, dict[str, Any]]:
    """The best contents, before anything is measured; and what an index says of itself."""
    queries = request.shelf.get(request.query_keys)
    if request.options.index is not None:
        return _rank_by_index(request, queries)
    if request.options.token_pooling > 1:
        pool_missing(request.shelf, request.document_keys, request.options.token_pooling)
    running = Search(queries, request.similarity, request.k, request.content_ranks(), request.options)
    for block in corpus_blocks(request):
        running.add(block)
    return running.found(), {}


def _rank_by_index(request: SearchRequest, queries: Embeddings) -> tuple[Ranked, dict[str, Any]]:
    """The index is kept for the next search over this corpus."""
    factory, cache = request.options.index, request.cache
    name = (corpus_name(request), factory)
    ranked, taken = rank_by_index(
        queries,
        _StoredCorpus(request, request.shelf.get(request.document_keys[:1]).dim),
        request.similarity,
        request.k,
        request.content_ranks(),
        request.options,
        keep=lambda build: cache.index(name, build),
    )
    return ranked, {"index": factory, "bytes_per_document": round(taken, 1)}


@dataclass(frozen=True)
class _StoredCorpus:
    """A `raylib.search.indexed.Corpus` in the store."""

    request: SearchRequest
    dim: int

    @property
    def n_contents(self) -> int:
        return len(self.request.document_keys)

    def blocks(self) -> Iterator[Block]:
        return corpus_blocks(self.request)

    def blocks_of(self, contents: np.ndarray) -> Iterator[Block]:
        """Only the parts are read that hold some of these."""
        pieces = self.request.shelf.scan([self.request.document_keys[i] for i in contents.tolist()])
        return blocks(((contents[positions], vectors) for positions, vectors in pieces), self.request.similarity)


def check(request: SearchRequest) -> None:
    """Raises UserError for what no search can answer."""
    request.options.check(request.similarity)
    if not len(request.query_keys) or not len(request.document_keys) or not len(request.owners):
        empty = "queries" if not len(request.query_keys) else "documents"
        raise UserError(f"there are no {empty} to search with; give at least one query and one document")


def corpus_blocks(request: SearchRequest) -> Iterator[Block]:
    """The documents' vectors, ready to be compared."""
    shelf, keys = request.document_shelf(), request.document_keys
    return request.cache.blocks(corpus_name(request), len(keys), lambda: blocks(shelf.scan(keys), request.similarity))


def corpus_name(request: SearchRequest) -> bytes:
    """Digest of which vectors are compared, and how."""
    digest = hashlib.sha256(f"{request.document_shelf().folder}|{request.similarity}|".encode())
    for key in request.document_keys:
        digest.update(key)
    return digest.digest()


def finish(request: SearchRequest, ranked: Ranked, quality: dict[str, Any], stage: SearchStage) -> Found:
    """Contents → documents; and, unless the search was exact, what that cost: `stage` searches exactly for a sample of
    the queries."""
    documents, scores = documents_of(ranked, request.owners, request.ranks, request.k)
    if request.options.exact:
        return Found(documents, scores)
    sample = sampled(len(request.query_keys))
    exact = stage(
        dataclasses.replace(request, query_keys=[request.query_keys[i] for i in sample], options=SearchOptions())
    )
    lost = losses(documents[sample], exact.documents_QK)
    return Found(documents, scores, {**lost, **_sizes(request), **quality})


def _sizes(request: SearchRequest) -> dict[str, float]:
    """Bytes a document as it is compared in the first pass, and as float32."""
    keys = request.document_keys
    dim = request.shelf.get(keys[:1]).dim
    plain = request.shelf.token_counts(keys).sum()
    kept = request.document_shelf().token_counts(keys).sum()
    per_token = bytes_per_token(dim, request.options.candidates)
    return sizes(float(kept * per_token / len(keys)), float(plain * 4.0 * dim / len(keys)))


def naming(request: SearchRequest) -> AbstractContextManager[None]:
    """A vector that cannot be compared is named by its id, see `raylib.search.naming`."""
    queries = Names(request.query_ids, np.arange(len(request.query_ids)))
    return named_by_id(queries, Names(request.document_ids, request.owners))
