"""One model behind POST {endpoint}/embeddings: attempts, errors that say what to change, and replies that are checked.

The API is OpenAI's (https://platform.openai.com/docs/api-reference/embeddings), which vLLM, TEI and others offer too.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np
import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import make_headers, parse_url

from raylib.errors import ModelError, UserError

ATTEMPTS = 8
BACKOFF_SECONDS = 0.5
"""The waits are 0, then 2, 4, 8, … of these, plus up to 2 more at random, so that workers do not come back as one."""
MAX_BACKOFF_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 300
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 300.0

REQUESTS_AT_ONCE = 16
"""Of one process."""

KEY_VARIABLES = ("RAYLIB_ENDPOINT_KEY", "OPENAI_API_KEY")

_PASSING = (408, 429, 500, 502, 503, 504)
_OF_CONTENT = (400, 413, 422)


class RefusedError(Exception):
    """The server will not have this request as it is, whoever sends it: too long, too many, an unknown parameter."""


def checked_url(endpoint: str) -> str:
    """`endpoint` in one spelling, without a slash at the end and without /embeddings.

    Raises UserError for anything but scheme, host, port and path: what stands elsewhere in a URL may be a secret, and
    this one goes into results.
    """
    try:
        parts = urlsplit(endpoint.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"--endpoint is no URL ({error}); expected one like http://localhost:8000/v1") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UserError("--endpoint is no http URL with a host; expected one like http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UserError(
            f"--endpoint for {host} has a user, a query or a fragment; expected scheme, host and path alone, like "
            f"http://localhost:8000/v1. A key goes into {KEY_VARIABLES[0]}."
        )
    host = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix("/embeddings")
    return urlunsplit((parts.scheme, host if port is None else f"{host}:{port}", path, "", ""))


def secret_key() -> str:
    """The key of this process's environment, "" for none. An empty RAYLIB_ENDPOINT_KEY keeps OPENAI_API_KEY at home."""
    for name in KEY_VARIABLES:
        if name in os.environ:
            key = os.environ[name].strip()
            if not (key.isascii() and key.isprintable() and " " not in key):
                raise UserError(f"{name} holds characters that no key has; set it again")
            return key
    return ""


class EndpointClient:
    """Safe for many threads. Reads the key from the environment with each request and keeps it nowhere."""

    def __init__(self, endpoint: str, model: str) -> None:
        self.model, self.endpoint = model, endpoint
        self.encoding = "base64"
        self._http = _pool(endpoint)

    def embed(self, asked: dict[str, Any], n: int, *, starting: bool = False) -> np.ndarray:
        """[n, dim] float32, in the order asked. asked: "input" of n texts, or "messages"; "dimensions" where wanted.

        starting: a server that cannot be connected to is not waited for.
        Raises RefusedError, and ModelError for all else that goes wrong.
        """
        body = {"model": self.model, "encoding_format": self.encoding, **asked}
        return self._vectors(self._post(body, starting), n)

    def _post(self, body: dict[str, Any], starting: bool) -> Any:
        key = secret_key()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        try:
            response = self._http.request(
                "POST",
                f"{self.endpoint}/embeddings",
                body=json.dumps(body).encode(),
                headers=headers,
                retries=_retries(starting),
                redirect=False,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
            )
        except HTTPError as error:
            reason = error.reason if isinstance(error, MaxRetryError) else error
            raise self._failed(
                f"does not answer ({type(reason).__name__}: {reason})",
                "Is the server up, and can this machine reach it?",
            ) from None
        if response.status == 200:
            try:
                return json.loads(response.data)
            except ValueError:
                raise self._failed(
                    "answers with something other than JSON", "Give the base URL of its API, which mostly ends in /v1."
                ) from None
        raise self._failure(response, key)

    def _failure(self, response: urllib3.BaseHTTPResponse, key: str) -> Exception:
        """What a status other than 200 means."""
        status, said = response.status, _message(response.data)
        said = said.replace(key, "***") if key else said
        answer = f"answers {status} ({said})"
        if status in _OF_CONTENT:
            return RefusedError(f"the server {answer}")
        if status in (401, 403):
            advice = f"Set {' or '.join(KEY_VARIABLES)} to a key that may use this model, wherever encoders run."
        elif status == 404:
            advice = "--model must be a name that it serves, and --endpoint its base URL, which mostly ends in /v1."
        elif 300 <= status < 400:
            answer = f"answers {status}, a redirection"
            advice = f"Give --endpoint where it leads: {response.headers.get('Location', 'unknown')}"
        elif status in _PASSING:
            attempts = 1 + len(response.retries.history if response.retries is not None else ())
            answer += f", {attempts} times over"
            advice = "Run again when it is well; what was encoded is stored. A smaller --batch-size asks less of it."
        else:
            advice = "Expected an OpenAI-compatible API."
        return self._failed(answer, advice)

    def _vectors(self, reply: Any, n: int) -> np.ndarray:
        items = reply.get("data") if isinstance(reply, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) and "embedding" in item for item in items):
            raise self._failed('sends no list "data" of items with an "embedding"', "Expected OpenAI's embeddings API.")
        places = [item.get("index", at) for at, item in enumerate(items)]
        if not all(isinstance(place, int) for place in places) or sorted(places) != list(range(n)):
            raise self._failed(f"sends {len(items)} vectors, numbered {places[:8]}, for {n} contents", _NOTHING_STORED)
        try:
            found = [_decoded(item["embedding"]) for item in items]
        except (ValueError, TypeError, binascii.Error) as error:
            raise self._failed(f"sends a vector that cannot be read ({error})", _NOTHING_STORED) from None
        shapes = {vector.shape for vector in found}
        if len(shapes) != 1 or found[0].ndim != 1:
            shown = ", ".join(str(list(shape)) for shape in sorted(shapes))
            raise self._failed(f"sends vectors of shape {shown} in one reply", "Expected one vector per content.")
        vectors = np.empty((n, len(found[0])), dtype=np.float32)
        vectors[places] = found
        if not np.isfinite(vectors).all():
            bad = int((~np.isfinite(vectors).all(axis=1)).sum())
            raise self._failed(f"sends NaN or infinite vectors for {bad} of {n} contents", _NOTHING_STORED)
        return vectors

    def _failed(self, what: str, advice: str) -> ModelError:
        return ModelError(f"{self.model}: {self.endpoint} {what}. {advice}")


_NOTHING_STORED = "Nothing of that request was stored; look at the server's log."


def _pool(endpoint: str) -> urllib3.PoolManager:
    """Connections, through the proxy that the environment names for this host, if any."""
    parts = urlsplit(endpoint)
    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    if proxy is None:
        return urllib3.PoolManager(maxsize=REQUESTS_AT_ONCE)
    user = parse_url(proxy).auth
    headers = make_headers(proxy_basic_auth=unquote(user)) if user else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, maxsize=REQUESTS_AT_ONCE)


def _retries(starting: bool) -> urllib3.Retry:
    """Again after what passes: no connection, a connection that breaks, no answer in time, and _PASSING. A server that
    names a time with Retry-After is asked again then."""
    return urllib3.Retry(
        total=ATTEMPTS - 1,
        other=2 if starting else None,
        allowed_methods=None,
        status_forcelist=_PASSING,
        backoff_factor=BACKOFF_SECONDS,
        backoff_jitter=2 * BACKOFF_SECONDS,
        backoff_max=MAX_BACKOFF_SECONDS,
        retry_after_max=MAX_RETRY_AFTER_SECONDS,
        raise_on_status=False,
    )


def _decoded(value: Any) -> np.ndarray:
    """Little-endian float32 in base64, or a list of numbers."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
    return np.asarray(value, dtype=np.float32)


def _message(data: bytes) -> str:
    """What a server says in a reply that is no success, in any of the ways of OpenAI, vLLM, TEI and FastAPI."""
    text = data.decode(errors="replace")
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    for _ in range(2):
        if isinstance(found, dict):
            found = next((found[name] for name in ("error", "message", "detail") if found.get(name)), text)
    return " ".join(str(found).split())[:400] or "no message"
