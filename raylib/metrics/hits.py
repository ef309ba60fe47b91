"""Hit@1 where scores may tie: what a random order of the tied candidates would give on average.

Taking the first of the best, as an argmax does, calls every query right where a model gives all candidates one score
and the relevant one comes first, and an argmax over NaN says 0 too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from raylib.errors import UserError


@dataclass(frozen=True)
class Hit:
    """One query. value: the expected hit@1, 0 to 1. rank: the expected rank of the relevant candidate, from 1; infinite
    where it has no score. best: the candidates with the highest score, in the order given."""

    value: float
    rank: float
    best: tuple[str, ...]


def expected_hit(scores: Mapping[str, float], relevant: str, *, query: str, top_k: int | None = None) -> Hit:
    """The hit of one query. scores: candidate → score. top_k: where longer rankings were cut.

    Of t candidates that share the best score with the relevant one, it comes first in one order of t: 1/t. Raises
    UserError, naming the query, where a score is NaN, and where the ranking was cut among equal best scores.
    """
    bad = [candidate for candidate, score in scores.items() if math.isnan(score)]
    if bad:
        raise UserError(f"query {query}: the score of {bad[0]} is NaN ({len(bad)} of {len(scores)} candidates)")
    if not scores:
        return Hit(0.0, math.inf, ())
    top = max(scores.values())
    best = tuple(candidate for candidate, score in scores.items() if score == top)
    if relevant not in scores:
        if top_k is not None and len(best) >= top_k:
            raise UserError(
                f"query {query}: the {len(best)} best candidates share one score; the model tells none apart"
            )
        return Hit(0.0, math.inf, best)
    own = scores[relevant]
    before = sum(score > own for score in scores.values())
    equal = sum(score == own for score in scores.values())
    return Hit(1.0 / equal if before == 0 else 0.0, 1.0 + before + (equal - 1) / 2, best)
