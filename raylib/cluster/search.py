"""Search sharded over the cluster: every task reads its share of the documents from the store where it runs, finds the
best of them, and the best of all are put together here. The bits are those of one unsharded search.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.exceptions
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raylib.cluster.metrics import Meter
from raylib.cluster.session import MAX_ATTEMPTS, Workers, answer_of, first_line
from raylib.cluster.shared_store import require_store, store_marker
from raylib.errors import RaylibError
from raylib.evaluate.pooled import describe_pooled, not_pooled, pool_rows
from raylib.evaluate.search import Found, SearchRequest, check, finish, naming, search_locally
from raylib.logs import subject
from raylib.search.blocks import BadVectorError, blocks
from raylib.search.engine import Ranked, Search, merge
from raylib.search.options import SearchOptions
from raylib.store.embeddings import PartRows, Shelf
from raylib.types import Embeddings, Similarity

_WORTH_A_TASK = 15e9
"""Floating-point operations below which a task of its own costs more than it saves."""

_POOLED_TOKENS = 20_000
"""The same for token pooling: document tokens."""

_PATIENCE_SECONDS = 5.0
"""How long to wait for GPUs before the search goes to CPUs: encode actors may hold them for as long as they live."""


@dataclass(frozen=True)
class RaySearch:
    """A `SearchStage` on the connected cluster; callable in the driver and in actors. `workers` bounds its tasks.

    Tasks hold GPUs where some are free. They hold no CPUs of Ray's count, because encode actors that live as long as
    the job may hold all of them. A task whose process dies is run again, `MAX_ATTEMPTS` times at most. Small searches,
    and those through a FAISS index, which is one for the whole corpus, run where they are asked for.
    """

    workers: Workers

    def __call__(self, request: SearchRequest) -> Found:
        """Raises what `search_locally` raises, StoreError where a worker does not see the store, and RaylibError where
        workers die."""
        check(request)
        if request.options.index is not None:
            return search_locally(request)
        with naming(request):
            if request.options.token_pooling > 1:
                self._pool(request)
            queries = request.shelf.get(request.query_keys)
            shelf = request.document_shelf()
            parts = shelf.locate(request.document_keys)
            tokens = _token_counts(parts, request.similarity)
            work = 2.0 * queries.dim * len(queries.values) * sum(int(t.sum()) for t in tokens)
            if work < 2 * _WORTH_A_TASK:
                return search_locally(request)
            shards = share_out(parts, tokens, self._n_tasks(work / _WORTH_A_TASK))
            start = time.perf_counter()
            ranked = self._search(request, queries, shards)
            busy = len(shards) * (time.perf_counter() - start)
            Meter.of(subject("model"), "search").count(contents=len(request.query_keys), busy_seconds=busy)
            return finish(request, ranked, {}, self)

    def _n_tasks(self, worth: float) -> int:
        return max(1, min(self.workers.resolve().count or 1, int(worth)))

    def _search(self, request: SearchRequest, queries: Embeddings, shards: list[list[PartRows]]) -> Ranked:
        ranks_C = request.content_ranks()
        queries_ref, marker = ray.put(queries), store_marker(request.shelf)
        mine = [np.concatenate([part.positions for part in shard]) for shard in shards]
        calls = []
        for contents, shard in zip(mine, shards, strict=True):
            job = _Job(
                _renumbered(shard), ranks_C[contents], request.similarity, request.k, request.options, self._threads
            )
            calls.append((_search_shard, (queries_ref, job, marker)))
        found = []
        for contents, answer in zip(mine, self._run(calls, mine), strict=True):
            at = np.where(answer.contents_QK < 0, -1, contents[answer.contents_QK])
            found.append(dataclasses.replace(answer, contents_QK=at))
        return merge(found, ranks_C, request.k, request.options)

    def _pool(self, request: SearchRequest) -> None:
        """Token pooling of documents that were not pooled yet, in tasks where there are many."""
        factor = request.options.token_pooling
        missing = not_pooled(request.shelf, request.document_keys, factor)
        if not missing:
            return
        describe_pooled(request.shelf, factor)
        parts = request.shelf.locate(missing)
        tokens = _token_counts(parts, request.similarity)
        n_tasks = self._n_tasks(sum(int(t.sum()) for t in tokens) / _POOLED_TOKENS)
        if n_tasks == 1:
            pool_rows(request.shelf, parts, missing, factor)
            return
        marker, calls = store_marker(request.shelf), []
        for shard in share_out(parts, tokens, n_tasks):
            keys = [missing[i] for part in shard for i in part.positions.tolist()]
            calls.append((_pool_shard, (request.shelf, _renumbered(shard), keys, factor, self._threads, marker)))
        self._run(calls, [])

    @property
    def _threads(self) -> int:
        return self.workers.cpus

    def _run(self, calls: list[tuple[Any, tuple[Any, ...]]], mine: Sequence[np.ndarray]) -> list[Any]:
        """The answers of all tasks, in order; the first failure ends the others. mine: the contents of each, to say
        which one a task means."""
        with placed(self.workers.resolve().gpus, len(calls)) as options:
            pending = {}
            for number, (function, arguments) in enumerate(calls):
                task = ray.remote(function).options(max_retries=MAX_ATTEMPTS - 1, **options)
                pending[task.remote(*arguments)] = number
            answers: list[Any] = [None] * len(calls)
            try:
                while pending:
                    (done,), _ = ray.wait(list(pending), num_returns=1)
                    number = pending.pop(done)
                    answers[number] = ray.get(done)
                    if isinstance(answers[number], Exception):
                        raise _located(answers[number], mine[number] if mine else None)
            except ray.exceptions.RayError as error:
                reason = first_line(error)
                raise RaylibError(
                    f"search: a worker process died {MAX_ATTEMPTS} times over the same documents ({reason}). Too "
                    "little memory? Try fewer --workers, or see Ray's logs."
                ) from error
            finally:
                for rest in pending:
                    ray.cancel(rest, force=True)
        return answers


@contextmanager
def placed(gpus: float | None, n: int) -> Iterator[dict[str, Any]]:
    """Options of n tasks or actors that hold so many GPUs each while the block lasts, or none where too few are free.
    They hold no CPUs of Ray's count."""
    spread = {"num_cpus": 0, "scheduling_strategy": "SPREAD"}
    if not gpus:
        yield spread
        return
    # All or nothing, and given up in time: tasks that queue behind actors which never end would never run.
    group = placement_group([{"GPU": gpus}] * n, strategy="SPREAD")
    try:
        if group.wait(_PATIENCE_SECONDS):
            where = PlacementGroupSchedulingStrategy(placement_group=group)
            yield {"num_cpus": 0, "num_gpus": gpus, "scheduling_strategy": where}
        else:
            yield spread
    finally:
        remove_placement_group(group)


@dataclass(frozen=True)
class _Job:
    """What a task searches. parts: positions count its own contents, from 0; ranks_C: theirs."""

    parts: list[PartRows]
    ranks_C: np.ndarray  # noqa: N815
    similarity: Similarity
    k: int
    options: SearchOptions
    threads: int


def _search_shard(queries: Embeddings, job: _Job, marker: str | None) -> Ranked | Exception:
    """On a worker."""

    def found() -> Ranked:
        _begin(job.threads, marker)
        side = Embeddings(np.array(queries.values), queries.offsets)  # Ray's own memory is read-only
        running = Search(side, job.similarity, job.k, job.ranks_C, job.options)
        for block in blocks(((part.positions, part.read()) for part in job.parts), job.similarity):
            running.add(block)
        return running.found()

    return answer_of(found)


def _pool_shard(
    shelf: Shelf, parts: list[PartRows], keys: Sequence[bytes], factor: int, threads: int, marker: str | None
) -> Exception | None:
    """On a worker."""

    def pool() -> None:
        _begin(threads, marker)
        pool_rows(shelf, parts, keys, factor)

    return answer_of(pool)


def _begin(threads: int, marker: str | None) -> None:
    import torch

    torch.set_num_threads(threads)
    require_store(marker)


def _located(error: Exception, contents: np.ndarray | None) -> Exception:
    if isinstance(error, BadVectorError) and error.side == "document" and contents is not None:
        return BadVectorError(error.side, int(contents[error.position]), error.reason)
    return error


def _token_counts(parts: Sequence[PartRows], similarity: Similarity) -> list[np.ndarray]:
    """Per part [n] int64; a dense content has one."""
    if similarity in ("cosine", "dot"):
        return [np.ones(len(part.rows), dtype=np.int64) for part in parts]
    return [part.token_counts() for part in parts]


def share_out(parts: Sequence[PartRows], tokens: Sequence[np.ndarray], n: int) -> list[list[PartRows]]:
    """At most `n` shards of about as many tokens each, part by part: at most n - 1 parts are in two of them."""
    total = sum(int(t.sum()) for t in tokens)
    shards: list[list[PartRows]] = [[] for _ in range(n)]
    before = 0
    for part, counts in zip(parts, tokens, strict=True):
        middle = before + np.cumsum(counts) - counts / 2
        shard_of = np.minimum((middle * n // max(1, total)).astype(np.int64), n - 1)
        for shard in np.unique(shard_of):
            at = shard_of == shard
            shards[shard].append(PartRows(part.path, part.positions[at], part.rows[at]))
        before += int(counts.sum())
    return [shard for shard in shards if shard]


def _renumbered(shard: Sequence[PartRows]) -> list[PartRows]:
    """The same rows, their positions counted from 0 in the order of the shard."""
    starts = np.cumsum([0, *(len(part.rows) for part in shard)])
    return [
        PartRows(part.path, np.arange(start, start + len(part.rows)), part.rows)
        for part, start in zip(shard, starts[:-1], strict=True)
    ]
