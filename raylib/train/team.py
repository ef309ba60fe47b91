"""The processes that train one model together: what they exchange, and nothing of how they were started.

Gradients are summed, not averaged: every process has its part of the loss of the whole batch, divided by the size of
the whole batch. That is exact for parts of different sizes, and for a process without a part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from raylib.models.token_vectors import TokenVectors

_BUCKET_BYTES = 64 * 2**20
"""Gradients that are exchanged in one piece: many small exchanges would wait for each other."""


class Team:
    """One process that trains alone. rank: which of `size` processes this is."""

    rank, size = 0, 1

    def share(self, n: int) -> slice:
        """This process's part of n things in order; parts differ by one at most, and may be empty."""
        return self.shares(n)[self.rank]

    def shares(self, n: int) -> list[slice]:
        """Of every process."""
        ends = np.cumsum([0, *(len(part) for part in np.array_split(np.arange(n), self.size))]).tolist()
        return [slice(first, last) for first, last in itertools.pairwise(ends)]

    def gather(self, own: TokenVectors) -> list[TokenVectors]:
        """The vectors of all processes, in order of rank, without gradient."""
        return [TokenVectors(own.values.detach(), own.counts)]

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Every parameter's gradient becomes the sum over all processes; zero where no process has one."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes; in place where there are several."""
        return values

    def told(self, value: Any) -> Any:
        """What the first process says; the others' own is not looked at."""
        return value

    def wait(self) -> None:
        """Until every process is here."""


class Group(Team):
    """The default process group of torch.distributed, which must be initialised. device: where exchanged tensors lie:
    a GPU under NCCL, else "cpu"."""

    def __init__(self, device: str = "cpu") -> None:
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device

    def gather(self, own: TokenVectors) -> list[TokenVectors]:
        values = own.values.detach()
        facts = torch.tensor([len(own), len(values), values.shape[1]], device=self.device)
        sizes = self._all(facts).cpu()
        most_contents, most_rows, width = (int(n) for n in sizes.max(dim=0).values)
        counts = torch.zeros(most_contents, dtype=torch.int64, device=self.device)
        counts[: len(own)] = torch.from_numpy(np.asarray(own.counts, dtype=np.int64)).to(self.device)
        all_counts = self._all(counts).cpu().numpy()
        # A process without a part does not know the width, nor the number format.
        padded = torch.zeros(most_rows, width, dtype=torch.float32, device=self.device)
        if len(values):
            padded[: len(values)] = values
        all_values = self._all(padded)
        return [
            TokenVectors(all_values[rank, : int(sizes[rank, 1])].to(values.device), all_counts[rank, : sizes[rank, 0]])
            for rank in range(self.size)
        ]

    def _all(self, own: torch.Tensor) -> torch.Tensor:
        """[...] → [size, ...]."""
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own.contiguous())
        return torch.stack(found)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        super().sum_gradients(parameters)
        for bucket in _buckets([parameter.grad for parameter in parameters if parameter.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            first = 0
            for gradient in bucket:
                gradient.copy_(flat[first : first + gradient.numel()].view_as(gradient))
                first += gradient.numel()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        exchanged = values.to(self.device)
        dist.all_reduce(exchanged)
        return values.copy_(exchanged) if exchanged is not values else values

    def told(self, value: Any) -> Any:
        held = [value]
        dist.broadcast_object_list(held, src=0, device=torch.device(self.device))
        return held[0]

    def wait(self) -> None:
        dist.barrier()


def _buckets(gradients: Iterable[torch.Tensor]) -> Iterable[list[torch.Tensor]]:
    """Gradients of one number format and place, in their order, up to `_BUCKET_BYTES` together."""
    bucket: list[torch.Tensor] = []
    held = 0
    for gradient in gradients:
        alike = not bucket or (bucket[0].dtype, bucket[0].device) == (gradient.dtype, gradient.device)
        if bucket and (not alike or held + gradient.nbytes > _BUCKET_BYTES):
            yield bucket
            bucket, held = [], 0
        bucket.append(gradient)
        held += gradient.nbytes
    if bucket:
        yield bucket
