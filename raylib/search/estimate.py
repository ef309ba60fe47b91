"""MaxSim in few bits, to choose candidates by: one product per pair of tokens and nothing else.

int8: the error of a product of unit vectors is about 0.001; bfloat16: a quarter of that. Short documents, whose
products are too small to be worth a conversion, are computed in float64: an estimate has the same bits whatever is
estimated beside it.
"""

from __future__ import annotations

import numpy as np

from raylib.search.filters import Int8Filter
from raylib.search.maxsim import SHORT_TOKENS, for_each_group, of_few_lengths, query_chunks, tiles
from raylib.search.rounding import multiply
from raylib.types import Embeddings

_CHUNK_TOKENS = 4096


def estimate(queries: Embeddings, documents: Embeddings, precision: str, *, memory: int) -> np.ndarray:
    """[n_queries, n_documents] float32 estimates of `maxsim`. Raises ValueError for an unknown precision."""
    if precision not in _SIDES:
        raise ValueError(f"precision is {precision!r}; expected float32, {' or '.join(_SIDES)}")
    scores = np.empty((len(queries), len(documents)), dtype=np.float32)
    for first, last in query_chunks(queries, memory):
        chosen = queries.take(np.arange(first, last))
        tokens_TD = chosen.values.astype(np.float32, copy=False)
        side = _SIDES[precision](tokens_TD)
        rows_NQ = np.empty((len(documents), last - first), dtype=np.float32)

        def work(
            group: np.ndarray,
            side: _Bfloat16Side | _Int8Side = side,
            tokens_TD: np.ndarray = tokens_TD,
            starts: np.ndarray = chosen.offsets[:-1],
            rows_NQ: np.ndarray = rows_NQ,
        ) -> None:
            members = documents.take(group)
            document_TD = members.values.astype(np.float32, copy=False)
            if len(group) > 1 or len(document_TD) <= SHORT_TOKENS:
                products = multiply(document_TD.astype(np.float64), tokens_TD.astype(np.float64))
                best_NT = np.maximum.reduceat(products, members.offsets[:-1], axis=0).astype(np.float32)
            else:
                best_NT = side.best(of_few_lengths(document_TD))[None]
            rows_NQ[group] = np.add.reduceat(best_NT, starts, axis=1)

        for_each_group(work, documents.token_counts)
        scores[first:last] = rows_NQ.T
    return scores


class _Int8Side:
    """Query tokens in int8; see `Int8Filter`."""

    def __init__(self, tokens_TD: np.ndarray) -> None:
        self._filter = Int8Filter(tokens_TD)

    def best(self, document_TD: np.ndarray) -> np.ndarray:
        """[query tokens] float32: the largest estimated product with a token of the document."""
        best = np.full(len(self._filter.tokens), -np.inf, dtype=np.float32)
        for start in range(0, len(document_TD), _CHUNK_TOKENS):
            document = self._filter.document(document_TD[start : start + _CHUNK_TOKENS], 0.0)
            for tile in tiles(len(best), min(_CHUNK_TOKENS, len(document_TD) - start)):
                found = document.approximate(tile, document.similarities(tile).max(axis=1))
                best[tile] = np.maximum(best[tile], found)
        return best


class _Bfloat16Side:
    """Query tokens in bfloat16."""

    def __init__(self, tokens_TD: np.ndarray) -> None:
        import torch

        self._tokens = torch.from_numpy(tokens_TD).bfloat16()

    def best(self, document_TD: np.ndarray) -> np.ndarray:
        """[query tokens] float32: the largest estimated product with a token of the document."""
        import torch

        best = np.full(len(self._tokens), -np.inf, dtype=np.float32)
        for start in range(0, len(document_TD), _CHUNK_TOKENS):
            tokens_DT = torch.from_numpy(document_TD[start : start + _CHUNK_TOKENS]).bfloat16().T
            for tile in tiles(len(best), tokens_DT.shape[1]):
                best[tile] = np.maximum(best[tile], _largest_bfloat16(torch.mm(self._tokens[tile], tokens_DT)))
        return best


def _largest_bfloat16(products) -> np.ndarray:
    """[n] float32: the largest number of each row of a bfloat16 tensor [n, m].

    bfloat16 has no vectorised maximum, but its bits read as integers rise with the number where it is positive and fall
    where it is negative: a row's largest is the largest integer, or the smallest where none is positive.
    """
    import torch

    bits = products.view(torch.int16).numpy()
    largest = bits.max(axis=1)
    negative = np.flatnonzero(largest < 0)
    if len(negative):
        largest[negative] = bits[negative].min(axis=1)
    return (largest.astype(np.int32) << 16).view(np.float32)


_SIDES = {"bfloat16": _Bfloat16Side, "int8": _Int8Side}
