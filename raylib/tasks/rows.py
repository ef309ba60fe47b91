"""Rows of mixed kinds: some text, some an image, some both. And images that lie inside a zip file.

MTEB gives a side of a task one set of columns. A data set with the column `HOLDS` says row by row which of them the
row is made of; the others are empty there ("" and None), and its texts are what a model reads, to the blank.
"""

from __future__ import annotations

import lzma
import os
import threading
import zipfile
import zlib
from contextlib import ExitStack
from functools import lru_cache

from raylib import storage

HOLDS = "holds"
"""The column: "text", "image" or "text image"."""

_LOCK = threading.Lock()

_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What reading a member of a damaged, encrypted or strangely packed zip raises besides OSError."""


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
    """A file, or a member of a zip as `in_zip` names it, local or in a bucket. Raises OSError for what cannot be
    read."""
    if not path.startswith("zip://"):
        return storage.read_bytes(path)
    member, _, archive = path.removeprefix("zip://").partition("::")
    return read_member(archive, member)


def read_member(archive: str, member: str, limit: int | None = None, checksum: int | None = None) -> bytes:
    """A member of a zip on a local disk or an object store, or no more than its first `limit` bytes; from any thread.

    Raises OSError where it cannot be read, or where its CRC is not `checksum`.
    """
    try:
        with _LOCK:
            opened = _opened(archive, _mark(archive), os.getpid())
            crc = opened.getinfo(member).CRC
            if checksum not in (None, crc):
                raise ValueError("it has changed since the run began; run again")
            with opened.open(member) as stream:
                return stream.read(-1 if limit is None else limit)
    except (KeyError, *_DAMAGED) as error:
        raise OSError(f"{member} cannot be read from {archive}: {error}") from error


def zip_members(archive: str) -> list[zipfile.ZipInfo]:
    """What a zip holds, folders too, in its order. Raises OSError where it is no zip."""
    try:
        with _LOCK:
            return _opened(archive, _mark(archive), os.getpid()).infolist()
    except _DAMAGED as error:
        raise OSError(f"{archive} cannot be read: {error}") from error


def _mark(archive: str) -> tuple[int, int]:
    """Tells a local file from one that takes its place."""
    if storage.is_remote(archive):
        return 0, 0
    about = os.stat(archive)
    return about.st_size, about.st_mtime_ns


@lru_cache(maxsize=4)
def _opened(archive: str, mark: tuple[int, int], process: int) -> zipfile.ZipFile:
    """Kept open: the table of contents of a large zip takes seconds to read. A forked process opens its own: two that
    share an open file move each other's position in it."""
    del mark, process
    if not storage.is_remote(archive):
        return zipfile.ZipFile(archive)
    with ExitStack() as stack:
        opened = zipfile.ZipFile(stack.enter_context(storage.open_binary(archive)))
        stack.pop_all()  # open as long as the archive is
    return opened
