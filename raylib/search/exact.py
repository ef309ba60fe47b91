"""Exact scores of every query against every document, and the best k: the plain reference for faster searches.

Documents are scored in one canonical order, that of their distinct contents, so that neither the files they were
read from nor the machine they were encoded on shows in a single bit of a score.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from raylib.errors import UserError
from raylib.search.maxsim import maxsim
from raylib.search.topk import TopK
from raylib.types import Embeddings, Similarity

_BLOCK_SCORES = 16 * 2**20
"""Scores that are held at a time, 64 MiB."""


def score(queries: Embeddings, documents: Embeddings, similarity: Similarity) -> np.ndarray:
    """[n_queries, n_documents] float32. Raises UserError for different dims.

    "cosine" normalises both sides; "dot" does not; "maxsim" sums over query tokens the best document token.
    """
    if queries.dim != documents.dim:
        raise UserError(f"queries have {queries.dim} dimensions, documents {documents.dim}; encode both with one model")
    if similarity == "maxsim":
        return maxsim(queries, documents)
    query_QD, document_ND = (side.dense().astype(np.float32, copy=False) for side in (queries, documents))
    if similarity == "cosine":
        query_QD, document_ND = normalise(query_QD), normalise(document_ND)
    return multiply(query_QD, document_ND.T)


def normalise(vectors_ND: np.ndarray) -> np.ndarray:
    """Rows of length 1; a zero row stays zero (length clamped at 1e-12, as torch does)."""
    return vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)


def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Matrix product through torch: its threads are the ones the user set, unlike numpy's."""
    import torch

    return torch.mm(torch.from_numpy(left), torch.from_numpy(right)).numpy()


def search(
    queries: Embeddings, documents: Embeddings, similarity: Similarity, k: int, ranks_N: np.ndarray, owners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The k best documents of each query.

    documents: the *distinct* contents; owners [n] maps each document of the corpus to its content, so that documents
    of one content get one score. ranks_N [n]: their `tie_ranks`. Gives (documents [n_queries, k] int64, positions in
    the corpus, scores [n_queries, k] float32), best first; k is cut to the size of the corpus.
    """
    best = TopK(len(queries), k)
    by_content = np.argsort(owners, kind="stable")
    starts = np.searchsorted(owners[by_content], np.arange(len(documents) + 1))
    for first, last in _blocks(len(queries), documents):
        scores = score(queries, documents.take(np.arange(first, last)), similarity)
        members = by_content[starts[first] : starts[last]]
        best.add(scores[:, owners[members] - first], members, ranks_N[members])
    return best.documents_QK, best.scores_QK


def _blocks(n_queries: int, documents: Embeddings) -> Iterator[tuple[int, int]]:
    step = max(1, _BLOCK_SCORES // max(1, n_queries))
    for first in range(0, len(documents), step):
        yield first, min(first + step, len(documents))
