"""MaxSim on an accelerator: a fused kernel where one is installed, else matrix products in blocks of bounded size.

The fused kernel (late-interaction-kernels, extra `gpu`) multiplies 16-bit numbers with float32 accumulation and never
writes similarities to memory. float16 vectors, as most models give them, lose nothing by that; float32 vectors are
multiplied in float32 blocks unless bfloat16 was asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from raylib.errors import UserError
from raylib.types import Embeddings


def maxsim_on_device(
    queries: Embeddings, documents: Embeddings, *, precision: str, device: str, memory: int
) -> np.ndarray:
    """[n_queries, n_documents] float32; see `raylib.search.maxsim.maxsim`.

    memory: bytes on the device, beyond the tokens of the queries. Raises UserError for a device that is not there.
    """
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device is {device!r}, but torch sees no CUDA device here; leave it out to run on the CPU")
    dtype = _number_format(queries, documents, precision)
    query_TD = torch.from_numpy(queries.values).to(device, dtype)
    query_offsets = torch.from_numpy(queries.offsets).to(device)
    scores = np.empty((len(queries), len(documents)), dtype=np.float32)
    for first, last in _document_blocks(documents, len(query_TD), len(queries), dtype.itemsize, memory):
        start, stop = documents.offsets[first], documents.offsets[last]
        document_TD = torch.from_numpy(documents.values[start:stop]).to(device, dtype)
        document_offsets = torch.from_numpy(documents.offsets[first : last + 1] - start).to(device)
        if dtype != torch.float32 and has_fused_kernel(device):
            block = _fused(query_TD, document_TD, query_offsets, document_offsets)
        else:
            block = blocked(query_TD, document_TD, query_offsets, document_offsets, memory // 2)
        scores[:, first:last] = block.cpu().numpy()
    return scores


def _number_format(queries: Embeddings, documents: Embeddings, precision: str):
    import torch

    if precision == "float32":
        half = queries.values.dtype == documents.values.dtype == np.float16
        return torch.float16 if half else torch.float32
    if precision in ("bfloat16", "int8"):  # there is no faster product of int8 than of bfloat16 in torch on CUDA
        return torch.bfloat16
    raise ValueError(f"precision is {precision!r}; expected float32, bfloat16 or int8")


@functools.lru_cache(maxsize=8)
def has_fused_kernel(device: str) -> bool:
    """Whether the fused kernel is installed and made for this device (CUDA, Ampere or newer)."""
    import importlib.util

    import torch

    if not device.startswith("cuda") or importlib.util.find_spec("late_interaction_kernels") is None:
        return False
    return torch.cuda.get_device_capability(torch.device(device)) >= (8, 0)


def _fused(query_TD, document_TD, query_offsets, document_offsets):
    from late_interaction_kernels import maxsim_varlen  # pyright: ignore[reportMissingImports]

    return maxsim_varlen(query_TD, document_TD, query_offsets.int(), document_offsets.int())


def blocked(query_TD, document_TD, query_offsets, document_offsets, memory: int):
    """[n_queries, n_documents] float32 on the device of the tensors: products of some query tokens with all document
    tokens, at most `memory` bytes of them at a time, reduced to the largest of each document."""
    import torch

    counts = document_offsets.diff()
    best = torch.empty(len(query_TD), len(counts), device=query_TD.device)
    step = max(1, memory // (8 * len(document_TD)))
    for first in range(0, len(query_TD), step):
        with _FullFloat32():
            products_TQ = (document_TD @ query_TD[first : first + step].T).float()
        best[first : first + step] = torch.segment_reduce(products_TQ, "max", lengths=counts, axis=0).T
    queries_of = torch.repeat_interleave(torch.arange(len(query_offsets) - 1, device=best.device), query_offsets.diff())
    scores = torch.zeros(len(query_offsets) - 1, len(counts), device=best.device, dtype=torch.float64)
    return scores.index_add_(0, queries_of, best.double()).float()


class _FullFloat32:
    """float32 products in float32: TF32, which a user may have switched on, keeps ten bits of every number."""

    def __enter__(self) -> None:
        import torch

        self._before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")

    def __exit__(self, *raised: object) -> None:
        import torch

        torch.set_float32_matmul_precision(self._before)


def _document_blocks(
    documents: Embeddings, query_tokens: int, n_queries: int, itemsize: int, memory: int
) -> Iterator[tuple[int, int]]:
    """(first, last) of runs of whole documents whose tokens, maxima and scores take half of `memory`; at least one."""
    per_token, per_document = documents.dim * itemsize, 4 * query_tokens + 12 * n_queries
    used = documents.offsets * per_token + np.arange(len(documents) + 1) * per_document
    first = 0
    while first < len(documents):
        last = int(np.searchsorted(used, used[first] + memory // 2, side="right")) - 1
        yield first, max(first + 1, last)
        first = max(first + 1, last)
