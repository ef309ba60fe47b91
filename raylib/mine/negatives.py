"""Hard negatives: for every query the nearest documents that are no answers to it.

What `sentence_transformers.util.mine_hard_negatives` keeps, over vectors: candidates are the best `range_max` contents
and as many more as a query has positives; positives and scores past the thresholds are removed; the first `range_min`
of the rest are left out. The thresholds are those of NV-Retriever (Moreira et al., 2024). Beyond that function,
contents are told apart by digest and not by text, so that images are covered, and removals are counted by reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from raylib.errors import UserError
from raylib.mine.comparison import Comparison, DenseComparison
from raylib.mine.neighbours import SearchFacts
from raylib.mine.options import Sampling, SearchMethod
from raylib.mine.same import Contents, Digests, contents
from raylib.mine.vectors import Vectors, checked_positives


@dataclass(frozen=True)
class HardNegatives:
    """Best first; -1 in `indices` and `ranks`, -inf in `scores` where a query has fewer.

    indices int64 [n, num_negatives]: documents, of equal contents the first. scores float32 [n, num_negatives]. ranks
    int64 [n, num_negatives]: places among all contents by score, from 1, before anything is removed. positive_scores
    float32 [n]: of each query and its own positive.
    removed: reason → how many (query, document) pairs it took out of the candidates, the first reason that holds:
    "positive"; "same_content", other documents of the positive's content, or documents of the query's own;
    "same_query", answers to the same query elsewhere; then the thresholds by name; "range_min", left out at the top.
    short: queries with fewer negatives than were asked for. duplicates: documents that an earlier one stands for.
    """

    indices: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    positive_scores: np.ndarray
    removed: dict[str, int]
    short: int
    duplicates: int
    search: SearchFacts


@dataclass(frozen=True)
class _Thresholds:
    """In the order in which they are applied. Scores above (below for min_score) go; equal ones stay."""

    absolute_margin: float | None
    relative_margin: float | None
    positive_fraction: float | None
    max_score: float | None
    min_score: float | None

    @property
    def given(self) -> bool:
        """Whether candidates above a score go, so that more of them have to be looked at."""
        return any(v is not None for v in (*self._margins, self.max_score))

    @property
    def _margins(self) -> tuple[float | None, float | None, float | None]:
        return self.absolute_margin, self.relative_margin, self.positive_fraction

    def check(self) -> None:
        if self.relative_margin is not None and self.relative_margin < 0:
            raise UserError(f"relative_margin is {self.relative_margin}; expected 0 or more, e.g. 0.05")
        if self.positive_fraction is not None and not 0 < self.positive_fraction <= 1:
            raise UserError(f"positive_fraction is {self.positive_fraction}; expected above 0 and up to 1, e.g. 0.95")
        if self.max_score is not None and self.min_score is not None and self.min_score > self.max_score:
            raise UserError(f"min_score {self.min_score} is above max_score {self.max_score}: no score can be between")

    def past(self, scores: np.ndarray, positive: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """(name, which of scores [n, W] go). positive float32 [n, 1]. A fraction is taken off the size of the score, so
        that the threshold of a negative score is below it as well."""
        found = []
        if self.absolute_margin is not None:
            found.append(("absolute_margin", scores + self.absolute_margin > positive))
        if self.relative_margin is not None:
            found.append(("relative_margin", scores > positive - np.abs(positive) * self.relative_margin))
        if self.positive_fraction is not None:
            least = positive - np.abs(positive) * (1 - self.positive_fraction)
            found.append(("positive_fraction", scores > least))
        if self.max_score is not None:
            found.append(("max_score", scores > self.max_score))
        if self.min_score is not None:
            found.append(("min_score", scores < self.min_score))
        return found


def hard_negatives(
    queries: np.ndarray,
    documents: np.ndarray,
    positives: np.ndarray,
    *,
    method: SearchMethod = "auto",
    recall: float = 0.99,
    seed: int = 0,
    **settings: Any,
) -> HardNegatives:
    """`mine_negatives` over arrays: queries [n, d], documents [m, d], compared by inner product, so of length 1 for
    cosine. method, recall, seed: as `raylib.mine.neighbours.neighbours` takes them."""
    sides = Vectors.of(queries, "query", unit=False), Vectors.of(documents, "document", unit=False)
    return mine_negatives(DenseComparison(*sides, method, recall, seed), positives, seed=seed, **settings)


def mine_negatives(
    comparison: Comparison,
    positives: np.ndarray,
    *,
    k: int = 20,
    num_negatives: int | None = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    positive_fraction: float | None = None,
    sampling: Sampling = "top",
    query_contents: Digests | None = None,
    document_contents: Digests | None = None,
    seed: int = 0,
) -> HardNegatives:
    """`num_negatives` (k where it is None) of the k best negatives that are left to each query: the first with "top",
    any with "random", the same in every run of one seed.

    positives int64 [n]: the document of each query; queries may share one. range_max: candidates beside the positives;
    None for range_min + k, with ten times k where a threshold can remove some, and the largest number of positives of a
    query besides. absolute_margin, relative_margin, positive_fraction: a negative scores at most the positive's score s
    less the margin, s - margin · |s|, s - (1 - fraction) · |s|; where a query has several positives, s is the least of
    theirs. query_contents [n], document_contents [m]: digests, without which every query and every document is a
    content of its own.

    Memory beyond the arguments: that of the search, 28 bytes for each result, about 60 for each query or document.
    Raises UserError for a query without positive, settings that leave no candidate, vectors that cannot be compared.
    """
    limits = _Thresholds(absolute_margin, relative_margin, positive_fraction, max_score, min_score)
    wanted = k if num_negatives is None else num_negatives
    n, m = comparison.n_queries, comparison.n_documents
    positives = checked_positives(n, m, np.asarray(positives))
    same = contents(n, m, positives, query_contents, document_contents)
    limits.check()
    if range_max is None:
        range_max = range_min + (10 * k if limits.given else k) + same.most_positives
    _check_window(k, wanted, range_min, range_max, sampling)
    among = same.first_documents if len(same.first_documents) < m else None
    search = comparison.nearest(range_max + same.most_identical, documents=among)
    own_scores = comparison.pairs(np.arange(n), positives)
    least_scores = same.least(own_scores)
    removed = dict.fromkeys(_reasons(limits, range_min), 0)
    random = np.random.default_rng(seed) if sampling == "random" else None
    indices, ranks = np.full((n, wanted), -1, dtype=np.int64), np.full((n, wanted), -1, dtype=np.int64)
    scores = np.full((n, wanted), -np.inf, dtype=np.float32)
    for first, found_scores, found in search.blocks():
        rows = np.arange(first, first + len(found))
        left = _remove(rows, found, found_scores, same, limits, least_scores, removed)
        left = _window(left, k, range_min, range_max, removed)
        at, column, place = _chosen(left, wanted, random)
        indices[at + first, place] = found[at, column]
        scores[at + first, place] = found_scores[at, column]
        ranks[at + first, place] = column + 1
    short = int((indices[:, -1] < 0).sum())
    duplicates = m - len(same.first_documents)
    return HardNegatives(indices, scores, ranks, own_scores, removed, short, duplicates, search.facts)


def _check_window(k: int, wanted: int, range_min: int, range_max: int, sampling: str) -> None:
    if sampling not in get_args(Sampling):
        raise UserError(f"sampling is {sampling!r}; expected one of {', '.join(get_args(Sampling))}")
    if not 1 <= wanted <= k:
        raise UserError(f"{wanted} negatives were asked for of the best {k}; expected at least 1, and at most k")
    if range_min < 0 or range_max - range_min < wanted:
        raise UserError(
            f"ranks from {range_min} to {range_max} hold {max(0, range_max - range_min)} candidates and {wanted} "
            "negatives were asked for; lower range_min from 0 or more, raise range_max, or ask for fewer"
        )


def _reasons(limits: _Thresholds, range_min: int) -> list[str]:
    given = [name for name, value in vars(limits).items() if value is not None]
    return ["positive", "same_content", "same_query", *given, *(["range_min"] if range_min else [])]


def _remove(
    rows: np.ndarray,
    found: np.ndarray,
    scores: np.ndarray,
    same: Contents,
    limits: _Thresholds,
    least_scores: np.ndarray,
    removed: dict[str, int],
) -> np.ndarray:
    """Which candidates [n, W] are left; those that are not are counted in `removed`."""
    left = found >= 0
    content = np.where(left, same.of_documents[found], -1)
    answers = same.answers(rows, content) & left
    own = answers & (content == same.positive[rows, None])
    itself = left & ~answers & (content == same.of_queries[rows, None])
    removed["positive"] += int(own.sum())
    removed["same_content"] += int((same.sizes[content[own]] - 1).sum() + same.sizes[content[itself]].sum())
    removed["same_query"] += int(same.sizes[content[answers & ~own]].sum())
    left &= ~(answers | itself)
    for name, past in limits.past(scores, least_scores[rows, None]):
        removed[name] += int((past & left).sum())
        left &= ~past
    return left


def _window(left: np.ndarray, k: int, range_min: int, range_max: int, removed: dict[str, int]) -> np.ndarray:
    """Of the candidates that are left [n, W], the k best from place range_min, up to place range_max."""
    places = np.cumsum(left, axis=1)
    if range_min:
        removed["range_min"] += int((left & (places <= range_min)).sum())
    return left & (places > range_min) & (places <= min(range_max, range_min + k))


def _chosen(
    left: np.ndarray, wanted: int, random: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(query [P], column [P], place among the query's negatives [P]) of up to `wanted` candidates that are left."""
    if random is not None:
        drawn = np.where(left, random.random(left.shape), 2.0)
        order = np.argsort(drawn, axis=1, kind="stable")[:, :wanted]
        kept = np.zeros_like(left)
        np.put_along_axis(kept, order, True, axis=1)
        left = left & kept
    places = np.cumsum(left, axis=1)
    at, column = np.nonzero(left & (places <= wanted))
    return at, column, places[at, column] - 1
