"""How many contents share one forward: at most so many, and at most so many tokens, padding included.

Token counts are estimated before anything is encoded: the encoder's own CPU half counts a sample, and lengths in
characters tell the rest. The worker, which knows the true counts, cuts a batch again that came out too large.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raylib.types import EncodeContext, Tensors

MAX_CONTENTS = 1024
"""Contents of a batch where tokens bound it: more gain nothing, and a batch is what a kill costs."""

DEFAULT_CONTENTS = 32


@dataclass(frozen=True)
class BatchLimits:
    """contents: most contents of one forward. tokens: most tokens of one, counted as contents × the longest of them."""

    contents: int = DEFAULT_CONTENTS
    tokens: int | None = None

    @classmethod
    def of(cls, contents: int | None, tokens: int | None) -> BatchLimits:
        """As a user gives them: a bound on tokens alone leaves the number of contents open."""
        return cls(contents or (MAX_CONTENTS if tokens else DEFAULT_CONTENTS), tokens)


@dataclass(frozen=True)
class MicroBatch:
    """Contents that share one forward. keys [n]; rows [n]: (index of the source, row in it); fields: what is read;
    max_tokens: what its forward may hold, padding included, where that is bounded; max_contents: how many it may."""

    context: EncodeContext
    fields: tuple[str, ...]
    keys: list[bytes]
    rows: list[tuple[int, int]]
    max_tokens: int | None = None
    max_contents: int | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class BatchRecord:
    """One batch after its forward, in numbers. contents: that have vectors; bad: that have none; tokens and padded:
    what the forward held, without and with padding, 0 where the encoder does not tell; fill: how much of what it may
    hold, tokens where these are bounded, else contents, None where nothing is; seconds: wall time of the forward."""

    contents: int = 0
    bad: int = 0
    tokens: int = 0
    padded: int = 0
    fill: float | None = None
    seconds: float = 0.0

    def __add__(self, other: BatchRecord) -> BatchRecord:
        """Of a batch that was done in pieces."""
        return BatchRecord(
            self.contents + other.contents,
            self.bad + other.bad,
            self.tokens + other.tokens,
            self.padded + other.padded,
            seconds=self.seconds + other.seconds,
        )


def singles(batch: MicroBatch) -> list[MicroBatch]:
    """A batch of each content."""
    return [replace(batch, keys=[key], rows=[row]) for key, row in zip(batch.keys, batch.rows, strict=True)]


Limits = BatchLimits | Mapping[tuple[str, ...], BatchLimits]
"""For all contents, or by the fields that are read of them."""


def limits_for(limits: Limits, fields: tuple[str, ...]) -> BatchLimits:
    """Those of contents of which these fields are read; the defaults where nothing is said of them."""
    return limits if isinstance(limits, BatchLimits) else limits.get(fields, BatchLimits())


def cut(lengths: np.ndarray, limits: BatchLimits) -> Iterator[slice]:
    """Consecutive pieces of contents that come longest first. lengths [n]: tokens of each, falling; a content that is
    longer than all that is allowed goes alone."""
    first = 0
    while first < len(lengths):
        size = limits.contents
        if limits.tokens is not None:
            size = max(1, min(size, limits.tokens // max(1, int(lengths[first]))))
        yield slice(first, min(first + size, len(lengths)))
        first += size


def within_tokens(tensors: Tensors, counts: np.ndarray | None, tokens: int | None) -> list[Tensors]:
    """`tensors`, in as many pieces along the contents as keep contents × longest within `tokens`."""
    if tokens is None or counts is None or len(counts) * int(counts.max()) <= tokens:
        return [tensors]
    longest_left = np.maximum.accumulate(counts[::-1])[::-1]  # of this content and all after it, in any order
    pieces = cut(longest_left, BatchLimits(len(counts), tokens))
    return [{name: array[piece] for name, array in tensors.items()} for piece in pieces]


def padded_tokens(counts: np.ndarray | None, pieces: Sequence[Tensors]) -> int:
    """Contents × longest of each piece, which `within_tokens` cut; 0 where the tokens are not known."""
    if counts is None or not len(counts):
        return 0
    sizes = [len(next(iter(piece.values()))) for piece in pieces]
    bounds = np.cumsum([0, *sizes])
    return sum(n * int(counts[a : a + n].max()) for n, a in zip(sizes, bounds.tolist(), strict=False))


def tokens_by_length(lengths: np.ndarray, sample: Sequence[int], counted: np.ndarray) -> np.ndarray:
    """[n] int64 estimated tokens of contents of `lengths` characters, from those of a sample.

    Between two lengths of the sample the estimate runs straight; it never falls as lengths grow. Where lengths tell
    nothing (all alike), every content counts as the longest of the sample.
    """
    at = np.asarray(lengths)[np.asarray(sample)]
    if (at == at[0]).all():
        return np.full(len(lengths), int(counted.max()), dtype=np.int64)
    order = np.argsort(at, kind="stable")
    rising = np.maximum.accumulate(counted[order])
    return np.ceil(np.interp(lengths, at[order], rising)).astype(np.int64)


def sample_by_length(lengths: np.ndarray, most: int) -> list[int]:
    """Positions of at most `most` contents, spread evenly over the order of length; the longest is among them."""
    order = np.argsort(lengths, kind="stable")
    picked = np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(np.int64))
    return [int(order[i]) for i in picked]
