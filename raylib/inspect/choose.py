"""Which queries are shown: every query's measure, their order, and the rankings of those that were chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylib.errors import UnknownNameError, UserError

_NEVER = 2**31
"""The rank of what is not among the kept documents."""

Order = Literal["worst", "best", "changed"]


class QueryId(NamedTuple):
    """One query: ids are unique within a split of a subset only."""

    split: str
    subset: str
    id: str


@dataclass(frozen=True)
class Hit:
    """One document of a ranking. relevance: its grade, None where nobody judged it."""

    document: str
    rank: int
    score: float
    relevance: int | None


def measure_values(queries: pa.Table, measure: str) -> dict[QueryId, float]:
    """Query → the value of a measure, where it has one. Raises UserError where the table has no such measure."""
    known = [name for name in queries.column_names if name not in ("split", "subset", "query_id", "n_relevant")]
    if measure not in known:
        raise UnknownNameError("measure", measure, known, hint=f"Kept are: {', '.join(known)}.")
    pairs = zip(_ids(queries), queries.column(measure).to_pylist(), strict=True)
    return {query: value for query, value in pairs if value is not None}


def kept(table: pa.Table, split: str | None, subset: str | None) -> pa.Table:
    """The rows of one split and subset, where one is asked for. Raises UserError where there are none."""
    for name, wanted in (("split", split), ("subset", subset)):
        if wanted is None:
            continue
        known = sorted(set(table.column(name).to_pylist()))
        if wanted not in known:
            raise UnknownNameError(name, wanted, known, hint=f"There are: {', '.join(known)}.")
        table = table.filter(pc.field(name) == wanted)
    return table


def first_relevant(rankings: pa.Table) -> dict[QueryId, int]:
    """Query → the rank of its first relevant document; queries without one among the kept documents are left out."""
    relevant = rankings.filter(pc.field("relevance") > 0)
    best = relevant.group_by(["split", "subset", "query_id"]).aggregate([("rank", "min")])
    return dict(zip(_ids(best), best.column("rank_min").to_pylist(), strict=True))


def in_order(
    values: dict[QueryId, float], first: dict[QueryId, int], order: Order, others: dict[QueryId, float] | None = None
) -> list[QueryId]:
    """All queries, those to show first at the start. Among equal values the rank of the first relevant document
    decides, then the order of the table. "changed": by distance to `others`, queries that only one side has left out.
    """
    names = list(values)
    if order == "changed":
        if others is None:
            raise ValueError("changed compares two models")
        return sorted((n for n in names if n in others), key=lambda n: -abs(values[n] - others[n]))
    sign = 1 if order == "worst" else -1
    return sorted(names, key=lambda n: (sign * values[n], -sign * first.get(n, _NEVER)))


def hits_of(rankings: pa.Table, queries: Iterable[QueryId]) -> dict[QueryId, list[Hit]]:
    """The rankings of these queries, best first; [] for one that retrieved nothing."""
    found: dict[QueryId, list[Hit]] = {query: [] for query in queries}
    rows = rankings.filter(pc.field("query_id").isin(sorted({query.id for query in found})))
    columns = [rows.column(name).to_pylist() for name in ("document_id", "rank", "score", "relevance")]
    for query, *hit in zip(_ids(rows), *columns, strict=True):
        if query in found:
            found[query].append(Hit(*hit))
    return {query: sorted(hits, key=lambda hit: hit.rank) for query, hits in found.items()}


def _ids(table: pa.Table) -> list[QueryId]:
    columns = [table.column(name).to_pylist() for name in ("split", "subset", "query_id")]
    return [QueryId(*row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Distribution:
    """How a measure is spread over queries. bins [10]: counts from 0 to 1 in steps of a tenth, 1 in the last one."""

    n: int
    mean: float
    median: float
    n_zero: int
    n_one: int
    bins: list[int]


def distribution(values: Sequence[float]) -> Distribution:
    """Of measures between 0 and 1; raises UserError where there is no query."""
    if not values:
        raise UserError("the details name no query")
    array = np.asarray(values, dtype=np.float64)
    bins = np.bincount(np.clip((array * 10 + 1e-9).astype(int), 0, 9), minlength=10).tolist()
    return Distribution(
        len(array), float(array.mean()), float(np.median(array)), int((array == 0).sum()), int((array == 1).sum()), bins
    )
