"""What was used last, up to so many bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """What was used longest ago goes first. For one thread at a time."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._held: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """What is held under this key stays."""
        if key not in self._held:
            self._held[key] = value, size
            self._bytes += size
        while self._bytes > self._most:
            self._bytes -= self._held.popitem(last=False)[1][1]

    def drop(self, key: Key) -> None:
        if key in self._held:
            self._bytes -= self._held.pop(key)[1]
