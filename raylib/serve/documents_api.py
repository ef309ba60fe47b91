"""Search in a corpus, and what goes into it and out of it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from raylib.errors import UserError
from raylib.serve.api_models import (
    AddReply,
    AddRequest,
    DeleteReply,
    DeleteRequest,
    NewDocument,
    SearchReply,
    SearchRequest,
)
from raylib.serve.carry import Gate
from raylib.serve.contents import ContentReader
from raylib.serve.embeddings_api import searched
from raylib.serve.images import bytes_of_url
from raylib.serve.intake import IntakeLimits, document, pdf_documents
from raylib.serve.limits import MAX_ID_CHARACTERS, MAX_METADATA_FIELDS, Limits, deadline
from raylib.serve.protocol import Document, Served
from raylib.serve.replies import RequestError, as_request_error, json_response


def documents_router(served: Mapping[str, Served], limits: Limits, gate: Gate) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/search", summary="The best documents", responses={200: {"model": SearchReply}})
    async def search(asked: SearchRequest) -> Response:
        one, corpus = searched(served, asked.model)
        content = ContentReader(limits).content(asked.query, asked.image, "query")
        begin = time.monotonic()
        try:
            vectors, _ = await one.embedder.embed([content], one.asked("query"), limits.seconds)
        except Exception as error:
            raise as_request_error(error, "query") from error
        async with deadline(begin + limits.seconds - time.monotonic()):
            [hits] = await corpus.search(vectors, asked.top_k, asked.filters)
        data = [{"id": hit.id, "score": hit.score, "metadata": dict(hit.metadata)} for hit in hits]
        return json_response({"object": "list", "model": asked.model or one.name, "data": data})

    @router.post("/v1/documents", summary="Add documents", responses={200: {"model": AddReply}})
    async def add(asked: AddRequest) -> Response:
        _targets(served, asked.model)  # refused before images are decoded; a model may change until they are
        documents = await asyncio.to_thread(_documents, asked.documents, limits)
        async with gate.passed():
            for one in _targets(served, asked.model):
                await _add(one, documents, limits)
        return json_response({"object": "list", "ids": [document.id for document in documents]})

    @router.post("/v1/documents/delete", summary="Delete documents", responses={200: {"model": DeleteReply}})
    async def delete(asked: DeleteRequest) -> Response:
        ContentReader(limits).check_count(len(asked.ids), "ids")
        async with gate.passed():
            return await _delete(served, asked.model, asked.ids)

    @router.delete("/v1/documents/{id:path}", summary="Delete one document", responses={200: {"model": DeleteReply}})
    async def delete_one(id: str, request: Request) -> Response:
        async with gate.passed():
            return await _delete(served, request.query_params.get("model"), [id])

    return router


def _targets(served: Mapping[str, Served], model: str | None) -> list[Served]:
    """The models whose corpora are meant. Raises RequestError with status 404 where there are none."""
    first, _ = searched(served, model)
    return [first] if model is not None else [one for one in served.values() if one.corpus is not None]


async def _add(one: Served, documents: Sequence[Document], limits: Limits) -> None:
    assert one.corpus is not None
    contents = [document.content for document in documents]
    try:
        vectors, _ = await one.embedder.embed(contents, one.asked("document"), limits.seconds)
    except Exception as error:
        raise as_request_error(error, "documents") from error
    await one.corpus.add(documents, vectors)


async def _delete(served: Mapping[str, Served], model: str | None, ids: Sequence[str]) -> Response:
    """200 with those that were there in any corpus; 404 where none was."""
    gone: dict[str, None] = {}
    for one in _targets(served, model):
        assert one.corpus is not None
        gone.update(dict.fromkeys(await one.corpus.delete(ids)))
    if not gone:
        raise RequestError(404, "no such document", "ids", "document_not_found")
    return json_response({"object": "list", "deleted": list(gone)})


def _documents(given: Sequence[NewDocument], limits: Limits) -> list[Document]:
    """Decodes images and draws PDFs: call it in a thread. Raises RequestError for contents beyond the limits or that
    cannot be used, and for an id that comes twice."""
    reader = ContentReader(limits)
    reader.check_count(len(given), "documents")
    documents: dict[str, Document] = {}
    for place, one in enumerate(given):
        param = f"documents[{place}]"
        try:
            found = [_document(one, reader, param)] if one.pdf is None else _pages(one, limits, param)
        except UserError as error:
            raise RequestError(400, f"{param}: {error}", param) from None
        if one.id is not None and any(document.id in documents for document in found):
            raise RequestError(400, f"{param}: its id came before; send each document once", param)
        documents.update({document.id: document for document in found})
        reader.check_count(len(documents), "documents")
    return list(documents.values())


def _document(one: NewDocument, reader: ContentReader, param: str) -> Document:
    """Raises UserError and RequestError."""
    return document(reader.content(one.text, one.image, param), one.id, one.metadata, _bounds(reader.limits))


def _pages(one: NewDocument, limits: Limits, param: str) -> list[Document]:
    """Raises UserError and RequestError."""
    if one.text is not None or one.image is not None:
        raise RequestError(400, f"{param}: a PDF has pages of its own; send text and image as other documents", param)
    data = bytes_of_url(one.pdf or "", f"{param}.pdf", "a file as data:application/pdf;base64,…", "invalid_pdf")
    name = one.id if one.id is not None else f"pdf-{hashlib.sha256(data).hexdigest()[:32]}"
    return pdf_documents(data, name, one.metadata, limits=_bounds(limits))


def _bounds(limits: Limits) -> IntakeLimits:
    return IntakeLimits(
        id_characters=MAX_ID_CHARACTERS,
        text_characters=limits.text_characters,
        metadata_fields=MAX_METADATA_FIELDS,
        image_bytes=limits.body_bytes,
        image_pixels=limits.image_pixels,
        pdf_bytes=limits.body_bytes,
        pdf_pages=limits.inputs,
        pdf_pixels=limits.request_pixels,
        pdf_seconds=limits.seconds,
    )
