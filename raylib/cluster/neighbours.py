"""The k nearest documents, sharded over the cluster: every actor holds a share of the documents, a block of queries
after the other visits all of them, and the best of all are put together.

Lists of an inverted file have the same centroids on every share, so that a query visits the same lists as in one
process: what is found, and the recall, are those of one file over all documents, and no share visits more lists to make
up for what the others might miss. Which lists they are is told once for a block of queries, by one of the actors.

Every share chooses k documents of its own, which costs the more the fewer of them a query meets there. CPU seconds of
50,000 queries among as many documents, 64 dimensions, k 100, one thread each, without the start: exact 6.5 in one
process, 7.7, 10.1 and 14.5 in all on 2, 4 and 8 shares; "ivf" 1.9, and 4.8, 8.8 and 18.3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import ray
import ray.exceptions

from raylib.cluster.metrics import Meter
from raylib.cluster.search import placed
from raylib.cluster.session import MAX_ATTEMPTS, Workers, answer_of, cause_or, first_line, taken
from raylib.cluster.shares import Shard, shares_of
from raylib.errors import RaylibError
from raylib.logs import subject
from raylib.mine.inverted import list_centroids, lists_to_visit
from raylib.mine.neighbours import (
    Asked,
    Neighbours,
    SearchFacts,
    by_position,
    checked,
    neighbours,
)
from raylib.mine.options import SearchMethod
from raylib.mine.vectors import Found, Rows

_WORTH_AN_ACTOR = 2e11
"""Floating-point operations: what a core does in the seconds that an actor takes to start."""

_IN_FLIGHT = 3
"""Blocks of queries on their way: one is searched, the next waits at the actors, the best of one before are chosen."""

_LIST_CELLS = 2**24
"""Lists to visit that are sent with a block of queries, 4 bytes each."""

_MERGED_ROWS = 4096

T = TypeVar("T")
Block = tuple[int, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class RayNeighbours:
    """`raylib.mine.neighbours.neighbours` on the connected cluster; callable in the driver and in actors.

    Documents that lie in the store are read there by the actors, each its share; others travel once, through Ray's
    object store, which then holds them while they are searched. Small searches run where they are asked for. Exact
    shares hold a GPU each where some are free. Actors hold no CPUs of Ray's count, because encode actors that live as
    long as the job may hold all of them; they end with the last block, or when the search is forgotten.

    Memory: an actor holds its share as it is stored, or for "ivf" in float32 with 16 bytes a document, and one block.
    At most four blocks of queries [b, d] float32 and three of results are on their way at a time: 12 · k · b bytes from
    each of s actors, where b · k · s is at most 2²⁴, and as many bytes as one of these when they are merged.

    The documents found are those of one process, in the same order, but where scores differ by no more than the last
    bits of float32: these depend on what a product is computed beside.
    """

    workers: Workers

    def __call__(
        self,
        queries: Rows,
        documents: Rows,
        k: int,
        *,
        method: SearchMethod = "auto",
        recall: float = 0.99,
        among: np.ndarray | None = None,
        seed: int = 0,
    ) -> Neighbours:
        """Raises what `neighbours` raises, StoreError where a worker does not see the store, and RaylibError where
        workers die `MAX_ATTEMPTS` times; some of it only when the blocks are read."""
        asked = checked(queries, documents, k, method, recall, among)
        worth = int(_operations(asked) / _WORTH_AN_ACTOR)
        if worth < 2:
            return neighbours(queries, documents, k, method=asked.method, recall=recall, among=among, seed=seed)
        # The lists of an inverted file are searched on CPUs.
        workers = (self.workers if asked.method == "exact" else replace(self.workers, gpus=0.0)).resolve()
        n_shares = min(workers.count or 1, worth, len(asked.rows))
        if asked.method == "exact":
            fleet = _Fleet(asked, workers, n_shares)
            return Neighbours(asked.k, SearchFacts("exact"), lambda: _counted(fleet.blocks(0)))
        centroids_LD = list_centroids(asked.searched, seed)
        fleet = _Fleet(asked, workers, n_shares, centroids_LD)
        sample = asked.sample()
        visits, reached = lists_to_visit(sample, centroids_LD, fleet.lists_of_nearest(sample), recall)
        facts = SearchFacts("ivf", reached, len(sample), len(centroids_LD), visits)
        return Neighbours(asked.k, facts, lambda: _counted(fleet.blocks(visits)))


def _counted(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same, told as metrics of the model that the job mines with."""
    meter = Meter.of(subject("model"), "mine")
    for block in blocks:
        meter.count(contents=len(block[1]))
        yield block


def _operations(asked: Asked) -> float:
    """About how many floating-point operations a search takes."""
    n, m, dim = len(asked.queries), len(asked.rows), asked.documents.shape[1]
    if asked.method == "exact":
        return 2.0 * dim * n * m
    # To compare a query with all centroids costs about as much as to visit lists.
    return 2.0 * dim * np.sqrt(m) * (m + 2 * n)


class _Fleet:
    """The actors of one search. Started when they are first asked, and again after they were given up."""

    def __init__(self, asked: Asked, workers: Workers, n: int, centroids_LD: np.ndarray | None = None) -> None:
        self._asked, self._workers, self._centroids_LD = asked, workers, centroids_LD
        self._shares = shares_of(asked, n)
        self._actors: list[Any] = []
        self._given: list[Any] = []  # an actor that is started again needs it again, and Ray does not keep it
        self._held = ExitStack()

    def lists_of_nearest(self, query_QD: np.ndarray) -> np.ndarray:
        """[n, k]: the lists that hold the k nearest documents of each query. Starts the actors, which index their
        shares."""
        try:
            queries = ray.put(query_QD)
            answers = [taken(answer) for answer in self._ask(lambda actor: actor.everything.remote(queries))]
        except BaseException as error:
            self.stop()
            if isinstance(error, ray.exceptions.RayError):
                raise self._told(error) from error
            raise
        positions, lists = (np.concatenate([answer[i].ravel() for answer in answers]) for i in (1, 2))
        nearest = best_of(self._asked.k, *(answer[:2] for answer in answers))[1]
        order = np.argsort(positions)
        return lists[order[np.searchsorted(positions, nearest, sorter=order)]]

    def blocks(self, visits: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """In order of queries. visits: lists that each of them visits; 0 for an exact search."""
        waiting: deque[tuple[int, Any]] = deque()
        merge = ray.remote(_merged).options(num_cpus=0, max_retries=MAX_ATTEMPTS - 1)
        try:
            for first, queries, lists in _one_ahead(self._sent(visits)):
                found = self._ask(lambda actor, queries=queries, lists=lists: actor.search.remote(queries, lists))
                waiting.append((first, merge.remote(self._asked.k, *found)))
                del queries, lists, found
                if len(waiting) == _IN_FLIGHT:
                    first, ready = waiting.popleft()
                    yield first, *taken(ready)
            while waiting:
                first, ready = waiting.popleft()
                yield first, *taken(ready)
        except ray.exceptions.RayError as error:
            raise self._told(error) from error
        finally:
            for _, rest in waiting:
                ray.cancel(rest, force=True)
            self.stop()

    def _sent(self, visits: int) -> Iterator[tuple[int, Any, Any]]:
        """(first query, queries, the lists that they visit), the latter two in the object store."""
        step = self._asked.block_size(len(self._shares))
        if visits:
            step = max(1, min(step, _LIST_CELLS // visits))
        for number, first in enumerate(range(0, len(self._asked.queries), step)):
            queries, lists = ray.put(self._asked.queries[first : first + step]), None
            if visits:
                actor = self._running()[number % len(self._shares)]
                lists = actor.lists.remote(queries, visits)
            yield first, queries, lists

    def _ask(self, call: Callable[[Any], Any]) -> list[Any]:
        return [call(actor) for actor in self._running()]

    def _running(self) -> list[Any]:
        if not self._actors:
            gpus = self._workers.gpus
            options = self._held.enter_context(placed(gpus, len(self._shares)))
            # An actor that dies is started again and builds its share again; what it was asked is asked again.
            actor = ray.remote(Shard).options(max_restarts=MAX_ATTEMPTS - 1, max_task_retries=-1, **options)
            centroids = None if self._centroids_LD is None else ray.put(self._centroids_LD)
            for share in self._shares:
                values = None if share.parts is not None else ray.put(share.values_of(self._asked.documents))
                given = ray.put(share), values, centroids
                self._given.append(given)
                self._actors.append(actor.remote(*given, self._asked.k, self._workers.cpus))
        return self._actors

    def stop(self) -> None:
        """Give the actors up."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._given = [], []
        self._held.close()

    def _told(self, error: ray.exceptions.RayError) -> Exception:
        death = RaylibError(
            f"neighbours: a worker process died {MAX_ATTEMPTS} times over the same documents ({first_line(error)}). "
            f"Too little memory for {len(self._asked.rows)} documents in {len(self._shares)} workers? Add machines and "
            "--workers, each of which then holds fewer, or see Ray's logs."
        )
        return cause_or(error, death)


def _merged(k: int, *found: Found | Exception) -> Found | Exception:
    """In a task."""
    failure = next((answer for answer in found if isinstance(answer, Exception)), None)
    if failure is not None:
        return failure
    return answer_of(best_of, k, *found)  # pyright: ignore[reportArgumentType]


def best_of(k: int, *found: Found) -> Found:
    """The k best of what was found in each share, best first; of equal scores the lower position first."""
    scores = np.empty((len(found[0][0]), k), dtype=np.float32)
    positions = np.empty(scores.shape, dtype=np.int64)
    for first in range(0, len(scores), _MERGED_ROWS):
        part = slice(first, first + _MERGED_ROWS)
        some, at = (np.concatenate([answer[i][part] for answer in found], axis=1) for i in (0, 1))
        kept = np.argpartition(-some, k - 1, axis=1)[:, :k]
        floor = np.take_along_axis(some, kept, axis=1).min(axis=1, keepdims=True)
        # Of those that tie for the last place any were kept.
        tied = np.flatnonzero(((some >= floor) & (floor > -np.inf)).sum(axis=1) > k)
        kept[tied] = np.lexsort((at[tied], -some[tied]), axis=-1)[:, :k]
        some, at = np.take_along_axis(some, kept, axis=1), np.take_along_axis(at, kept, axis=1)
        order = np.argsort(-some, axis=1)
        scores[part], positions[part] = by_position(
            np.take_along_axis(some, order, axis=1), np.take_along_axis(at, order, axis=1)
        )
    return scores, positions


def _one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Each once the next one is there."""
    before: list[T] = []
    for item in items:
        before.append(item)
        if len(before) == 2:
            yield before.pop(0)
    yield from before
