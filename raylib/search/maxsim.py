"""MaxSim of late interaction (Khattab and Zaharia, ColBERT, 2020): sum over query tokens of the best document token.

Real tokens only. Zero padding would win over negative similarities, and a page's score would depend on its neighbours.

Scores are canonical (see `raylib.search.canonical`): maxima are exact inner products rounded once to float32, summed in
float64 and rounded once. A filter (see `raylib.search.filters`) finds for each query token the few document tokens that
can be the best one; only their products are computed in float64. On a CPU with fast int8 products that takes half the
time of all products in float32, and any filter gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from raylib.search.filters import Filter, fastest_filter
from raylib.search.rounding import UNIT_64, careful_products, multiply, relative_error, round_once
from raylib.types import Embeddings

_TILE_BYTES = 3 * 2**20
"""Similarities of one tile: enough for a product at its full rate, few enough to be in the cache when read again."""

_CHUNK_TOKENS = 1024
"""Document tokens of one tile."""

SHORT_TOKENS = 32
"""Documents of up to so many tokens are scored in groups: alone, one costs more calls than arithmetic."""

_LENGTH_STEP = 32

_CANDIDATES_PER_TOKEN = 16
"""With more tokens that can be the best (a blank page repeats one), all products in float64 are faster."""

_BYTES_PER_NUMBER = 16
"""What a number of a query token takes while it is scored: float32, float64, int8 and scratch space."""


def maxsim(
    queries: Embeddings | Sequence[Any],
    documents: Embeddings | Sequence[Any],
    *,
    precision: str = "float32",
    device: str | None = None,
    memory: int = 256 * 2**20,
) -> np.ndarray:
    """[n_queries, n_documents] float32 scores.

    queries, documents: Embeddings (float16 or float32), or lists of [tokens, dim] arrays or tensors, bfloat16 too.
    precision: "float32" gives canonical scores, whose bits depend on nothing but the pair; "bfloat16" and "int8" are
    estimates, two and three times faster, to choose candidates by. device: "cuda" multiplies there, in blocks or with a
    fused kernel where one is installed; its float32 scores are within `canonical.rounding_bound` of the canonical ones.
    memory: bytes of working memory beyond inputs and result.

    Raises ValueError for different dims, a content without tokens, NaN or infinite numbers.
    """
    queries, documents = as_embeddings(queries), as_embeddings(documents)
    _check(queries, documents)
    if device is not None and device.startswith("cuda"):
        from raylib.search.maxsim_device import maxsim_on_device

        return maxsim_on_device(queries, documents, precision=precision, device=device, memory=memory)
    if precision != "float32":
        from raylib.search.estimate import estimate

        return estimate(queries, documents, precision, memory=memory)
    scores = np.empty((len(queries), len(documents)), dtype=np.float32)
    for first, last in query_chunks(queries, memory):
        side = QuerySide(queries.take(np.arange(first, last)))
        rows_NQ = np.empty((len(documents), last - first), dtype=np.float32)

        def score(group: np.ndarray, side: QuerySide = side, rows_NQ: np.ndarray = rows_NQ) -> None:
            rows_NQ[group] = side.score(documents.take(group))

        for_each_group(score, documents.token_counts)
        scores[first:last] = rows_NQ.T
    return scores


def as_embeddings(items: Embeddings | Sequence[Any]) -> Embeddings:
    """Embeddings as they are; of a list of arrays or tensors [tokens, dim], in float16 where all are, else float32."""
    if isinstance(items, Embeddings):
        return items
    arrays = [item if isinstance(item, np.ndarray) else item.detach().cpu() for item in items]
    arrays = [a if isinstance(a, np.ndarray) else (a.float() if a.dtype.itemsize != 4 else a).numpy() for a in arrays]
    half = bool(arrays) and all(a.dtype == np.float16 for a in arrays)
    return Embeddings.from_list([a.astype(np.float16 if half else np.float32, copy=False) for a in arrays])


class QuerySide:
    """The tokens of some queries, prepared once for every document they meet."""

    def __init__(self, queries: Embeddings, kind: type[Filter] | None = None) -> None:
        tokens_TD = np.ascontiguousarray(queries.values, dtype=np.float32)
        self.offsets = queries.offsets
        self.wide = tokens_TD.astype(np.float64)
        self.norms = np.linalg.norm(self.wide, axis=1)
        self.filter = (kind or fastest_filter())(tokens_TD)

    def take(self, queries: np.ndarray) -> QuerySide:
        """The queries at these positions."""
        other = object.__new__(QuerySide)
        counts = np.diff(self.offsets)[queries]
        other.offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(other.offsets[-1]) + np.repeat(self.offsets[queries] - other.offsets[:-1], counts)
        other.wide, other.norms, other.filter = self.wide[rows], self.norms[rows], self.filter.take(rows)
        return other

    def score(self, documents: Embeddings) -> np.ndarray:
        """[n_documents, n_queries] float32 canonical scores; several documents only where all of them are short."""
        tokens_TD = documents.values.astype(np.float32, copy=False)
        wide_TD = tokens_TD.astype(np.float64)
        longest = float(np.sqrt(np.einsum("td,td->t", wide_TD, wide_TD).max()))
        if len(documents) > 1 or len(tokens_TD) <= SHORT_TOKENS:
            best_NT = self._best_of_short(wide_TD, documents.offsets)
        else:
            best_NT = self._best_of_long(of_few_lengths(tokens_TD), of_few_lengths(wide_TD), longest)[None]
        bound_T = relative_error(tokens_TD.shape[1], UNIT_64) * self.norms * longest
        maxima_NT, unsure_NT = round_once(best_NT, bound_T)
        for n, token in zip(*np.nonzero(unsure_NT), strict=True):
            tokens = wide_TD[documents.offsets[n] : documents.offsets[n + 1]]
            near = tokens[tokens @ self.wide[token] >= best_NT[n, token] - 2 * bound_T[token]]
            maxima_NT[n, token] = careful_products(np.broadcast_to(self.wide[token], near.shape), near).max()
        return np.add.reduceat(maxima_NT.astype(np.float64), self.offsets[:-1], axis=1).astype(np.float32)

    def _best_of_short(self, wide_TD: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """[n_documents, query tokens] float64: the largest product, all of them computed."""
        return np.maximum.reduceat(multiply(wide_TD, self.wide), offsets[:-1], axis=0)

    def _best_of_long(self, tokens_TD: np.ndarray, wide_TD: np.ndarray, longest: float) -> np.ndarray:
        """[query tokens] float64: the largest product of each query token, of those that pass the filter."""
        best = np.full(len(self.wide), -np.inf)
        for start in range(0, len(tokens_TD), _CHUNK_TOKENS):
            chunk, wide = tokens_TD[start : start + _CHUNK_TOKENS], wide_TD[start : start + _CHUNK_TOKENS]
            document = self.filter.document(chunk, longest)
            for tile in tiles(len(best), len(chunk)):
                found = self._best_of_tile(document, tile, wide, best[tile])
                best[tile] = np.maximum(best[tile], found)
        return best

    def _best_of_tile(self, document: Any, tile: slice, wide_TD: np.ndarray, known: np.ndarray) -> np.ndarray:
        similarities = document.similarities(tile)
        wide_query, n_tokens = self.wide[tile], len(wide_TD)
        likely = similarities.argmax(axis=1)
        best = np.vecdot(wide_query, wide_TD.take(likely, axis=0))
        similarities[np.arange(len(likely)), likely] = _LEAST[similarities.dtype.char]  # it is done
        least = document.least(tile, np.maximum(best, known))
        at = np.flatnonzero(similarities >= least[:, None])
        if len(at) > _CANDIDATES_PER_TOKEN * len(best):
            return multiply(wide_query, wide_TD).max(axis=1)
        if len(at):
            token, other = np.divmod(at, n_tokens)
            products = np.vecdot(wide_query.take(token, axis=0), wide_TD.take(other, axis=0))
            np.maximum.at(best, token, products)
        return best


_LEAST = {"f": np.float32(-np.inf), "i": np.int32(-(2**31))}


def of_few_lengths(tokens_TD: np.ndarray) -> np.ndarray:
    """The tokens, the last one repeated up to a multiple of 32: it changes no maximum. oneDNN makes code for every
    shape that it meets, and keeps hundreds of megabytes of it."""
    missing = -len(tokens_TD) % _LENGTH_STEP
    return np.concatenate([tokens_TD, np.repeat(tokens_TD[-1:], missing, axis=0)]) if missing else tokens_TD


def tiles(n_query_tokens: int, n_document_tokens: int) -> Iterator[slice]:
    """Query tokens whose similarities to so many document tokens fit in a core's cache."""
    width = max(32, min(8192, _TILE_BYTES // (4 * n_document_tokens) // 32 * 32))
    for first in range(0, n_query_tokens, width):
        yield slice(first, min(first + width, n_query_tokens))


def query_chunks(queries: Embeddings, memory: int) -> Iterator[tuple[int, int]]:
    """(first, last) of runs of whole queries that can be prepared within half of `memory`; at least one query."""
    most = max(1, memory // 2 // (_BYTES_PER_NUMBER * max(1, queries.dim)))
    first, n = 0, len(queries)
    while first < n:
        end = int(np.searchsorted(queries.offsets, queries.offsets[first] + most, side="right")) - 1
        yield first, max(first + 1, end)
        first = max(first + 1, end)


def for_each_group(work: Callable[[np.ndarray], None], counts: np.ndarray) -> None:
    """`work` on the positions of every document, on as many threads as torch may use: long documents alone, short ones
    in groups. counts [n_documents]: their tokens.

    One product is too little work to be shared among threads: on a busy machine they wait for each other longer than
    they compute.
    """
    with single_threaded_torch() as n_threads:
        groups = list(_groups(counts))
        if n_threads == 1:
            for group in groups:
                work(group)
            return
        with ThreadPoolExecutor(n_threads, thread_name_prefix="maxsim") as pool:
            for _ in pool.map(work, groups):
                pass


def _groups(counts: np.ndarray) -> Iterator[np.ndarray]:
    for n in np.flatnonzero(counts > SHORT_TOKENS):
        yield np.array([n])
    short = np.flatnonzero(counts <= SHORT_TOKENS)
    if len(short):
        yield from np.split(short, np.flatnonzero(np.diff(np.cumsum(counts[short]) // _CHUNK_TOKENS)) + 1)


@contextmanager
def single_threaded_torch() -> Iterator[int]:
    """Products on one thread inside the block; gives the number of threads that torch may use."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what threads that start from here on use
    try:
        yield n_threads
    finally:
        torch.set_num_threads(n_threads)


def _check(queries: Embeddings, documents: Embeddings) -> None:
    if queries.dim != documents.dim:
        raise ValueError(f"queries have {queries.dim} dimensions, documents {documents.dim}")
    for name, side in (("query", queries), ("document", documents)):
        if (side.token_counts == 0).any():
            raise ValueError(f"{name} {int((side.token_counts == 0).argmax())} has no tokens; expected at least one")
        # A sum is finite only if every number is; it needs no second array of that size.
        if not np.isfinite(np.add.reduce(side.values, axis=None, dtype=np.float64)):
            bad = np.flatnonzero(~np.isfinite(side.values).all(axis=1))[0]
            owner = int(np.searchsorted(side.offsets, bad, side="right")) - 1
            raise ValueError(f"{name} {owner} has NaN or infinite numbers; encode it again, or leave it out")
