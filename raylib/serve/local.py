"""Models and corpora in the process that answers: `raylib serve --local`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

from raylib.encode.planned import resolve_encoder
from raylib.errors import UserError
from raylib.models.protocol import Encoder
from raylib.serve.batcher import Batcher, Runner
from raylib.serve.config import ServeConfig
from raylib.serve.model_worker import ModelWorker, Vectors
from raylib.serve.protocol import Asked, Content, Corpus, Embedder, Served
from raylib.types import compares_vectors

CorpusOpener = Callable[[str, Encoder], Awaitable[tuple[Corpus, Callable[[], Any]]]]
"""(corpus, encoder) → the corpus, and what closes it."""


class LocalRunner:
    """The model in threads of this process: one in its forward, one that prepares."""

    models = 1

    def __init__(self, worker: ModelWorker) -> None:
        self._worker = worker
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="model")

    async def __call__(self, contents: Sequence[Content], asked: Asked) -> Vectors:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._worker.encode, contents, asked)

    def close(self) -> None:
        self._threads.shutdown(wait=False)


def servable_encoders(config: ServeConfig) -> list[Encoder]:
    """Of --model, without weights. Raises UserError for one whose vectors no client could compare."""
    found = [resolve_encoder(spec) for spec in config.specs()]
    for encoder in found:
        if not compares_vectors(encoder.similarity):
            raise UserError(
                f"{encoder.spec.name} compares token weights ({encoder.similarity}), which are no vectors to serve; "
                "leave --mode out, or give --mode dense or multi-vector"
            )
    return found


async def open_locally(config: ServeConfig, stack: AsyncExitStack) -> dict[str, Served]:
    """See `raylib.serve.server.Opener`."""
    served: dict[str, Served] = {}
    for encoder in await asyncio.to_thread(servable_encoders, config):
        worker = ModelWorker(encoder, config.max_batch_tokens)
        await asyncio.to_thread(worker.load)
        runner = LocalRunner(worker)
        stack.callback(runner.close)
        await add_served(served, encoder, batcher_of(config, encoder, runner), config, stack, corpus_opener(config))
    return served


def batcher_of(config: ServeConfig, encoder: Encoder, runner: Runner) -> Batcher:
    return Batcher(encoder, runner, max_tokens=config.max_batch_tokens, max_queue=config.max_queue)


async def add_served(
    served: dict[str, Served],
    encoder: Encoder,
    embedder: Embedder,
    config: ServeConfig,
    stack: AsyncExitStack,
    open_corpus: CorpusOpener,
) -> None:
    """Under the model's name with its first corpus, under MODEL@CORPUS with each."""
    name = encoder.spec.name
    if not config.corpus:
        served[name] = Served(name, embedder)
    for corpus in config.corpus:
        opened, close = await open_corpus(corpus, encoder)
        stack.push_async_callback(asyncio.to_thread, close)
        one = Served(f"{name}@{corpus}", embedder, opened)
        if name not in served:
            served[name] = Served(name, embedder, opened)
        if len(config.corpus) > 1:
            served[one.name] = one


def corpus_opener(config: ServeConfig) -> CorpusOpener:
    """Opens corpora in this process."""

    async def opened(name: str, encoder: Encoder) -> tuple[Corpus, Callable[[], Any]]:
        corpus = await asyncio.to_thread(open_here, config, name, encoder)
        return corpus, corpus.close

    return opened


def open_here(config: ServeConfig, name: str, encoder: Encoder) -> Any:
    """The corpus in this process. Raises UserError where it has no vectors of this model."""
    from raylib.serve.corpus import open_corpus

    assert config.store is not None
    return open_corpus(
        name,
        config.store,
        encoder,
        languages=config.languages,
        splits=config.splits,
        data_root=config.data_root,
        allow_errors=config.allow_errors,
        wait_seconds=config.timeout,
    )
