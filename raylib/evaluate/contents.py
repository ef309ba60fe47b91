"""Contents as they lie in a data set: read without decoding, named by what they hold, decoded where they are encoded.

A source is one list of contents of a task (the corpus of a subset, its queries, the inputs of one `encode` call).
Its rows are what MTEB would hand to a model, except that images stay encoded until a worker needs the pixels.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from raylib.store.keys import field_digest
from raylib.tasks.rows import read_bytes

if TYPE_CHECKING:
    import datasets
    from PIL import Image

MAX_IMAGE_PIXELS = 180_000_000
"""An image of more pixels is refused as a decompression bomb: A4 at 1,200 dpi has 139 million."""

_READ_ROWS = 256


class BadContentError(ValueError):
    """One content cannot be used; the message is the reason, without the content's name."""


class Drawing(ABC):
    """An image of a row that becomes pixels where it is encoded: a page of a PDF, a file that is read only there."""

    @abstractmethod
    def draw(self) -> Image.Image:
        """Raises BadContentError where there is nothing to draw."""


class Rows(Protocol):
    """What encoding needs of a source, here or on a worker."""

    name: str
    required: str | None

    def rows(self, indices: Sequence[int], fields: Sequence[str] | None = None) -> list[dict[str, Any]]: ...

    def id_of(self, row: int) -> str: ...


@dataclass
class Source:
    """Rows of a data set as contents.

    name: for a person, e.g. "Vidore2ESGReportsRetrieval/test/french documents". ids: one per row, for messages.
    texts: the columns that MTEB prepares (text, body, query, …); images: one undecoded image column. Either may
    be None, not both. required: a field that may not be empty ("text" for queries). present: per row, which of text
    and image it is made of, for rows that differ in that; None where every row has every field.
    """

    name: str
    ids: list[str]
    texts: datasets.Dataset | None = None
    images: datasets.Dataset | None = None
    required: str | None = None
    present: list[tuple[str, ...]] | None = None
    _digests: dict[str, list[bytes]] = field(default_factory=dict, repr=False)
    _lengths: list[int] = field(default_factory=list, repr=False)
    _pixels: list[int] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_digests": {}, "_lengths": [], "_pixels": []}

    def id_of(self, row: int) -> str:
        return self.ids[row]

    @property
    def nbytes(self) -> int:
        """Of the contents, as they travel to a machine without these files."""
        return sum(part.data.nbytes for part in (self.texts, self.images) if part is not None)

    def piece(self, start: int, stop: int) -> Source:
        """The rows start:stop with their data in memory, so that they can travel to a machine without these files."""
        import datasets

        texts, images = self.texts, self.images
        if texts is not None:
            table: Any = texts.select(range(start, stop)).with_format("arrow")[:]  # a pyarrow.Table
            texts = datasets.Dataset(table, info=texts.info.copy())
        if images is not None:
            cells = images[start:stop]["image"]
            images = datasets.Dataset.from_dict({"image": [encoded_image(cell) for cell in cells]})
        present = self.present[start:stop] if self.present is not None else None
        return Source(self.name, self.ids[start:stop], texts, images, self.required, present)

    def take(self, rows: Sequence[int]) -> Source:
        """Some of the rows. Nothing is read, and what was hashed stays known."""
        texts, images = (None if part is None else part.select(rows) for part in (self.texts, self.images))
        present = None if self.present is None else [self.present[row] for row in rows]
        taken = Source(self.name, [self.ids[row] for row in rows], texts, images, self.required, present)
        taken._digests = {field: [known[row] for row in rows] for field, known in self._digests.items()}
        taken._lengths = [self._lengths[row] for row in rows] if self._lengths else []
        taken._pixels = [self._pixels[row] for row in rows] if self._pixels else []
        return taken

    @property
    def fields(self) -> list[str]:
        """The columns of a row but its id."""
        names = [c for c in (self.texts.column_names if self.texts is not None else []) if c != "id"]
        return names + (["image"] if self.images is not None else [])

    def kinds(self) -> dict[tuple[str, ...], Sequence[int]]:
        """Fields → the rows that are made of them. One entry, of all rows, unless `present` tells them apart."""
        if self.present is None:
            return {tuple(self.fields): range(len(self))}
        found: dict[tuple[str, ...], Any] = {}
        for row, present in enumerate(self.present):
            found.setdefault(tuple(f for f in self.fields if f in present), []).append(row)
        return found

    def rows(self, indices: Sequence[int], fields: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The contents at `indices`, as dicts of the asked fields; an image is its encoded bytes, a Drawing or None."""
        wanted = self.fields if fields is None else [f for f in fields if f in self.fields]
        rows: list[dict[str, Any]] = [{} for _ in indices]
        if self.texts is not None and any(f != "image" for f in wanted):
            batch = self.texts[list(indices)]
            for name in wanted:
                if name != "image":
                    for row, value in zip(rows, batch[name], strict=True):
                        row[name] = value
        if self.images is not None and "image" in wanted:
            for row, value in zip(rows, self.images[list(indices)]["image"], strict=True):
                row["image"] = encoded_image(value)
        return rows

    def digests(self, fields: Sequence[str]) -> list[dict[str, bytes]]:
        """Per row, field → `field_digest`. Each field is read and hashed once, whoever asks."""
        missing = [f for f in fields if f not in self._digests]
        if missing:
            found: dict[str, list[bytes]] = {f: [] for f in missing}
            for start in range(0, len(self), _READ_ROWS):
                for row in self.rows(range(start, min(start + _READ_ROWS, len(self))), missing):
                    for name in missing:
                        found[name].append(field_digest(row[name]))
                    if "text" in missing:
                        self._lengths.append(len(row["text"]) if isinstance(row["text"], str) else 0)
                    if "image" in missing:
                        self._pixels.append(count_pixels(row["image"]))
            self._digests.update(found)
        return [{f: self._digests[f][i] for f in fields} for i in range(len(self))]

    def text_lengths(self) -> list[int]:
        """Per row, the characters of its text; they are counted while "text" is hashed."""
        self.digests(["text"])
        return self._lengths

    def pixels(self) -> list[int]:
        """Per row, the pixels of its image, 0 for one that cannot be read; they are counted while "image" is hashed."""
        self.digests(["image"])
        return self._pixels


def encoded_image(value: Any) -> bytes | None:
    """The encoded bytes of an image cell as `datasets` stores it ({"bytes", "path"}), of a PIL image, or None."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return value["bytes"]
        path = value.get("path")
        if path is None:
            return None
        try:
            return read_bytes(path)
        except OSError:
            return b""  # found unreadable when decoded, and reported there under its id
    buffer = io.BytesIO()
    try:
        value.save(buffer, format="PNG" if value.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF")
    except Exception:  # an image without pixels, or in a mode that no file holds
        return b""
    return buffer.getvalue()


def count_pixels(data: bytes | None) -> int:
    """Width × height that an image's header tells, without decoding it; 0 where it does not."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            return image.width * image.height
    except Exception:  # damaged headers raise anything; decoding will say what is wrong
        return 0


def decode_image(data: bytes | None) -> Image.Image:
    """Bytes → PIL image in its own mode, turned upright by its EXIF tag as `datasets` does.

    Raises BadContentError for a missing, unreadable, empty or far too large image.
    """
    from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

    if data is None:
        raise BadContentError("the image is missing (None)")
    if not data:
        raise BadContentError("the image file is empty or cannot be read")
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_IMAGE_PIXELS:
            raise BadContentError(
                f"decompression bomb: {image.width}×{image.height} pixels; at most {MAX_IMAGE_PIXELS:,}"
            )
        if image.width == 0 or image.height == 0:
            raise BadContentError(f"the image has no pixels ({image.width}×{image.height})")
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation) is not None:
            image = ImageOps.exif_transpose(image)
    except BadContentError:
        raise
    except Image.DecompressionBombError as error:
        raise BadContentError(f"decompression bomb: {error}") from error
    except UnidentifiedImageError as error:  # its own text names an object in memory
        raise BadContentError("unreadable image: the bytes are no known format, or have no pixels") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders of damaged files raise RuntimeError, struct.error and more besides OSError
        what = " ".join(str(error).split()) or type(error).__name__
        raise BadContentError(f"unreadable image: {what}") from error
    return image


def decode_row(row: Mapping[str, Any], required: str | None) -> dict[str, Any]:
    """A raw row as a model reads it: its image decoded. Raises BadContentError for a content that cannot be used."""
    decoded = dict(row)
    if "image" in decoded:
        image = decoded["image"]
        decoded["image"] = image.draw() if isinstance(image, Drawing) else decode_image(image)
    if "text" in decoded and not isinstance(decoded["text"], str):
        raise BadContentError(f"the text is {type(decoded['text']).__name__}, expected str")
    if required is not None and required in decoded and not str(decoded[required] or "").strip():
        raise BadContentError(f"the {required} is empty")
    return decoded
