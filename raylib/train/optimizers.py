"""Optimizers and learning rates by the names that --optimizer and --schedule take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raylib.errors import UserError
from raylib.train.options import OptimizerName, Schedule

if TYPE_CHECKING:
    import torch


def check_optimizer(name: str) -> None:
    """Raises UserError for one that cannot run on this machine; asked where the model is to train."""
    if name != "paged_adamw_8bit":
        return
    import importlib.util

    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "--optimizer paged_adamw_8bit keeps its state in GPU memory pages, and this process sees no CUDA GPU; use "
            "adamw"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("--optimizer paged_adamw_8bit needs bitsandbytes; pip install bitsandbytes, or use adamw")


def make_optimizer(
    name: OptimizerName,
    parameters: Sequence[tuple[str, torch.nn.Parameter]],
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """Biases, norms and other parameters of one dimension are not decayed. Raises UserError as `check_optimizer`."""
    import torch

    check_optimizer(name)
    matrices = [parameter for _, parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for _, parameter in parameters if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr)
    if name == "paged_adamw_8bit":
        import bitsandbytes  # pyright: ignore[reportMissingImports], an extra of machines with GPUs

        return bitsandbytes.optim.PagedAdamW8bit(groups, lr=lr, betas=betas)
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def warmup_steps(warmup: float, total: int) -> int:
    """--warmup as steps: below 1 it is a share of all steps."""
    return math.ceil(warmup * total) if warmup < 1 else int(warmup)


def lr_factor(step: int, total: int, warmup: int, schedule: Schedule) -> float:
    """Of the learning rate at optimizer step `step` (from 0): rises to 1 over `warmup` steps, then falls to 0 at
    `total` in a line or half a cosine, or stays."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    left = max(0.0, (total - step) / max(1, total - warmup))
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
