"""What one request may ask, and the bytes of requests that are held at a time.

Bodies are read here, before anything parses them: too long a one is refused as soon as that is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylib.errors import DeadlineError
from raylib.serve.replies import RequestError, error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from raylib.serve.config import ServeConfig

MAX_TOP_K = 1000
MAX_ID_CHARACTERS = 1024
MAX_METADATA_FIELDS = 64

_BODIES_AT_A_TIME = 16
"""Bodies of full length that fit into what is held at a time; short ones are many more."""


@dataclass(frozen=True)
class Limits:
    """What each field bounds is said at `raylib.serve.config`'s."""

    inputs: int = 2048
    body_bytes: int = 32 * 2**20
    text_characters: int = 200_000
    image_pixels: int = 40_000_000
    request_pixels: int = 400_000_000
    seconds: float = 30.0

    @classmethod
    def of(cls, config: ServeConfig) -> Limits:
        return cls(
            config.max_inputs,
            config.max_body_bytes,
            config.max_text_characters,
            config.max_image_pixels,
            config.max_request_pixels,
            config.timeout,
        )


@asynccontextmanager
async def deadline(seconds: float | None) -> AsyncIterator[None]:
    """What is asked in the block is given up after so many seconds; None: never. Raises DeadlineError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineError("the time for this request is over; send less, or try again later") from None


class BodyLimit:
    """ASGI middleware that reads the body and hands it on whole.

    Answers 413 for one that is longer than `limits.body_bytes`, whether it says so or not, 408 for one that does not
    come within `limits.seconds`, and 429 while other bodies fill the memory that is meant for them.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        taken = _Taken()
        try:
            try:
                async with asyncio.timeout(self.limits.seconds):
                    body = await self._read(scope, receive, taken)
            except TimeoutError:
                raise RequestError(408, "the body did not arrive in time; send it again, or a smaller one") from None
            if body is None:
                return
            await self.app(scope, _replay(body, receive), send)
        except RequestError as error:
            await error_response(error, close=True)(scope, receive, send)
        finally:
            self._held -= taken.bytes

    async def _read(self, scope: Scope, receive: Receive, taken: _Taken) -> bytes | None:
        """None where the client went away."""
        most = self.limits.body_bytes
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > most:
            raise self._too_long()
        parts = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            taken.bytes += len(part)
            self._held += len(part)
            if taken.bytes > most:
                raise self._too_long()
            if self._held > _BODIES_AT_A_TIME * most:
                raise RequestError(429, "the server holds as many bytes as it can; try again later", retry_after=1)
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    def _too_long(self) -> RequestError:
        most = self.limits.body_bytes
        return RequestError(413, f"the body is longer than {most} bytes; send less in one request")


@dataclass
class _Taken:
    bytes: int = 0


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body in one message, and then what comes after it."""
    given = False

    async def replayed() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
