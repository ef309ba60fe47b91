"""Whether a batch gives a row what it gets alone: asked once of a model whose class no test of raylib has proven."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raylib.errors import ModelError
from raylib.extract.collate import PreparedRow
from raylib.store.representations import Kind, Representation

_MEANS: frozenset[Kind] = frozenset({"vision_only", "multimodal", "image_mean", "text_mean"})

Values = Mapping[Representation, np.ndarray]


@dataclass
class FirstBatch:
    """The check of one loaded model. proven: it need not be made, or has been. dtype: "float32", …"""

    model: str
    dtype: str
    proven: bool = False

    def check(
        self, together: Values, rows: Sequence[PreparedRow], forward: Callable[[list[PreparedRow]], Values]
    ) -> None:
        """Raises ModelError where the last of several rows has other states alone than `together` with the others."""
        if self.proven or len(rows) < 2:
            return
        last = len(rows) - 1
        differs = first_difference(together, forward([rows[last]]), last, self.dtype)
        if differs is not None:
            raise ModelError(
                f"{self.model}: row {last + 1} of a batch has another {differs.path} than alone; its inputs cannot be "
                "put together as those of other models. Use --batch-size 1"
            )
        self.proven = True


def first_difference(together: Values, alone: Values, row: int, dtype: str) -> Representation | None:
    """The first representation of that row [rows, width] that is not what it is alone [1, width]; None if all are.

    In float32 a row differs by rounding. In 16 bits a token may go to other experts, so that only means are compared,
    and only for what no rounding does.
    """
    exact = dtype == "float32"
    for name, states in together.items():
        wanted = alone[name][0]
        far = np.linalg.norm(states[row] - wanted) > (1e-2 if exact else 0.3) * np.linalg.norm(wanted)
        if far and (exact or name.kind in _MEANS):
            return name
    return None
