"""What can be chosen in training, by name. Imports nothing heavy: the command line reads it first of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

What = Literal["full", "lora", "heads"]
"""Which weights learn."""

Loss = Literal["infonce", "pairwise", "sigmoid"]
OptimizerName = Literal["adamw", "paged_adamw_8bit", "sgd"]
Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["float32", "bf16", "fp16"]
Strategy = Literal["ddp", "fsdp"]
Tracker = Literal["wandb", "mlflow"]

LOSSES, OPTIMIZERS, SCHEDULES = get_args(Loss), get_args(OptimizerName), get_args(Schedule)
PRECISIONS, STRATEGIES, TRACKERS = get_args(Precision), get_args(Strategy), get_args(Tracker)


@dataclass(frozen=True)
class LoraSettings:
    """As peft's LoraConfig (arXiv 2106.09685). targets: last parts of names of modules; empty for the linear layers of
    attention and MLPs."""

    r: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
