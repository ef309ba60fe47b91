"""What clients are answered: errors in OpenAI's shape, and vectors as JSON that no model of pydantic walks through."""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import (
    DeadlineError,
    OverloadedError,
    RaylibError,
    RefusedContentsError,
    UnknownNameError,
    UserError,
)
from raylib.types import Embeddings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger(__name__)

_CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    421: "misdirected_request",
    429: "overloaded",
    503: "unavailable",
    504: "timeout",
}


_LONGEST_WAIT_SECONDS = 60


class RequestError(Exception):
    """An answer that is no success. message: tells the client what to change, and nothing of the inside.

    param: the field that is at fault, e.g. "input[3]". retry_after: whole seconds.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code = code or _CODES.get(status, "internal_error")
        self.retry_after = retry_after

    @property
    def type(self) -> str:
        """In OpenAI's words."""
        if self.status == 401:
            return "authentication_error"
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"


def error_response(error: RequestError, *, close: bool = False) -> Response:
    """close: the rest of what this client sends is not read."""
    from starlette.responses import Response

    told = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    headers |= {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    headers |= {"Connection": "close"} if close else {}
    body = json.dumps({"error": told}, ensure_ascii=True).encode()
    return Response(body, error.status, headers, "application/json")


def as_request_error(error: Exception, param: str = "input") -> RequestError:
    """What a client is told of an exception; what it is not told is logged."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, RefusedContentsError):
        row, reason = next(iter(error.reasons.items()))
        more = f" ({len(error.reasons)} inputs cannot be read; this is the first)" if len(error.reasons) > 1 else ""
        return RequestError(400, f"{param}[{row}]: {reason}{more}", f"{param}[{row}]", "unreadable_input")
    if isinstance(error, UserError):
        return RequestError(404 if isinstance(error, UnknownNameError) else 400, str(error))
    if isinstance(error, OverloadedError):
        wait = min(max(1, math.ceil(error.retry_after_seconds)), _LONGEST_WAIT_SECONDS)
        return RequestError(429, str(error), retry_after=wait)
    if isinstance(error, DeadlineError):
        return RequestError(504, str(error))
    logger.error("a request failed", exc_info=error)
    if isinstance(error, ConnectionError):
        return RequestError(503, "the model is not available right now; try again later", retry_after=2)
    what = "the model gave no vectors for this request" if isinstance(error, RaylibError) else "internal error"
    return RequestError(500, f"{what}; the server's log says more")


def add_error_handlers(app: FastAPI) -> None:
    """Every failure of `app` in OpenAI's shape."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    async def refused(request: Request, error: Exception) -> Response:
        del request
        return error_response(as_request_error(error))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        told = str(error.detail)
        if told in ("Not Found", "Method Not Allowed"):  # Starlette's own words
            told = f"there is no {request.method} {request.url.path[:200]} here; see /openapi.json"
        response = error_response(RequestError(error.status_code, told))
        response.headers.update(error.headers or {})
        return response

    async def invalid(request: Request, error: Exception) -> Response:
        del request
        assert isinstance(error, RequestValidationError)
        return error_response(_first_of(error.errors()))

    for kind in (RequestError, RaylibError, ConnectionError, Exception):
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


def _first_of(errors: Sequence[Any]) -> RequestError:
    first = errors[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    if first["type"] == "json_invalid":
        return RequestError(400, "the body is no JSON; send a JSON object, Content-Type: application/json")
    where = ".".join(place)
    message = first["msg"].removeprefix("Value error, ")
    return RequestError(400, f"{where}: {message}" if where else f"the body: {message}", where or None)


def json_response(value: Any, status: int = 200) -> Response:
    """Of plain data; for vectors see `embeddings_response`."""
    from pydantic_core import to_json
    from starlette.responses import Response

    return Response(to_json(value, inf_nan_mode="null"), status, media_type="application/json")


def embeddings_response(model: str, embeddings: Embeddings, tokens: int, *, late: bool, as_base64: bool) -> Response:
    """OpenAI's list of embeddings; for late interaction of `multi_vector`s [tokens, dim], each with its `shape`.

    as_base64: little-endian float32, row by row.
    """
    from starlette.responses import Response

    items = []
    for index, vectors in enumerate(embeddings):
        value = _number_list(vectors if late else vectors[0]) if not as_base64 else _base64(vectors)
        if late:
            shape = f'"shape":[{vectors.shape[0]},{vectors.shape[1]}]'.encode()
            items.append(b'{"object":"multi_vector","index":%d,%s,"multi_vector":%s}' % (index, shape, value))
        else:
            items.append(b'{"object":"embedding","index":%d,"embedding":%s}' % (index, value))
    body = b'{"object":"list","data":[%s],"model":%s,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        b",".join(items),
        json.dumps(model).encode(),
        tokens,
        tokens,
    )
    return Response(body, media_type="application/json")


def _base64(vectors: np.ndarray) -> bytes:
    return b'"%s"' % base64.b64encode(vectors.astype("<f4", copy=False).tobytes())


def _number_list(vectors: np.ndarray) -> bytes:
    from pydantic_core import to_json

    return to_json(vectors.astype(np.float32, copy=False).tolist())
