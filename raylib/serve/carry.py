"""A model changes under its corpora: what clients did to them is done again in the new model's vectors, while the old
is served on, and no change that was acknowledged is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from raylib.errors import RefusedContentsError, UserError
from raylib.serve.protocol import Corpus, Document, Served

_TOGETHER = 64
"""Documents that are read, encoded and written at a time."""


class Gate:
    """What changes corpora passes while it is open. `closed` lets what is inside come out first; others wait."""

    def __init__(self) -> None:
        self._inside, self._open, self._empty = 0, asyncio.Event(), asyncio.Event()
        self._open.set()
        self._empty.set()

    @asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        while not self._open.is_set():  # it may be closed again before one that waited comes to run
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """For one at a time."""
        self._open.clear()
        try:
            await self._empty.wait()
            yield
        finally:
            self._open.set()


async def carry_over(old: Corpus, new: Served, carried: Mapping[str, str]) -> Mapping[str, str]:
    """Make of the corpus of `new` what clients made of `old`, whatever was in it: it may be of a model that was served
    before. carried: what the call before this one gave, {} for the first; only what has changed since is encoded then.

    Raises UserError for a document that the new model cannot read.
    """
    corpus = new.corpus
    assert corpus is not None
    added, taken_out = await old.changes()
    added_there, taken_out_there = await corpus.changes()
    gone = set(taken_out)
    changed = [name for name, state in added.items() if carried.get(name) != state]
    # Changes of the new one that clients did not make of the old one: as the old one has it, if it has it.
    changed += [name for name in {*added_there, *taken_out_there} if name not in added and name not in gone]
    for first in range(0, len(changed), _TOGETHER):
        names = changed[first : first + _TOGETHER]
        found = await old.documents(names)
        gone.update(name for name, document in zip(names, found, strict=True) if document is None)
        await _add([document for document in found if document is not None], new)
    gone -= set(taken_out_there)
    if gone:
        await corpus.delete(sorted(gone))
    return added


async def _add(documents: Sequence[Document], new: Served) -> None:
    assert new.corpus is not None
    if not documents:
        return
    try:
        vectors, _ = await new.embedder.embed([document.content for document in documents], new.asked("document"))
    except RefusedContentsError as error:
        row, why = next(iter(error.reasons.items()))
        raise UserError(
            f"{new.name} as it is now gives document {documents[row].id!r} of the corpus no vectors: {why}. Delete the "
            "document, or serve the model as it was"
        ) from error
    await new.corpus.add(documents, vectors)
