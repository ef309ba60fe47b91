"""Who may ask: bearer tokens, and where there are none, only requests that name this machine.

A server on loopback without tokens can be reached by any page in a browser of this machine whose host name was made to
point here (DNS rebinding). Such a page's requests carry its own name, and are refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from typing import TYPE_CHECKING

from raylib import storage
from raylib.errors import UserError
from raylib.serve.replies import RequestError, error_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

MIN_TOKEN_CHARACTERS = 16

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

_OPEN = ("/health", "/")
_OPEN_BELOW = "/assets/"
"""Say nothing of models or corpora: a load balancer asks the one, a browser loads the others before it has a token."""


def read_tokens(path: str) -> list[str]:
    """The tokens of a file, one a line. Raises UserError where there are none, or one could be guessed."""
    try:
        lines = [line.strip() for line in storage.read_text(path).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--token-file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    tokens = [line for line in lines if line]
    if not tokens:
        raise UserError(f"--token-file {path} is empty; expected a token, e.g. what `openssl rand -hex 32` prints")
    for number, token in enumerate(tokens, 1):
        if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
            raise UserError(
                f"--token-file {path}: token {number} has {len(token)} characters; expected at least "
                f"{MIN_TOKEN_CHARACTERS} printable ASCII ones without spaces, e.g. what `openssl rand -hex 32` prints"
            )
    return tokens


class Guard:
    """ASGI middleware. tokens: any of these lets a request in; none at all lets in every request.

    hosts: where given, the names without port that a request may be sent to.
    """

    def __init__(self, app: ASGIApp, tokens: Collection[str] = (), hosts: Collection[str] | None = None) -> None:
        self.app, self.hosts = app, hosts
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is not None:
                await error_response(refusal, close=True)(scope, receive, send)
                return
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        headers = dict(scope["headers"])
        if self.hosts is not None and _without_port(headers.get(b"host", b"")) not in self.hosts:
            return RequestError(421, "this server answers to this machine's own names only, such as localhost")
        path = scope["path"]
        if not self._digests or path in _OPEN or path.startswith(_OPEN_BELOW):
            return None
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = hashlib.sha256(token.strip()).digest()
        # Every token is compared, each in constant time: how long it takes tells nothing.
        known = [hmac.compare_digest(given, digest) for digest in self._digests]
        if scheme.lower() == b"bearer" and any(known):
            return None
        return RequestError(401, "no valid token; send the header Authorization: Bearer TOKEN")


def _without_port(host: bytes) -> str:
    name = host.decode("latin-1").lower()
    return name[: name.find("]") + 1] if name.startswith("[") else name.partition(":")[0]
