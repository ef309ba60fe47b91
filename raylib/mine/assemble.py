"""Clusters put together into batches in which no two examples are duplicates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from raylib.errors import UserError
from raylib.mine.graph import Graph

_NEAR, _SAMPLE = 4, 64
"""Clusters near a duplicate, and then examples of another batch by chance, that are looked at for an exchange before a
whole batch is."""


class Batches:
    """Places [n] in order of batches; what stands in each place can be exchanged with another."""

    def __init__(
        self, places: np.ndarray, batch_size: int, cluster: np.ndarray, same: np.ndarray, graph: Graph
    ) -> None:
        """places int64 [n]: examples, batch by batch; cluster int64 [n], same int64 [n]: of each example."""
        self.places, self.batch_size, self.graph = places, batch_size, graph
        self.cluster, self.same = cluster.copy(), same
        self.n_batches = -(-len(places) // batch_size)
        self._place = np.empty_like(places)
        self._place[places] = np.arange(len(places))
        self._batch = self._place // batch_size  # of each example
        self._members = np.argsort(self.cluster, kind="stable")  # example after example, cluster by cluster
        self._slot = np.empty_like(self._members)
        self._slot[self._members] = np.arange(len(places))
        self._bounds = np.concatenate([[0], np.cumsum(np.bincount(self.cluster))]).tolist()
        # What only one example has is no one's duplicate and is not counted.
        alike = np.bincount(same)
        self._shared = alike[same] > 1
        self._even = -(-alike // self.n_batches)
        self._n_same = len(alike)
        keys, numbers = np.unique(self._keys(np.flatnonzero(self._shared)), return_counts=True)
        self._held: dict[int, int] = dict(zip(keys.tolist(), numbers.tolist(), strict=True))

    def _keys(self, examples: np.ndarray) -> np.ndarray:
        return self._batch[examples] * self._n_same + self.same[examples]

    def meeting(self) -> np.ndarray:
        """Examples that are in a batch with a duplicate, all but the first of each kind in a batch."""
        examples = np.flatnonzero(self._shared)
        examples = examples[np.argsort(self._place[examples], kind="stable")]
        keys = self._keys(examples)
        return np.delete(examples, np.unique(keys, return_index=True)[1])

    def part_from_duplicates(self, v: int, rng: np.random.Generator) -> bool:
        """Exchange v with an example of another batch that holds fewer duplicates of it, so that the other meets no
        more than before; whether that was possible. In a cluster that v has many edges into if it can, else by chance.
        """
        here = self._count(int(self._batch[v]), v)
        if here <= self._even[self.same[v]]:  # as even as it can be
            return False
        for candidates in self._candidates(v, here, rng):
            fitting = [w for w in candidates.tolist() if self._fits(v, w, here)]
            if fitting:
                self._exchange(v, self._loosest(fitting))
                return True
        return False

    def _candidates(self, v: int, here: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        near = self.graph.indices[self.graph.indptr[v] : self.graph.indptr[v + 1]]
        clusters, edges = np.unique(self.cluster[near], return_counts=True)
        for c in clusters[np.argsort(-edges, kind="stable")][:_NEAR].tolist():
            yield self._members[self._bounds[c] : self._bounds[c + 1]]
        for batch in rng.permutation(self.n_batches).tolist():
            if self._count(batch, v) <= here - 2:
                members = self.places[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield rng.permutation(members)[:_SAMPLE]
                yield members

    def _count(self, batch: int, v: int) -> int:
        """Examples of a batch that are duplicates of v, or v."""
        return self._held.get(batch * self._n_same + int(self.same[v]), 0)

    def _fits(self, v: int, w: int, here: int) -> bool:
        """Whether an exchange lets v meet fewer duplicates and w no more. here: what v's batch holds of v's kind."""
        own, other = int(self._batch[v]), int(self._batch[w])
        if own == other or self.same[v] == self.same[w] or self._count(other, v) > here - 2:
            return False
        return not self._shared[w] or self._count(own, w) < self._count(other, w)

    def _loosest(self, examples: list[int]) -> int:
        """The one with the fewest edges within its cluster."""
        indptr, indices, cluster = self.graph.indptr, self.graph.indices, self.cluster
        inside = [np.count_nonzero(cluster[indices[indptr[w] : indptr[w + 1]]] == cluster[w]) for w in examples]
        return examples[int(np.argmin(inside))]

    def _exchange(self, v: int, w: int) -> None:
        for example, other in ((v, w), (w, v)):
            if self._shared[example]:
                self._held[int(self._batch[example]) * self._n_same + int(self.same[example])] -= 1
                key = int(self._batch[other]) * self._n_same + int(self.same[example])
                self._held[key] = self._held.get(key, 0) + 1
        for table in (self._batch, self._place, self.cluster, self._slot):
            table[[v, w]] = table[[w, v]]
        self.places[self._place[[v, w]]] = v, w
        self._members[self._slot[[v, w]]] = v, w


def assemble(
    graph: Graph,
    cluster: np.ndarray,
    same: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    allow_duplicates: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(places int64 [n]: examples, batch by batch, the last one short where batch_size does not divide n; and the
    cluster int64 [n] of each example after exchanges).

    Batches are clusters in an order by chance; a cluster that is smaller than the others comes last. Examples with one
    number in `same` (int64 [n]) are kept apart by exchanges of single examples between batches, so that sizes stay.
    Raises UserError where that cannot be done, unless allow_duplicates: no batch then
    holds more of a kind than there would be if it were dealt out evenly, rounded up.
    """
    rng = np.random.default_rng(seed)
    n_batches = -(-len(cluster) // batch_size)
    most = int(np.bincount(same).max(initial=0))
    if most > n_batches and not allow_duplicates:
        raise UserError(
            f"{most} examples are duplicates of one another (one positive, one query, or nearly so) and there are "
            f"{n_batches} batches, so that some must meet as negatives; expected smaller batches or fewer duplicates, "
            "or pass allow_duplicates to let them meet as seldom as can be (the trainer then has to mask them)"
        )
    sizes = np.bincount(cluster)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    batches = Batches(np.argsort(rank[cluster], kind="stable"), batch_size, cluster, same, graph)
    left = _keep_apart(batches, rng)
    if left and not allow_duplicates:
        raise UserError(
            f"{left} examples cannot be kept out of the batches of their duplicates; expected smaller batches or fewer "
            "duplicates, or pass allow_duplicates to let them meet (the trainer then has to mask them)"
        )
    return batches.places, batches.cluster


def _keep_apart(batches: Batches, rng: np.random.Generator) -> int:
    """How many still meet a duplicate. An exchange lessens the sum of squares of what batches hold of each kind, so
    that passes end; in batches of one size there always is one while a kind is uneven."""
    while True:
        meeting = batches.meeting().tolist()
        if not sum(batches.part_from_duplicates(v, rng) for v in meeting):
            return len(meeting)
