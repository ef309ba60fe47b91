"""Models and corpora in the process that answers: `raylib serve --local`."""

from __future__ import annotations

import asyncio
import os
import sys
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


SWITCH_SECONDS = 0.0001
"""How long one thread of Python keeps the others waiting: a forward of many small steps asks for its turn at each."""


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


def servable_encoders(config: ServeConfig) -> dict[str, Encoder]:
    """Of --model, without weights, by the name that clients know: of a folder its own name alone, for where it lies is
    no affair of theirs. Raises UserError for one whose vectors no client could compare, and for two of one name."""
    found: dict[str, Encoder] = {}
    for spec in config.specs():
        encoder = resolve_encoder(spec)
        if not compares_vectors(encoder.similarity):
            raise UserError(
                f"{encoder.spec.name} compares token weights ({encoder.similarity}), which are no vectors to serve; "
                "leave --mode out, or give --mode dense or multi-vector"
            )
        name = os.path.basename(os.path.abspath(spec.name)) if os.path.exists(spec.name) else spec.name
        if name in found:
            raise UserError(f"two models are named {name}; rename the folder of one of them")
        found[name] = encoder
    return found


async def open_locally(config: ServeConfig, encoder: Encoder, name: str, stack: AsyncExitStack) -> dict[str, Served]:
    """See `raylib.serve.server.Opener`."""
    import torch

    sys.setswitchinterval(SWITCH_SECONDS)
    if config.cpus_per_replica is not None:
        torch.set_num_threads(config.cpus_per_replica)
    worker = ModelWorker(encoder, config.max_batch_tokens)
    await asyncio.to_thread(worker.load)
    runner = LocalRunner(worker)
    stack.callback(runner.close)
    return await with_corpora(config, name, batcher_of(config, encoder, runner), stack, corpus_opener(config))


def batcher_of(config: ServeConfig, encoder: Encoder, runner: Runner) -> Batcher:
    return Batcher(encoder, runner, max_tokens=config.max_batch_tokens, max_queue=config.max_queue)


async def with_corpora(
    config: ServeConfig, name: str, embedder: Embedder, stack: AsyncExitStack, open_corpus: CorpusOpener
) -> dict[str, Served]:
    """Under the model's name with the first corpus; where there are several, under NAME@CORPUS with each."""
    if not config.corpus:
        return {name: Served(name, embedder)}
    served: dict[str, Served] = {}
    for corpus in config.corpus:
        opened, close = await open_corpus(corpus, embedder.encoder)
        stack.push_async_callback(asyncio.to_thread, close)
        served.setdefault(name, Served(name, embedder, opened))
        if len(config.corpus) > 1:
            both = f"{name}@{os.path.basename(corpus.rstrip('/'))}"
            served[both] = Served(both, embedder, opened)
    return served


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
