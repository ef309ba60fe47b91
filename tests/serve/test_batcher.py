"""The queue: few forwards for many requests, deadlines, back-pressure, and failures that stay with their request."""

import asyncio
import threading

import numpy as np
import pytest

from raylib.errors import DeadlineError, OverloadedError, RefusedContentsError
from raylib.serve.batcher import Batcher
from raylib.serve.model_worker import FAILS, ModelWorker, Vectors
from raylib.serve.protocol import Content, WorkerDiedError
from tests.serve.fakes import CountingEncoder, vector_of
from tests.serve.running import batcher


def texts(*given):
    return [Content(text) for text in given]


def test_what_waits_goes_together_and_each_gets_its_own():
    encoder = CountingEncoder()
    encoder.gate = threading.Event()

    async def many():
        model = batcher(encoder)
        first = asyncio.ensure_future(model.embed(texts("first"), "query"))
        await asyncio.sleep(0.1)  # it is in its forward
        asked = [asyncio.ensure_future(model.embed(texts(f"text {i}", f"other {i}"), "query")) for i in range(30)]
        await asyncio.sleep(0.05)
        encoder.gate.set()
        return [await one for one in [first, *asked]]

    answers = asyncio.run(many())
    np.testing.assert_array_equal(answers[0][0].dense(), [vector_of("q: first")])
    for i, (vectors, tokens) in enumerate(answers[1:]):
        np.testing.assert_array_equal(vectors.dense(), [vector_of(f"q: text {i}"), vector_of(f"q: other {i}")])
        assert tokens == [len(f"text {i}"), len(f"other {i}")]
    assert sum(encoder.forwards) == 61 and len(encoder.forwards) <= 4


def test_roles_do_not_share_a_forward():
    encoder = CountingEncoder()

    async def both():
        model = batcher(encoder)
        return await asyncio.gather(*(model.embed(texts("a"), role) for role in ("query", "document", None)))

    found = [vectors.dense()[0] for vectors, _ in asyncio.run(both())]
    np.testing.assert_array_equal(found, [vector_of("q: a"), vector_of("d: a"), vector_of("a")])


def test_no_forward_holds_more_than_the_tokens_it_may():
    encoder = CountingEncoder()
    encoder.gate = threading.Event()

    async def many():
        model = batcher(encoder, max_tokens=100)
        warm = asyncio.ensure_future(model.embed(texts("w" * 10), None))
        asked = [asyncio.ensure_future(model.embed(texts("x" * 10), None)) for _ in range(50)]
        await asyncio.sleep(0.05)
        encoder.gate.set()
        await asyncio.gather(warm, *asked)

    asyncio.run(many())
    assert max(encoder.forwards) == 10 and sum(encoder.forwards) == 51


def test_a_request_whose_time_is_over_is_never_forwarded():
    encoder = CountingEncoder()
    encoder.gate = threading.Event()

    async def late():
        model = batcher(encoder)
        held = [asyncio.ensure_future(model.embed(texts(name), None)) for name in ("one", "two")]
        await asyncio.sleep(0.1)  # both places are taken
        with pytest.raises(DeadlineError):
            await model.embed(texts("late", "too late"), None, 0.1)
        assert model.waiting == 0
        encoder.gate.set()
        await asyncio.gather(*held)
        await model.embed(texts("next"), None)
        return model.stats.expired

    assert asyncio.run(late()) == 1
    assert sum(encoder.forwards) == 3


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back():
    encoder = CountingEncoder()
    encoder.gate = threading.Event()

    async def full():
        model = batcher(encoder, max_queue=5)
        held = [asyncio.ensure_future(model.embed(texts(str(i)), None)) for i in range(2)]
        await asyncio.sleep(0.1)
        waiting = [asyncio.ensure_future(model.embed(texts(str(i)), None)) for i in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as refused:
            await model.embed(texts("more"), None)
        encoder.gate.set()
        await asyncio.gather(*held, *waiting)
        await model.embed(texts("more"), None)  # room again
        return refused.value.retry_after_seconds

    assert asyncio.run(full()) > 0


class HeldRunner:
    """A batch is in its forward until it is let go. sizes: of all batches, as they came."""

    models = 1

    def __init__(self):
        self.worker, self.sizes, self.gates = ModelWorker(CountingEncoder(), None), [], []

    async def __call__(self, contents, asked) -> Vectors:
        gate = asyncio.Event()
        self.sizes.append(len(contents))
        self.gates.append(gate)
        await gate.wait()
        return self.worker.encode(contents, asked)


def test_what_waits_is_shared_between_the_batches_that_follow():
    """Not all of it in one, after which the next would have nothing while its clients wait for their answers."""

    async def through():
        runner = HeldRunner()
        model = Batcher(CountingEncoder(), runner, max_tokens=1000, max_queue=100)
        asked = [asyncio.ensure_future(model.embed(texts(str(i)), None)) for i in range(32)]
        for number in range(4):
            while len(runner.gates) <= number:
                await asyncio.sleep(0.001)
            runner.gates[number].set()
        await asyncio.gather(*asked)
        return runner.sizes

    assert asyncio.run(through()) == [1, 1, 16, 14]


@pytest.mark.parametrize("bad", ["unreadable", "poison"])
def test_a_bad_content_fails_its_own_request_alone(bad):
    encoder = CountingEncoder()
    encoder.gate = threading.Event()

    async def mixed():
        model = batcher(encoder)
        asked = [asyncio.ensure_future(model.embed(texts(t), None)) for t in ("a", "b", "c", bad, "d", "e")]
        await asyncio.sleep(0.1)
        encoder.gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(mixed())
    failed = found.pop(3)
    assert isinstance(failed, RefusedContentsError) and "secret" not in str(failed)
    np.testing.assert_array_equal([v.dense()[0] for v, _ in found], [vector_of(t) for t in "abcde"])


class DyingRunner:
    """Dies over the text "killer", always, and over the first batch whatever it holds."""

    models = 1

    def __init__(self):
        self.worker = ModelWorker(CountingEncoder(), None)
        self.deaths = 0

    async def __call__(self, contents, role) -> Vectors:
        await asyncio.sleep(0.01)
        if not self.deaths or any(content.text == "killer" for content in contents):
            self.deaths += 1
            raise WorkerDiedError("gone")
        return self.worker.encode(contents, role)


def test_what_a_dead_worker_held_is_tried_again_and_what_kills_it_is_given_up():
    async def through():
        model = Batcher(CountingEncoder(), DyingRunner(), max_tokens=1000, max_queue=100)
        asked = [asyncio.ensure_future(model.embed(texts(t), None)) for t in ("a", "b", "killer", "c")]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(through())
    assert isinstance(found.pop(2), WorkerDiedError)
    np.testing.assert_array_equal([v.dense()[0] for v, _ in found], [vector_of(t) for t in "abc"])


def test_a_model_that_is_broken_is_told_from_a_bad_content_and_found_well_again():
    worker = ModelWorker(CountingEncoder(), None)
    assert worker.encode(texts("a", "poison"), None).reasons == {1: FAILS} and not worker.broken
    with pytest.raises(WorkerDiedError, match="counting fails on whatever it is given"):
        worker.encode(texts("a", "breaks"), None)
    assert worker.broken
    worker.encoder.broken = False  # pyright: ignore[reportAttributeAccessIssue]
    assert len(worker.encode(texts("a"), None).by_row()) == 1 and not worker.broken
