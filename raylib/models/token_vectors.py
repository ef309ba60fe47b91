"""Vectors of several contents while they are still on the device, with their gradient where torch records one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class TokenVectors:
    """values: [total_tokens, dim], floating point. counts: int64 [n], how many rows of `values` each content has, in
    order; 1 each for dense vectors."""

    values: torch.Tensor
    counts: np.ndarray

    @classmethod
    def dense(cls, values: torch.Tensor) -> TokenVectors:
        """values [n, dim] → one vector a content."""
        return cls(values, np.ones(len(values), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def offsets(self) -> np.ndarray:
        """int64 [n + 1]: content i has the rows offsets[i]:offsets[i + 1]."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def slice(self, first: int, last: int) -> TokenVectors:
        """The contents first … last - 1; a view."""
        offsets = self.offsets
        return TokenVectors(self.values[offsets[first] : offsets[last]], self.counts[first:last])

    def take(self, order: np.ndarray) -> TokenVectors:
        """The contents at `order`, int64, in that order."""
        starts = self.offsets[:-1][order]
        return TokenVectors(self.values[_rows(starts, self.counts[order]).to(self.values.device)], self.counts[order])

    @classmethod
    def concatenate(cls, parts: Sequence[TokenVectors]) -> TokenVectors:
        """The contents of all parts, in order."""
        return cls(torch.cat([part.values for part in parts]), np.concatenate([part.counts for part in parts]))

    def beside(self, other: TokenVectors) -> TokenVectors:
        """Of each content the vectors here, then those of `other`, which are of the same contents."""
        n = len(self)
        both = np.stack([self.counts, other.counts], axis=1)
        starts = np.stack([self.offsets[:n], other.offsets[:n] + len(self.values)], axis=1)
        values = torch.cat([self.values, other.values])
        return TokenVectors(values[_rows(starts.ravel(), both.ravel()).to(values.device)], both.sum(axis=1))


def _rows(starts: np.ndarray, counts: np.ndarray) -> torch.Tensor:
    """int64: starts[0] … starts[0] + counts[0] - 1, then those of the next."""
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return torch.from_numpy(np.arange(int(counts.sum())) + np.repeat(starts - first[: len(counts)], counts))
