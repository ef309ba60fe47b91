"""An S3 server on loopback, moto's, in a thread: buckets that may be told to be busy, and that count what they are
asked."""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from raylib import buckets, storage

_BUSY = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)
SECRET = "made-up-secret-of-the-tests"


class Bucket:
    """url: s3://NAME. asked: how often, by method and key; a request that was refused counts, too."""

    def __init__(self, name: str) -> None:
        self.url, self.name = f"s3://{name}", name
        self.asked: Counter[tuple[str, str]] = Counter()
        self.refused = 0
        self._lock = threading.Lock()
        self._next, self._share, self._random = 0, 0.0, random.Random(0)
        self._key = ""
        self.seconds_a_get = 0.0

    def refuse(self, next: int = 0, share: float = 0.0, seed: int = 0, key: str = "") -> None:
        """503 to the `next` requests, and to a share of all later ones, drawn by a seed; only to those of which the key
        contains `key`. Nothing more is refused after refuse()."""
        with self._lock:
            self._next, self._share, self._random, self._key = next, share, random.Random(seed), key

    def gets(self, end: str = "") -> int:
        """How many GETs there were of objects whose key ends so."""
        return sum(n for (method, key), n in self.asked.items() if method == "GET" and key and key.endswith(end))

    def files(self) -> dict[str, bytes]:
        """Key → contents, without faults."""
        from moto.s3.models import s3_backends

        (account,) = s3_backends.values()
        return {key: found.value for key, found in account["aws"].buckets[self.name].keys.items()}

    def is_busy(self, method: str, key: str) -> bool:
        with self._lock:
            self.asked[method, key] += 1
            busy = self._key in key and (self._next > 0 or self._random.random() < self._share)
            self._next -= self._next > 0 and self._key in key
            self.refused += busy
            return busy


class Server:
    """A WSGI application around moto's."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.buckets: dict[str, Bucket] = {}
        self._moto: Any = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        name, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
        bucket = self.buckets.get(name)
        if bucket is not None and environ["REQUEST_METHOD"] == "GET":
            time.sleep(bucket.seconds_a_get)
        if bucket is not None and bucket.is_busy(environ["REQUEST_METHOD"], key):
            left = int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"].read(left)
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(_BUSY)))])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [_BUSY]
        return self._moto(environ, start)

    def bucket(self) -> Bucket:
        """A new one."""
        import boto3

        made = Bucket(f"bucket-{uuid.uuid4().hex}")
        boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1").create_bucket(Bucket=made.name)
        self.buckets[made.name] = made
        return made

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def s3_server() -> Iterator[Server]:
    """How it is found, and its credentials, are in this process' environment while the block lasts, and in that of
    processes that are started from it."""
    import fsspec
    import s3fs

    server = Server()
    found = {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": "AKIAMADEUPFORTESTS00",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"])),
    }
    with mock.patch.dict(os.environ, found):
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield server
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            fsspec.asyn.reset_lock()
            server.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as found:
        yield found


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new one, which is asked again after milliseconds."""
    monkeypatch.setattr(buckets, "FIRST_WAIT", 0.002)
    monkeypatch.setattr(buckets, "LONGEST_WAIT", 0.02)
    return server.bucket()


def put(bucket: Bucket, *folders: Path) -> None:
    """Each under its own name."""
    for local in folders:
        storage.upload_folder(local, f"{bucket.url}/{local.name}", last="")


def take(bucket: Bucket, ending: str, folder: Path) -> None:
    """The files of that ending, without the folders they lie in."""
    for name, data in bucket.files().items():
        if name.endswith(ending):
            (folder / Path(name).name).write_bytes(data)


def copy_together(url: str, together: Any, answers: Any) -> None:
    """In a process of its own: where its copy of `url` is, asked for when all are there."""
    from raylib import storage
    from raylib.copies import local_copy

    storage.find_files(url)
    together.wait()
    answers.put(local_copy(url))
