"""Page images in the sizes that a page shows, the last ones kept."""

from __future__ import annotations

import threading
from collections import OrderedDict

from raylib.inspect.thumbnails import Picture, name_of, picture

WIDTHS = (160, 320, 640, 1280, 2048)
"""Sizes of a page's image, in pixels of its longer side. Few, so that they are worth keeping."""

_MOST_BYTES = 64_000_000
_QUALITY = 80


class Pictures:
    """Thread-safe. Images are told apart by their content: one that was replaced is another."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, int], Picture] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, image: bytes, width: int) -> Picture | str:
        """width: one of `WIDTHS`. A reason for an image that cannot be read."""
        key = (name_of(image), width)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = picture(image, width, _QUALITY)
        if isinstance(found, Picture):
            with self._lock:
                self._put(key, found)
        return found

    def _put(self, key: tuple[str, int], found: Picture) -> None:
        if key in self._kept:
            return
        self._kept[key] = found
        self._bytes += len(found.content)
        while self._bytes > self._most_bytes:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= len(gone.content)
