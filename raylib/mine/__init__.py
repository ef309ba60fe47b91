"""Mining: hard negatives and B3 batches for contrastive training."""

from raylib.mine.b3 import Plan, b3_batches, b3_plan
from raylib.mine.negatives import HardNegatives, hard_negatives
from raylib.mine.plans import random_batches, sequential_batches

__all__ = [
    "HardNegatives",
    "Plan",
    "b3_batches",
    "b3_plan",
    "hard_negatives",
    "random_batches",
    "sequential_batches",
]
