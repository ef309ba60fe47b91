"""Images of VQA rows that are not yet read: read where their pixels are needed, on whatever machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from raylib import storage
from raylib.evaluate.contents import BadContentError, count_pixels
from raylib.evaluate.pixel_files import PixelFile
from raylib.tasks.rows import read_member

_HEADER_BYTES = 65_536
"""Nearly every image tells its size in its first 64 KiB."""


class ImagePlace(ABC):
    """One image of a row, not yet read. Small, and understood on any machine that sees the folder or the zip."""

    @abstractmethod
    def load(self, limit: int | None = None) -> bytes:
        """The encoded image, or no more than its first `limit` bytes. Raises BadContentError, as `read` does."""

    def read(self) -> bytes:
        """The encoded image. Raises BadContentError where it cannot be read, or is not what it was when the run
        began."""
        return self.load()

    def pixels(self) -> int:
        """Width × height by the image's header; 0 where it does not tell."""
        try:
            return count_pixels(self.load(_HEADER_BYTES)) or count_pixels(self.load())
        except BadContentError:
            return 0

    def carried(self) -> ImagePlace:
        """With its bytes, for a machine that sees no files of this one. Without them where they can no longer be read:
        that is then said where they are asked for."""
        try:
            return HeldImage(self.load())
        except BadContentError:
            return self


@dataclass(frozen=True)
class HeldImage(ImagePlace):
    """An image by its bytes."""

    data: bytes = field(repr=False)

    def load(self, limit: int | None = None) -> bytes:
        return self.data[:limit]

    def carried(self) -> HeldImage:
        return self


@dataclass(frozen=True)
class FileImage(ImagePlace):
    """An image in a local file."""

    file: PixelFile

    def load(self, limit: int | None = None) -> bytes:
        return self.file.read(limit)


@dataclass(frozen=True)
class RemoteImage(ImagePlace):
    """An image in an object store. size: its bytes, as they were listed."""

    url: str
    size: int

    def load(self, limit: int | None = None) -> bytes:
        try:
            data = storage.read_bytes(self.url, limit)
        except OSError as error:
            raise BadContentError(f"{self.url} cannot be read: {error.strerror or error}") from error
        if len(data) != min(self.size, self.size if limit is None else limit):
            raise BadContentError(f"{self.url} has changed since the run began; run again")
        return data


@dataclass(frozen=True)
class ZipImage(ImagePlace):
    """An image in a zip, by its name there. crc: its CRC-32, as it was listed."""

    archive: str
    member: str
    crc: int

    def load(self, limit: int | None = None) -> bytes:
        try:
            return read_member(self.archive, self.member, limit, self.crc)
        except OSError as error:
            raise BadContentError(str(error)) from error
