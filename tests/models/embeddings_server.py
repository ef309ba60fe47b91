"""An OpenAI-compatible embeddings server on the loopback, in this process, with the faults that real ones have."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIM = 8
PROBE = ["a"]
"""What an encoder asks for first, to see whether all is well."""


def vector_of(text: str) -> np.ndarray:
    """[DIM] float32 that no other text has."""
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint32).astype(np.float32) / 2**32


@dataclass
class Answer:
    """A reply that is given in place of the server's own."""

    status: int
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """vectors: texts → [n, dim]; a chat turn is the text of its JSON. instead: asked with each request's body first.

    max_texts of a request and max_chars of a text: what is more is refused. at_once: the most requests that were inside
    at one time; together: requests wait until they were so many, for 20 seconds at most. PROBE does not count.
    """

    vectors: Callable[[list[str]], np.ndarray] = lambda texts: np.stack([vector_of(text) for text in texts])
    instead: Callable[[dict[str, Any]], Answer | None] = lambda body: None
    max_texts: int = 1000
    max_chars: int = 1_000_000
    cuts: bool = True
    shuffles: bool = False
    knows_base64: bool = True
    together: int = 1
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    at_once: int = 0
    _inside: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def inputs(self) -> list[list[str]]:
        """The texts of each request but for PROBE."""
        return [body["input"] for body in self.bodies if body["input"] != PROBE]

    def answer(self, body: dict[str, Any]) -> Answer:
        if body.get("input") == PROBE:
            return self.instead(body) or self._embeddings(body)
        with self._changed:
            self._inside += 1
            self.at_once = max(self.at_once, self._inside)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.at_once >= self.together, timeout=20)
        try:
            return self.instead(body) or self._embeddings(body)
        finally:
            with self._changed:
                self._inside -= 1

    def _embeddings(self, body: dict[str, Any]) -> Answer:
        texts = body["input"] if "input" in body else [json.dumps(body["messages"])]
        if "input" in body and len(texts) > self.max_texts:
            return error(422, f"batch size {len(texts)} > maximum allowed batch size {self.max_texts}")
        if "input" in body and max(map(len, texts)) > self.max_chars:
            return error(400, f"This model's maximum context length is {self.max_chars} characters")
        vectors, dim = self.vectors(texts), body.get("dimensions")
        if dim is not None and self.cuts:
            vectors = vectors[:, :dim]
        if body["encoding_format"] == "base64" and not self.knows_base64:
            return error(400, "encoding_format must be float")
        values = [coded(row) if body["encoding_format"] == "base64" else row.tolist() for row in vectors]
        items = [{"object": "embedding", "index": i, "embedding": value} for i, value in enumerate(values)]
        return Answer(200, {"object": "list", "data": items[::-1] if self.shuffles else items, "model": body["model"]})


def coded(row: np.ndarray) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def error(status: int, message: str, **headers: str) -> Answer:
    return Answer(status, {"error": {"message": message, "type": "BadRequestError", "code": status}}, headers)


@contextmanager
def serving(**behaviour: Any) -> Iterator[Server]:
    """A server that answers at its `url` inside the block."""
    server = Server(**behaviour)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server._changed:
                server.bodies.append(body)
                server.headers.append(dict(self.headers))
                server.paths.append(self.path)
            answer = server.answer(body)
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
