"""Scores of a probe: scikit-learn's for the values, a bootstrap over groups of rows for their intervals."""

from __future__ import annotations

import numpy as np

from raylib.probe.results import GroupScores, Scores

THRESHOLD = 0.5
"""A score above it says 1."""

_BLOCK = 4_000_000
"""Numbers held at once: resamples × rows."""


def auroc(y: np.ndarray, scores: np.ndarray) -> float | None:
    """Of labels 0 and 1 [n]: the chance that a row of 1 scores above a row of 0, a tie being half. None where all rows
    are of one class."""
    if len(np.unique(y)) < 2:
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, scores))


def resampled_aurocs(y: np.ndarray, scores: np.ndarray, groups: list[str], resamples: int, seed: int) -> np.ndarray:
    """float64 [up to resamples]: the AUROC of each resample of whole groups with replacement; those of one class are
    left out.

    A group drawn k times weighs k. With rows in the order of their scores, AUROC is the weight of pairs in which 1
    lies above 0, and half that of ties, over the weight of all pairs (Mann and Whitney): sums along one axis.
    """
    order = np.argsort(scores, kind="stable")
    ordered = np.asarray(scores)[order]
    positive = np.asarray(y)[order].astype(np.float64)
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)[order]
    count = int(numbers.max()) + 1
    ties = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    draw = np.random.default_rng(seed)
    found = []
    block = max(1, _BLOCK // max(len(ordered), count))
    for first in range(0, resamples, block):
        size = min(block, resamples - first)
        drawn = draw.integers(count, size=(size, count)) + np.arange(size)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        weights = times[:, numbers].astype(np.float64)
        ones = np.add.reduceat(weights * positive, ties, axis=1)
        zeros = np.add.reduceat(weights * (1 - positive), ties, axis=1)
        below = np.cumsum(zeros, axis=1) - zeros / 2
        pairs = ones.sum(axis=1) * zeros.sum(axis=1)
        won = (ones * below).sum(axis=1)
        found.append(won[pairs > 0] / pairs[pairs > 0])
    return np.concatenate(found) if found else np.empty(0)


def interval(
    y: np.ndarray, scores: np.ndarray, groups: list[str], resamples: int = 1000, seed: int = 42
) -> tuple[float, float] | None:
    """95 % of AUROC, between percentiles of the bootstrap over groups. None for one class, or one group: drawing it
    again and again says nothing of others."""
    if len(set(groups)) < 2 or len(np.unique(y)) < 2:
        return None
    found = resampled_aurocs(y, scores, groups, resamples, seed)
    if len(found) == 0:
        return None
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def score_rows(y: np.ndarray, scores: np.ndarray, groups: list[str], resamples: int = 1000, seed: int = 42) -> Scores:
    """Of labels 0 and 1 [n], scores between 0 and 1 [n], and the group of each row. Precision, recall and F1 are of
    label 1, and 0 where nothing can be divided."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    said = (np.asarray(scores) > THRESHOLD).astype(np.int8)
    y = np.asarray(y).astype(np.int8)
    precision, recall, f1, _ = precision_recall_fscore_support(y, said, average="binary", zero_division=0)  # pyright: ignore[reportArgumentType]
    return Scores(
        rows=len(y),
        positives=int(y.sum()),
        auroc=auroc(y, scores),
        interval=interval(y, scores, groups, resamples, seed),
        accuracy=float((said == y).mean()),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        confusion=confusion_matrix(y, said, labels=[0, 1]).tolist(),
    )


def score_groups(
    names: list[str],
    y: np.ndarray,
    scores: np.ndarray,
    groups: list[str],
    resamples: int = 1000,
    seed: int = 42,
) -> list[GroupScores]:
    """AUROC of the rows of each name, sorted by name; a row without one goes by "(none)". groups: as of
    `score_rows`."""
    by: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        by.setdefault(name or "(none)", []).append(at)
    found = []
    for name, rows in sorted(by.items()):
        of_y, of_scores, of_groups = y[rows], scores[rows], [groups[at] for at in rows]
        value = auroc(of_y, of_scores)
        between = interval(of_y, of_scores, of_groups, resamples, seed)
        if value is None:
            why = f"{'the only row has' if len(rows) == 1 else f'all {len(rows):,} rows have'} the label {of_y[0]}"
        else:
            why = "" if between else "the rows are of one image or source, which gives no interval"
        found.append(GroupScores(name, len(rows), int(of_y.sum()), value, between, why))
    return found
