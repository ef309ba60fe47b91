"""Scores of queries against documents, with gradient: inner products, and MaxSim over ragged token vectors.

MaxSim (Khattab and Zaharia, ColBERT, arXiv 2004.12832): over the tokens of a query, the sum of the largest inner
product with any token of the document. There is no padding among the vectors, so none can score. For the backward
`maxsim` keeps one index for each query token and document, not the products: a batch of 64 pages of 1,024 tokens and 64
queries of 32 would hold 512 MiB of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from raylib.models.token_vectors import TokenVectors

_CHUNK_BYTES = 128 * 2**20
"""Of inner products at a time."""


def dense_scores(queries: TokenVectors, documents: TokenVectors) -> torch.Tensor:
    """Inner products, float32 [q, m]; both have one vector a content."""
    return queries.values.float() @ documents.values.float().T


def plain_maxsim(queries: TokenVectors, documents: TokenVectors) -> torch.Tensor:
    """MaxSim, float32 [q, m], pair by pair: what `maxsim` is tested against."""
    rows = [
        torch.stack([(query.float() @ document.float().T).amax(dim=1).sum() for document in _each(documents)])
        for query in _each(queries)
    ]
    return torch.stack(rows)


def _each(vectors: TokenVectors) -> list[torch.Tensor]:
    return list(vectors.values.split(vectors.counts.tolist()))


def maxsim(queries: TokenVectors, documents: TokenVectors, chunk_bytes: int = _CHUNK_BYTES) -> torch.Tensor:
    """MaxSim, [q, m], float32, or float64 where the vectors are. Every document has one token at least. Of tokens that
    are equally near the first gets the gradient. chunk_bytes: of inner products that are held at a time."""
    assert (documents.counts > 0).all(), "a document without a token has no nearest one"
    found: Any = _MaxSim.apply(queries.values, documents.values, queries.counts, documents.counts, chunk_bytes)
    return found


class _MaxSim(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: torch.Tensor,
        documents: torch.Tensor,
        query_counts: np.ndarray,
        document_counts: np.ndarray,
        chunk_bytes: int,
    ) -> torch.Tensor:
        q, d = _exact(queries), _exact(documents)
        owner = torch.from_numpy(np.repeat(np.arange(len(query_counts)), query_counts)).to(q.device)
        nearest = torch.empty(len(q), len(document_counts), dtype=torch.int32, device=q.device)
        scores = q.new_zeros(len(query_counts), len(document_counts))
        starts = np.concatenate([[0], np.cumsum(document_counts)[:-1]]).astype(np.int64)
        for chosen in _chunks(document_counts, len(q), chunk_bytes):
            columns = torch.from_numpy(chosen).to(q.device)
            best, at = _best(q, d, starts[chosen], document_counts[chosen])
            nearest[:, columns] = at
            scores[:, columns] = q.new_zeros(len(query_counts), len(chosen)).index_add_(0, owner, best)
        ctx.save_for_backward(queries, documents, owner, nearest)
        ctx.chunk_bytes = chunk_bytes
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, documents, owner, nearest = ctx.saved_tensors
        q, d = _exact(queries), _exact(documents)
        of_tokens = gradients[0][owner]  # [query tokens, documents]
        to_q = torch.zeros_like(q) if ctx.needs_input_grad[0] else None
        to_d = torch.zeros_like(d) if ctx.needs_input_grad[1] else None
        step = max(1, ctx.chunk_bytes // max(1, len(q) * q.shape[1] * q.element_size()))
        for first in range(0, nearest.shape[1], step):
            at = nearest[:, first : first + step].long()
            weight = of_tokens[:, first : first + step, None]
            if to_q is not None:
                to_q += (weight * d[at]).sum(dim=1)
            if to_d is not None:
                to_d.index_add_(0, at.flatten(), (weight * q[:, None]).flatten(0, 1))
        return (
            None if to_q is None else to_q.to(queries.dtype),
            None if to_d is None else to_d.to(documents.dtype),
            None,
            None,
            None,
        )


def _exact(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _chunks(counts: np.ndarray, query_tokens: int, chunk_bytes: int) -> list[np.ndarray]:
    """int64 numbers of documents of about one length, so many as their products with all query tokens are to take."""
    order = np.argsort(counts, kind="stable")
    most = max(1, chunk_bytes // max(1, 4 * query_tokens))  # document tokens, padding included
    chunks: list[np.ndarray] = []
    last = len(order)
    while last:  # the longest first
        size = min(last, max(1, most // int(counts[order[last - 1]])))
        chunks.append(order[last - size : last])
        last -= size
    return chunks


def _best(
    q: torch.Tensor, d: torch.Tensor, starts: np.ndarray, counts: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """(largest product [query tokens, documents], the row of `d` that it is with, int32) for documents that have
    d[start : start + count]."""
    longest = int(counts.max())
    if int(counts.min()) == longest:
        rows = torch.from_numpy(starts[:, None] + np.arange(longest)).to(q.device)
        products = (q @ d[rows.flatten()].T).view(len(q), len(counts), longest)
    else:  # padding repeats a document's first token: the same product, and the first is taken
        places = np.arange(longest)
        rows = torch.from_numpy(starts[:, None] + np.where(places < counts[:, None], places, 0)).to(q.device)
        products = (q @ d[rows.flatten()].T).view(len(q), len(counts), longest)
    best, at = products.max(dim=2)
    return best, rows[torch.arange(len(counts), device=q.device), at].to(torch.int32)
