"""The search of `raylib score`: vectors of two sides to a run. The documents are read in blocks, once or more often."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from raylib.errors import UserError
from raylib.metrics.runs import Run
from raylib.score.vectors import Vectors
from raylib.search.blocks import BadVectorError, Block, blocks, prepare
from raylib.search.canonical import exact_pairs
from raylib.search.compress import bytes_per_token, pool_tokens
from raylib.search.dense import Index
from raylib.search.engine import Ranked, Search, content_ranks, documents_of
from raylib.search.options import SearchOptions
from raylib.search.topk import TopK, tie_ranks
from raylib.types import Embeddings, Similarity

_SAMPLED_QUERIES = 100
"""Queries that are searched exactly as well, to say what other options lose."""

_RECALL_AT = (10, 100, 1000)

_TRAINING_BYTES = 256 * 2**20


def resolve_similarity(
    asked: Literal["auto", "cosine", "dot", "maxsim"], queries: Vectors, documents: Vectors
) -> Similarity:
    """What "auto" means: what the model of the store uses, else maxsim where a content may have several vectors, else
    cosine. Raises UserError for sides that cannot be compared so."""
    if queries.dim != documents.dim:
        raise UserError(
            f"queries ({queries.path}) have {queries.dim} dimensions, documents ({documents.path}) {documents.dim}; "
            "encode both with one model"
        )
    sides = (queries, documents)
    encoders = {side.described["fingerprint"]: side.path for side in sides if "fingerprint" in side.described}
    if len(encoders) > 1:
        raise UserError(f"{' and '.join(encoders.values())} hold vectors of two models; give both sides of one model")
    late = [side for side in sides if side.late]
    usual: Similarity = "maxsim" if late else "cosine"
    found = (queries.similarity or documents.similarity or usual) if asked == "auto" else asked
    if late and found != "maxsim":
        raise UserError(f"{late[0].path} has several vectors a content, {found} compares one; use --similarity maxsim")
    return found


def find(
    queries: Vectors, documents: Vectors, similarity: Similarity, k: int, options: SearchOptions
) -> tuple[Run, dict[str, Any]]:
    """The k best documents of each query, ties by document id, descending; and what options other than the exact ones
    cost: recall against exact search over a sample of the queries, and bytes a document.

    Raises UserError for options that the similarity does not have, and for vectors that cannot be compared, by id.
    """
    options.check(similarity)
    with _naming(queries, documents):
        search = _Search(queries.load(), documents, similarity, min(k, len(documents.ids)), options)
        places, scores, quality = search.run()
        if not options.exact:
            quality |= search.recall(places)
    run: Run = {}
    for query, content in zip(queries.ids, queries.owners.tolist(), strict=True):
        pairs = zip(places[content].tolist(), scores[content].tolist(), strict=True)
        run[query] = {documents.ids[d]: s for d, s in pairs if d >= 0}  # an index may find fewer than k
    return run, quality


@dataclass(frozen=True)
class _Search:
    queries: Embeddings
    documents: Vectors
    similarity: Similarity
    k: int
    options: SearchOptions

    def run(self) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """(documents [n_queries, k], positions in the corpus; scores [n_queries, k]; what was compared)."""
        ranks_N, owners = tie_ranks(self.documents.ids), self.documents.owners
        ranks_C = content_ranks(owners, ranks_N, self.documents.n_contents)
        if self.options.index is not None:
            ranked, quality = self._through_index(ranks_C)
        else:
            ranked, quality = self._through_all(ranks_C)
        return *documents_of(ranked, owners, ranks_N, self.k), quality

    def _through_all(self, ranks_C: np.ndarray) -> tuple[Ranked, dict[str, Any]]:
        running = Search(self.queries, self.similarity, self.k, ranks_C, self.options)
        tokens = pooled = 0

        def pieces() -> Iterator[tuple[np.ndarray, Embeddings]]:
            nonlocal tokens, pooled
            for positions, vectors in self.documents.blocks():
                tokens += len(vectors.values)
                vectors = pool_tokens(vectors, self.options.token_pooling)
                pooled += len(vectors.values)
                yield positions, vectors

        for block in blocks(pieces(), self.similarity):
            running.add(block)
        if self.options.exact:
            return running.found(), {}
        per_token, n = bytes_per_token(self.documents.dim, self.options.candidates), self.documents.n_contents
        return running.found(), _sizes(pooled * per_token / n, tokens * 4.0 * self.documents.dim / n)

    def _through_index(self, ranks_C: np.ndarray) -> tuple[Ranked, dict[str, Any]]:
        """Candidates from a FAISS index that is built here, `oversample` for each result, scored again exactly."""
        assert self.options.index is not None
        index = Index(self.options.index, self.documents.dim)
        if index.training_vectors:
            index.train(self._sample(index.training_vectors))
        order = []
        for block in self._blocks():
            index.add(block.vectors.values)
            order.append(block.contents_N)
        side = prepare(np.arange(len(self.queries)), self.queries, self.similarity, "query")
        n = self.documents.n_contents
        found = index.search(side.vectors.values, min(n, self.k * self.options.oversample))
        query_P, column_P = np.nonzero(found >= 0)
        content_P = np.concatenate(order)[found[query_P, column_P]]
        best = TopK(len(side), min(self.k, n))
        place = np.full(n, -1)
        for block in self._blocks():
            place[:] = -1
            place[block.contents_N] = np.arange(len(block))
            here = np.flatnonzero(place[content_P] >= 0)
            query, content = query_P[here], content_P[here]
            scores = exact_pairs(side.vectors, block.vectors, query, place[content], self.similarity)
            best.add_pairs(query, scores, content, ranks_C[content])
        sizes = _sizes(index.bytes_per_vector, 4.0 * self.documents.dim)
        return Ranked(best.documents_QK, best.scores_QK), sizes

    def _blocks(self) -> Iterator[Block]:
        return blocks(self.documents.blocks(), self.similarity)

    def _sample(self, wanted: int) -> np.ndarray:
        """[n, dim] vectors to train an index on, the same in every run."""
        n = self.documents.n_contents
        most = max(1, min(wanted, n, _TRAINING_BYTES // (4 * self.documents.dim)))
        row = np.full(n, -1)
        row[np.sort(np.random.default_rng(0).choice(n, most, replace=False))] = np.arange(most)
        sample_ND = np.empty((most, self.documents.dim), dtype=np.float32)
        for block in self._blocks():
            at = row[block.contents_N]
            sample_ND[at[at >= 0]] = block.vectors.values[at >= 0]
        return sample_ND

    def recall(self, places_QK: np.ndarray) -> dict[str, Any]:
        """The share of the exact best k that was found, over a sample of the queries."""
        n = len(self.queries)
        sample = np.unique(np.linspace(0, n - 1, min(n, _SAMPLED_QUERIES)).round().astype(np.int64))
        exact, _, _ = dataclasses.replace(self, queries=self.queries.take(sample), options=SearchOptions()).run()
        most = exact.shape[1]
        shares: dict[str, Any] = {}
        for k in sorted({k for k in _RECALL_AT if k < most} | {most}):
            hits = [len(np.intersect1d(a[:k], b[:k])) for a, b in zip(places_QK[sample], exact, strict=True)]
            shares[f"recall_at_{k}"] = float(np.mean(hits)) / k
        return {**shares, "sampled_queries": len(sample)}


def _sizes(compared: float, plain: float) -> dict[str, Any]:
    return {"bytes_per_document": round(compared, 1), "bytes_per_document_float32": round(plain, 1)}


@contextmanager
def _naming(queries: Vectors, documents: Vectors) -> Iterator[None]:
    """A vector that cannot be compared is named by its file and id rather than by its place."""
    try:
        yield
    except BadVectorError as error:
        side = queries if error.side == "query" else documents
        name = side.ids[int(np.flatnonzero(side.owners == error.position)[0])]
        raise UserError(f"{side.path}: {error.side} {name} {error.reason}") from error
