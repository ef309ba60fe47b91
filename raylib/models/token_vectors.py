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

    @classmethod
    def concatenate(cls, parts: Sequence[TokenVectors]) -> TokenVectors:
        """The contents of all parts, in order."""
        return cls(torch.cat([part.values for part in parts]), np.concatenate([part.counts for part in parts]))

    def beside(self, other: TokenVectors) -> TokenVectors:
        """Of each content the vectors here, then those of `other`, which are of the same contents."""
        n = len(self)
        both = np.stack([self.counts, other.counts], axis=1)
        starts = np.stack([self.offsets[:n], other.offsets[:n] + len(self.values)], axis=1)
        order = np.concatenate([np.arange(a, a + c) for a, c in zip(starts.ravel(), both.ravel(), strict=True)])
        values = torch.cat([self.values, other.values])
        return TokenVectors(values[torch.from_numpy(order.astype(np.int64)).to(values.device)], both.sum(axis=1))
