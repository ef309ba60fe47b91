"""MaxSim of late interaction (Khattab and Zaharia, ColBERT, 2020): sum over query tokens of the best document token.

Real tokens only. Zero padding would win over negative similarities, and a page's score would depend on its neighbours.
"""

from __future__ import annotations

import numpy as np

from raylib.types import Embeddings

_BLOCK_CELLS = 32 * 2**20
"""Token similarities that are held at a time: 128 MiB of float32."""


def maxsim(queries: Embeddings, documents: Embeddings) -> np.ndarray:
    """[n_queries, n_documents] float32 scores; inputs float16 or float32, products in float32.

    Blocks of whole documents against blocks of whole queries, each one flat matrix product; then the maximum over a
    document's tokens and the sum over a query's. Memory beyond inputs and result: `_BLOCK_CELLS` float32, unless a
    single pair of query and document needs more. Raises ValueError for different dims or a content without tokens.
    """
    if queries.dim != documents.dim:
        raise ValueError(f"queries have {queries.dim} dimensions, documents {documents.dim}")
    if (queries.token_counts == 0).any() or (documents.token_counts == 0).any():
        raise ValueError("a query or document has no tokens; expected at least one each")
    scores = np.zeros((len(queries), len(documents)), dtype=np.float32)
    query_cut = min(2048, max(1, int(queries.offsets[-1])))
    for q_first, q_last in _cut(queries.offsets, query_cut):
        query = queries.values[queries.offsets[q_first] : queries.offsets[q_last]].astype(np.float32, copy=False)
        q_starts = queries.offsets[q_first:q_last] - queries.offsets[q_first]
        for d_first, d_last in _cut(documents.offsets, max(1, _BLOCK_CELLS // len(query))):
            scores[q_first:q_last, d_first:d_last] = _block(query, q_starts, documents, d_first, d_last)
    return scores


def _block(query_TD: np.ndarray, q_starts: np.ndarray, documents: Embeddings, first: int, last: int) -> np.ndarray:
    import torch

    start, stop = documents.offsets[first], documents.offsets[last]
    document_TD = torch.from_numpy(documents.values[start:stop].astype(np.float32, copy=False))
    # Document tokens are rows: the maximum over them then runs along contiguous memory.
    similarity = torch.mm(document_TD, torch.from_numpy(query_TD).T).numpy()
    best = np.maximum.reduceat(similarity, documents.offsets[first:last] - start, axis=0)
    return np.add.reduceat(best, q_starts, axis=1).T


def _cut(offsets: np.ndarray, max_tokens: int):
    """(first, last) of runs of whole contents with at most `max_tokens` tokens, or one content that has more."""
    first, n = 0, len(offsets) - 1
    while first < n:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + max_tokens, side="right")) - 1)
        yield first, last
        first = last
