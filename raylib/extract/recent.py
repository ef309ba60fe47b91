"""Values that were used last, as many as fit: rows that share an image have it decoded and processed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MOST_BYTES = 128 * 2**20
"""Of each thread that prepares rows: a dozen images of 896 x 896 pixels in float32."""


class Recent:
    """For one thread. The values are shared by those who ask: none may be changed."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._held = most_bytes, 0
        self._values: OrderedDict[Any, tuple[Any, int]] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any], nbytes: Callable[[Any], int]) -> Any:
        """The value under `key`, made where it is not there. What is larger than all that may be held is not kept."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0]
        value = make()
        size = nbytes(value)
        if size <= self._most:
            self._values[key] = (value, size)
            self._held += size
        while self._held > self._most:
            _, (_, freed) = self._values.popitem(last=False)
            self._held -= freed
        return value
