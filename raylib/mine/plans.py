"""Plans of batches: whole-numbered examples, [n_batches, batch_size], and the two that B3 is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.examples.batch_plan import NO_EXAMPLE
from raylib.mine.options import Remainder


def random_batches(
    n: int,
    *,
    batch_size: int,
    seed: int = 0,
    groups: Sequence[Any] | np.ndarray | None = None,
    remainder: Remainder = "short",
) -> np.ndarray:
    """int64 [n_batches, batch_size]: each example once, by chance, one group in a batch, the remainder as in
    `raylib.mine.b3_plan`. Raises UserError where a group has fewer examples than a batch."""
    rng = np.random.default_rng(seed)
    found = [rng.permutation(rows) for rows in members_of(groups, n, batch_size).values()]
    return shuffled([filled(rows, batch_size, remainder) for rows in found], seed)


def sequential_batches(
    n: int,
    *,
    batch_size: int,
    groups: Sequence[Any] | np.ndarray | None = None,
    remainder: Remainder = "short",
) -> np.ndarray:
    """int64 [n_batches, batch_size]: the examples in their order, group after group in order of first appearance."""
    found = members_of(groups, n, batch_size).values()
    return np.concatenate([filled(rows, batch_size, remainder) for rows in found])


def cluster_sizes(n: int, cluster_size: int) -> np.ndarray:
    """int64 [ceil(n / cluster_size)]: every one cluster_size, except that the last holds what remains."""
    sizes = np.full(-(-n // cluster_size), cluster_size, dtype=np.int64)
    if n % cluster_size:
        sizes[-1] = n % cluster_size
    return sizes


def members_of(groups: Sequence[Any] | np.ndarray | None, n: int, batch_size: int) -> dict[Any, np.ndarray]:
    """The examples of each group, int64, ascending; groups in order of first appearance, one named None without any.

    Raises UserError where there is not one group for each example, or fewer examples in one than a batch takes.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected 1 or more")
    if groups is None:
        found: dict[Any, np.ndarray] = {None: np.arange(n)}
    else:
        if len(groups) != n:
            raise UserError(f"there are {len(groups)} groups for {n} examples; expected one for each")
        names, first, number = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
        found = {names[g].item(): np.flatnonzero(number == g) for g in np.argsort(first)}
    for name, rows in found.items():
        if len(rows) < batch_size:
            where = "there are" if name is None else f"group {name!r} has"
            raise UserError(
                f"{where} {len(rows)} examples, fewer than a batch of {batch_size}; expected at least one batch: lower "
                "batch_size" + ("" if name is None else ", or leave this group out")
            )
    return found


def filled(places: np.ndarray, batch_size: int, remainder: Remainder) -> np.ndarray:
    """int64 [n_batches, batch_size] of examples batch by batch; a short last one filled with -1, or dropped."""
    if remainder == "drop":
        return places[: len(places) // batch_size * batch_size].reshape(-1, batch_size)
    batches = np.full((-(-len(places) // batch_size), batch_size), NO_EXAMPLE, dtype=np.int64)
    batches.ravel()[: len(places)] = places
    return batches


def shuffled(plans: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """The batches of all groups in an order by chance, the short ones last."""
    batches = np.concatenate(plans)
    short = (batches == NO_EXAMPLE).any(axis=1)
    full = batches[~short]
    return np.concatenate([full[np.random.default_rng(seed).permutation(len(full))], batches[short]])
