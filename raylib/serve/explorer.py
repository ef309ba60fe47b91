"""The explorer page, and what it asks besides searches: heat maps, page images, the worst queries of runs.

`GET /` and `GET /assets/…` hold nothing of a corpus: they are to be answered without a token, so that the page can ask
for one. Errors are those of `raylib.errors` and HTTPException; the application around says them to the client.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request, Response

from raylib.errors import UnknownNameError, UserError
from raylib.inspect.draw import excerpt
from raylib.inspect.thumbnails import name_of, upright_size
from raylib.inspect.vectors import why_no_heat_map
from raylib.inspect.view import Card
from raylib.models.protocol import Encoder
from raylib.search.exact import score
from raylib.serve.embeddings_api import searched
from raylib.serve.explain import Explained, Explainer
from raylib.serve.explorer_models import (
    DocumentsReply,
    ExplainedWord,
    ExplainReply,
    ExplainRequest,
    Run,
    RunDocument,
    RunQuery,
    RunsReply,
    ShownDocument,
    WorstReply,
)
from raylib.serve.limits import Limits, deadline
from raylib.serve.pictures import WIDTHS, Pictures
from raylib.serve.protocol import Content, Corpus, Document, Served
from raylib.serve.worst import Runs, Worst

ASSETS = {
    "app.js": "text/javascript; charset=utf-8",
    "browse.js": "text/javascript; charset=utf-8",
    "client.js": "text/javascript; charset=utf-8",
    "compare.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "question.js": "text/javascript; charset=utf-8",
    "results.js": "text/javascript; charset=utf-8",
    "search.js": "text/javascript; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
    "worst.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""Every file that can be asked for: a client's name is looked up here and never becomes a path."""

SECURITY = {
    # blob: images that were fetched with a token, or chosen by the user; data: thumbnails of runs
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
}

Model = Annotated[str | None, Query(max_length=1024)]


def explorer_router(served: Mapping[str, Served], runs: str | None, limits: Limits) -> APIRouter:
    """served: model name → what is served of it, looked up with every request. runs: the output folder of raylib
    evaluate, None without one."""
    router = APIRouter()
    _add_page(router)
    _add_documents(router, served)
    _add_explain(router, served, limits)
    _add_runs(router, Runs(runs) if runs else None)
    return router


def _add_page(router: APIRouter) -> None:
    @router.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return _file("index.html", "text/html; charset=utf-8", request)

    @router.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str, request: Request) -> Response:
        if name not in ASSETS:
            raise HTTPException(404, "there is no such file")
        return _file(name, ASSETS[name], request)


@lru_cache
def _content(name: str) -> bytes:
    return files("raylib.serve").joinpath("page", name).read_bytes()


def _file(name: str, kind: str, request: Request) -> Response:
    # Asked for again each time, answered with 304: after an update no browser mixes old files with new ones.
    content = _content(name)
    return _cached(content, kind, hashlib.sha256(content).hexdigest()[:16], request, "no-cache")


def _cached(content: bytes, kind: str, tag: str, request: Request, policy: str) -> Response:
    headers = {"ETag": f'"{tag}"', "Cache-Control": policy, **SECURITY}
    if f'"{tag}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def _add_documents(router: APIRouter, served: Mapping[str, Served]) -> None:
    pictures = Pictures()

    @router.get("/v1/documents", tags=["explorer"])
    async def documents(
        model: Model = None,
        start: Annotated[int, Query(ge=0, le=2**53)] = 0,
        count: Annotated[int, Query(ge=1, le=100)] = 24,
        id: Annotated[list[str] | None, Query(max_length=100)] = None,
    ) -> DocumentsReply:
        """A part of the corpus in order of ids, or the documents of these ids; ids that are not there are left out."""
        one, corpus = searched(served, model)
        ids = id if id is not None else await corpus.ids(start, count)
        found = [document for document in await corpus.documents(ids) if document is not None]
        shown = await asyncio.to_thread(lambda: [_shown(document) for document in found])
        return DocumentsReply(model=one.name, start=start, count=await corpus.count(), data=shown)

    @router.get("/v1/documents/image", tags=["explorer"], response_class=Response)
    async def image(
        request: Request,
        id: Annotated[str, Query(min_length=1, max_length=1024)],
        model: Model = None,
        width: Annotated[int, Query(description=f"one of {', '.join(map(str, WIDTHS))}")] = 320,
    ) -> Response:
        """A page as WebP. width: of the longer side at most, in pixels; a smaller page stays as it is."""
        if width not in WIDTHS:
            raise UserError(f"width is {width}; expected one of {', '.join(map(str, WIDTHS))}")
        _, corpus = searched(served, model)
        content = (await _document(corpus, id)).content.image
        if content is None:
            raise HTTPException(404, "this document has no image; it is a text")
        found = await asyncio.to_thread(pictures.get, content, width)
        if isinstance(found, str):
            raise HTTPException(404, found)
        tag = f"{name_of(content)}-{width}"
        return _cached(found.content, "image/webp", tag, request, "private, max-age=60")


def _shown(document: Document) -> ShownDocument:
    content = document.content
    width, height = (upright_size(content.image) if content.image is not None else None) or (None, None)
    text = excerpt(content.text) if content.text else None
    return ShownDocument(id=document.id, text=text, width=width, height=height, metadata=dict(document.metadata))


def _add_explain(router: APIRouter, served: Mapping[str, Served], limits: Limits) -> None:
    explainers: dict[str, Explainer] = {}

    def explainer(name: str, encoder: Encoder) -> Explainer:
        """Made once for each model, and again where another one was put in its place."""
        if name not in explainers or explainers[name].encoder is not encoder:
            explainers[name] = Explainer(encoder)
        return explainers[name]

    @router.post("/v1/explain", tags=["explorer"])
    async def explain(asked: ExplainRequest) -> ExplainReply:
        """Which patches of a page each word of a question is like, for models of late interaction."""
        one, corpus = searched(served, asked.model)
        async with deadline(limits.seconds):
            pages = await _pages(corpus, asked)
            query, _ = await one.embedder.embed([Content(text=asked.query)], one.asked("query"))
            vectors = await corpus.vectors([page.id for page in pages])
        encoder = one.embedder.encoder
        similarity = encoder.similarity
        reason = why_no_heat_map(str(similarity))

        def compute() -> tuple[float, Explained | str]:
            total = float(score(query, vectors.take([0]), similarity)[0, 0])
            return total, reason or explainer(one.name, encoder).explain(asked.query, query[0], pages, vectors)

        total, found = await asyncio.to_thread(compute)
        base: dict[str, Any] = {"model": one.name, "document_id": asked.document_id, "total": round(total, 5)}
        if isinstance(found, str):
            return ExplainReply(kind="whole", note=f"No heat map: {found}.", **base)
        return _explanation(found, base)


async def _pages(corpus: Corpus, asked: ExplainRequest) -> list[Document]:
    """The document asked for, then those beside it that are there."""
    ids = list(dict.fromkeys([asked.document_id, *asked.beside]))
    first, *others = await corpus.documents(ids)
    if first is None:
        raise _no_document()
    return [first, *(document for document in others if document is not None)]


def _explanation(found: Explained, base: dict[str, Any]) -> ExplainReply:
    words = [
        ExplainedWord(text=w.text, special=w.special, tokens=len(w.tokens), score=round(value, 4), cells=cells)
        for w, value, cells in zip(found.words, found.scores, found.cells, strict=True)
    ]
    _, rows, columns = found.maps.shape
    # float64 first: a rounded float32 has nine digits again
    similarities = np.round(found.maps.astype(np.float64), 4).tolist()
    film = base64.b64encode(found.film).decode()
    maps = {"rows": rows, "columns": columns, "similarities": similarities, "film": film}
    return ExplainReply(kind="patches", words=words, **maps, **base)


def _add_runs(router: APIRouter, runs: Runs | None) -> None:
    @router.get("/v1/runs", tags=["explorer"])
    async def listed() -> RunsReply:
        """The evaluation runs that can be looked at."""
        if runs is None:
            note = "The server was started without a folder of evaluation runs."
            return RunsReply(available=False, note=note, data=[])
        try:
            found = await asyncio.to_thread(runs.list)
        except UserError:  # its message names a folder of the server
            note = "The folder of evaluation runs holds no rankings of any task yet."
            return RunsReply(available=False, note=note, data=[])
        data = [Run(run=model.full_title, title=model.title, tasks=sorted(model.tasks)) for model in found]
        return RunsReply(available=True, data=data)

    @router.get("/v1/runs/worst", tags=["explorer"])
    async def worst(
        run: Annotated[str, Query(max_length=1024)] = "",
        task: Annotated[str, Query(max_length=1024)] = "",
        measure: Annotated[str | None, Query(max_length=64)] = None,
        start: Annotated[int, Query(ge=0, le=2**31)] = 0,
        count: Annotated[int, Query(ge=1, le=50)] = 10,
        split: Annotated[str | None, Query(max_length=256)] = None,
        subset: Annotated[str | None, Query(max_length=256)] = None,
    ) -> WorstReply:
        """The queries of a run with the lowest measure, what was expected, and what came instead."""
        if runs is None:
            raise HTTPException(404, "the server was started without a folder of evaluation runs")
        try:
            found = await asyncio.to_thread(runs.worst, run, task, measure, start, count, split, subset)
        except UnknownNameError:
            raise
        except UserError:  # its message may name folders of the server
            raise HTTPException(404, "these rankings cannot be read; see GET /v1/runs for what there is") from None
        return _worst_reply(found, start)


def _worst_reply(found: Worst, start: int) -> WorstReply:
    queries = [
        RunQuery(
            id=one.query.id,
            split=one.query.split,
            subset=one.query.subset,
            text=one.text,
            value=one.value,
            n_relevant=one.n_relevant,
            found=_cards(one.found),
            expected=_cards(one.expected),
        )
        for one in found.queries
    ]
    spread = found.spread
    summary = {"count": spread.n, "mean": spread.mean, "median": spread.median, "bins": spread.bins, "start": start}
    named = {"run": found.run, "task": found.task, "measure": found.measure, "measures": found.measures}
    return WorstReply(**named, **summary, parts=found.parts, data=queries, pages=found.pages, notes=found.notes)


def _cards(cards: Sequence[Card]) -> list[RunDocument]:
    return [
        RunDocument(
            id=card.document,
            rank=card.rank,
            score=card.score,
            relevance=card.relevance,
            text=card.text or card.problem,
            page=card.page.name if card.page else None,
        )
        for card in cards
    ]


async def _document(corpus: Corpus, document_id: str) -> Document:
    (found,) = await corpus.documents([document_id])
    if found is None:
        raise _no_document()
    return found


def _no_document() -> HTTPException:
    return HTTPException(404, "there is no document of this id; it may have been deleted")
