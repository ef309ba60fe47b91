"""Dividing rows into those a probe learns from and those that judge it.

Questions about one image share its vectors almost wholly, so a probe that met the image in training may remember it:
only a split that keeps each image on one side tells what a probe makes of new ones.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from raylib.errors import UserError
from raylib.probe.results import SplitFacts, SplitKind

FOLDS = 5
VALIDATION_SIZE = 0.1
_FEWEST = 10


@dataclass(frozen=True)
class Split:
    """Rows of each set: int64 positions, no row in two. validation is empty where nothing was held out."""

    kind: SplitKind
    seed: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    test_size: float = 0.2
    validation_size: float | None = None

    def only(self, keep: np.ndarray, y: np.ndarray) -> Split:
        """Without the rows where keep, bool [n], is False. y: the labels, [n].

        A "random" split is made anew of the rows that are left, as the old scripts did, which left rows out before they
        split; of the others, the sets lose these rows.
        """
        if self.kind != "random":
            train, validation, test = (rows[keep[rows]] for rows in (self.train, self.validation, self.test))
            return replace(self, train=train, validation=validation, test=test)
        left = np.flatnonzero(keep)
        new = split_rows("random", y[left], [], None, self.seed, self.test_size, self.validation_size)
        return replace(self, train=left[new.train], validation=left[new.validation], test=left[new.test])

    def facts(self, images: list[str], sources: list[str] | None = None) -> SplitFacts:
        """images, sources: [n], as `split_rows` was given them. groups: how many images or sources were divided; of
        "random", rows."""
        learned_from = {images[at] for at in np.concatenate([self.train, self.validation])}
        rows = np.concatenate([self.train, self.validation, self.test])
        names = {"image": images, "source": sources or [], "random": range(len(images))}[self.kind]
        return SplitFacts(
            kind=self.kind,
            seed=self.seed,
            train_rows=len(self.train),
            validation_rows=len(self.validation),
            test_rows=len(self.test),
            shared_images=sum(images[at] in learned_from for at in self.test),
            groups=len({names[at] for at in rows}),
        )


def split_rows(
    kind: SplitKind,
    y: np.ndarray,
    images: list[str],
    sources: list[str] | None = None,
    seed: int = 42,
    test_size: float = 0.2,
    validation_size: float | Literal["default"] | None = "default",
) -> Split:
    """Divide rows with labels y, [n] of 0 and 1.

    "image": no image in two sets; "source": no source in two sets; either with the classes as even as whole groups
    allow, by scikit-learn's StratifiedGroupKFold. "random": row by row, with scikit-learn's train_test_split, exactly
    as the published probes did: the same rows in the same order for the same seed.

    validation_size: a share of all rows, taken out of the training rows in the same way; None for none. By default 0.1,
    and none with "random".

    Raises UserError for too few rows, images or sources to have both classes in every set, and where sources are asked
    for and not known.
    """
    y = np.asarray(y)
    _check(kind, y, sources)
    if validation_size == "default":
        validation_size = None if kind == "random" else VALIDATION_SIZE
    for name, size in (("test_size", test_size), ("validation_size", validation_size)):
        if size is not None and not 0 < size < 1:
            raise UserError(f"{name} is {size}; expected a share of the rows, above 0 and below 1")
    if test_size + (validation_size or 0) >= 1:
        raise UserError(f"test_size {test_size} and validation_size {validation_size} leave no rows to train on")
    everything = np.arange(len(y))
    groups = {"image": images, "source": sources, "random": None}[kind]
    train, test = _divide(kind, everything, y, groups, test_size, seed)
    validation = np.empty(0, np.int64)
    if validation_size is not None:
        inner = kind
        if kind == "source" and len({(sources or [])[at] for at in train}) < 2:
            inner, groups = "image", images  # one source is left to learn from; some of its images tell when to stop
        train, validation = _divide(inner, train, y, groups, validation_size / (1 - test_size), seed)
    return Split(kind, seed, train, validation, test, test_size, validation_size)


def _check(kind: SplitKind, y: np.ndarray, sources: list[str] | None) -> None:
    counts = np.bincount(y, minlength=2)
    if counts.min() == 0:
        raise UserError(
            f"all {len(y):,} rows have the label {int(counts.argmax())}; a probe needs rows of both. Check the column "
            "of labels, and that the labels are of these hidden states."
        )
    if len(y) < _FEWEST or counts.min() < 2:
        raise UserError(
            f"there are {len(y):,} rows with a label, {counts[1]:,} of them 1; expected at least {_FEWEST}, with 2 of "
            "each label. Give more labels."
        )
    if kind == "source":
        if sources is None:
            raise UserError(
                "to split by source, the table of labels needs a column source or dataset; add it, or split by image"
            )
        if len(set(sources)) < 2:
            raise UserError(
                f"all rows are of the source {sources[0]!r}; to leave sources out takes at least 2. Split by image."
            )


def _divide(
    kind: SplitKind, rows: np.ndarray, y: np.ndarray, groups: list[str] | None, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """rows, int64, as (the most, about `share` of them)."""
    if groups is not None:
        return _by_group(kind, rows, y[rows], [groups[at] for at in rows], share, seed)
    from sklearn.model_selection import train_test_split

    try:
        most, held = train_test_split(rows, test_size=share, random_state=seed, stratify=y[rows])
    except ValueError as error:
        raise UserError(f"{len(rows):,} rows cannot be split: {error}. Give more labels.") from error
    return np.asarray(most), np.asarray(held)


def _by_group(
    kind: SplitKind, rows: np.ndarray, y: np.ndarray, groups: list[str], share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the folds that leave both classes on both sides, the one nearest to `share` of the rows and to the balance of
    all: few groups, or big ones, make uneven folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    numbers = np.unique(groups, return_inverse=True)[1]
    count = int(numbers.max()) + 1
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    folds = min(max(2, round(1 / share)), count, int(np.bincount(y, minlength=2).max()))
    if folds >= 2:
        with warnings.catch_warnings():
            # a class with fewer rows than folds is no harm: folds without it are not chosen
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            maker = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
            pairs = list(maker.split(np.zeros((len(y), 1)), y, numbers))
        for most, held in pairs:
            if len(held) and len(set(y[most])) == 2 and len(set(y[held])) == 2:
                cost = abs(len(held) / len(y) - share) + abs(float(y[held].mean()) - float(y.mean()))
                if best is None or cost < best[0] - 1e-12:
                    best = (cost, rows[most], rows[held])
    if best is None:
        what = "images" if kind == "image" else "sources"
        raise UserError(
            f"{len(rows):,} rows of {count:,} {what} cannot be divided so that rows with label 0 and with label 1 are "
            f"on both sides and no {what[:-1]} is. Give more labels"
            + (", or split by image." if kind == "source" else ", or split at random, knowing that images are shared.")
        )
    return best[1], best[2]
