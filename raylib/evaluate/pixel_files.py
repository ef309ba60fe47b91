"""Files that hold images: named when a run begins, read where their pixels are needed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from raylib.evaluate.contents import BadContentError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""How names of image files end, in lower case."""


@dataclass(frozen=True)
class PixelFile:
    """A file that holds images. size, changed_ns: as it was when it was named; data: its bytes, for a machine that does
    not see it."""

    path: str
    size: int = 0
    changed_ns: int = 0
    data: bytes | None = field(default=None, repr=False, compare=False)

    @classmethod
    def at(cls, path: str) -> PixelFile:
        """Raises BadContentError where there is no such file."""
        try:
            stat = os.stat(path)
        except OSError as error:
            raise BadContentError(f"{path} cannot be read: {error.strerror or error}") from error
        return cls(path, stat.st_size, stat.st_mtime_ns)

    def read(self, limit: int | None = None) -> bytes:
        """The file, or no more than its first `limit` bytes. Raises BadContentError where it cannot be read, or is not
        what it was: its vectors would go by a wrong name."""
        if self.data is not None:
            return self.data[:limit]
        self.check()
        try:
            with open(self.path, "rb") as stream:
                return stream.read(-1 if limit is None else limit)
        except OSError as error:
            raise BadContentError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def check(self) -> None:
        """Raises BadContentError where it has changed."""
        if self.data is None and self != PixelFile.at(self.path):
            raise BadContentError(f"{self.path} has changed since the run began; run again")

    def carried(self) -> PixelFile:
        """With its bytes, or without where it can no longer be read: that is then said where it is drawn."""
        try:
            return replace(self, data=self.read())
        except BadContentError:
            return self
