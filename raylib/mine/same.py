"""Which queries and documents are the same content, told by digest: never negatives, whatever they score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylib.errors import UserError

Digests = Sequence[str] | Sequence[bytes] | np.ndarray
"""A label for each content; of equal labels the contents are equal, on both sides."""


@dataclass(frozen=True)
class Contents:
    """Which contents are equal. of_documents [m], positive [n] and of_queries [n] (-1: no document has it) are numbers
    of contents of documents; sizes: documents of each; first_documents: the first of each, ascending. group [n]: the
    query's number among different queries. keys: group * len(sizes) + content of each positive, distinct, ascending;
    answered: positives of each group."""

    of_documents: np.ndarray
    positive: np.ndarray
    of_queries: np.ndarray
    sizes: np.ndarray
    first_documents: np.ndarray
    group: np.ndarray
    keys: np.ndarray
    answered: np.ndarray

    @property
    def most_positives(self) -> int:
        """The largest number of different positives of a query."""
        return int(self.answered.max())

    @property
    def most_identical(self) -> int:
        """The largest number of contents that are no negatives of a query whatever they score: its positives, and one
        where a document is the query itself."""
        return self.most_positives + int((self.of_queries >= 0).any())

    def least(self, own: np.ndarray) -> np.ndarray:
        """[n] float32: the least score of a query with one of its positives. own [n]: with its own. Equal queries have
        equal vectors, so a query's score with its own positive is that of all of its group."""
        found = np.full(int(self.group.max()) + 1, np.inf, dtype=np.float32)
        np.minimum.at(found, self.group, own)
        return found[self.group]

    def answers(self, rows: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Which of the contents found [n, W] are positives of these queries, or of queries equal to them."""
        answers = found == self.positive[rows, None]
        several = np.flatnonzero(self.answered[self.group[rows]] > 1)
        if len(several):
            keys = self.group[rows[several], None] * len(self.sizes) + found[several]
            at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            answers[several] |= self.keys[at] == keys
        return answers


def contents(
    n: int, m: int, positives: np.ndarray, query_contents: Digests | None, document_contents: Digests | None
) -> Contents:
    """positives int64 [n]; query_contents [n], document_contents [m]: None where every one is a content of its own.
    Raises UserError for digests that are not one for each."""
    of_documents, first_documents = np.arange(m), np.arange(m)
    labels: np.ndarray | None = None
    if document_contents is not None:
        labels, first, of_documents = np.unique(
            _labels(document_contents, m, "document"), return_index=True, return_inverse=True
        )
        first_documents = np.sort(first)
    group, of_queries = np.arange(n), np.full(n, -1, dtype=np.int64)
    if query_contents is not None:
        unique, group = np.unique(_labels(query_contents, n, "query"), return_inverse=True)
        if labels is not None:
            at = np.minimum(np.searchsorted(labels, unique), len(labels) - 1)
            of_queries = np.where(labels[at] == unique, at, -1)[group]
    sizes = np.bincount(of_documents)
    positive = of_documents[positives]
    keys = np.unique(group * len(sizes) + positive)
    return Contents(
        of_documents, positive, of_queries, sizes, first_documents, group, keys, np.bincount(keys // len(sizes))
    )


def _labels(contents: Digests, n: int, side: str) -> np.ndarray:
    labels = np.asarray(contents)
    if labels.shape != (n,):
        raise UserError(f"{side}_contents have the shape {labels.shape}; expected one digest for each of {n}")
    return labels
