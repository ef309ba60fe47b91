"""Memory of the process that the C library holds free, given back."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def trim() -> None:
    """Free pages in the middle of the heap go back to the system.

    The forwards of one batch differ in length, so glibc's heap is torn more with every one of them: memory grows with
    their number although each is as small as the one before. Costs a few milliseconds. Does nothing where the C library
    is another one, or the system not Linux.
    """
    found = _malloc_trim()
    if found is not None:
        found(0)


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
