"""Scores of every query against every document, and the best k, of vectors that are in memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from raylib.search.blocks import blocks, check_dims, prepare
from raylib.search.canonical import exact_block
from raylib.search.engine import Search, content_ranks, documents_of
from raylib.search.options import SearchOptions
from raylib.types import Embeddings, Similarity


def score(queries: Embeddings, documents: Embeddings, similarity: Similarity) -> np.ndarray:
    """[n_queries, n_documents] float32 canonical scores (see `raylib.search.canonical`).

    "cosine" normalises both sides; "dot" does not; "maxsim" sums over query tokens the best document token;
    "sparse" multiplies the weights of shared tokens; a `Hybrid` weighs all three (`raylib.search.hybrid`). Raises
    UserError for different dims, BadVectorError for NaN, infinite numbers and contents without a vector.
    """
    check_dims(queries.dim, documents.dim)
    query = prepare(np.arange(len(queries)), queries, similarity, "query")
    document = prepare(np.arange(len(documents)), documents, similarity, "document")
    return exact_block(query.vectors, document.vectors, similarity)


def search(
    queries: Embeddings,
    documents: Embeddings,
    similarity: Similarity,
    k: int,
    ranks_N: np.ndarray,
    owners: np.ndarray,
    options: SearchOptions | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best documents of each query.

    documents: the *distinct* contents; owners [n] maps each document of the corpus to its content, so that documents
    of one content get one score. ranks_N [n]: their `tie_ranks`. options: of these only `candidates` and `oversample`
    are for vectors in memory. Gives (documents [n_queries, k] int64, positions in the corpus, scores [n_queries, k]
    float32 canonical), best first; k is cut to the size of the corpus. Errors as for `score`.
    """
    pieces = [(np.arange(len(documents)), documents)]
    return search_pieces(queries, pieces, len(documents), similarity, k, ranks_N, owners, options)


def search_pieces(
    queries: Embeddings,
    pieces: Iterable[tuple[np.ndarray, Embeddings]],
    n_contents: int,
    similarity: Similarity,
    k: int,
    ranks_N: np.ndarray,
    owners: np.ndarray,
    options: SearchOptions | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`search` over contents that come piece by piece: (their positions, their vectors). Held one at a time."""
    options = options or SearchOptions()
    running = Search(queries, similarity, k, content_ranks(owners, ranks_N, n_contents), options)
    for block in blocks(pieces, similarity):
        running.add(block)
    return documents_of(running.found(), owners, ranks_N, k)
