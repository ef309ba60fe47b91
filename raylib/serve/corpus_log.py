"""What clients added to a corpus and took out of it, on disk.

    <folder>/corpus.json                      which corpus this belongs to, and whose vectors these are
    <folder>/part-<first>-<last>.parquet      the changes numbered first … last, one row a document
    <folder>/.lock                            held by the process that has the corpus open

A change is one part, which appears whole or not at all and is never changed; later numbers count. Parts that have
become many are written together under the range of their numbers: a part whose range lies within another's is out of
date, so that a process which is killed between the writing of the one and the removal of the others leaves nothing in
doubt.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from raylib import storage
from raylib.errors import StoreError, UserError
from raylib.serve.corpus_parts import (
    about_of,
    count_rows,
    join_tables,
    read_columns,
    read_rows,
    to_table,
    write_table,
)
from raylib.serve.protocol import Content, Document, Metadata
from raylib.store.vector_columns import embeddings_of
from raylib.types import Embeddings

_PART = re.compile(r"part-(\d{12})-(\d{12})\.parquet")


@dataclass(frozen=True)
class Part:
    """One file of changes. first, last: their numbers; rows, bytes: of the file."""

    path: str
    first: int
    last: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Changes:
    """What a part says, without contents. ids, deleted, metadata: one per row; vectors: of the rows that are not
    deleted, in order, None where there is none."""

    part: Part
    ids: list[str]
    deleted: np.ndarray
    metadata: Sequence[Metadata]
    vectors: Embeddings | None


class ChangeLog:
    """The changes of one corpus; one process has it open. Raises UserError where another one has, StoreError where the
    folder belongs to another corpus or encoder, or cannot be read."""

    def __init__(self, folder: str, about: Mapping[str, str], wait_seconds: float = 0.0) -> None:
        """about: what tells this corpus from others, "fingerprint" among it."""
        self.folder, self.about = folder, dict(about)
        storage.make_folder(folder)
        self._lock = _locked(folder, wait_seconds)
        try:
            self._describe()
            self.parts = self._found()
        except BaseException:
            self._lock.release()
            raise
        self._next = max((part.last for part in self.parts), default=0) + 1

    def close(self) -> None:
        self._lock.release()

    def replay(self) -> Iterator[Changes]:
        """Every part, oldest first."""
        return map(self.changes, list(self.parts))

    def changes(self, part: Part) -> Changes:
        table = read_columns(part.path, ["id", "deleted", "metadata", "tokens", "vector"])
        deleted = np.asarray(table.column("deleted"), dtype=bool)
        metadata = [json.loads(text) if text else {} for text in table.column("metadata").to_pylist()]
        kept = table.filter(pa.array(~deleted))
        vectors = embeddings_of(kept) if len(kept) else None
        return Changes(part, table.column("id").to_pylist(), deleted, metadata, vectors)

    def append(self, documents: Sequence[Document], vectors: Embeddings | None, deleted: Sequence[str] = ()) -> Part:
        """Write one change; it is on disk when this returns. Rows: the documents in order, then what is deleted. Raises
        UserError on a full disk, StoreError where another process wrote."""
        number = self._next
        path = self._path(number, number)
        if storage.exists(path):
            raise StoreError(f"{path} was written by another process: only one may have a corpus open; start again")
        self._write(path, to_table(documents, vectors, deleted, self.about["fingerprint"]))
        self._next = number + 1
        part = Part(path, number, number, len(documents) + len(deleted), _size(path))
        self.parts.append(part)
        return part

    def contents(self, part: Part, rows: Sequence[int]) -> list[Content]:
        """Text and image of some rows, in their order."""
        table = read_rows(part.path, rows, ["text", "image"])
        pairs = zip(table.column("text").to_pylist(), table.column("image").to_pylist(), strict=True)
        return [Content(text, image) for text, image in pairs]

    def vectors(self, part: Part, rows: Sequence[int]) -> Embeddings:
        """Vectors of some rows, none of them deleted, in their order."""
        return embeddings_of(read_rows(part.path, rows, ["tokens", "vector"]))

    def rewritten(self, parts: Sequence[Part], keep: Sequence[np.ndarray]) -> Part:
        """Write the kept rows of parts that follow each other as one part, which takes the place of all. keep: per part
        [rows] bool. The parts are still there: `replace` removes them."""
        path = self._path(parts[0].first, parts[-1].last)
        joined = join_tables([part.path for part in parts], keep)
        self._write(path, joined)
        return Part(path, parts[0].first, parts[-1].last, len(joined), _size(path))

    def replace(self, parts: Sequence[Part], part: Part) -> None:
        """`part` stands for `parts` from now on."""
        at = self.parts.index(parts[0])
        self.parts[at : at + len(parts)] = [part]

    def remove(self, parts: Sequence[Part], besides: Part) -> None:
        """Delete files that `besides` has made out of date."""
        for part in parts:
            if part.path != besides.path:
                storage.remove(part.path)

    def kinds(self, part: Part) -> tuple[str, str]:
        """(dim, dtype) of a part's vectors: parts that differ in it cannot be one; "0" is like any other."""
        about = about_of(read_rows(part.path, [], ["tokens"]))
        return about["dim"], about["dtype"]

    def _path(self, first: int, last: int) -> str:
        return storage.join(self.folder, f"part-{first:012d}-{last:012d}.parquet")

    def _write(self, path: str, table: pa.Table) -> None:
        write_table(path, table)
        _sync_folder(self.folder)

    def _describe(self) -> None:
        path = storage.join(self.folder, "corpus.json")
        if not storage.exists(path):
            storage.write_text(path, json.dumps(self.about, indent=1) + "\n")
            return
        try:
            found = dict(json.loads(storage.read_text(path)))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} cannot be read ({error}). Delete the file: it is written again.") from error
        if found.get("fingerprint") != self.about["fingerprint"]:
            raise StoreError(
                f"{path} belongs to encoder {found.get('fingerprint')}; expected {self.about['fingerprint']}"
            )

    def _found(self) -> list[Part]:
        """The parts that count, oldest first. What a killed process left is removed."""
        _remove_leftovers(self.folder)
        ranges = []
        for path in storage.list_files(self.folder, ".parquet"):
            named = _PART.fullmatch(path.rsplit("/", 1)[-1])
            if named is None:
                raise StoreError(f"{path} is no part of a corpus. Move it away.")
            ranges.append((int(named[1]), -int(named[2]), path))
        kept: list[Part] = []
        for first, minus_last, path in sorted(ranges):
            if kept and -minus_last <= kept[-1].last:
                storage.remove(path)
            else:
                kept.append(Part(path, first, -minus_last, count_rows(path), _size(path)))
        return kept


def _locked(folder: str, wait_seconds: float) -> FileLock:
    path = os.path.join(folder, ".lock")
    if storage.is_remote(folder):  # an object store has no locks: one of this machine is better than none
        name = hashlib.sha256(folder.encode()).hexdigest()[:32]
        path = os.path.join(storage.cache_folder(), "locks", f"{name}.lock")
        storage.make_folder(os.path.dirname(path))
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout as error:
        raise UserError(
            f"the corpus in {folder} is open in another process, and only one may change it. Stop that one, or give "
            "this one another --store"
        ) from error
    return lock


def _remove_leftovers(folder: str) -> None:
    if not storage.is_remote(folder):
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(".") and entry.name.endswith(".part"):
                os.unlink(entry.path)


def _sync_folder(folder: str) -> None:
    """Without this a new name may be lost with the power, though its file is not."""
    if not storage.is_remote(folder):
        with contextlib.suppress(OSError):  # some file systems refuse it
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _size(path: str) -> int:
    if not storage.is_remote(path):
        return os.path.getsize(path)
    return storage.find_files(path.rsplit("/", 1)[0])[path.rsplit("/", 1)[-1]][0]
