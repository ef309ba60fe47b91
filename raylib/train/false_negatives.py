"""Documents of a batch that are no negatives of a query, though they are not its positive either."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True)
class Layout:
    """A whole batch of B examples, wherever its parts are. The columns of its scores are the B positives in order, then
    the hard negatives in order.

    queries, positives: int64 [B], numbers of contents; equal numbers look the same to the model. negatives: int64 [n]
    numbers of documents, owners: int64 [n], the example (0 … B - 1) that each is a hard negative of, ascending.
    """

    queries: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    owners: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)

    @cached_property
    def columns(self) -> np.ndarray:
        """int64 [B + n]: the document of each column."""
        return np.concatenate([self.positives, self.negatives])

    def masked(self, rows: slice) -> np.ndarray:
        """bool [rows, B + n]: columns that hold a document which answers the query: its positive again, or the positive
        of another example with the same query. Its own column is not among them."""
        numbers = np.arange(len(self))[rows]
        found = self.columns[None, :] == self.positives[rows, None]
        same = self.queries[None, :] == self.queries[rows, None]  # [rows, B]
        for row in np.flatnonzero(same.sum(axis=1) > 1).tolist():
            found[row] |= np.isin(self.columns, self.positives[same[row]])
        found[np.arange(len(numbers)), numbers] = False
        return found

    def negative_columns(self, rows: slice) -> np.ndarray:
        """int64 [rows, most]: the columns of each query's own hard negatives, -1 where it has fewer."""
        numbers = np.arange(len(self))[rows]
        first, last = np.searchsorted(self.owners, numbers), np.searchsorted(self.owners, numbers, side="right")
        places = first[:, None] + np.arange(int((last - first).max(initial=0)))
        return np.where(places < last[:, None], len(self) + places, -1)


def above_positive(scores: torch.Tensor, own: torch.Tensor, margin: float) -> torch.Tensor:
    """bool [q, m]: columns that score more than the positive by more than `margin`. Without gradient."""
    with torch.no_grad():
        return scores > scores.gather(1, own[:, None]) + margin
