"""Parts of a graph brought to exact sizes, and made better without a change of size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.mine.graph import Graph

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_MOST_LOSS = 4
"""Edges that one member of an exchange may lose for the other's sake; to look at more finds little."""

_PIECE = 2**17
"""Nodes whose edges are counted at a time."""

_MOST_ROUNDS = 200
"""Rounds of moves; what is still too large after them gives its loosest members to whoever has room."""


def exact_sizes(graph: Graph, part: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """int64 [n]: the parts with exactly these sizes, by the cheapest moves.

    part int64 [n], numbers below len(sizes), in any sizes; sizes int64 [parts], whose sum is n. The smallest size goes
    to the smallest part, and so on. In each round, members of parts that are too large move where they lose the fewest
    edges, always to a part nearer (in the graph of parts) to one that has room: a surplus reaches a far gap through the
    parts between, each of which gives a member that fits there.
    """
    part = part.astype(np.int64).copy()
    counts = np.bincount(part, minlength=len(sizes))
    target = np.empty_like(sizes)
    target[np.argsort(counts, kind="stable")] = np.sort(sizes)
    matrix = graph.matrix()
    touching, fresh = None, False
    for _ in range(_MOST_ROUNDS):
        surplus = np.bincount(part, minlength=len(sizes)) - target
        if not surplus.any():
            break
        if touching is None:
            touching, fresh = _touching(graph, part, len(sizes)), True
        if _round_of_moves(matrix, part, surplus, _distance_to_room(touching, surplus)):
            fresh = False  # which parts touch changes little: it is looked up anew only where moves come to an end
        elif fresh:
            break
        else:
            touching = None
    _rest(graph, part, np.bincount(part, minlength=len(sizes)) - target)
    return part


def edges_to_parts(matrix: csr_array, part: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(node, part, number of edges from that node into that part): int64 [pairs] each, by node, of these nodes and of
    parts with an edge. matrix: that of the graph."""
    from scipy.sparse import csr_array

    n_parts = int(part.max(initial=0)) + 1
    ones, starts = np.ones(len(part), dtype=np.int32), np.arange(len(part) + 1, dtype=np.int32)
    members = csr_array((ones, part.astype(np.int32), starts), shape=(len(part), n_parts))
    edges = matrix[nodes] @ members
    return np.repeat(nodes, np.diff(edges.indptr)), edges.indices.astype(np.int64), edges.data.astype(np.int64)


def edges_inside(graph: Graph, part: np.ndarray) -> np.ndarray:
    """int64 [n]: edges of each node within its own part."""
    found = np.zeros(len(graph), dtype=np.int64)
    for nodes, at in graph.pieces():
        found += np.bincount(nodes[part[nodes] == part[graph.indices[at]]], minlength=len(graph))
    return found


def _round_of_moves(matrix: csr_array, part: np.ndarray, surplus: np.ndarray, distance: np.ndarray) -> bool:
    """Moves as many as it can, part being changed in place; whether any was moved. distance: of each part to room."""
    node, to, edges = edges_to_parts(matrix, part, np.flatnonzero(surplus[part] > 0))
    own = part[node]
    inside = np.zeros(len(part), dtype=np.int64)
    inside[node[to == own]] = edges[to == own]
    nearer = np.flatnonzero(distance[to] < distance[own])
    cost = inside[node[nearer]] - edges[nearer]
    order = nearer[np.lexsort((node[nearer], distance[to[nearer]], cost))]
    # A part that is full takes one in a round: it must give one away in the next.
    room = np.where(surplus < 0, -surplus, 1).tolist()
    left = np.maximum(surplus, 0).tolist()
    moved: dict[int, int] = {}
    for v, source, goal in zip(node[order].tolist(), own[order].tolist(), to[order].tolist(), strict=True):
        if left[source] and room[goal] and v not in moved:
            moved[v] = goal
            left[source] -= 1
            room[goal] -= 1
    if not moved:
        return False
    part[np.fromiter(moved, dtype=np.int64)] = np.fromiter(moved.values(), dtype=np.int64)
    return True


def _touching(graph: Graph, part: np.ndarray, n_parts: int) -> Any:
    """Sparse [parts, parts]: where there are edges between two parts."""
    from scipy.sparse import coo_array, csr_array

    found = csr_array((n_parts, n_parts), dtype=np.float32)
    for nodes, at in graph.pieces():
        ends = part[nodes], part[graph.indices[at]]
        found = found + coo_array((np.ones(len(nodes), dtype=np.float32), ends), shape=(n_parts, n_parts)).tocsr()
    return found


def _distance_to_room(touching: Any, surplus: np.ndarray) -> np.ndarray:
    """int64 [parts]: steps from each part to the nearest that has room, from part to part."""
    far = np.iinfo(np.int64).max
    distance = np.where(surplus < 0, 0, far)
    step = 0
    while True:
        reached = distance == step
        step += 1
        new = (touching @ reached.astype(np.float32) > 0) & (distance == far)
        if not new.any():
            return distance
        distance[new] = step


def _rest(graph: Graph, part: np.ndarray, surplus: np.ndarray) -> None:
    """In place: the members with the fewest edges inside parts that are still too large, to the parts with room."""
    if not surplus.any():
        return
    nodes = np.flatnonzero(surplus[part] > 0)
    nodes = nodes[np.lexsort((nodes, edges_inside(graph, part)[nodes], part[nodes]))]
    first = np.searchsorted(part[nodes], part[nodes])
    leaving = nodes[np.arange(len(nodes)) - first < surplus[part[nodes]]]
    part[leaving] = np.repeat(np.arange(len(surplus)), np.maximum(-surplus, 0))


def swap_members(graph: Graph, part: np.ndarray, rounds: int = 20) -> np.ndarray:
    """int64 [n]: the parts after exchanges of two members that leave more edges inside parts; sizes stay.

    In a round each part exchanges at most once, the most useful exchanges first; rounds end when none is left.
    """
    part, matrix = part.astype(np.int64).copy(), graph.matrix()
    for _ in range(rounds):
        if not _round_of_swaps(graph, matrix, part):
            break
    return part


def _round_of_swaps(graph: Graph, matrix: csr_array, part: np.ndarray) -> bool:
    n_parts = int(part.max(initial=0)) + 1
    inside = edges_inside(graph, part)
    loose = np.flatnonzero(np.diff(graph.indptr) >= 2 * inside)
    found = []
    for first in range(0, len(loose), _PIECE):
        node, to, edges = edges_to_parts(matrix, part, loose[first : first + _PIECE])
        gain = edges - inside[node]
        kept = np.flatnonzero((to != part[node]) & (gain >= -_MOST_LOSS))
        found.append((node[kept], to[kept], gain[kept]))
    if not found:
        return False
    node, to, gain = (np.concatenate(column) for column in zip(*found, strict=True))
    key, back = part[node] * n_parts + to, to * n_parts + part[node]
    order = np.lexsort((node, -gain, key))
    node, gain, key, back = node[order], gain[order], key[order], back[order]
    if not len(key):
        return False
    best = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))  # of each way, who gains most
    key, back, node, gain = key[best], back[best], node[best], gain[best]
    at = np.minimum(np.searchsorted(key, back), len(key) - 1)
    pairs = np.flatnonzero((key[at] == back) & (key < back))
    left, right = node[pairs], node[at[pairs]]
    total = gain[pairs] + gain[at[pairs]] - 2 * _joined(matrix, left, right)
    chosen = pairs[total > 0]
    used = np.zeros(n_parts, dtype=bool)
    changed = False
    for pair in chosen[np.argsort(-total[total > 0], kind="stable")].tolist():
        v, w = int(node[pair]), int(node[at[pair]])
        if not (used[part[v]] or used[part[w]]):
            used[part[v]] = used[part[w]] = changed = True
            part[v], part[w] = part[w], part[v]
    return changed


def _joined(matrix: csr_array, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """int64 [pairs]: 1 where these two nodes are joined."""
    if not len(left):
        return left
    return np.asarray(matrix[left, right]).ravel().astype(np.int64)
