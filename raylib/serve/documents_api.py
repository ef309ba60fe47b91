"""Search in a corpus, and what goes into it and out of it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from raylib.serve.api_models import (
    AddReply,
    AddRequest,
    DeleteReply,
    DeleteRequest,
    NewDocument,
    SearchReply,
    SearchRequest,
)
from raylib.serve.contents import ContentReader
from raylib.serve.embeddings_api import chosen
from raylib.serve.limits import MAX_METADATA_CHARACTERS, Limits
from raylib.serve.protocol import Document, Served
from raylib.serve.replies import RequestError, as_request_error, json_response


def documents_router(served: Mapping[str, Served], limits: Limits) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/search", summary="The best documents", responses={200: {"model": SearchReply}})
    async def search(asked: SearchRequest) -> Response:
        one = chosen(served, asked.model, with_corpus=True)
        assert one.corpus is not None
        content = ContentReader(limits).content(asked.query, asked.image, "query")
        try:
            vectors, _ = await one.embedder.embed([content], "query", limits.seconds)
        except Exception as error:
            raise as_request_error(error, "query") from error
        [hits] = await one.corpus.search(vectors, asked.top_k, asked.filters)
        data = [{"id": hit.id, "score": hit.score, "metadata": dict(hit.metadata)} for hit in hits]
        return json_response({"object": "list", "model": asked.model or one.name, "data": data})

    @router.post("/v1/documents", summary="Add documents", responses={200: {"model": AddReply}})
    async def add(asked: AddRequest) -> Response:
        targets = _targets(served, asked.model)
        documents = _documents(asked.documents, limits)
        for one in targets:
            await _add(one, documents, limits)
        return json_response({"object": "list", "ids": [document.id for document in documents]})

    @router.post("/v1/documents/delete", summary="Delete documents", responses={200: {"model": DeleteReply}})
    async def delete(asked: DeleteRequest) -> Response:
        ContentReader(limits).check_count(len(asked.ids), "ids")
        return await _delete(served, asked.model, asked.ids)

    @router.delete("/v1/documents/{id:path}", summary="Delete one document", responses={200: {"model": DeleteReply}})
    async def delete_one(id: str, request: Request) -> Response:
        return await _delete(served, request.query_params.get("model"), [id])

    return router


def _targets(served: Mapping[str, Served], model: str | None) -> list[Served]:
    """The models whose corpora are meant. Raises RequestError with status 404 where there are none."""
    first = chosen(served, model, with_corpus=True)
    return [first] if model is not None else [one for one in served.values() if one.corpus is not None]


async def _add(one: Served, documents: Sequence[Document], limits: Limits) -> None:
    assert one.corpus is not None
    contents = [document.content for document in documents]
    try:
        vectors, _ = await one.embedder.embed(contents, "document", limits.seconds)
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
    """Raises RequestError for contents beyond the limits, and for an id that comes twice."""
    reader = ContentReader(limits)
    reader.check_count(len(given), "documents")
    documents: dict[str, Document] = {}
    for place, one in enumerate(given):
        param = f"documents[{place}]"
        content = reader.content(one.text, one.image, param)
        for name, value in one.metadata.items():
            if isinstance(value, str) and len(value) > MAX_METADATA_CHARACTERS:
                raise RequestError(400, f"{param}.metadata.{name} is longer than {MAX_METADATA_CHARACTERS}", param)
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise RequestError(400, f"{param}.metadata.{name} has more than 64 bits; send it as text", param)
        name = one.id if one.id is not None else id_of(one)
        if one.id is not None and name in documents:
            raise RequestError(400, f"{param}: its id came before; send each document once", param)
        documents[name] = Document(name, content, one.metadata)
    return list(documents.values())


def id_of(document: NewDocument) -> str:
    """An id for a document without one: of what it holds, so that the same document sent twice is one."""
    told = json.dumps([document.text, document.image, document.metadata], sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(told.encode()).digest()[:18]).decode()
