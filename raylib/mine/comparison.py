"""Queries against documents, as one teacher compares them: what mining asks, whatever the vectors and wherever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from raylib.errors import UserError
from raylib.mine.neighbours import Neighbours, neighbours
from raylib.mine.options import SearchMethod
from raylib.mine.vectors import Vectors
from raylib.types import Role

Find = Callable[..., Neighbours]
"""`raylib.mine.neighbours.neighbours`, or what takes the same arguments and gives the same elsewhere."""

_PAIRS = 4096
"""Pairs that are read at a time."""


class Comparison(Protocol):
    """Contents are named by their positions, int64. Scores are float32; of documents with equal scores the lower
    position comes first."""

    @property
    def n_queries(self) -> int: ...
    @property
    def n_documents(self) -> int: ...
    @property
    def find(self) -> Find:
        """What finds neighbours among the vectors of `single`."""
        ...

    def nearest(self, k: int, queries: np.ndarray | None = None, documents: np.ndarray | None = None) -> Neighbours:
        """The k best of `documents` (ascending positions; None for all) for each of `queries` (None for all). What it
        finds are positions among all documents; its blocks count the given queries."""
        ...

    def pairs(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """[P] float32: the score of queries[p] and documents[p]."""
        ...

    def block(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """[len(queries), len(documents)] float32: every one against every other; for a batch."""
        ...

    def single(self, role: Role) -> Vectors:
        """One vector of length 1 for each content, to tell near duplicates by: the teacher's, or the mean of its
        tokens."""
        ...


@dataclass(frozen=True)
class DenseComparison:
    """By inner product of one vector a content. method, recall, seed: as `neighbours` takes them."""

    queries: Vectors
    documents: Vectors
    method: SearchMethod = "auto"
    recall: float = 0.99
    seed: int = 0
    find: Find = neighbours

    def __post_init__(self) -> None:
        if self.queries.shape[1] != self.documents.shape[1]:
            raise UserError(
                f"queries have {self.queries.shape[1]} dimensions and documents {self.documents.shape[1]}; expected "
                "those of one model"
            )

    @property
    def n_queries(self) -> int:
        return len(self.queries)

    @property
    def n_documents(self) -> int:
        return len(self.documents)

    def nearest(self, k: int, queries: np.ndarray | None = None, documents: np.ndarray | None = None) -> Neighbours:
        return self.find(
            self.queries.take(queries),
            self.documents,
            k,
            method=self.method,
            recall=self.recall,
            among=documents,
            seed=self.seed,
        )

    def pairs(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        scores = np.empty(len(queries), dtype=np.float32)
        for first in range(0, len(queries), _PAIRS):
            part = slice(first, first + _PAIRS)
            left = self.queries[queries[part]].astype(np.float64)
            scores[part] = np.vecdot(left, self.documents[documents[part]].astype(np.float64))
        return scores

    def block(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        return self.queries[queries] @ self.documents[documents].T

    def single(self, role: Role) -> Vectors:
        return replace(self.queries if role == "query" else self.documents, unit=True)
