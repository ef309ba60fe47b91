"""The settings of `raylib mine negatives` and `raylib mine batches`: flags, YAML keys and keyword arguments."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, get_args

from raylib.errors import UnknownNameError, UserError
from raylib.mine.common_config import SEARCHING, MineConfig, one_of
from raylib.mine.options import SPLIT_ABOVE, UNMINED, PlanMethod, Remainder, Sampling, check_sizes
from raylib.placement import at_least_one, name_list

_MARGINS = ("absolute_margin", "relative_margin", "positive_fraction")


@dataclass
class NegativesConfig(MineConfig):
    """Find hard negatives for training pairs: near the query, and no answer to it.

    A teacher's nearest documents, without the positive, what is the same content or answers the same query, and what
    scores past the thresholds; how many each rule removed is told.
    """

    k: int = 20
    """The best negatives that are looked at, for each query."""

    num_negatives: int | None = None
    """How many of them are kept. By default all K."""

    range_min: int = 0
    """Leave out the first N that are left."""

    range_max: int | None = None
    """Look at the first N documents beside the positives only. By default RANGE-MIN + K, and ten times K where a
    threshold may remove some."""

    max_score: float | None = field(default=None, metadata={"metavar": "S"})
    """Leave out negatives that score above this."""

    min_score: float | None = field(default=None, metadata={"metavar": "S"})
    """Leave out negatives that score below this."""

    absolute_margin: float | None = field(default=None, metadata={"metavar": "M"})
    """Negatives score at least this much less than the positive."""

    relative_margin: float | None = field(default=None, metadata={"metavar": "R"})
    """Negatives score at least this share of the positive's score less than it."""

    positive_fraction: float | None = field(default=None, metadata={"metavar": "X"})
    """Negatives score at most this share of the positive's score (NV-Retriever's TopK-PercPos), e.g. 0.95."""

    sampling: Sampling = field(default="top", metadata={"metavar": "top|random"})
    """Keep the first of the best K, or some by chance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, ("k", "num_negatives", "range_max"))
        if self.num_negatives is not None and self.num_negatives > self.k:
            raise UserError(f"--num-negatives is {self.num_negatives} and --k {self.k}; expected at most as many")
        if self.range_min < 0:
            raise UserError(f"--range-min is {self.range_min}; expected 0 or more")
        wanted = self.k if self.num_negatives is None else self.num_negatives
        if self.range_max is not None and self.range_max - self.range_min < wanted:
            raise UserError(
                f"--range-min {self.range_min} to --range-max {self.range_max} hold fewer than {wanted} documents; "
                "raise --range-max, or ask for fewer with --k"
            )
        self._check_thresholds()
        if self.sampling not in get_args(Sampling):
            raise UnknownNameError("sampling", self.sampling, get_args(Sampling), hint=one_of(get_args(Sampling)))

    def _check_thresholds(self) -> None:
        margins = [name for name in _MARGINS if getattr(self, name) is not None]
        if len(margins) > 1:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in margins)
            raise UserError(f"{flags} each bound a negative by the positive's score; expected one of them")
        for name in (*_MARGINS, "max_score", "min_score"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} is {value}; expected a number")
        if self.relative_margin is not None and self.relative_margin < 0:
            raise UserError(f"--relative-margin is {self.relative_margin}; expected 0 or more, e.g. 0.05")
        if self.positive_fraction is not None and not 0 < self.positive_fraction <= 1:
            raise UserError(f"--positive-fraction is {self.positive_fraction}; expected above 0 and up to 1, e.g. 0.95")
        if self.max_score is not None and self.min_score is not None and self.min_score > self.max_score:
            raise UserError(f"--min-score {self.min_score} is above --max-score {self.max_score}")

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (".jsonl", ".parquet")

    def deciding(self) -> dict[str, Any]:
        return {**self.thresholds(), **{name: getattr(self, name) for name in SEARCHING}}

    def thresholds(self) -> dict[str, Any]:
        """What `raylib.mine.negatives.mine_negatives` takes."""
        names = ("k", "num_negatives", "range_min", "range_max", "max_score", "min_score", "absolute_margin")
        more = ("relative_margin", "positive_fraction", "sampling", "seed")
        return {name: getattr(self, name) for name in (*names, *more)}


@dataclass
class BatchesConfig(MineConfig):
    """Plan training batches whose examples are hard negatives of one another (B3, arXiv 2505.11293).

    Each example comes once; duplicates never meet in a batch; a batch is of one data set. How hard the batches are is
    told, against batches by chance.
    """

    batch_size: int = 1024
    """Examples of a training batch."""

    cluster_size: int = 32
    """Examples that are chosen to be hard for one another; --batch-size is a multiple of it."""

    skip_top: list[str] = field(default_factory=list, metadata={"metavar": "N|NAME=N"})
    """The first ranks of each query to leave out, for all data sets or for one. By default 30; 70 for MMEB's visual
    questions, 0 for its classes."""

    neighbours: int = 100
    """The ranks after those that make two examples neighbours."""

    hard_negatives: int = 0
    """Hard negatives to give each example beside its batch (B3++)."""

    method: PlanMethod = field(default="metis", metadata={"metavar": "NAME"})
    """metis (B3), metis-swaps, growth, growth-swaps, signed-growth, balanced-kmeans; random and sequential, to compare
    with."""

    duplicate_similarity: float | None = field(default=0.99, metadata={"metavar": "X"})
    """Examples whose documents or queries are at least so similar never meet in a batch."""

    suspect_above: float = field(default=0.95, metadata={"metavar": "X"})
    """In what is told of the batches, a negative is suspect at this share of the positive's score."""

    remainder: Remainder = field(default="short", metadata={"metavar": "short|drop"})
    """What fills no batch makes one short batch for each data set, or is left out."""

    allow_duplicates: bool = False
    """Let duplicates meet where there are more of one kind than batches; the trainer masks them."""

    split_above: int = SPLIT_ABOVE
    """Graphs of more examples are cut by coarse clusters first, whose parts are mined side by side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.skip_top  # from Python, one number may be given as such
        self.skip_top = name_list([given] if isinstance(given, int) else given)
        at_least_one(self, ("batch_size", "cluster_size", "neighbours", "split_above"))
        if self.hard_negatives < 0:
            raise UserError(f"--hard-negatives is {self.hard_negatives}; expected 0 or more")
        if self.method not in get_args(PlanMethod):
            raise UnknownNameError("method", self.method, get_args(PlanMethod), hint=one_of(get_args(PlanMethod)))
        if self.method not in UNMINED:
            check_sizes(self.batch_size, self.cluster_size)
        elif self.hard_negatives:
            raise UserError(f"--hard-negatives come from clusters, and --method {self.method} has none; leave it out")
        if self.remainder not in get_args(Remainder):
            raise UnknownNameError("remainder", self.remainder, get_args(Remainder), hint=one_of(get_args(Remainder)))
        if self.duplicate_similarity is not None and not 0 < self.duplicate_similarity <= 1:
            raise UserError(
                f"--duplicate-similarity is {self.duplicate_similarity}; expected a cosine above 0 and up to 1, e.g. "
                "0.99, or None for equal vectors only"
            )
        if not 0 < self.suspect_above <= 1:
            raise UserError(f"--suspect-above is {self.suspect_above}; expected a share above 0 and up to 1, e.g. 0.95")

    @property
    def suffixes(self) -> tuple[str, ...]:
        return (".parquet",)

    @property
    def needs_teacher(self) -> bool:
        return self.method not in UNMINED

    def deciding(self) -> dict[str, Any]:
        return {**self.plan_settings(), "suspect_above": self.suspect_above}

    def plan_settings(self) -> dict[str, Any]:
        """What the file of the plan says it was made with, besides the first ranks that are left out."""
        names = ("method", "batch_size", "cluster_size", "neighbours", "hard_negatives", "duplicate_similarity")
        more = ("remainder", "allow_duplicates", "split_above", "group_by", *SEARCHING, "seed")
        return {name: getattr(self, name) for name in (*names, *more)}
