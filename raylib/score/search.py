"""The search of `raylib score`: vectors of two sides to a run. The documents are read in blocks, once or more often."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from raylib.errors import UserError
from raylib.metrics.runs import Run
from raylib.score.vectors import Vectors
from raylib.search.blocks import Block, blocks
from raylib.search.compress import bytes_per_token, pool_tokens
from raylib.search.engine import Ranked, Search, content_ranks, documents_of
from raylib.search.indexed import rank_by_index
from raylib.search.naming import named_by_id
from raylib.search.options import SearchOptions
from raylib.search.quality import losses, sampled, sizes
from raylib.search.topk import tie_ranks
from raylib.types import Embeddings, Similarity, VectorSimilarity, compares_vectors

_TRAINING_BYTES = 256 * 2**20
"""Of the vectors that an index is trained on, at most."""


def resolve_similarity(asked: Literal["auto"] | VectorSimilarity, queries: Vectors, documents: Vectors) -> Similarity:
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
    known = queries.similarity or documents.similarity
    if known and not compares_vectors(known) and asked != "auto":
        raise UserError(f"{queries.path} holds token weights, compared by {known}; leave --similarity {asked} out")
    found = (known or usual) if asked == "auto" else asked
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
    with named_by_id(queries, documents):
        search = _Search(queries.load(), documents, similarity, min(k, len(documents.ids)), options)
        places, scores, quality = search.run()
        if not options.exact:
            quality |= search.losses(places)
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
        return running.found(), sizes(pooled * per_token / n, tokens * 4.0 * self.documents.dim / n)

    def _through_index(self, ranks_C: np.ndarray) -> tuple[Ranked, dict[str, Any]]:
        corpus = _FileCorpus(self.documents, self.similarity)
        ranked, taken = rank_by_index(
            self.queries, corpus, self.similarity, self.k, ranks_C, self.options, training_bytes=_TRAINING_BYTES
        )
        return ranked, sizes(taken, 4.0 * corpus.dim)

    def losses(self, places_QK: np.ndarray) -> dict[str, Any]:
        """The share of the exact best k that was found, over a sample of the queries."""
        sample = sampled(len(self.queries))
        exact, _, _ = dataclasses.replace(self, queries=self.queries.take(sample), options=SearchOptions()).run()
        return losses(places_QK[sample], exact)


@dataclass(frozen=True)
class _FileCorpus:
    """A `raylib.search.indexed.Corpus` that is read from its beginning each time."""

    documents: Vectors
    similarity: Similarity

    @property
    def n_contents(self) -> int:
        return self.documents.n_contents

    @property
    def dim(self) -> int:
        return self.documents.dim

    def blocks(self) -> Iterator[Block]:
        return blocks(self.documents.blocks(), self.similarity)

    def blocks_of(self, contents: np.ndarray) -> Iterator[Block]:
        wanted_C = np.zeros(self.n_contents, dtype=bool)
        wanted_C[contents] = True
        for block in self.blocks():
            at = np.flatnonzero(wanted_C[block.contents_N])
            if len(at):
                yield block if len(at) == len(block) else block.take(at)
