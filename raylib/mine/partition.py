"""Examples cut into clusters of exactly one size."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from raylib.errors import UnknownNameError
from raylib.mine.graph import Graph
from raylib.mine.growth import grow
from raylib.mine.kmeans import balanced_kmeans
from raylib.mine.repair import exact_sizes, swap_members

Method = Literal["metis", "metis-swaps", "growth", "growth-swaps", "signed-growth", "balanced-kmeans"]
"""metis: Karypis and Kumar's multilevel recursive bisection, then exact sizes by the cheapest moves; what B3 means.
growth: greedy, from seed to seed. -swaps: exchanges of members afterwards. signed-growth: shuns the excluded ranks,
so that about half as many suspected false negatives meet. balanced-kmeans: looks at vectors instead of the graph."""

METHODS: tuple[Method, ...] = get_args(Method)


def cluster_sizes(n: int, cluster_size: int) -> np.ndarray:
    """int64 [ceil(n / cluster_size)]: every one cluster_size, except that the last holds what remains."""
    sizes = np.full(-(-n // cluster_size), cluster_size, dtype=np.int64)
    if n % cluster_size:
        sizes[-1] = n % cluster_size
    return sizes


def partition(
    graph: Graph,
    cluster_size: int,
    *,
    method: Method = "metis",
    seed: int = 0,
    avoided: Graph | None = None,
    vectors: np.ndarray | None = None,
) -> np.ndarray:
    """int64 [n]: the cluster of each node, of sizes `cluster_sizes(n, cluster_size)` in some order.

    avoided: the pairs of the excluded ranks, for signed-growth, which is growth without them. vectors float32 [n, d],
    normalised: for balanced-kmeans. The same arguments give the same clusters. Raises UserError for an unknown method.
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS, f"Expected one of {', '.join(METHODS)}.")
    sizes = cluster_sizes(len(graph), cluster_size)
    if method == "balanced-kmeans":
        if vectors is None:
            raise ValueError("balanced-kmeans needs the vectors")
        return balanced_kmeans(vectors, sizes, seed)
    if method.startswith("metis"):
        part = exact_sizes(graph, _metis(graph, len(sizes), seed), sizes)
    else:
        part = grow(graph, sizes, seed, avoided if method == "signed-growth" else None)
    return swap_members(graph, part) if method.endswith("-swaps") else part


def _metis(graph: Graph, n_parts: int, seed: int) -> np.ndarray:
    import pymetis

    if n_parts == 1:
        return np.zeros(len(graph), dtype=np.int64)
    number = pymetis.zero_copy_dtype()
    adjacency = pymetis.CSRAdjacency(graph.indptr.astype(number, copy=False), graph.indices.astype(number, copy=False))
    options = pymetis.Options(seed=seed)
    return np.asarray(pymetis.part_graph(n_parts, adjacency, recursive=True, options=options)[1], dtype=np.int64)
