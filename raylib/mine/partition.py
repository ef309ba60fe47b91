"""Examples cut into clusters of exactly one size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

import numpy as np

from raylib.errors import UnknownNameError
from raylib.mine.graph import Graph
from raylib.mine.growth import grow
from raylib.mine.kmeans import balanced_kmeans
from raylib.mine.options import PartitionMethod
from raylib.mine.plans import cluster_sizes
from raylib.mine.repair import exact_sizes, swap_members
from raylib.mine.split import Run, coarse_pieces, cut_pieces
from raylib.mine.vectors import Rows

METHODS: tuple[PartitionMethod, ...] = get_args(PartitionMethod)


def partition(
    graph: Graph,
    cluster_size: int,
    *,
    method: PartitionMethod = "metis",
    seed: int = 0,
    avoided: Graph | None = None,
    vectors: Rows | None = None,
    split_above: int | None = None,
    run: Run = map,
) -> np.ndarray:
    """int64 [n]: the cluster of each node, of sizes `cluster_sizes(n, cluster_size)` in some order.

    avoided: the pairs of the excluded ranks, for signed-growth, which is growth without them. vectors [n, d],
    normalised: for balanced-kmeans, and to split by. split_above: a graph of more nodes is cut in pieces by
    `raylib.mine.split`, each by the method; `run` says where. The same arguments give the same clusters. Raises
    UserError for an unknown method.
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS, f"Expected one of {', '.join(METHODS)}.")
    if method == "balanced-kmeans":
        if vectors is None:
            raise ValueError("balanced-kmeans needs the vectors")
        return balanced_kmeans(vectors, cluster_size, seed)
    avoided = avoided if method == "signed-growth" else None
    if split_above is None or len(graph) <= split_above:
        return _cut((graph, avoided, cluster_size, method, seed))
    if vectors is None:
        raise ValueError("a graph is split by the vectors of its nodes")

    def cut(pieces: Sequence[np.ndarray]) -> Iterable[np.ndarray]:
        tasks = (
            (graph.take(rows), None if avoided is None else avoided.take(rows), cluster_size, method, seed)
            for rows in pieces
        )
        return run(_cut, tasks)

    return cut_pieces(coarse_pieces(graph, vectors, split_above, seed), cluster_size, cut)


def _cut(task: tuple[Graph, Graph | None, int, PartitionMethod, int]) -> np.ndarray:
    """A graph, or a piece of one, whole. It may run on another machine."""
    graph, avoided, cluster_size, method, seed = task
    sizes = cluster_sizes(len(graph), cluster_size)
    if method.startswith("metis"):
        part = exact_sizes(graph, _metis(graph, len(sizes), seed), sizes)
    else:
        part = grow(graph, sizes, seed, avoided)
    return swap_members(graph, part) if method.endswith("-swaps") else part


def _metis(graph: Graph, n_parts: int, seed: int) -> np.ndarray:
    import pymetis

    if n_parts == 1:
        return np.zeros(len(graph), dtype=np.int64)
    number = pymetis.zero_copy_dtype()
    adjacency = pymetis.CSRAdjacency(graph.indptr.astype(number, copy=False), graph.indices.astype(number, copy=False))
    options = pymetis.Options(seed=seed)
    return np.asarray(pymetis.part_graph(n_parts, adjacency, recursive=True, options=options)[1], dtype=np.int64)
