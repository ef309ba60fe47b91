"""Mining: hard negatives and B3 batches for contrastive training. Public names are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylib.mine.b3 import Plan, b3_batches, b3_plan
    from raylib.mine.negatives import HardNegatives, hard_negatives
    from raylib.mine.plans import random_batches, sequential_batches

_WHERE = {
    "HardNegatives": "raylib.mine.negatives",
    "Plan": "raylib.mine.b3",
    "b3_batches": "raylib.mine.b3",
    "b3_plan": "raylib.mine.b3",
    "hard_negatives": "raylib.mine.negatives",
    "random_batches": "raylib.mine.plans",
    "sequential_batches": "raylib.mine.plans",
}

__all__ = [
    "HardNegatives",
    "Plan",
    "b3_batches",
    "b3_plan",
    "hard_negatives",
    "random_batches",
    "sequential_batches",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'raylib.mine' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
