"""What can be chosen in mining, by name. Imports nothing heavy: the command line reads it first of all."""

from __future__ import annotations

from typing import Literal

from raylib.errors import UserError

SearchMethod = Literal["auto", "exact", "ivf"]
"""How neighbours of dense vectors are found; see `raylib.mine.neighbours`."""

Sampling = Literal["top", "random"]
"""Which of the best negatives are kept; see `raylib.mine.negatives`."""

PartitionMethod = Literal["metis", "metis-swaps", "growth", "growth-swaps", "signed-growth", "balanced-kmeans"]
"""metis: Karypis and Kumar's multilevel recursive bisection, then exact sizes by the cheapest moves; what B3 means.
growth: greedy, from seed to seed. -swaps: exchanges of members afterwards. signed-growth: shuns the excluded ranks, so
that fewer suspected false negatives meet. balanced-kmeans: looks at vectors instead of the graph."""

PlanMethod = Literal[PartitionMethod, "random", "sequential"]

UNMINED: tuple[PlanMethod, ...] = ("random", "sequential")
"""Plans that need no teacher."""

Remainder = Literal["short", "drop"]
"""What becomes of examples that fill no batch; see `raylib.mine.b3.plan_batches`."""

SPLIT_ABOVE = 2_000_000
"""Examples of the largest graph that is cut whole: METIS takes about 3 kB for each."""


def check_sizes(batch_size: int, cluster_size: int) -> None:
    """Raises UserError where clusters do not fill a batch."""
    if cluster_size < 1 or batch_size < cluster_size or batch_size % cluster_size:
        below = max(1, cluster_size) * max(1, batch_size // max(1, cluster_size))
        raise UserError(
            f"batch_size is {batch_size} and cluster_size {cluster_size}; expected a batch_size that is a multiple of "
            f"cluster_size, e.g. {below} or {below + max(1, cluster_size)}"
        )
