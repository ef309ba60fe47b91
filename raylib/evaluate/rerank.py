"""Scores of given candidates, query by query, from vectors: what MTEB's reranking computes, without its data loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from raylib.errors import ModelError
from raylib.search.blocks import check_dims
from raylib.search.exact import score
from raylib.types import Embeddings, Similarity


def rerank(
    queries: tuple[Sequence[str], Embeddings],
    documents: tuple[Sequence[str], Embeddings],
    candidates: Mapping[str, Sequence[str]],
    top_k: int,
    similarity: Callable[[Any, Any], Any],
    *,
    late: bool = False,
) -> dict[str, dict[str, float]]:
    """Query id → document id → score, best first, of the `top_k` best candidates of each query.

    queries, documents: ids and their vectors, float32; late: several to a content. candidates: query id → document ids;
    those without a vector are left out. similarity: MTEB's, of one query and its candidates: bits depend on how many
    there are. Contents with the same vectors get one score. Raises UserError for sides of different dims; ModelError,
    naming query and document, for a score that is NaN.
    """
    import torch

    (query_ids, query_vectors), (document_ids, document_vectors) = queries, documents
    check_dims(query_vectors.dim, document_vectors.dim)
    at = {document_id: i for i, document_id in enumerate(document_ids)}
    first = _first_alike(document_vectors)
    found: dict[str, dict[str, float]] = {}
    for query_id, vectors in zip(query_ids, query_vectors, strict=True):
        listed = [document_id for document_id in dict.fromkeys(candidates.get(query_id, ())) if document_id in at]
        if not listed:
            found[query_id] = {}
            continue
        rows = [at[document_id] for document_id in listed]
        query, chosen = torch.from_numpy(np.array(vectors)), _tensors(document_vectors, rows, late)
        scores = torch.as_tensor(similarity(query[None] if late else query, chosen)).cpu()[0]
        if bool(torch.isnan(scores).any()):
            bad = listed[int(torch.isnan(scores).nonzero()[0, 0])]
            raise ModelError(f"the score of query {query_id} and document {bad} is NaN")
        place = {first[row]: n for n, row in reversed(list(enumerate(rows)))}
        scores = scores[[place[first[row]] for row in rows]]
        values, order = torch.topk(scores, min(top_k, len(listed)))
        found[query_id] = {listed[i]: score for i, score in zip(order.tolist(), values.tolist(), strict=True)}
    return found


def rerank_exactly(
    queries: tuple[Sequence[str], Embeddings],
    documents: tuple[Sequence[str], Embeddings],
    candidates: Mapping[str, Sequence[str]],
    top_k: int,
    similarity: Similarity,
) -> dict[str, dict[str, float]]:
    """As `rerank`, by raylib's own scores, for what MTEB has none for; ties by document id, descending. Raises
    UserError for contents that cannot be compared."""
    (query_ids, query_vectors), (document_ids, document_vectors) = queries, documents
    at = {document_id: i for i, document_id in enumerate(document_ids)}
    found: dict[str, dict[str, float]] = {}
    for n, query_id in enumerate(query_ids):
        listed = sorted(at.keys() & set(candidates.get(query_id, ())), reverse=True)
        chosen = document_vectors.take([at[document_id] for document_id in listed])
        scores = score(query_vectors.take([n]), chosen, similarity)[0] if listed else np.zeros(0)
        order = np.argsort(-scores, kind="stable")[:top_k]
        found[query_id] = {listed[i]: float(scores[i]) for i in order.tolist()}
    return found


def _tensors(vectors: Embeddings, rows: list[int], late: bool) -> Any:
    """[n, dim], or for late interaction a list of [tokens, dim]."""
    import torch

    if late:
        return [torch.from_numpy(np.array(vectors[row])) for row in rows]
    return torch.from_numpy(vectors.dense()[rows])


def _first_alike(vectors: Embeddings) -> list[int]:
    """[n]: the first content with the same vectors. A product of matrices may give equal columns different last bits,
    and so break a tie."""
    seen: dict[bytes, int] = {}
    return [seen.setdefault(np.ascontiguousarray(content).tobytes(), i) for i, content in enumerate(vectors)]
