"""Flags of every job that encodes: which models, where they run, and how many contents share a forward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from raylib.errors import UserError
from raylib.evaluate.batching import DEFAULT_CONTENTS, BatchLimits
from raylib.models.options import ModelOptions
from raylib.models.protocol import ModelSpec
from raylib.placement import Placement, at_least_one


@dataclass
class EncodeOptions(Placement, ModelOptions):
    """Models, workers and batches."""

    batch_size: int | Literal["auto"] | None = field(default=None, metadata={"metavar": "N|auto"})
    """Contents per forward, 32 by default; halved where memory is short. auto tries the longest contents and keeps what
    fits in the store."""

    max_batch_tokens: int | None = None
    """Tokens per forward, padding included: short contents then share larger batches than long ones."""

    def check_encoding(self) -> None:
        """Raises UserError for numbers that cannot be, and flags that exclude each other."""
        at_least_one(self, ("max_batch_tokens",))
        if self.batch_size != "auto":
            at_least_one(self, ("batch_size",))
        elif self.max_batch_tokens is not None:
            raise UserError("--batch-size auto finds the bound on tokens by itself; leave out --max-batch-tokens")
        self.check_placement()

    @property
    def limits(self) -> BatchLimits | None:
        """Of one forward; None where they are to be found by trying."""
        return None if self.batch_size == "auto" else BatchLimits.of(self.batch_size, self.max_batch_tokens)

    @property
    def contents(self) -> int:
        """Contents per forward where only their number can be said, to a model that MTEB runs."""
        return self.batch_size if isinstance(self.batch_size, int) else DEFAULT_CONTENTS

    def specs(self) -> list[ModelSpec]:
        """One spec per model, without repeats, all with the same options."""
        return [spec.on_gpus(self.gpus_per_worker) for spec in super().specs()]
