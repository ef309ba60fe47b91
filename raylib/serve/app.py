"""The HTTP application over models and corpora: plain FastAPI, the same in one process and in front of Ray Serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from raylib.serve.api_models import ErrorReply
from raylib.serve.auth import Guard
from raylib.serve.carry import Gate
from raylib.serve.documents_api import documents_router
from raylib.serve.embeddings_api import embeddings_router
from raylib.serve.explorer import explorer_router
from raylib.serve.limits import BodyLimit, Limits
from raylib.serve.metrics import Measured, Metrics
from raylib.serve.protocol import Served
from raylib.serve.replies import add_error_handlers, json_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_ERRORS = (400, 401, 404, 408, 413, 429, 500, 503, 504)


def create_app(
    served: Mapping[str, Served],
    *,
    limits: Limits | None = None,
    tokens: Collection[str] = (),
    hosts: Collection[str] | None = None,
    runs: str | None = None,
    gate: Gate | None = None,
    lifespan: Callable[[Any], Any] | None = None,
) -> FastAPI:
    """served: what a client names as `model` → that model; the first is taken where a client names none. It is looked
    up with every request, so that a mapping which changes is followed.

    tokens and hosts: see `raylib.serve.auth.Guard`. runs: a folder of results for the page. gate: what changes corpora
    passes it.
    """
    from raylib import __version__

    limits = limits or Limits()
    app = FastAPI(
        title="raylib",
        version=__version__,
        description="Retrieval models and encoded corpora. Errors come in OpenAI's shape.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses={status: {"model": ErrorReply} for status in _ERRORS},
    )
    metrics = Metrics(served)
    add_error_handlers(app)
    _add_own_routes(app, served, limits, metrics)
    app.include_router(embeddings_router(served, limits))
    app.include_router(documents_router(served, limits, gate or Gate()))
    app.include_router(explorer_router(served, runs, limits))
    app.add_middleware(BodyLimit, limits=limits)
    app.add_middleware(Guard, tokens=tokens, hosts=hosts)
    app.add_middleware(_Careful)
    app.add_middleware(Measured, metrics=metrics)
    return app


def _add_own_routes(app: FastAPI, served: Mapping[str, Served], limits: Limits, metrics: Metrics) -> None:
    @app.get("/health", summary="Whether requests are answered")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/info", summary="The models, their corpora, and the limits")
    async def info() -> Response:
        models = await asyncio.gather(*(_about(name, one) for name, one in served.items()))
        return json_response({"models": models, "limits": vars(limits), "version": app.version})

    @app.get("/v1/models", summary="The models, as OpenAI lists them")
    async def models() -> Response:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "raylib"} for name in served]
        return json_response({"object": "list", "data": listed})

    @app.get("/metrics", summary="Figures for Prometheus")
    async def figures(request: Request) -> Response:
        del request
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _about(name: str, one: Served) -> dict[str, Any]:
    encoder = one.embedder.encoder
    return {
        "name": name,
        "similarity": str(encoder.similarity),
        "modalities": sorted(encoder.modalities),
        "fuses": encoder.fuses,
        "documents": await one.corpus.count() if one.corpus is not None else None,
    }


class _Careful:
    """ASGI middleware: what browsers are told of every answer."""

    _HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._HEADERS]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
