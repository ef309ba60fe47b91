"""How a probe is trained."""

from __future__ import annotations

from dataclasses import dataclass

from raylib.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """What decides a probe beside its data. `PUBLISHED` is that of the probes of the old scripts."""

    epochs: int = 50
    batch_size: int = 32
    lr: float = 1e-3
    """Of Adam."""
    dropout: float = 0.3
    hidden: tuple[int, ...] = (512, 256, 128)
    standardise: bool = True
    """Each dimension to mean 0 and deviation 1 over the training rows. The logistic baseline always is: its penalty
    weighs dimensions by their size."""
    patience: int | None = 10
    """Stop after so many epochs without a better validation AUROC, and take the best epoch. None: take the last."""
    class_weight: bool = True
    """Weigh the two classes alike, however many rows they have."""
    seed: int = 42
    resamples: int = 1000
    """Of the bootstrap."""
    threads: int = 1
    """Of a probe on a CPU; with another number the last digits differ."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads", "resamples"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.batch_size < 2:
            raise UserError("batch_size is 1; batch normalisation needs batches of at least 2 rows")
        if self.patience is not None and self.patience < 1:
            raise UserError(f"patience is {self.patience}; expected 1 or more epochs, or None to train all epochs")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout}; expected at least 0 and below 1")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"hidden is {self.hidden}; expected the sizes of one or more layers")


PUBLISHED = Recipe(standardise=False, patience=None, class_weight=False)
"""The old scripts': raw vectors, all 50 epochs, the last weights. To be used with the random split."""
