"""Image files and pages of PDFs as contents: read and drawn where they are encoded, never all in one place."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raylib.encode.pdf import DRAWING_VERSION, draw_page, page_pixels
from raylib.evaluate.contents import BadContentError, Drawing, Source, count_pixels, decode_image
from raylib.evaluate.pixel_files import PixelFile
from raylib.store.keys import field_digest

if TYPE_CHECKING:
    from PIL import Image


Place = tuple[PixelFile, int | None]
"""A file and the page in it, from 0; None for an image file."""


@dataclass(frozen=True)
class Picture(Drawing):
    """One image file, or one page of a PDF."""

    file: PixelFile
    page: int | None
    dpi: int

    def draw(self) -> Image.Image:
        if self.page is None:
            return decode_image(self.file.read())
        self.file.check()
        return draw_page(self.file, self._pdf, self.page, self.dpi)

    def pixels(self) -> int:
        """As `Source.pixels` counts them: 0 where they cannot be told."""
        try:
            if self.page is None:
                return count_pixels(self.file.read())
            self.file.check()
        except BadContentError:
            return 0
        return page_pixels(self.file, self._pdf, self.page, self.dpi)

    @property
    def _pdf(self) -> str | bytes:
        return self.file.path if self.file.data is None else self.file.data


@dataclass
class FileImages(Source):
    """Contents whose image lies in a file of its own or on a page of a PDF; `texts` beside them where they have some.

    files: each once. places: per row, the index of its file and the page in it.
    """

    files: list[PixelFile] = field(default_factory=list)
    places: list[tuple[int, int | None]] = field(default_factory=list)
    dpi: int = 144

    @classmethod
    def of(cls, name: str, ids: list[str], texts: Any, places: Sequence[Place], dpi: int) -> FileImages:
        at = {file: i for i, file in enumerate(dict.fromkeys(file for file, _ in places))}
        return cls(name, ids, texts, files=list(at), places=[(at[file], page) for file, page in places], dpi=dpi)

    @property
    def fields(self) -> list[str]:
        return [*super().fields, "image"]

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(file.size for file in self.files)

    def rows(self, indices: Sequence[int], fields: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """See `Source.rows`; an image is a `Picture`."""
        rows = super().rows(indices, fields)
        if fields is None or "image" in fields:
            for row, i in zip(rows, indices, strict=True):
                row["image"] = self._picture(i)
        return rows

    def _picture(self, row: int) -> Picture:
        file, page = self.places[row]
        return Picture(self.files[file], page, self.dpi)

    def pixels(self) -> list[int]:
        """See `Source.pixels`. Only headers of files are looked at."""
        if not self._pixels:
            self._pixels = [self._picture(row).pixels() for row in range(len(self))]
        return self._pixels

    def digests(self, fields: Sequence[str]) -> list[dict[str, bytes]]:
        """See `Source.digests`. An image file goes by its bytes, a page by those of its PDF, its number and the
        resolution: nothing is drawn for it."""
        if "image" in fields and "image" not in self._digests:
            pages = {file for file, page in self.places if page is not None}
            names = [_file_digest(file, pdf=i in pages) for i, file in enumerate(self.files)]
            self._digests["image"] = [
                names[file] if page is None else _page_digest(names[file], page, self.dpi) for file, page in self.places
            ]
        return super().digests(fields)

    def piece(self, start: int, stop: int) -> FileImages:
        texts = super().piece(start, stop).texts
        places = [(self.files[file], page) for file, page in self.places[start:stop]]
        piece = FileImages.of(self.name, self.ids[start:stop], texts, places, self.dpi)
        piece.files = [file.carried() for file in piece.files]
        return piece


def _file_digest(file: PixelFile, pdf: bool) -> bytes:
    """Of an image file, what the same bytes in a table have; of a PDF, SHA-256. A file that cannot be read is reported
    where it is drawn."""
    try:
        data = file.read()
    except BadContentError:
        return field_digest({"unreadable": file.path})
    return hashlib.sha256(data).digest() if pdf else field_digest(data)


def _page_digest(document: bytes, page: int, dpi: int) -> bytes:
    return field_digest({"pdf": document.hex(), "page": page, "dpi": dpi, "drawing": DRAWING_VERSION})
