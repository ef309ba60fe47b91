"""The arrays that mining takes, checked."""

from __future__ import annotations

import numpy as np

from raylib.errors import UserError
from raylib.search.canonical import normalise


def unit_vectors(vectors: np.ndarray, name: str) -> np.ndarray:
    """float32 [n, d] of length 1. Raises UserError for another shape, and for a row that is zero or not finite."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise UserError(f"{name} have the shape {vectors.shape} of {vectors.dtype}; expected numbers of shape [n, d]")
    norms = np.linalg.norm(vectors.astype(np.float32, copy=False), axis=1)
    bad = np.flatnonzero(~((norms > 0) & np.isfinite(norms)))
    if len(bad):
        raise UserError(f"{name}: row {bad[0]} is zero or not finite ({len(bad)} such rows); expected vectors")
    return normalise(vectors.astype(np.float32, copy=False))


def unit_sides(queries: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides as `unit_vectors`. Raises UserError where they have different dimensions, too."""
    queries, documents = unit_vectors(queries, "queries"), unit_vectors(documents, "documents")
    if queries.shape[1] != documents.shape[1]:
        raise UserError(
            f"queries have {queries.shape[1]} dimensions and documents {documents.shape[1]}; expected vectors of one "
            "model"
        )
    return queries, documents


def checked_positives(n_queries: int, n_documents: int, positives: np.ndarray | None) -> np.ndarray:
    """int64 [n_queries]: the document of each query; by default document i belongs to query i. Raises UserError for a
    number that is no document's."""
    if positives is None:
        if n_queries != n_documents:
            raise UserError(
                f"there are {n_queries} queries and {n_documents} documents; expected as many, or positives: the "
                "document of each query"
            )
        return np.arange(n_queries)
    positives = np.asarray(positives)
    if positives.shape != (n_queries,) or positives.dtype.kind not in "iu":
        raise UserError(
            f"positives have the shape {positives.shape} of {positives.dtype}; expected whole numbers, one for each of "
            f"the {n_queries} queries"
        )
    bad = np.flatnonzero((positives < 0) | (positives >= n_documents))
    if len(bad):
        raise UserError(
            f"query {bad[0]} has the positive {positives[bad[0]]}, and there are {n_documents} documents; expected "
            f"numbers from 0 to {n_documents - 1} ({len(bad)} queries have others)"
        )
    return positives.astype(np.int64)
