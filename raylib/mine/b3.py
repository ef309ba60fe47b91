"""B3: batches of examples that are hard negatives of one another (Thirukovalluru et al., 2025, arXiv 2505.11293)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.mine.assemble import assemble
from raylib.mine.comparison import Comparison, DenseComparison
from raylib.mine.duplicates import same_examples
from raylib.mine.graph import Graph, either_graph, joined_graphs, mutual_graph, wanted_window
from raylib.mine.neighbours import SearchFacts, ranked_documents
from raylib.mine.options import SPLIT_ABOVE, PartitionMethod, Remainder, SearchMethod, check_sizes
from raylib.mine.partition import partition
from raylib.mine.plans import NO_EXAMPLE, filled, members_of, shuffled
from raylib.mine.split import Run
from raylib.mine.vectors import Vectors, checked_positives


@dataclass(frozen=True)
class Plan:
    """batches int64 [n_batches, batch_size]: examples, -1 where a last batch is short. clusters int64 [n]: of each
    example, -1 for one that was dropped. graph: the mutual edges that were cut, over all examples. same int64 [n]:
    duplicates have one number. excluded [n, skip_top] and window [n, neighbours]: the first documents of each query and
    those that follow, -1 where there are fewer. searches: how neighbours were found, by group. seconds: by stage."""

    batches: np.ndarray
    clusters: np.ndarray
    graph: Graph
    same: np.ndarray
    excluded: np.ndarray
    window: np.ndarray
    searches: dict[Any, SearchFacts]
    seconds: dict[str, float]


def b3_batches(queries: np.ndarray, documents: np.ndarray, *, batch_size: int, **settings: Any) -> np.ndarray:
    """int64 [n_batches, batch_size]: the batches of `b3_plan`."""
    return b3_plan(queries, documents, batch_size=batch_size, **settings).batches


def b3_plan(
    queries: np.ndarray,
    documents: np.ndarray,
    *,
    batch_size: int,
    positives: np.ndarray | None = None,
    search: SearchMethod = "auto",
    recall: float = 0.99,
    seed: int = 0,
    **settings: Any,
) -> Plan:
    """`plan_batches` over arrays: queries [n, d] and documents [m, d], float vectors of the teacher, of any length:
    they are compared by cosine. positives [n]: the document of each query; by default document i belongs to query i.
    search, recall: how neighbours are found, as `raylib.mine.neighbours.neighbours` takes its method and recall."""
    sides = Vectors.of(queries, "query"), Vectors.of(documents, "document")
    return plan_batches(
        DenseComparison(*sides, search, recall, seed), positives, batch_size=batch_size, seed=seed, **settings
    )


def plan_batches(
    comparison: Comparison,
    positives: np.ndarray | None,
    *,
    batch_size: int,
    cluster_size: int = 32,
    skip_top: int | Mapping[Any, int] = 30,
    neighbours: int = 100,
    seed: int = 0,
    method: PartitionMethod = "metis",
    groups: Sequence[Any] | np.ndarray | None = None,
    contents: Sequence[Any] | np.ndarray | None = None,
    duplicate_similarity: float | None = 0.99,
    remainder: Remainder = "short",
    allow_duplicates: bool = False,
    split_above: int = SPLIT_ABOVE,
    run: Run = map,
) -> Plan:
    """One epoch of batches, each of batch_size / cluster_size clusters by chance.

    For each query all documents of its group are ranked; the first skip_top (a number, or one for each group) are left
    out, the next `neighbours` kept, and examples are joined where each one's document is kept by the other. The graph
    is cut by `method` (see `raylib.mine.partition`). groups [n]: the dataset of each example; a batch holds one of
    them. split_above: a graph of more examples is cut in pieces, which `run` may have cut elsewhere (see
    `raylib.mine.split`).

    Every cluster has exactly cluster_size examples. The rule for what remains, in each group: n mod cluster_size
    examples form one smaller cluster; it and the clusters that fill no batch form one last batch, short, whose other
    places hold -1. So every example comes exactly once in an epoch. remainder="drop" leaves that batch out.

    Duplicates never meet in a batch: examples with one positive, with documents or queries of a similarity of at least
    duplicate_similarity (None: only equal vectors), or with the same of `contents` [n], where it is given. They are
    kept apart by exchanges of single examples. The same arguments give the same batches; those of groups are in an
    order by chance, with the short ones last.

    Memory beyond the comparison's: 4 bytes for each of n × (skip_top + neighbours) ranks, about 20 for each edge of the
    graph, and METIS's own. Raises UserError for vectors that cannot be compared, sizes that do not divide, a group with
    fewer examples than a batch or no more documents than skip_top, and where duplicates are so many that some must
    meet, unless allow_duplicates.
    """
    n = comparison.n_queries
    check_sizes(batch_size, cluster_size)
    if neighbours < 1:
        raise UserError(f"neighbours is {neighbours}; expected 1 or more")
    if contents is not None and len(contents) != n:
        raise UserError(f"there are {len(contents)} contents for {n} examples; expected one for each")
    positives = checked_positives(n, comparison.n_documents, positives)
    members = members_of(groups, n, batch_size)
    skips = {name: _skip_of(skip_top, name) for name in members}
    clock = Clock()
    same = same_examples(comparison, positives, duplicate_similarity, contents)
    clock.add("duplicates")
    settings = _Settings(batch_size, cluster_size, neighbours, method, allow_duplicates, split_above, run)
    found = {}
    for number, (name, rows) in enumerate(members.items()):
        planned = _plan_group(comparison, rows, positives, same, skips[name], settings, seed + number, clock)
        found[name] = rows, planned
    batches = shuffled([filled(rows[g.places], batch_size, remainder) for rows, g in found.values()], seed)
    return _joined(found, batches, same, clock)


def _joined(
    found: Mapping[Any, tuple[np.ndarray, _GroupPlan]], batches: np.ndarray, same: np.ndarray, clock: Clock
) -> Plan:
    """The plan of all groups. found: by group its examples and its plan."""
    n, groups = len(same), list(found.values())
    clusters = np.full(n, NO_EXAMPLE, dtype=np.int64)
    for rows, group in groups:
        clusters[rows] = group.clusters + 1 + clusters.max()
    clusters[np.setdiff1d(np.arange(n), batches)] = NO_EXAMPLE
    return Plan(
        batches,
        clusters,
        joined_graphs([(rows, group.graph) for rows, group in groups], n),
        same,
        _joined_ranks([(rows, group.excluded) for rows, group in groups], n),
        _joined_ranks([(rows, group.window) for rows, group in groups], n),
        {name: group.search for name, (_, group) in found.items()},
        clock.seconds,
    )


class Clock:
    """Wall seconds by stage; what is added again adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def add(self, stage: str) -> None:
        """What passed since the last call belongs to this stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


@dataclass(frozen=True)
class _Settings:
    batch_size: int
    cluster_size: int
    neighbours: int
    method: PartitionMethod
    allow_duplicates: bool
    split_above: int
    run: Run


@dataclass(frozen=True)
class _GroupPlan:
    """Examples are counted within their group, documents among all. places int64 [n]: batch by batch, the last one
    short."""

    places: np.ndarray
    clusters: np.ndarray
    graph: Graph
    excluded: np.ndarray
    window: np.ndarray
    search: SearchFacts


def _plan_group(
    comparison: Comparison,
    rows: np.ndarray,
    positives: np.ndarray,
    same: np.ndarray,
    skip: int,
    settings: _Settings,
    seed: int,
    clock: Clock,
) -> _GroupPlan:
    whole = len(rows) == comparison.n_queries
    held = np.unique(positives[rows])
    search = comparison.nearest(
        skip + settings.neighbours,
        None if whole else rows,
        None if len(held) == comparison.n_documents else held,
    )
    ranked = ranked_documents(search, len(rows), comparison.n_documents)
    clock.add("search")
    excluded, window = ranked[:, :skip], wanted_window(ranked, skip, settings.neighbours)
    positives, same = positives[rows], np.unique(same[rows], return_inverse=True)[1]
    graph = mutual_graph(window, positives, same)
    clock.add("graph")
    by_vectors = settings.method == "balanced-kmeans" or len(graph) > settings.split_above
    clusters = partition(
        graph,
        settings.cluster_size,
        method=settings.method,
        seed=seed,
        avoided=either_graph(excluded, positives) if settings.method == "signed-growth" else None,
        vectors=comparison.single("document").take(positives) if by_vectors else None,
        split_above=settings.split_above,
        run=settings.run,
    )
    clock.add("partition")
    places, clusters = assemble(
        graph,
        clusters,
        same,
        batch_size=settings.batch_size,
        seed=seed,
        allow_duplicates=settings.allow_duplicates,
    )
    clock.add("assemble")
    return _GroupPlan(places, clusters, graph, excluded, window, search.facts)


def _joined_ranks(parts: Sequence[tuple[np.ndarray, np.ndarray]], n: int) -> np.ndarray:
    """[n, widest] of the ranks of groups, each [rows, width] with its rows; -1 where a group has fewer."""
    if len(parts) == 1:
        return parts[0][1]
    found = np.full((n, max(ranks.shape[1] for _, ranks in parts)), -1, dtype=parts[0][1].dtype)
    for rows, ranks in parts:
        found[rows, : ranks.shape[1]] = ranks
    return found


def _skip_of(skip_top: int | Mapping[Any, int], group: Any) -> int:
    if isinstance(skip_top, Mapping):
        if group not in skip_top:
            raise UserError(f"skip_top has no number for group {group!r}; it has {', '.join(map(repr, skip_top))}")
        skip_top = skip_top[group]
    if skip_top < 0:
        raise UserError(f"skip_top is {skip_top}; expected 0 or more")
    return skip_top
