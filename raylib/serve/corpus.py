"""A corpus behind a server: what the jobs encoded, and what clients add, searched as `raylib evaluate` searches.

Searches that wait for each other are one product; changes are on disk when they are acknowledged; texts and images are
read from disk. Nothing of this runs in the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

from raylib import storage
from raylib.errors import UserError
from raylib.models.protocol import Encoder
from raylib.serve.coalesce import Coalescer
from raylib.serve.corpus_base import EncodeMissing, TaskChoice, empty_base, encoded_folder
from raylib.serve.corpus_filters import check_filters
from raylib.serve.corpus_log import ChangeLog
from raylib.serve.corpus_state import State
from raylib.serve.kept import Kept
from raylib.serve.protocol import Document, Hit
from raylib.store.embeddings import Shelf
from raylib.store.manifests import MANIFEST
from raylib.types import Embeddings, EncodeContext, Role

_logger = logging.getLogger(__name__)

EMPTY = "empty:"
"""What the name of a corpus begins with that has only what clients add."""

_TOGETHER, _QUEUE = 256, 4096
"""Searches that are done together, and that may wait."""

_USUAL_K = 1000
"""Searches for more are not done together with others, which would have to wait for them."""

_CACHE_BYTES = 64 * 2**20
"""Of texts and images that were looked at."""

T = TypeVar("T")


def open_corpus(
    name: str,
    store: str,
    encoder: Encoder,
    *,
    languages: Sequence[str] = (),
    splits: Sequence[str] = (),
    data_root: str | None = None,
    allow_errors: int = 0,
    encode_missing: EncodeMissing | None = None,
    wait_seconds: float = 0.0,
) -> DiskCorpus:
    """The corpus `name` in the vectors of one encoder, with what clients did to it before.

    name: a benchmark or task whose documents are in the store as `raylib evaluate` encoded them; the output folder of
    `raylib encode`; or "empty:NAME". languages, splits, data_root: as for `raylib evaluate`. allow_errors: documents
    that may have no vectors. encode_missing: encodes documents that the store lacks, at the start. wait_seconds: for a
    process that has the corpus open to end.

    Raises UserError (UnknownNameError for a name that is none) where documents have no vectors, naming the command that
    encodes them, and where another process has the corpus open; StoreError for a store that cannot be read.
    """
    shelf = Shelf(store, encoder.fingerprint)
    choice = TaskChoice(name, tuple(languages), tuple(splits), data_root, allow_errors)
    if name.startswith(EMPTY):
        base = empty_base(encoder)
    elif storage.exists(storage.join(name, MANIFEST)):
        base = encoded_folder(name, encoder)
    else:
        from raylib.serve.corpus_tasks import task_base  # it imports mteb, which takes seconds

        base = task_base(choice, encoder, shelf, encode_missing)
    for note in base.notes:
        _logger.warning("corpus %s: %s", name, note)
    shelf.describe(encoder.identity)
    about = {"corpus": name, "model": encoder.spec.name, "fingerprint": encoder.fingerprint}
    log = ChangeLog(changes_folder(shelf, choice), about, wait_seconds)
    try:
        return DiskCorpus(encoder.spec.name, State(base, log, encoder.similarity))
    except BaseException:
        log.close()
        raise


def changes_folder(shelf: Shelf, choice: TaskChoice) -> str:
    """Where the changes to a corpus lie. A name of a client or of a path is only a part of a digest here."""
    name = choice.name
    if storage.exists(storage.join(name, MANIFEST)) and not storage.is_remote(name):
        name = os.path.abspath(name)
    told = json.dumps([name, sorted(choice.languages), sorted(choice.splits), choice.data_root])
    short = re.sub(r"[^\w-]+", "-", name.rstrip("/").rsplit("/", 1)[-1])[:60].strip("-")
    return storage.join(shelf.folder, "corpora", f"{short}-{hashlib.sha256(told.encode()).hexdigest()[:8]}")


@dataclass(frozen=True)
class _Asked:
    queries: Embeddings
    k: int
    filters: Mapping[str, Any] | None

    @property
    def alike(self) -> str:
        """The same for searches that can be one."""
        return json.dumps([self.filters or None, self.queries.dim, self.k if self.k > _USUAL_K else 0], sort_keys=True)


class DiskCorpus:
    """A `raylib.serve.protocol.Corpus`. model: the name of its encoder. contexts: the prompts under which queries and
    documents are to be encoded, which are those of the task."""

    def __init__(self, model: str, state: State) -> None:
        self.model = model
        self.contexts: dict[Role, EncodeContext] = dict(state.base.contexts)
        self._state = state
        self._searches = Coalescer("the search of a corpus", self._answer, _TOGETHER, _QUEUE)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="corpus-write")
        self._joiner = ThreadPoolExecutor(1, thread_name_prefix="corpus-join")
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="corpus-read")
        self._joining: Future[None] | None = None
        self._seen = _Cache(_CACHE_BYTES)

    async def search(
        self, queries: Embeddings, top_k: int, filters: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        """See `raylib.serve.protocol`. Raises OverloadedError where too many searches wait."""
        if top_k < 1:
            raise UserError(f"top_k is {top_k}; expected at least 1")
        if filters is not None:
            check_filters(filters)
        return await asyncio.wrap_future(self._searches.submit(_Asked(queries, top_k, filters)))

    async def add(self, documents: Sequence[Document], vectors: Embeddings) -> None:
        await self._in(self._writer, lambda: self._add(documents, vectors))

    async def delete(self, ids: Sequence[str]) -> list[str]:
        return await self._in(self._writer, lambda: self._delete(ids))

    async def documents(self, ids: Sequence[str]) -> list[Document | None]:
        return await self._in(self._readers, lambda: self._documents(ids))

    async def changes(self) -> tuple[dict[str, str], list[str]]:
        return await self._in(self._readers, self._state.changes)

    async def vectors(self, ids: Sequence[str]) -> Embeddings:
        return await self._in(self._readers, lambda: self._state.vectors(ids))

    async def ids(self, start: int = 0, count: int = 100) -> list[str]:
        return await self._in(self._readers, lambda: self._ids(start, count))

    async def count(self) -> int:
        return len(self._state.index)

    def close(self) -> None:
        """Ends when what was begun is done; another process may then open the corpus."""
        self._searches.close()
        for pool in (self._writer, self._joiner, self._readers):
            pool.shutdown()
        self._state.log.close()

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _answer(self, asked: Sequence[_Asked]) -> list[Any]:
        """The hits of each search, or what is wrong with it. All see the same documents."""
        now = self._state.index.now
        answers: list[Any] = [None] * len(asked)
        groups: dict[str, list[int]] = {}
        for place, one in enumerate(asked):
            groups.setdefault(one.alike, []).append(place)
        for places in groups.values():
            filters, k = asked[places[0]].filters, max(asked[place].k for place in places)
            try:
                found = now.search(Embeddings.concatenate(asked[place].queries for place in places), k, filters)
            except Exception as error:
                if len(places) == 1:
                    answers[places[0]] = error
                else:  # one that is wrong must not take the others along
                    for place in places:
                        (answers[place],) = self._answer([asked[place]])
                continue
            for place in places:
                n = len(asked[place].queries)
                answers[place], found = [hits[: asked[place].k] for hits in found[:n]], found[n:]
        return answers

    def _add(self, documents: Sequence[Document], vectors: Embeddings) -> None:
        self._state.add(documents, vectors)
        self._seen.drop(document.id for document in documents)
        self._join_parts()

    def _delete(self, ids: Sequence[str]) -> list[str]:
        gone = self._state.delete(ids)
        self._seen.drop(gone)
        self._join_parts()
        return gone

    def _join_parts(self) -> None:
        """Beside what clients ask, one at a time."""
        if self._joining is None or self._joining.done():
            self._joining = self._joiner.submit(self._join_while_many)

    def _join_while_many(self) -> None:
        try:
            while self._state.join_parts():
                pass
        except Exception:
            _logger.exception("parts of a corpus could not be joined; all of them are still there")

    def _documents(self, ids: Sequence[str]) -> list[Document | None]:
        known, mark = self._seen.get(ids)
        missing = [name for name in dict.fromkeys(ids) if name not in known]
        found = dict(zip(missing, self._state.documents(missing), strict=True)) if missing else {}
        self._seen.put([document for document in found.values() if document is not None], mark)
        return [known[name] if name in known else found[name] for name in ids]

    def _ids(self, start: int, count: int) -> list[str]:
        now = self._state.index.now
        first = max(0, start)
        return [now.ids[row] for row in now.sorted_rows[first : first + max(0, count)].tolist()]


class _Cache:
    """Documents that were looked at last. mark: a document that was read before a change is not put in after it."""

    def __init__(self, limit: int) -> None:
        self._mark = 0
        self._held: Kept[str, Document] = Kept(limit)
        self._lock = Lock()

    def get(self, ids: Sequence[str]) -> tuple[dict[str, Document], int]:
        with self._lock:
            found = {name: document for name in ids if (document := self._held.get(name)) is not None}
            return found, self._mark

    def put(self, documents: Sequence[Document], mark: int) -> None:
        with self._lock:
            if mark == self._mark:
                for document in documents:
                    self._held.put(document.id, document, _size(document))

    def drop(self, ids: Iterable[str]) -> None:
        with self._lock:
            self._mark += 1
            for name in ids:
                self._held.drop(name)


def _size(document: Document) -> int:
    return 500 + len(document.content.image or b"") + 2 * len(document.content.text or "")
