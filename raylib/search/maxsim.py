"""MaxSim of late interaction (Khattab and Zaharia, ColBERT, 2020): sum over query tokens of the best document token.

Real tokens only. Zero padding would win over negative similarities, and a page's score would depend on its neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from raylib.types import Embeddings

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
    for q_first, q_last in _tiles(queries.offsets):
        start, stop = queries.offsets[q_first], queries.offsets[q_last]
        tile_DT = query_TD[start:stop].float().T
        for d_first in range(0, len(documents), _DOCUMENTS):
            d_last = min(d_first + _DOCUMENTS, len(documents))
            best = torch.empty(d_last - d_first, int(stop - start))
            bounds = documents.offsets[d_first : d_last + 1].tolist()
            for row, (first, last) in enumerate(itertools.pairwise(bounds)):
                torch.amax(document_TD[first:last].float() @ tile_DT, dim=0, out=best[row])
            sums = np.add.reduceat(best.numpy(), queries.offsets[q_first:q_last] - start, axis=1)
            scores[q_first:q_last, d_first:d_last] = sums.T
    return scores


def _tiles(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, last) of runs of whole queries of at most `_QUERY_TOKENS` tokens, or one query that has more."""
    first, n = 0, len(offsets) - 1
    while first < n:
        end = int(np.searchsorted(offsets, offsets[first] + _QUERY_TOKENS, side="right")) - 1
        yield first, max(first + 1, end)
        first = max(first + 1, end)
