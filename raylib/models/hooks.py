"""What a part of a model is given while the whole runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextmanager
def inputs_of(module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """The first argument of every call of `module` inside the block, in order."""
    seen: list[torch.Tensor] = []

    def see(_: Any, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0])

    handle = module.register_forward_pre_hook(see)
    try:
        yield seen
    finally:
        handle.remove()
