"""The graph that B3 cuts: two examples are joined where each is among the wanted neighbours of the other
(Thirukovalluru et al., 2025, arXiv 2505.11293)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raylib.errors import UserError

_BLOCK = 2**21
"""Pairs looked at at a time: about 100 MB of temporary arrays."""

_EXAMPLES_OF_A_DOCUMENT = 4
"""A document that is the positive of many examples (a class) stands for at most so many of them in a neighbour list;
each reader of the list meets others, so that the graph stays sparse and no example is left out."""


@dataclass(frozen=True)
class Graph:
    """An undirected graph without weights or loops. indptr int64 [n + 1] and indices int64 [2 × edges]: the neighbours
    of node i are indices[indptr[i]:indptr[i + 1]], ascending; every edge is there from both of its ends."""

    indptr: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        return len(self.indices) // 2

    @property
    def sources(self) -> np.ndarray:
        """int64 [2 × edges]: the node each of `indices` is a neighbour of."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def cut(self, part: np.ndarray) -> float:
        """The share of edges between nodes of different parts (part int64 [n]); 0 where there are no edges."""
        return float(np.mean(part[self.sources] != part[self.indices])) if len(self.indices) else 0.0


def from_pairs(left: np.ndarray, right: np.ndarray, n_nodes: int) -> Graph:
    """The graph of these edges (int64 [e] each, in any order and direction, possibly repeated)."""
    apart = left != right
    left, right = left[apart], right[apart]
    keys = np.sort(np.concatenate([left * n_nodes + right, right * n_nodes + left]))
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    sources = keys // max(1, n_nodes)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=n_nodes))]).astype(np.int64)
    return Graph(indptr, keys - sources * n_nodes)


def joined_graphs(graphs: Sequence[tuple[np.ndarray, Graph]], n_nodes: int) -> Graph:
    """One graph of several. Each comes with its nodes' numbers in the whole: int64, ascending, in no other graph."""
    if len(graphs) == 1:
        return graphs[0][1]
    degrees = np.zeros(n_nodes, dtype=np.int64)
    for nodes, graph in graphs:
        degrees[nodes] = np.diff(graph.indptr)
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    indices = np.empty(indptr[-1], dtype=np.int64)
    for nodes, graph in graphs:
        shift = np.repeat(indptr[nodes] - graph.indptr[:-1], np.diff(graph.indptr))
        indices[shift + np.arange(len(graph.indices))] = nodes[graph.indices]
    return Graph(indptr, indices)


def wanted_window(nearest: np.ndarray, skip_top: int, neighbours: int) -> np.ndarray:
    """The columns [n, at most `neighbours`] of a ranking [n, k] that follow its first `skip_top`.

    Raises UserError where nothing follows them.
    """
    if nearest.shape[1] <= skip_top:
        raise UserError(
            f"skip_top is {skip_top} and there are {nearest.shape[1]} documents to rank, so that no neighbour is left; "
            "expected more documents, or a lower skip_top"
        )
    return nearest[:, skip_top : skip_top + neighbours]


def mutual_graph(window: np.ndarray, positives: np.ndarray, same: np.ndarray | None = None) -> Graph:
    """Examples i and j are joined where the positive of j is in i's window and that of i in j's.

    window int64 [n, w]: documents, distinct in a row, -1 where there are fewer. positives int64 [n]: the document of
    each example. same int64 [n]: examples of one number are never joined (duplicates; see `raylib.mine.duplicates`).
    """
    n = len(window)
    inside = np.sort(window, axis=1)
    found = [np.zeros(0, dtype=np.int64)]
    for i, j in _members(window, positives):
        kept = _contains(inside, j, positives[i])
        if same is not None:
            kept &= same[i] != same[j]
        found.append(i[kept] * n + j[kept])
    keys = np.concatenate(found)
    return from_pairs(keys // max(1, n), keys % max(1, n), n)


def either_graph(lists: np.ndarray, positives: np.ndarray) -> Graph:
    """Examples i and j are joined where the positive of one is in the other's list. Arguments as for `mutual_graph`."""
    pairs = list(_members(lists, positives))
    none = np.zeros(0, dtype=np.int64)
    return from_pairs(
        np.concatenate([none, *(i for i, _ in pairs)]), np.concatenate([none, *(j for _, j in pairs)]), len(lists)
    )


def _members(lists: np.ndarray, positives: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of (example i, another example j whose positive is in i's list): int64 [pairs] each."""
    n, width = lists.shape
    order = np.argsort(positives, kind="stable")
    n_documents = int(max(positives.max(initial=-1), lists.max(initial=-1))) + 1
    counts = np.bincount(positives, minlength=n_documents)
    starts = np.cumsum(counts) - counts
    rows = max(1, _BLOCK // max(1, width))
    for first in range(0, n, rows):
        block = lists[first : first + rows]
        reader = np.repeat(np.arange(first, first + len(block)), width)
        document = block.ravel()
        for turn in range(min(_EXAMPLES_OF_A_DOCUMENT, int(counts.max(initial=0)))):
            more = (document >= 0) & (counts[document] > turn)
            i, d = reader[more], document[more]
            # Of a document with more examples than turns, each reader takes others.
            j = order[starts[d] + (turn + np.where(counts[d] > _EXAMPLES_OF_A_DOCUMENT, i, 0)) % counts[d]]
            yield i[i != j], j[i != j]


def _contains(sorted_rows: np.ndarray, row: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Whether sorted_rows[row[p]] holds value[p], for every p: a binary search in all rows at once."""
    width = sorted_rows.shape[1]
    low = np.zeros(len(row), dtype=np.int64)
    step = 1 << max(0, width.bit_length() - 1)
    flat, base = sorted_rows.ravel(), row * width
    while step:  # low: how many of the row are known to be smaller
        further = low + step <= width
        smaller = flat[base + np.minimum(low + step, width) - 1] < value
        low += np.where(further & smaller, step, 0)
        step >>= 1
    return (low < width) & (flat[base + np.minimum(low, width - 1)] == value)
