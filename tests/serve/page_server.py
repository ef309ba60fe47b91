"""A small server with the explorer page.

Models run in this process and corpora are held in memory; what is under test is the page.

    python -m tests.serve.page_server [PORT] [RUNS] [TOKEN]
"""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from fastapi import FastAPI

from raylib.errors import OverloadedError
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.registry import resolve
from raylib.search.exact import score
from raylib.serve.app import create_app
from raylib.serve.protocol import Asked, Content, Document, Embedder, Hit, Served
from raylib.tasks import docstrings, page_layout, stdlib_cards
from raylib.types import Embeddings, EncodeContext, Role, Similarity

RETRIEVER, UNTRAINED, DENSE = "raylib/page-retriever-tiny", "raylib/untrained-page-retriever", "raylib/untrained-clip"


class LocalEmbedder:
    """Embeds where it is asked, one call at a time."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._lock = threading.Lock()

    def now(self, contents: Sequence[Content], asked: Asked) -> Embeddings:
        from PIL import Image

        context = asked if isinstance(asked, EncodeContext) else self.encoder.context(None, asked)
        with self._lock:
            if all(content.image is not None for content in contents):
                images = [Image.open(io.BytesIO(content.image or b"")).convert("RGB") for content in contents]
                return self.encoder.encode({"image": images}, context)
            if all(content.image is None for content in contents):
                return self.encoder.encode({"text": [content.text for content in contents]}, context)
        return Embeddings.from_list([self.now([content], asked)[0] for content in contents])

    async def embed(
        self, contents: Sequence[Content], asked: Asked, seconds: float | None = None
    ) -> tuple[Embeddings, list[int]]:
        del seconds
        found = await asyncio.to_thread(self.now, contents, asked)
        return found, found.token_counts.tolist()


class MemoryCorpus:
    """Searched by scoring everything."""

    def __init__(self, embedder: LocalEmbedder, documents: Sequence[Document]) -> None:
        self.model = embedder.encoder.spec.name
        self.contexts: dict[Role, EncodeContext] = {
            role: embedder.encoder.context(None, role) for role in get_args(Role)
        }
        self._similarity: Similarity = embedder.encoder.similarity
        self._documents = {document.id: document for document in sorted(documents, key=lambda one: one.id)}
        self._vectors = embedder.now([document.content for document in self._documents.values()], "document")

    async def search(
        self, queries: Embeddings, top_k: int, filters: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        scores = score(queries, self._vectors, self._similarity)
        documents = list(self._documents.values())
        found = []
        for row in scores:
            places = [int(i) for i in np.argsort(-row, kind="stable") if _fits(documents[i], filters or {})]
            found.append([Hit(documents[i].id, float(row[i]), documents[i].metadata) for i in places[:top_k]])
        return found

    async def add(self, documents: Sequence[Document], vectors: Embeddings) -> None:
        raise NotImplementedError

    async def delete(self, ids: Sequence[str]) -> list[str]:
        raise NotImplementedError

    async def documents(self, ids: Sequence[str]) -> list[Document | None]:
        return [self._documents.get(one) for one in ids]

    async def ids(self, start: int = 0, count: int = 100) -> list[str]:
        return list(self._documents)[start : start + count]

    async def vectors(self, ids: Sequence[str]) -> Embeddings:
        places = list(self._documents)
        return self._vectors.take([places.index(one) for one in ids])

    async def count(self) -> int:
        return len(self._documents)


def _fits(document: Document, filters: Mapping[str, Any]) -> bool:
    return all(document.metadata.get(name) == value for name, value in filters.items())


def served_of(documents: Sequence[Document], models: Sequence[str]) -> dict[str, Served]:
    found = {}
    for name in models:
        encoder = resolve(ModelSpec(name, device="cpu", dtype="float32"))
        assert isinstance(encoder, Encoder)
        embedder = LocalEmbedder(encoder)
        found[name] = Served(name, embedder, MemoryCorpus(embedder, documents))
    return found


def card_models(models: Sequence[str] = (RETRIEVER, UNTRAINED, DENSE), count: int = 12) -> dict[str, Served]:
    """Models over the first cards of a few modules."""
    return served_of(cards(count, ["argparse", "ast", "asyncio"]), models)


def cards(count: int, modules: Sequence[str] | None = None) -> list[Document]:
    """The first cards of StdlibCards, or of these modules alone, which is faster. metadata: the package that a card is
    of, and its number."""
    found, _ = stdlib_cards.build("test", docstrings.collect(names=modules) if modules else None)
    return [
        Document(
            card.entry,
            Content(image=page_layout.to_png(stdlib_cards.draw(card))),
            {"package": card.entry.partition(".")[0], "number": number},
        )
        for number, card in enumerate(found[:count])
    ]


NOTE = Document(
    "notes/a text", Content(text="A document that has no picture, only <b>words</b>."), {"package": "notes"}
)


class Busy:
    """An `Embedder` in front of another one: of these questions the first is refused, once each."""

    def __init__(self, embedder: Embedder, questions: Sequence[str]) -> None:
        self.encoder, self._embedder, self._left = embedder.encoder, embedder, set(questions)

    async def embed(self, contents: Sequence[Content], asked: Asked, seconds: float | None = None) -> Any:
        for content in contents:
            if content.text in self._left:
                self._left.discard(content.text)
                raise OverloadedError("too much to do", retry_after_seconds=1)
        return await self._embedder.embed(contents, asked, seconds)


def application(
    served: Mapping[str, Served], runs: str | None = None, token: str | None = None, busy: Sequence[str] = ()
) -> FastAPI:
    """busy: questions of which the first is refused with 429, once each."""
    if busy:
        served = {name: replace(one, embedder=Busy(one.embedder, busy)) for name, one in served.items()}
    return create_app(served, tokens=[token] if token else [], runs=runs)


@contextmanager
def running(app: FastAPI, port: int = 0):
    """Serves the application from a thread; gives its address."""
    import socket

    import uvicorn

    listening = socket.socket()
    listening.bind(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()


def main() -> None:
    port, runs, token = (sys.argv[1:] + [""] * 3)[:3]
    served = served_of(cards(40), [RETRIEVER, UNTRAINED, DENSE])
    with running(application(served, runs or None, token or None), int(port or 8000)) as address:
        print(address, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
