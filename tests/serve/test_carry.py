"""A corpus in the vectors of a new model: what clients did to the old one, and nothing else."""

import asyncio

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.serve.carry import Gate, carry_over
from raylib.serve.corpus import DiskCorpus
from raylib.serve.corpus_base import Base
from raylib.serve.corpus_log import ChangeLog
from raylib.serve.corpus_state import State
from raylib.serve.protocol import Content, Document, Served
from raylib.types import Embeddings, EncodeContext
from tests.serve.fakes import CountingEncoder, vector_of
from tests.serve.running import batcher

BASE = ["base/1", "base/2", "base/3"]


def text_of(name: str) -> str:
    return f"text of {name}"


def vectors_of(*texts: str, prompt: str = "d: ") -> Embeddings:
    return Embeddings.from_dense(np.array([vector_of(prompt + text) for text in texts]))


def corpus(folder, model: str) -> DiskCorpus:
    """Three documents from the start, in vectors of that model."""
    prompt = f"{model}: "
    found = vectors_of(*map(text_of, BASE), prompt=prompt)
    base = Base(
        BASE,
        np.arange(3),
        3,
        lambda: iter([(np.arange(3), found)]),
        lambda rows: found.take(np.array(rows)),
        lambda rows: [Content(text_of(BASE[row])) for row in rows],
        {"query": EncodeContext("query", "q: "), "document": EncodeContext("document", prompt)},
    )
    log = ChangeLog(str(folder / model), {"fingerprint": model})
    return DiskCorpus(model, State(base, log, "cosine"))


def add(corpus: DiskCorpus, **texts: str):
    documents = [Document(name, Content(text), {"n": len(text)}) for name, text in texts.items()]
    return corpus.add(documents, vectors_of(*texts.values(), prompt=f"{corpus.model}: "))


async def check_alike(old: DiskCorpus, new: DiskCorpus) -> None:
    """The same documents, each in its corpus's own vectors."""
    ids = await old.ids(0, 100)
    assert ids == await new.ids(0, 100)
    documents = await old.documents(ids)
    assert documents == await new.documents(ids)
    for one in (old, new):
        texts = [document.content.text or "" for document in documents if document is not None]
        expected = vectors_of(*texts, prompt=f"{one.model}: ").values
        np.testing.assert_allclose((await one.vectors(ids)).values, expected, atol=1e-6)


@pytest.mark.parametrize("stale", [False, True])
def test_what_clients_did_is_done_again_and_only_that(tmp_path, stale):
    """stale: the new model was served before, and its corpus had other changes then."""
    encoder = CountingEncoder("new")

    async def through():
        old, new = corpus(tmp_path, "old"), corpus(tmp_path, "new")
        if stale:
            await add(new, a="of long ago", x="of long ago", **{"base/1": "of long ago", "base/2": "of long ago"})
            await new.delete(["base/2", "base/3"])
        await add(old, a="one", b="two", c="three", **{"base/2": "replaced"})
        await old.delete(["b", "base/1"])
        served = Served("model", batcher(encoder), new)
        carried = await carry_over(old, served, {})
        await check_alike(old, new)
        restored = 1 if stale else 0  # base/3
        assert sum(encoder.forwards) == 3 + restored

        await add(old, c="three anew", d="four")
        await old.delete(["a", "base/2"])
        encoder.forwards.clear()
        await carry_over(old, served, carried)
        await check_alike(old, new)
        assert await new.ids(0, 100) == ["base/3", "c", "d"]
        assert sum(encoder.forwards) == 2 + restored
        for one in (old, new):
            one.close()
        again = corpus(tmp_path, "new")  # it is on disk
        assert await again.ids(0, 100) == ["base/3", "c", "d"]
        again.close()

    asyncio.run(through())


def test_a_document_that_the_new_model_cannot_read_is_named(tmp_path):
    async def through():
        old, new = corpus(tmp_path, "old"), corpus(tmp_path, "new")
        await add(old, good="a text", bad="unreadable")
        with pytest.raises(UserError, match="document 'bad' of the corpus no vectors: the model cannot read"):
            await carry_over(old, Served("model", batcher(CountingEncoder()), new), {})

    asyncio.run(through())


def test_a_gate_that_closes_lets_out_what_is_inside_and_keeps_others_waiting():
    async def through():
        gate, said = Gate(), []
        leave = asyncio.Event()

        async def change(name, until=None):
            async with gate.passed():
                said.append(f"{name} in")
                if until is not None:
                    await until.wait()
                said.append(f"{name} out")

        async def close():
            async with gate.closed():
                said.append("closed")
                await asyncio.sleep(0)
                assert not late.done()

        early = asyncio.ensure_future(change("early", leave))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(close())
        await asyncio.sleep(0)
        late = asyncio.ensure_future(change("late"))
        await asyncio.sleep(0)
        leave.set()
        await asyncio.gather(early, closing, late)
        return said

    assert asyncio.run(through()) == ["early in", "early out", "closed", "late in", "late out"]
