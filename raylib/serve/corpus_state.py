"""A corpus in one process, without waiting for anything: its base, its changes on disk and its documents in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.search.blocks import blocks
from raylib.serve.corpus_base import Base
from raylib.serve.corpus_index import Index
from raylib.serve.corpus_log import ChangeLog, Changes, Part
from raylib.serve.protocol import Document
from raylib.store.unicode import SURROGATE, is_unicode
from raylib.types import Embeddings, Similarity

MOST_PARTS = 64
"""Parts at which some are joined."""

_MOST_BYTES = 256 * 2**20
"""Of parts that are joined: they are in memory while they are."""


@dataclass(frozen=True)
class Place:
    """Where an added document lies: its part, and its row there."""

    part: Part
    row: int


class State:
    """Changes are written down before they are seen. `add` and `delete` are for one thread at a time, and so is
    `join_parts`; all others may look meanwhile."""

    def __init__(self, base: Base, log: ChangeLog, similarity: Similarity) -> None:
        self.base, self.log = base, log
        self.index = Index(similarity, base.ids, base.owners, blocks(base.pieces(), similarity), base.n_contents)
        self._places: dict[str, Place] = {}
        self._base_ids = frozenset(base.ids)
        self._lock = Lock()
        for changes in log.replay():
            self._replay(changes)

    def _replay(self, changes: Changes) -> None:
        gone = [name for name, deleted in zip(changes.ids, changes.deleted, strict=True) if deleted]
        self._forget(gone)
        if changes.vectors is None:
            return
        rows = np.flatnonzero(~changes.deleted).tolist()
        ids = [changes.ids[row] for row in rows]
        block = self.index.check(ids, changes.vectors)
        self.index.add(ids, [changes.metadata[row] for row in rows], block)
        self._places.update({name: Place(changes.part, row) for name, row in zip(ids, rows, strict=True)})

    def _forget(self, ids: Sequence[str]) -> None:
        self.index.delete(ids)
        for name in ids:
            self._places.pop(name, None)

    def add(self, documents: Sequence[Document], vectors: Embeddings) -> None:
        """Raises UserError for ids that occur twice or are no Unicode, and for vectors that cannot be compared; nothing
        is added then."""
        if len(documents) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors for {len(documents)} documents")
        if not documents:
            return
        ids = [document.id for document in documents]
        _check_texts(documents)
        block = self.index.check(ids, vectors)
        part = self.log.append(documents, vectors)
        with self._lock:
            self.index.add(ids, [dict(document.metadata) for document in documents], block)
            self._places.update({name: Place(part, row) for row, name in enumerate(ids)})

    def delete(self, ids: Sequence[str]) -> list[str]:
        there = [name for name in dict.fromkeys(ids) if self.index.row(name) is not None]
        if there:
            self.log.append([], None, there)
            with self._lock:
                self._forget(there)
        return there

    def changes(self) -> tuple[dict[str, str], list[str]]:
        """See `raylib.serve.protocol.Corpus.changes`."""
        with self._lock:
            added = {name: f"{place.part.path} {place.row}" for name, place in self._places.items()}
            return added, [name for name in self.base.ids if self.index.row(name) is None]

    def documents(self, ids: Sequence[str]) -> list[Document | None]:
        """With text and image; None for what is not there."""
        with self._lock:
            places, rows, metadata = dict[str, Place](), dict[str, int](), dict[str, Any]()
            for name in ids:
                row = self.index.row(name)
                if row is None:
                    continue
                metadata[name] = self.index.now.metadata[row]
                if name in self._places:
                    places[name] = self._places[name]
                else:
                    rows[name] = row
        found = dict(zip(rows, self.base.show(list(rows.values())), strict=True)) if rows else {}
        found |= self._read(places, self.log.contents)
        return [Document(name, found[name], metadata[name]) if name in found else None for name in ids]

    def vectors(self, ids: Sequence[str]) -> Embeddings:
        """As they were encoded, in order. Raises UserError for an id that is not there."""
        with self._lock:
            places = {name: self._places[name] for name in ids if name in self._places}
            rows = {name: row for name in ids if name not in places and (row := self.index.row(name)) is not None}
        found: dict[str, np.ndarray] = {}
        if rows:
            contents = [int(self.base.owners[row]) for row in rows.values()]
            found.update(zip(rows, self.base.read(contents), strict=True))
        found |= self._read(places, self.log.vectors)
        if len({vectors.dtype for vectors in found.values()}) > 1:
            found = {name: vectors.astype(np.float32) for name, vectors in found.items()}
        gone = [name for name in ids if name not in found]  # taken out while this read
        if gone:
            raise UserError(f"there is no document {gone[0]!r} in the corpus")
        return Embeddings.from_list([found[name] for name in ids], self.index.dim)

    def _read(self, places: dict[str, Place], read: Callable[[Part, list[int]], Any]) -> dict[str, Any]:
        """What `read` gives of the rows of each part. Parts may be joined while this reads: it then looks again."""
        found: dict[str, Any] = {}
        while True:
            missing = {name: place for name, place in places.items() if name not in found}
            if not missing:
                return found
            part = next(iter(missing.values())).part
            here = [name for name, place in missing.items() if place.part == part]
            try:
                found.update(zip(here, read(part, [missing[name].row for name in here]), strict=True))
            except FileNotFoundError:
                with self._lock:
                    places = {name: self._places[name] for name in places if name in self._places}
                if any(places[name].part == part for name in here if name in places):
                    raise

    def join_parts(self) -> bool:
        """Write many small parts as one; True where there was something to do.

        Documents that are gone by then are left out. What is added and deleted meanwhile lies in later parts.
        """
        with self._lock:
            parts = list(self.log.parts)
            live = self._live_rows(parts)
        chosen = _to_join(parts, live)
        if not chosen:
            return False
        chosen = self._of_one_kind(chosen)
        from_start = chosen[0] == parts[0]
        changes = [self.log.changes(part) for part in chosen]
        with self._lock:
            keep = [self._kept(each, from_start) for each in changes]
        part = self.log.rewritten(chosen, keep)
        with self._lock:
            first = 0
            for each, kept in zip(changes, keep, strict=True):
                for new, old in enumerate(np.flatnonzero(kept).tolist(), first):
                    if self._places.get(each.ids[old]) == Place(each.part, old):
                        self._places[each.ids[old]] = Place(part, new)
                first += int(kept.sum())
            self.log.replace(chosen, part)
        self.log.remove(chosen, part)
        return True

    def _kept(self, changes: Changes, from_start: bool) -> np.ndarray:
        """[rows] bool: the documents that are still these, and the deletions without which something would come back:
        of the base, or of parts before the ones that are joined."""
        kept = np.zeros(len(changes.ids), dtype=bool)
        for row, (name, deleted) in enumerate(zip(changes.ids, changes.deleted, strict=True)):
            if deleted:
                kept[row] = self.index.row(name) is None and (not from_start or name in self._base_ids)
            else:
                kept[row] = self._places.get(name) == Place(changes.part, row)
        return kept

    def _live_rows(self, parts: Sequence[Part]) -> dict[Part, int]:
        counts = dict.fromkeys(parts, 0)
        for place in self._places.values():
            counts[place.part] += 1
        return counts

    def _of_one_kind(self, parts: Sequence[Part]) -> list[Part]:
        """The longest run of parts at the end whose vectors have one width and number format."""
        chosen: list[Part] = []
        kind: tuple[str, str] | None = None
        for part in reversed(parts):
            found = self.log.kinds(part)
            if found[0] != "0" and kind is not None and found != kind:
                break
            kind = found if found[0] != "0" else kind
            chosen.insert(0, part)
        return chosen


def _to_join(parts: Sequence[Part], live: dict[Part, int]) -> list[Part]:
    """Where there are many: the longest run at the end whose first part is no larger than all after it together, two
    parts at least. Each document is then written a number of times that grows with the logarithm of their number. What
    is gone does not count."""
    if len(parts) <= MOST_PARTS:
        return []
    sizes = [part.bytes * live[part] // max(1, part.rows) for part in parts]
    start, after = len(parts) - 1, sizes[-1]
    best = start if sum(sizes[-2:]) > _MOST_BYTES else start - 1
    while start > 0 and after + sizes[start - 1] <= _MOST_BYTES:
        start -= 1
        if sizes[start] <= after:
            best = min(best, start)
        after += sizes[start]
    return list(parts[best:]) if best < len(parts) - 1 else []


def _check_texts(documents: Sequence[Document]) -> None:
    seen: set[str] = set()
    for document in documents:
        if document.id in seen:
            raise UserError(f"the id {document.id!r} is given twice; each document needs one of its own")
        seen.add(document.id)
        if not document.id:
            raise UserError("a document has an empty id; expected a text")
        if not is_unicode(document.id) or not is_unicode(document.content.text or ""):
            raise UserError(f"the id or text of document {document.id!a} cannot be stored: {SURROGATE}")
