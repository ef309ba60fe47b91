"""Page images in the sizes that a page shows, the last ones kept."""

from __future__ import annotations

import threading

from raylib.inspect.thumbnails import Picture, name_of, picture
from raylib.serve.kept import Kept

WIDTHS = (160, 320, 640, 1280, 2048)
"""Sizes of a page's image, in pixels of its longer side. Few, so that they are worth keeping."""

_MOST_BYTES = 64_000_000
_QUALITY = 80


class Pictures:
    """Thread-safe. Images are told apart by their content: one that was replaced is another."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._kept: Kept[tuple[str, int], Picture] = Kept(most_bytes)
        self._lock = threading.Lock()

    def get(self, image: bytes, width: int) -> Picture | str:
        """width: one of `WIDTHS`. A reason for an image that cannot be read."""
        key = (name_of(image), width)
        with self._lock:
            known = self._kept.get(key)
        if known is not None:
            return known
        found = picture(image, width, _QUALITY)
        if isinstance(found, Picture):
            with self._lock:
                self._kept.put(key, found, len(found.content))
        return found
