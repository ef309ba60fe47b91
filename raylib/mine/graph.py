"""The graph that B3 cuts: two examples are joined where each is among the wanted neighbours of the other
(Thirukovalluru et al., 2025, arXiv 2505.11293)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raylib.errors import UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BLOCK = 2**21
"""Pairs looked at at a time: about 100 MB of temporary arrays."""

_PIECE = 2**17
"""Nodes whose edges are looked at at a time."""

_EXAMPLES_OF_A_DOCUMENT = 4
"""A document that is the positive of many examples (a class) stands for at most so many of them in a neighbour list;
each reader of the list meets others, so that the graph stays sparse and no example is left out."""


@dataclass(frozen=True)
class Graph:
    """An undirected graph without weights or loops. indptr int64 [n + 1] and indices [2 × edges], int32 where numbers
    of nodes fit: the neighbours of node i are indices[indptr[i]:indptr[i + 1]], ascending; every edge is there from
    both of its ends."""

    indptr: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        return len(self.indices) // 2

    @property
    def sources(self) -> np.ndarray:
        """[2 × edges], as `indices`: the node each of them is a neighbour of."""
        return np.repeat(np.arange(len(self), dtype=self.indices.dtype), np.diff(self.indptr))

    def pieces(self) -> Iterator[tuple[np.ndarray, slice]]:
        """(sources, which of `indices`), so many at a time that not all sources are held."""
        for first in range(0, len(self), _PIECE):
            stop = min(first + _PIECE, len(self))
            nodes = np.arange(first, stop, dtype=self.indices.dtype)
            at = slice(int(self.indptr[first]), int(self.indptr[stop]))
            yield np.repeat(nodes, np.diff(self.indptr[first : stop + 1])), at

    def cut(self, part: np.ndarray) -> float:
        """The share of edges between nodes of different parts (part int64 [n]); 0 where there are no edges."""
        between = sum(int((part[nodes] != part[self.indices[at]]).sum()) for nodes, at in self.pieces())
        return between / max(1, len(self.indices))

    def take(self, nodes: np.ndarray) -> Graph:
        """The graph of some nodes, int64 ascending, and the edges between them; they are numbered anew, in order."""
        return _pattern(self.matrix()[nodes][:, nodes])

    def matrix(self) -> csr_array:
        """Sparse [n, n], int8: 1 where there is an edge."""
        from scipy.sparse import csr_array

        ones = np.ones(len(self.indices), dtype=np.int8)
        indptr = self.indptr if len(ones) >= 2**31 else self.indptr.astype(self.indices.dtype)
        return csr_array((ones, self.indices, indptr), shape=(len(self), len(self)))


def from_pairs(left: np.ndarray, right: np.ndarray, n_nodes: int) -> Graph:
    """The graph of these edges (whole numbers [e] each, in any order and direction, possibly repeated)."""
    from scipy.sparse import coo_array

    apart = left != right
    left, right = left[apart], right[apart]
    ones = np.ones(2 * len(left), dtype=np.int8)
    ends = np.concatenate([left, right]), np.concatenate([right, left])
    return _pattern(coo_array((ones, ends), shape=(n_nodes, n_nodes)).tocsr())


def _pattern(matrix: csr_array) -> Graph:
    """The graph whose edges are the entries of a symmetric matrix without diagonal, whatever they hold."""
    matrix.sort_indices()
    return Graph(matrix.indptr.astype(np.int64, copy=False), matrix.indices)


def joined_graphs(graphs: Sequence[tuple[np.ndarray, Graph]], n_nodes: int) -> Graph:
    """One graph of several. Each comes with its nodes' numbers in the whole: int64, ascending, in no other graph."""
    if len(graphs) == 1:
        return graphs[0][1]
    degrees = np.zeros(n_nodes, dtype=np.int64)
    for nodes, graph in graphs:
        degrees[nodes] = np.diff(graph.indptr)
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    indices = np.empty(indptr[-1], dtype=graphs[0][1].indices.dtype)
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

    window [n, w]: documents, distinct in a row, -1 where there are fewer. positives int64 [n]: the document of each
    example. same int64 [n]: examples of one number are never joined (duplicates; see `raylib.mine.duplicates`).
    Memory: about 10 bytes for each of the n × w documents.
    """
    n = len(window)
    wanted, shared = _split(window, positives)
    wanted.data[:] = 1
    mutual = wanted.multiply(wanted.T.tocsr()).tocsr()
    del wanted
    if shared.any():
        inside = np.sort(window, axis=1)
        left, right = [], []
        for i, j in _members(window, positives, shared):
            kept = _contains(inside, j, positives[i])
            left.append(i[kept])
            right.append(j[kept])
        mutual = mutual + from_pairs(np.concatenate(left), np.concatenate(right), n).matrix()
    graph = _pattern(mutual)
    return graph if same is None or len(np.unique(same)) == n else _unjoined(graph, same)


def either_graph(lists: np.ndarray, positives: np.ndarray) -> Graph:
    """Examples i and j are joined where the positive of one is in the other's list. Arguments as for `mutual_graph`."""
    wanted, shared = _split(lists, positives)
    either = wanted + wanted.T.tocsr()
    if shared.any():
        left, right = zip(*_members(lists, positives, shared), strict=True)
        either = either + from_pairs(np.concatenate(left), np.concatenate(right), len(lists)).matrix()
    return _pattern(either)


def _split(lists: np.ndarray, positives: np.ndarray) -> tuple[csr_array, np.ndarray]:
    """(sparse [n, n]: the examples in each one's list, of those whose documents are no one else's; bool [n, w]: the
    other documents that are the positive of an example)."""
    from scipy.sparse import csr_array

    n = len(lists)
    n_documents = int(max(positives.max(initial=-1), lists.max(initial=-1))) + 1
    counts = np.bincount(positives, minlength=n_documents + 1)  # the last for -1
    owner = np.full(n_documents + 1, -1, dtype=np.int32 if n < 2**31 else np.int64)
    owner[positives] = np.arange(n)
    owner[counts > 1] = -1
    alone = counts[positives] == 1
    shared = np.zeros(lists.shape, dtype=bool)
    columns, lengths = [], [np.zeros(1, dtype=np.int64)]
    rows = max(1, _BLOCK // max(1, lists.shape[1]))
    for first in range(0, n, rows):
        block, here = lists[first : first + rows], np.arange(first, min(first + rows, n))
        examples = np.where(alone[here, None], owner[block], -1)
        examples[examples == here[:, None]] = -1
        shared[here] = (counts[block] > 1) | (~alone[here, None] & (counts[block] > 0))
        examples.sort(axis=1)
        kept = examples >= 0
        columns.append(examples[kept])
        lengths.append(kept.sum(axis=1))
    indptr = np.cumsum(np.concatenate(lengths))
    indices = np.concatenate(columns) if columns else owner[:0]
    matrix = csr_array((np.ones(len(indices), dtype=np.int8), indices, indptr.astype(indices.dtype)), shape=(n, n))
    matrix.has_canonical_format = True
    return matrix, shared


def _unjoined(graph: Graph, same: np.ndarray) -> Graph:
    """Without the edges between nodes of one number."""
    kept = np.concatenate([same[part] != same[graph.indices[at]] for part, at in graph.pieces()])
    counts = np.add.reduceat(np.append(kept, False).astype(np.int64), graph.indptr[:-1])
    counts[np.diff(graph.indptr) == 0] = 0
    return Graph(np.concatenate([[0], np.cumsum(counts)]), graph.indices[kept])


def _members(lists: np.ndarray, positives: np.ndarray, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of (example i, another example j whose positive is one of the chosen documents, bool [n, w], of i's list):
    int64 [pairs] each."""
    order = np.argsort(positives, kind="stable")
    counts = np.bincount(positives, minlength=int(max(positives.max(initial=-1), lists.max(initial=-1))) + 1)
    starts = np.cumsum(counts) - counts
    rows = max(1, _BLOCK // max(1, lists.shape[1]))
    for first in range(0, len(lists), rows):
        reader, column = np.nonzero(chosen[first : first + rows])
        document = lists[first : first + rows][reader, column]
        reader += first
        for turn in range(min(_EXAMPLES_OF_A_DOCUMENT, int(counts.max(initial=0)))):
            more = counts[document] > turn
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
