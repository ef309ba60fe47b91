"""Parts of a graph grown one after the other from a seed: as hard as METIS's, in less time."""

from __future__ import annotations

import numpy as np

from raylib.mine.graph import Graph

_AVOIDED = 0.5
"""What one example of the excluded ranks weighs against one wanted neighbour."""


def grow(graph: Graph, sizes: np.ndarray, seed: int, avoided: Graph | None = None) -> np.ndarray:
    """int64 [n]: parts of exactly these sizes (int64 [parts], sum n).

    A part starts at a free node with few free neighbours, so that nodes at the margin are not left over, and takes the
    free node with the most edges into it until it is full; where none has an edge it goes on from another start.
    avoided: pairs that should not meet; each takes half an edge from what a node counts.
    """
    n = len(graph)
    starts = _starts(graph, seed)
    part = np.full(n, -1, dtype=np.int64)
    weight = np.zeros(n, dtype=np.float32)  # edges into the part that grows; -inf: taken
    indptr, indices = graph.indptr.tolist(), graph.indices
    away = (avoided.indptr.tolist(), avoided.indices) if avoided is not None else None
    at = 0
    for number, size in enumerate(sizes.tolist()):
        touched: list[np.ndarray] = []
        node = -1
        for _ in range(size):
            if node < 0:
                while part[starts[at]] >= 0:
                    at += 1
                node = int(starts[at])
            part[node] = number
            weight[node] = -np.inf
            near = indices[indptr[node] : indptr[node + 1]]
            weight[near] += 1
            touched.append(near)
            if away is not None:
                far = away[1][away[0][node] : away[0][node + 1]]
                weight[far] -= _AVOIDED
                touched.append(far)
            node = _heaviest(weight, touched)
        for nodes in touched:
            weight[nodes] = np.where(part[nodes] < 0, np.float32(0), -np.inf)
    return part


def _starts(graph: Graph, seed: int) -> np.ndarray:
    """Nodes in the order in which they may start a part: few edges first, by chance where they are equal."""
    chance = np.random.default_rng(seed).permutation(len(graph))
    return chance[np.argsort(np.diff(graph.indptr)[chance], kind="stable")]


def _heaviest(weight: np.ndarray, touched: list[np.ndarray]) -> int:
    """The free node with the greatest weight above 0, or -1."""
    if len(touched) > 1:
        touched[:] = [np.concatenate(touched)]
    if not len(touched[0]):
        return -1
    values = weight[touched[0]]
    best = int(values.argmax())
    return int(touched[0][best]) if values[best] > 0 else -1
