"""The application in this process, and `raylib serve` in one of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx

from raylib.serve.app import create_app
from raylib.serve.batcher import Batcher
from raylib.serve.local import LocalRunner
from raylib.serve.model_worker import ModelWorker
from raylib.serve.protocol import Served
from tests.serve.fakes import CountingEncoder, MemoryCorpus


def batcher(encoder, *, max_tokens=16384, max_queue=4096):
    return Batcher(encoder, LocalRunner(ModelWorker(encoder, max_tokens)), max_tokens=max_tokens, max_queue=max_queue)


def counting(*, corpus=True, max_queue=4096):
    """A fake model with an empty corpus, as `create_app` is given it."""
    encoder = CountingEncoder()
    served = Served("counting", batcher(encoder, max_queue=max_queue), MemoryCorpus() if corpus else None)
    return {"counting": served}


def ask(served, *requests, **settings):
    """The answers to requests, given as arguments of `httpx.AsyncClient.request`, all sent at once."""

    async def asked():
        transport = httpx.ASGITransport(create_app(served, **settings), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            return await asyncio.gather(*(client.request(method, url, **more) for method, url, more in requests))

    return asyncio.run(asked())


def post(url, body, served=None, **settings):
    """The answer to one JSON body."""
    return ask(served or counting(), ("POST", url, {"json": body}), **settings)[0]


@contextmanager
def serving(*arguments, **environment):
    """`raylib serve` → (its process, its address); stopped at the end."""
    command = [sys.executable, "-m", "raylib.cli", "serve", "--port", "0", *map(str, arguments)]
    variables = os.environ | {"PYTHONPATH": os.getcwd(), **environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r" on (http://\S+)", line)
        assert found is not None, f"it says {line!r}"
        yield process, found[1]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
