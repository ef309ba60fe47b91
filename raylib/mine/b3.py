"""B3: batches of examples that are hard negatives of one another (Thirukovalluru et al., 2025, arXiv 2505.11293)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from raylib.errors import UserError
from raylib.mine.assemble import assemble
from raylib.mine.duplicates import same_examples
from raylib.mine.graph import Graph, either_graph, joined_graphs, mutual_graph, wanted_window
from raylib.mine.neighbours import nearest
from raylib.mine.partition import Method, partition
from raylib.mine.plans import NO_EXAMPLE, filled, members_of, shuffled
from raylib.mine.vectors import checked_positives, unit_sides


@dataclass(frozen=True)
class Plan:
    """batches int64 [n_batches, batch_size]: examples, -1 where a last batch is short. clusters int64 [n]: of each
    example, -1 for one that was dropped. graph: the mutual edges that were cut, over all examples. same int64 [n]:
    duplicates have one number. excluded int64 [n, at most skip_top]: the first documents of each query, -1 where
    fewer."""

    batches: np.ndarray
    clusters: np.ndarray
    graph: Graph
    same: np.ndarray
    excluded: np.ndarray


def b3_batches(queries: np.ndarray, documents: np.ndarray, *, batch_size: int, **settings: Any) -> np.ndarray:
    """int64 [n_batches, batch_size]: the batches of `b3_plan`, which says what the settings are."""
    return b3_plan(queries, documents, batch_size=batch_size, **settings).batches


def b3_plan(
    queries: np.ndarray,
    documents: np.ndarray,
    *,
    batch_size: int,
    positives: np.ndarray | None = None,
    cluster_size: int = 32,
    skip_top: int | Mapping[Any, int] = 30,
    neighbours: int = 100,
    seed: int = 0,
    method: Method = "metis",
    groups: Sequence[Any] | np.ndarray | None = None,
    contents: Sequence[Any] | np.ndarray | None = None,
    duplicate_similarity: float | None = 0.99,
    remainder: Literal["short", "drop"] = "short",
    allow_duplicates: bool = False,
) -> Plan:
    """One epoch of batches, each of batch_size / cluster_size clusters by chance.

    queries [n, d] and documents [m, d]: float vectors of the teacher; they are normalised here. positives [n]: the
    document of each query; by default document i belongs to query i. For each query all documents of its group are
    ranked; the first skip_top (a number, or one for each group) are left out, the next `neighbours` kept, and examples
    are joined where each one's document is kept by the other. The graph is cut by `method` (see
    `raylib.mine.partition`). groups [n]: the dataset of each example; a batch holds one of them.

    Every cluster has exactly cluster_size examples. The rule for what remains, in each group: n mod cluster_size
    examples form one smaller cluster; it and the clusters that fill no batch form one last batch, short, whose other
    places hold -1. So every example comes exactly once in an epoch. remainder="drop" leaves that batch out.

    Duplicates never meet in a batch: examples with one positive, with documents or queries of a similarity of at least
    duplicate_similarity (None: only equal vectors), or with the same of `contents` [n], where it is given. They are
    kept apart by exchanges of single examples. The same arguments give the same batches; those of groups are in an
    order by chance, with the short ones last.

    Raises UserError for vectors that cannot be compared, sizes that do not divide, a group with fewer examples than a
    batch or no more documents than skip_top, and where duplicates are so many that some must meet, unless
    allow_duplicates.
    """
    check_sizes(batch_size, cluster_size)
    if neighbours < 1:
        raise UserError(f"neighbours is {neighbours}; expected 1 or more")
    if contents is not None and len(contents) != len(queries):
        raise UserError(f"there are {len(contents)} contents for {len(queries)} examples; expected one for each")
    queries, documents = unit_sides(queries, documents)
    positives = checked_positives(len(queries), len(documents), positives)
    same = same_examples(queries, documents, positives, duplicate_similarity, contents)
    settings = _Settings(batch_size, cluster_size, neighbours, method, allow_duplicates)
    found = []
    for number, (name, rows) in enumerate(members_of(groups, len(queries), batch_size).items()):
        skip = _skip_of(skip_top, name)
        held, positive = np.unique(positives[rows], return_inverse=True)
        of_group = _plan_group(queries[rows], documents[held], positive, same[rows], skip, settings, seed + number)
        found.append((rows, held, of_group))
    clusters = np.full(len(queries), -1, dtype=np.int64)
    excluded = np.full((len(queries), max(g.excluded.shape[1] for _, _, g in found)), -1, dtype=np.int64)
    for rows, held, group in found:
        clusters[rows] = group.clusters + 1 + clusters.max()
        excluded[rows, : group.excluded.shape[1]] = np.where(group.excluded < 0, -1, held[group.excluded])
    batches = shuffled([filled(rows[g.places], batch_size, remainder) for rows, _, g in found], seed)
    clusters[np.setdiff1d(np.arange(len(queries)), batches)] = NO_EXAMPLE
    graph = joined_graphs([(rows, g.graph) for rows, _, g in found], len(queries))
    return Plan(batches, clusters, graph, same, excluded)


@dataclass(frozen=True)
class _Settings:
    batch_size: int
    cluster_size: int
    neighbours: int
    method: Method
    allow_duplicates: bool


@dataclass(frozen=True)
class _GroupPlan:
    """Examples and documents counted within their group. places int64 [n]: batch by batch, the last one short."""

    places: np.ndarray
    clusters: np.ndarray
    graph: Graph
    excluded: np.ndarray


def _plan_group(
    queries: np.ndarray,
    documents: np.ndarray,
    positives: np.ndarray,
    same: np.ndarray,
    skip: int,
    settings: _Settings,
    seed: int,
) -> _GroupPlan:
    ranked = nearest(queries, documents, min(len(documents), skip + settings.neighbours))[1]
    graph = mutual_graph(wanted_window(ranked, skip, settings.neighbours), positives, same)
    excluded = ranked[:, :skip]
    clusters = partition(
        graph,
        settings.cluster_size,
        method=settings.method,
        seed=seed,
        avoided=either_graph(excluded, positives) if settings.method == "signed-growth" else None,
        vectors=documents[positives] if settings.method == "balanced-kmeans" else None,
    )
    places, clusters = assemble(
        graph,
        clusters,
        np.unique(same, return_inverse=True)[1],
        batch_size=settings.batch_size,
        seed=seed,
        allow_duplicates=settings.allow_duplicates,
    )
    return _GroupPlan(places, clusters, graph, excluded)


def check_sizes(batch_size: int, cluster_size: int) -> None:
    """Raises UserError where clusters do not fill a batch."""
    if cluster_size < 1 or batch_size < cluster_size or batch_size % cluster_size:
        below = max(1, cluster_size) * max(1, batch_size // max(1, cluster_size))
        raise UserError(
            f"batch_size is {batch_size} and cluster_size {cluster_size}; expected a batch_size that is a multiple of "
            f"cluster_size, e.g. {below} or {below + max(1, cluster_size)}"
        )


def _skip_of(skip_top: int | Mapping[Any, int], group: Any) -> int:
    if isinstance(skip_top, Mapping):
        if group not in skip_top:
            raise UserError(f"skip_top has no number for group {group!r}; it has {', '.join(map(repr, skip_top))}")
        skip_top = skip_top[group]
    if skip_top < 0:
        raise UserError(f"skip_top is {skip_top}; expected 0 or more")
    return skip_top
