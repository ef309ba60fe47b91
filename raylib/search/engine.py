"""Streaming search: the k best contents of each query, over blocks of a corpus that need not fit in memory.

Fast scores choose candidates, canonical scores order them (see `raylib.search.canonical`). Fast scores in float32 are
within a known bound of the canonical ones, so a content is left out only where it provably cannot be among the k best;
result and bits are then those of scoring everything, whatever the blocks, the shards and the queries beside. Scores in
fewer bits have no such bound: there the best `oversample` × k by estimate are scored exactly.

The search knows contents only. Documents that share one are found by it at the end (`documents_of`), where k contents
in the order of (score, best tie rank) are sure to hold the k best documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from raylib.search.blocks import Block, check_dims, prepare
from raylib.search.canonical import exact_block, exact_pairs, rounding_bound
from raylib.search.compress import estimates
from raylib.search.dense import nearest
from raylib.search.options import SearchOptions
from raylib.search.topk import TopK
from raylib.types import Embeddings, Similarity, compares_vectors

_QUERY_TOKENS, _DENSE_QUERIES = 16384, 1024
"""Query tokens, or single vectors, that are searched at a time: enough for matrix products at their full rate."""

_EXACT_SCORES = 2**21
"""Canonical scores that are held at a time; computing one takes about 50 bytes."""

_FAST_SCORES = 2**24
"""Fast scores that are held at a time, 64 MiB."""

_PAIR_COST = 64
"""What a canonical dense score costs alone, where one in a block costs 1 (measured at 1,024 dimensions)."""

_MARGIN = 16
"""What FAISS is asked for beyond the likely number of candidates, to see that no other comes near."""

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(query [P], content of the block [P], score [P])."""


@dataclass(frozen=True)
class Ranked:
    """contents_QK: positions of contents; scores_QK: canonical; best first. estimates_QK: None where the search is
    exact, else the scores by which the candidates were chosen: their order is then by estimate, and there are
    `oversample` × k. -1 stands for no content."""

    contents_QK: np.ndarray  # noqa: N815
    scores_QK: np.ndarray  # noqa: N815
    estimates_QK: np.ndarray | None = None  # noqa: N815


class Search:
    """queries against a corpus that is given block by block, in any order and any cut.

    ranks_C [n_contents]: the tie rank of each content, the best of its documents; -1 for one that no document has. k:
    contents per query, cut to the size of the corpus. Raises UserError for options that the similarity does not have,
    BadVectorError for a query that cannot be compared.
    """

    def __init__(
        self,
        queries: Embeddings,
        similarity: Similarity,
        k: int,
        ranks_C: np.ndarray,
        options: SearchOptions | None = None,
    ) -> None:
        self._options = options or SearchOptions()
        self._options.check(similarity)
        self._similarity: Similarity = similarity
        self._ranks_C, self._dim = ranks_C, queries.dim
        self._estimated = self._options.candidates != "float32"
        self._k = max(1, min(k * (self._options.oversample if self._estimated else 1), int((ranks_C >= 0).sum())))
        side = prepare(np.arange(len(queries)), queries, similarity, "query")
        at_once = _DENSE_QUERIES if similarity in ("cosine", "dot") else _QUERY_TOKENS
        self._chunks = [_Chunk(piece, similarity, self._k) for piece in _pieces(side, at_once)]
        self._seen = 0

    def add(self, block: Block) -> None:
        """Raises UserError where documents have other dims than queries."""
        check_dims(self._dim, block.vectors.dim)
        owned = self._ranks_C[block.contents_N] >= 0
        if not owned.all():
            block = block.take(np.flatnonzero(owned))
        if not len(block):
            return
        for chunk in self._chunks:
            if self._estimated:
                self._add_estimated(chunk, block)
            else:
                query_P, document_P, scores_P = self._best(chunk, block)
                contents_P = block.contents_N[document_P]
                chunk.best.add_pairs(query_P, scores_P, contents_P, self._ranks_C[contents_P])
        self._seen += len(block)

    def found(self) -> Ranked:
        def joined(tables: Iterable[np.ndarray]) -> np.ndarray:
            wide = [np.pad(t, ((0, 0), (0, self._k - t.shape[1])), constant_values=-1) for t in tables]
            return np.concatenate(wide) if wide else np.zeros((0, self._k))

        bests = [chunk.best for chunk in self._chunks]
        contents = joined(best.documents_QK for best in bests).astype(np.int64)
        scores = joined(best.scores_QK for best in bests).astype(np.float32)
        if not self._estimated:
            return Ranked(contents, scores)
        return Ranked(contents, joined(best.payload_QK for best in bests).astype(np.float32), scores)

    def _best(self, chunk: _Chunk, block: Block) -> Pairs:
        """Everything of the block that can enter the k best, with canonical scores."""
        everything = np.arange(len(chunk.side))
        if not compares_vectors(self._similarity):
            return self._all_of(chunk, block, everything)
        likely = self._k * min(1.0, len(block) / max(1, self._seen))
        if self._similarity == "maxsim":
            if not _on_gpu() or likely * 2 >= len(block):  # on a CPU canonical MaxSim is the fast one
                return self._all_of(chunk, block, everything)
            return self._through_gpu(chunk, block)
        if likely * _PAIR_COST >= len(block):
            return self._all_of(chunk, block, everything)
        return self._through_faiss(chunk, block, int(likely))

    def _all_of(self, chunk: _Chunk, block: Block, rows: np.ndarray) -> Pairs:
        """Every score of some queries of the chunk."""
        found = []
        queries = chunk.side.vectors if len(rows) == len(chunk.side) else chunk.side.vectors.take(rows)
        floors, step = chunk.best.floors[rows], max(1, _EXACT_SCORES // max(1, len(rows)))
        for first in range(0, len(block), step):
            piece = block.piece(first, min(first + step, len(block)))
            scores = exact_block(queries, piece.vectors, self._similarity)
            at, document, score = _best_of(scores, floors, self._k, self._ranks_C[piece.contents_N])
            found.append((rows[at], document + first, score))
        return _concatenated(found)

    def _through_faiss(self, chunk: _Chunk, block: Block, likely: int) -> Pairs:
        """FAISS gives the best of the block for each query, and more where those might not be all that can enter."""
        bounds = chunk.bounds(block)
        floors = chunk.best.floors - bounds
        vectors_ND = block.vectors.values
        rows, asked, found = np.arange(len(chunk.side)), min(self._k, 2 * likely) + _MARGIN, []
        while len(rows) and asked < len(block):
            scores_RK, contents_RK = nearest(chunk.side.vectors.values[rows], vectors_ND, asked)
            least = floors[rows]
            if asked >= self._k:
                least = np.maximum(least, scores_RK[:, self._k - 1] - 2 * bounds[rows])
            complete = scores_RK[:, -1] < least
            at, column = np.nonzero((scores_RK >= least[:, None]) & complete[:, None])
            query_P, document_P = rows[at], contents_RK[at, column]
            scores_P = exact_pairs(chunk.side.vectors, block.vectors, query_P, document_P, self._similarity)
            found.append((query_P, document_P, scores_P))
            rows, asked = rows[~complete], 4 * asked
        if len(rows):
            found.append(self._all_of(chunk, block, rows))
        return _concatenated(found)

    def _through_gpu(self, chunk: _Chunk, block: Block) -> Pairs:
        from raylib.search.maxsim import maxsim

        found = []
        bounds, floors = chunk.bounds(block), chunk.best.floors
        step = max(1, _FAST_SCORES // len(chunk.side))
        for first in range(0, len(block), step):
            piece = block.piece(first, min(first + step, len(block)))
            fast = maxsim(chunk.side.vectors, piece.vectors, device="cuda")
            query_P, document_P, _ = _above(fast, floors - bounds, self._k, 2 * bounds)
            scores_P = exact_pairs(chunk.side.vectors, piece.vectors, query_P, document_P, self._similarity)
            found.append((query_P, document_P + first, scores_P))
        return _concatenated(found)

    def _add_estimated(self, chunk: _Chunk, block: Block) -> None:
        """Late interaction in fewer bits: the best by estimate are kept, each with its canonical score."""
        step = max(1, _FAST_SCORES // len(chunk.side))
        for first in range(0, len(block), step):
            piece = block.piece(first, min(first + step, len(block)))
            fast = estimates(chunk.side.vectors, piece.vectors, self._options.candidates)
            query_P, document_P, fast_P = _above(fast, chunk.best.floors, self._k)
            scores_P = exact_pairs(chunk.side.vectors, piece.vectors, query_P, document_P, self._similarity)
            contents_P = piece.contents_N[document_P]
            chunk.best.add_pairs(query_P, fast_P, contents_P, self._ranks_C[contents_P], scores_P)


class _Chunk:
    """Some queries and their best contents so far."""

    def __init__(self, side: Block, similarity: Similarity, k: int) -> None:
        self.side = side
        self.similarity: Similarity = similarity
        self.best = TopK(len(side), k)

    def bounds(self, block: Block) -> np.ndarray:
        """[n_queries] float64: how far float32 scores of this block can be from the canonical ones."""
        return rounding_bound(self.side.vectors, block.longest, self.similarity)


def merge(parts: Sequence[Ranked], ranks_C: np.ndarray, k: int, options: SearchOptions) -> Ranked:
    """What one search over all their contents would have found. parts: disjoint contents, positions among all of
    them; ranks_C and k as `Search` takes them."""
    first = parts[0]
    estimated = first.estimates_QK is not None
    size = max(1, min(k * (options.oversample if estimated else 1), int((ranks_C >= 0).sum())))
    best = TopK(len(first.contents_QK), size)
    for part in parts:
        query_P, column_P = np.nonzero(part.contents_QK >= 0)
        contents_P, scores_P = part.contents_QK[query_P, column_P], part.scores_QK[query_P, column_P]
        by_P = scores_P if part.estimates_QK is None else part.estimates_QK[query_P, column_P]
        best.add_pairs(query_P, by_P, contents_P, ranks_C[contents_P], scores_P)
    if estimated:
        return Ranked(best.documents_QK, best.payload_QK, best.scores_QK)
    return Ranked(best.documents_QK, best.scores_QK)


def content_ranks(owners: np.ndarray, ranks_N: np.ndarray, n_contents: int) -> np.ndarray:
    """[n_contents] int64: the best tie rank of a content's documents, -1 for a content without any.

    owners [n_documents]: document → its content; ranks_N [n_documents]: their `tie_ranks`.
    """
    ranks_C = np.full(n_contents, -1, dtype=np.int64)
    np.maximum.at(ranks_C, owners, ranks_N)
    return ranks_C


def documents_of(ranked: Ranked, owners: np.ndarray, ranks_N: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(documents [n_queries, k] int64, positions in the corpus; scores [n_queries, k] float32), best first; k is cut to
    the size of the corpus. Documents of one content have one score and go by tie rank."""
    by_content = np.lexsort((-ranks_N, owners))
    n_contents = int(owners.max()) + 1 if len(owners) else 0
    counts = np.bincount(owners, minlength=n_contents)
    starts = np.cumsum(counts) - counts
    taken = np.minimum(counts, k)
    best = TopK(len(ranked.contents_QK), min(k, max(1, len(owners))))
    query_P, column_P = np.nonzero(ranked.contents_QK >= 0)
    contents_P = ranked.contents_QK[query_P, column_P]
    times = taken[contents_P]
    within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    documents = by_content[np.repeat(starts[contents_P], times) + within]
    scores = np.repeat(ranked.scores_QK[query_P, column_P], times)
    best.add_pairs(np.repeat(query_P, times), scores, documents, ranks_N[documents])
    return best.documents_QK, best.scores_QK


def _best_of(
    scores_QN: np.ndarray, floors_Q: np.ndarray, k: int, ranks_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What can be among the k best, by canonical scores: of more than k with the least score that can, the k of the
    highest rank. A query of token weights scores 0 with most of a corpus."""
    query_P, document_P, scores_P = _above(scores_QN, floors_Q, k)
    counts = np.bincount(query_P, minlength=len(scores_QN))
    if counts.max(initial=0) <= 2 * k:
        return query_P, document_P, scores_P
    kept, starts = np.ones(len(query_P), dtype=bool), np.cumsum(counts) - counts
    for query in np.flatnonzero(counts > 2 * k):
        row = np.arange(starts[query], starts[query] + counts[query])
        tied = row[scores_P[row] == scores_P[row].min()]
        if len(tied) > k:
            kept[tied[np.argpartition(-ranks_N[document_P[tied]], k - 1)[k:]]] = False
    return query_P[kept], document_P[kept], scores_P[kept]


def _above(
    scores_QN: np.ndarray, floors_Q: np.ndarray, k: int, slack_Q: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What can be among the k best: not below the floor, nor more than `slack` below the k-th best here."""
    least = np.asarray(floors_Q, dtype=np.float64)
    if scores_QN.shape[1] > k:
        kth = np.partition(scores_QN, scores_QN.shape[1] - k, axis=1)[:, scores_QN.shape[1] - k]
        least = np.maximum(least, kth.astype(np.float64) - slack_Q)
    query_P, document_P = np.nonzero(scores_QN >= least[:, None])
    return query_P, document_P, scores_QN[query_P, document_P]


def _concatenated(found: list[Pairs]) -> Pairs:
    query, document, scores = (np.concatenate(column) for column in zip(*found, strict=True))
    return query, document, scores


def _pieces(side: Block, tokens: int) -> Iterable[Block]:
    first = 0
    while first < len(side):
        end = int(np.searchsorted(side.vectors.offsets, side.vectors.offsets[first] + tokens, side="right")) - 1
        yield side.piece(first, max(first + 1, end))
        first = max(first + 1, end)


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
