"""What is too large to be cut whole is cut in pieces, side by side, and what they leave over is cut once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from raylib.mine.graph import Graph
from raylib.mine.inverted import nearest_centroid
from raylib.mine.vectors import Rows, as_vectors

_CELLS_PER_PIECE = 64
"""Coarse clusters that make a piece: so many can be put together to pieces of one size."""

Run = Callable[[Callable[..., Any], Iterable[Any]], Iterable[Any]]
"""(function, arguments one at a time) → what it gives for each, in order: `map`, or that on a cluster."""


def coarse_pieces(graph: Graph, vectors: Rows, most: int, seed: int) -> list[np.ndarray]:
    """The nodes of pieces of about one size, `most` at most or little more, int64 each.

    Nodes go to the nearest of coarse centroids of their vectors, and the coarse clusters to pieces between which there
    are few edges: METIS cuts the graph whose nodes are clusters, with their sizes and the edges between them as
    weights.
    """
    import pymetis
    from scipy.sparse import csr_array

    n_pieces = -(-len(graph) // most)
    cell = nearest_centroid(as_vectors(vectors, "document"), _CELLS_PER_PIECE * n_pieces, seed)
    cell = np.unique(cell, return_inverse=True)[1].ravel()
    n_cells = int(cell.max()) + 1
    between: Any = csr_array((n_cells, n_cells), dtype=np.int64)
    for nodes, at in graph.pieces():
        pairs = np.bincount(cell[nodes] * n_cells + cell[graph.indices[at]], minlength=n_cells**2)
        between += csr_array(pairs.reshape(n_cells, n_cells))
    between.setdiag(0)
    between.eliminate_zeros()
    part_graph: Any = pymetis.part_graph  # its types know no weights in lists
    part = part_graph(
        min(n_pieces, n_cells),
        xadj=between.indptr.tolist(),
        adjncy=between.indices.tolist(),
        eweights=between.data.tolist(),
        vweights=np.bincount(cell).tolist(),
        options=pymetis.Options(seed=seed),
        recursive=True,
    )[1]
    return pieces_of(np.asarray(part, dtype=np.int64)[cell])


def pieces_of(label: np.ndarray) -> list[np.ndarray]:
    """The rows of each label, int64 ascending, in order of labels."""
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def cut_pieces(
    pieces: Sequence[np.ndarray],
    cluster_size: int,
    cut: Callable[[Sequence[np.ndarray]], Iterable[np.ndarray]],
) -> np.ndarray:
    """int64 [n]: clusters of exactly cluster_size, but for one that holds what remains.

    pieces: rows, int64, every one of n in one of them. cut: pieces → for each the cluster of its rows, int64 from 0,
    all of cluster_size but for one. Of each piece that one is taken apart, and the rows of all of them are cut as a
    piece of their own.
    """
    part = np.full(sum(len(rows) for rows in pieces), -1, dtype=np.int64)
    n_clusters, over = 0, []
    for rows, clusters in zip(pieces, cut(pieces), strict=True):
        small = np.bincount(clusters)[clusters] < cluster_size
        over.append(rows[small])
        numbers = np.unique(clusters[~small], return_inverse=True)[1].ravel()
        part[rows[~small]] = numbers + n_clusters
        n_clusters += len(rows[~small]) // cluster_size
    rest = np.sort(np.concatenate(over))
    if len(rest):
        (part[rest],) = (clusters + n_clusters for clusters in cut([rest]))
    return part
