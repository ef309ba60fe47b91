"""Dynamic batching: what many requests ask of one model waits in one queue, and goes in as few forwards as the tokens
of one allow.

Nothing waits for company while the model is free: a batch is whatever waits when a place becomes free. While a batch
is in its forward, the next one is prepared; it is closed late, for until the forward ends it costs nothing to wait.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from raylib.errors import DeadlineError, OverloadedError, RefusedContentsError
from raylib.evaluate.contents import count_pixels
from raylib.models.protocol import Encoder
from raylib.serve.costs import Costs
from raylib.serve.limits import deadline
from raylib.serve.model_worker import Vectors
from raylib.serve.protocol import Asked, Content, WorkerDiedError
from raylib.types import Embeddings

MAX_DEATHS = 3
"""How often workers may die over a content before it is given up. After the first death it goes alone."""

_WINDOW = 1024
"""Waiting contents among which a batch finds those that fit the first of them."""

_AHEAD = 2.0
"""How many times the preparation of a batch, beside the way to the model and back, it is closed before the forward that
it waits for should end."""


class Runner(Protocol):
    """Where the model runs. models: how many of it there are now, each of which takes one batch at a time."""

    @property
    def models(self) -> int: ...

    def __call__(self, contents: Sequence[Content], asked: Asked) -> Awaitable[Vectors]:
        """Raises WorkerDiedError."""
        ...


@dataclass
class BatchStats:
    """What was done so far. seconds: of batches, from the moment they were closed."""

    batches: int = 0
    contents: int = 0
    tokens: int = 0
    seconds: float = 0.0
    deaths: int = 0
    expired: int = 0
    overloaded: int = 0


@dataclass(eq=False)
class _Request:
    left: int
    ended: asyncio.Future[None]
    rows: dict[int, np.ndarray] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.ended.done()


@dataclass(eq=False)
class _Waiting:
    """cost: tokens, as far as one can tell before they are counted."""

    request: _Request
    row: int
    content: Content
    asked: Asked
    cost: int
    pixels: int
    deaths: int = 0


class Batcher:
    """An `Embedder` (see `raylib.serve.protocol`) over a `Runner`, of one event loop.

    max_tokens: of a forward, padding included. max_queue: contents that may wait; a request that finds fewer places
    raises OverloadedError with the time after which there should be room.
    """

    def __init__(self, encoder: Encoder, run: Runner, *, max_tokens: int, max_queue: int) -> None:
        self.encoder, self.stats = encoder, BatchStats()
        self._run, self._max_queue = run, max_queue
        self._costs = Costs(max_tokens)
        self._queue: deque[_Waiting] = deque()
        self._live = 0
        self._running: dict[asyncio.Task[None], tuple[float, int]] = {}  # (when it was closed, contents)
        # Of a batch, as they were lately; the way is there and back.
        self._prepare_seconds, self._forward_seconds, self._way_seconds = 0.0, 0.0, 0.0
        self._contents_per_second = 0.0
        self._last_end, self._last_size = 0.0, 1
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Contents that are in no batch yet."""
        return self._live

    @property
    def running(self) -> int:
        """Batches under way."""
        return len(self._running)

    async def embed(
        self, contents: Sequence[Content], asked: Asked, seconds: float | None = None
    ) -> tuple[Embeddings, list[int]]:
        """See `Embedder.embed`. Raises besides what the model raised, and WorkerDiedError where it is gone."""
        n = len(contents)
        if self._live + n > self._max_queue:
            self.stats.overloaded += 1
            raise OverloadedError(
                f"{self._live} inputs wait for the model and at most {self._max_queue} may; try again later",
                self._live / self._contents_per_second if self._contents_per_second else 1.0,
            )
        request = _Request(n, asyncio.get_running_loop().create_future(), tokens=[0] * n)
        for row, content in enumerate(contents):
            pixels = count_pixels(content.image) if content.image is not None else 0
            self._queue.append(_Waiting(request, row, content, asked, self._costs.of(content, pixels), pixels))
        self._live += n
        self._send()
        try:
            async with deadline(seconds):
                await request.ended
        except DeadlineError:
            self.stats.expired += 1
            raise
        finally:
            request.ended.cancel()
            if request.left:
                self._forget_over()
        return self._answer(request, n)

    def _answer(self, request: _Request, n: int) -> tuple[Embeddings, list[int]]:
        if request.reasons:
            raise RefusedContentsError(self.encoder.spec.name, dict(sorted(request.reasons.items())), None)
        return Embeddings.from_list([request.rows[row] for row in range(n)]), request.tokens

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._running:
            await asyncio.wait(list(self._running))

    # The queue.

    def _forget_over(self) -> None:
        """Take out what nobody waits for any more."""
        self._queue = deque(one for one in self._queue if not one.request.over)
        self._live = len(self._queue)

    def _send(self) -> None:
        """Close batches for all places that are free: one in the forward and one in preparation for each model."""
        models = max(1, self._run.models)
        while self._queue and len(self._running) < 2 * models:
            if len(self._running) >= models and self._live < self._costs.max_contents and not self._is_time():
                return
            batch = self._take()
            self._last_size = len(batch)
            task = asyncio.ensure_future(self._work(batch))
            self._running[task] = time.monotonic(), len(batch)
            task.add_done_callback(self._finished)

    def _is_time(self) -> bool:
        """Whether the batch that is prepared behind those in their forward is to be closed now; else it will be."""
        forward = min(self._running.values())[0] + self._prepare_seconds
        if self._run.models == 1:  # of several, any may have been the last to end
            forward = max(forward, self._last_end)
        lead = self._way_seconds + _AHEAD * self._prepare_seconds
        wait = forward + self._forward_seconds - lead - time.monotonic()
        if wait <= 0.0005:
            return True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._ring)
        return False

    def _ring(self) -> None:
        self._timer = None
        self._send()

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._send()

    def _take(self) -> list[_Waiting]:
        """The first that waits, and those near it that are asked for alike and fit beside it, up to its share."""
        share = self._share()
        first = self._queue.popleft()
        if first.deaths:
            self._live -= 1
            return [first]
        chosen, passed = [first], []
        fits = self._costs.batch_of(first.cost, first.pixels)
        for _ in range(min(_WINDOW, len(self._queue))):
            if len(chosen) == share:
                break
            one = self._queue.popleft()
            alike = one.asked == first.asked and not one.deaths
            (chosen if alike and fits(one.cost, one.pixels) else passed).append(one)
        self._queue.extendleft(reversed(passed))
        self._live -= len(chosen)
        return chosen

    def _share(self) -> int:
        """How many contents a batch may have: of all that is asked and not answered, what each place gets; and as many
        as the batch before it. Clients that wait for answers before they ask again would otherwise stay together: a
        large batch, then a small one that ends before the others have asked again, and so on."""
        under_way = sum(n for _, n in self._running.values())
        return max(math.ceil((self._live + under_way) / (2 * max(1, self._run.models))), self._last_size)

    # A batch.

    async def _work(self, batch: list[_Waiting]) -> None:
        start = time.monotonic()
        try:
            vectors = await self._run([one.content for one in batch], batch[0].asked)
        except WorkerDiedError as death:
            self._again(batch, death)
            return
        except Exception as error:
            for one in batch:
                _fail(one.request, error)
            return
        seconds = time.monotonic() - start
        self._note(batch, vectors, seconds)
        found = vectors.by_row()
        for row, one in enumerate(batch):
            request = one.request
            if row in found:
                request.rows[one.row] = found[row]
                request.tokens[one.row] = vectors.tokens[row] if vectors.tokens is not None else 0
            else:
                request.reasons[one.row] = vectors.reasons[row]
            request.left -= 1
            if not request.left and not request.over:
                request.ended.set_result(None)

    def _note(self, batch: list[_Waiting], vectors: Vectors, seconds: float) -> None:
        self.stats.batches += 1
        self.stats.contents += len(batch)
        self.stats.seconds += seconds
        self.stats.tokens += sum(vectors.tokens or ())
        self._costs.learn([(one.content, one.pixels) for one in batch], vectors.tokens)
        weight = 0.2 if self._forward_seconds else 1.0
        self._prepare_seconds += weight * (vectors.prepare_seconds - self._prepare_seconds)
        self._forward_seconds += weight * (vectors.forward_seconds - self._forward_seconds)
        way = max(0.0, seconds - vectors.prepare_seconds - vectors.wait_seconds - vectors.forward_seconds)
        self._way_seconds += weight * (way - self._way_seconds)
        self._last_end = time.monotonic()
        # Two batches of a model overlap, so that one takes about half of what it seems to.
        rate = len(batch) / seconds * min(len(self._running), 2 * self._run.models) if seconds else 0.0
        self._contents_per_second += (0.1 if self._contents_per_second else 1.0) * (rate - self._contents_per_second)

    def _again(self, batch: list[_Waiting], death: WorkerDiedError) -> None:
        """Back to the front of the queue, one by one: whatever killed the worker is then alone."""
        self.stats.deaths += 1
        for one in reversed(batch):
            one.deaths += 1
            if one.request.over:
                continue
            if one.deaths >= MAX_DEATHS:
                _fail(one.request, death)
            else:
                self._queue.appendleft(one)
                self._live += 1


def _fail(request: _Request, error: Exception) -> None:
    if not request.over:
        request.ended.set_exception(error)
