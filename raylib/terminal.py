"""The terminal that commands print to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """The terminal; a pipe or a log has no width, so that names stay whole there."""
    from rich.console import Console

    found = Console()
    if not found.is_terminal:
        found.width = 200
    return found
