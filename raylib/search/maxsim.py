"""MaxSim of late interaction (Khattab and Zaharia, ColBERT, 2020): sum over query tokens of the best document token.

Real tokens only. Zero padding would win over negative similarities, and a page's score would depend on its neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from raylib.types import Embeddings

if TYPE_CHECKING:
    import torch

_QUERY_TOKENS = 1024
"""Query tokens of one tile: enough for the matrix product to run at its full rate, few enough that the similarities
of one document stay in the cache until their maximum is taken."""

_DOCUMENTS = 4096
"""Documents whose maxima are held at a time: 16 MiB for a tile of queries."""


def maxsim(queries: Embeddings, documents: Embeddings) -> np.ndarray:
    """[n_queries, n_documents] float32 scores; inputs float16 or float32, products in float32.

    One matrix product per document and tile of whole queries, so a document's score has the same bits whatever other
    documents are scored beside it. Memory beyond inputs and result: one document's similarities to a tile of queries,
    and 16 MiB of maxima. Raises ValueError for different dims or a content without tokens.
    """
    import torch

    if queries.dim != documents.dim:
        raise ValueError(f"queries have {queries.dim} dimensions, documents {documents.dim}")
    if (queries.token_counts == 0).any() or (documents.token_counts == 0).any():
        raise ValueError("a query or document has no tokens; expected at least one each")
    query_TD, document_TD = torch.from_numpy(queries.values), torch.from_numpy(documents.values)
    scores = np.empty((len(queries), len(documents)), dtype=np.float32)
    with _document_threads() as (pool, n_threads):
        for q_first, q_last in _tiles(queries.offsets):
            start, stop = queries.offsets[q_first], queries.offsets[q_last]
            tile_DT = query_TD[start:stop].float().T
            for d_first in range(0, len(documents), _DOCUMENTS):
                d_last = min(d_first + _DOCUMENTS, len(documents))
                best = torch.empty(d_last - d_first, int(stop - start))
                bounds = list(itertools.pairwise(documents.offsets[d_first : d_last + 1].tolist()))
                shares = [slice(n, None, n_threads) for n in range(n_threads)]
                list(pool.map(lambda s, b=bounds, t=tile_DT, m=best: _maxima(document_TD, b[s], t, m[s]), shares))
                sums = np.add.reduceat(best.numpy(), queries.offsets[q_first:q_last] - start, axis=1)
                scores[q_first:q_last, d_first:d_last] = sums.T
    return scores


def _maxima(
    document_TD: torch.Tensor, bounds: list[tuple[int, int]], tile_DT: torch.Tensor, best_NT: torch.Tensor
) -> None:
    """Write into row n of `best_NT` the best similarity of document n to every query token of the tile."""
    import torch

    for row, (first, last) in enumerate(bounds):
        torch.amax(document_TD[first:last].float() @ tile_DT, dim=0, out=best_NT[row])


@contextmanager
def _document_threads() -> Iterator[tuple[Executor, int]]:
    """As many threads as torch may use, each for documents of its own: one document is too little work to be shared,
    and on a busy machine the threads of one product wait for each other far longer than they compute."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what threads that start from here on use
    try:
        with ThreadPoolExecutor(n_threads, thread_name_prefix="maxsim") as pool:
            yield pool, n_threads
    finally:
        torch.set_num_threads(n_threads)


def _tiles(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, last) of runs of whole queries of at most `_QUERY_TOKENS` tokens, or one query that has more."""
    first, n = 0, len(offsets) - 1
    while first < n:
        end = int(np.searchsorted(offsets, offsets[first] + _QUERY_TOKENS, side="right")) - 1
        yield first, max(first + 1, end)
        first = max(first + 1, end)
