"""Rows of mixed kinds: some text, some an image, some both. And images that lie inside a zip file.

MTEB gives a side of a task one set of columns. A data set with the column `HOLDS` says row by row which of them the
row is made of; the others are empty there ("" and None), and its texts are what a model reads, to the blank.
"""

from __future__ import annotations

import threading
import zipfile
from functools import lru_cache

HOLDS = "holds"
"""The column: "text", "image" or "text image"."""

_LOCK = threading.Lock()


def holds(*, text: bool, image: bool) -> str:
    """The cell of a row."""
    return " ".join(name for name, there in (("text", text), ("image", image)) if there)


def fields_of(cell: str) -> tuple[str, ...]:
    """The columns that a row is made of."""
    return tuple(cell.split())


def in_zip(archive: str, member: str) -> str:
    """The path of a zip's member, in the form that `datasets` and fsspec open."""
    return f"zip://{member}::{archive}"


def read_bytes(path: str) -> bytes:
    """A local file, or a member of a local zip as `in_zip` names it. Raises OSError for what cannot be read."""
    if not path.startswith("zip://"):
        with open(path, "rb") as stream:
            return stream.read()
    member, _, archive = path.removeprefix("zip://").partition("::")
    try:
        with _LOCK:
            return _opened(archive).read(member)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise OSError(f"{member} cannot be read from {archive}: {error}") from error


@lru_cache(maxsize=4)
def _opened(archive: str) -> zipfile.ZipFile:
    """Kept open: the table of contents of a large zip takes seconds to read."""
    return zipfile.ZipFile(archive)
