"""Encoders whose vectors can be worked out by hand, which count what they do and fail when told to."""

from __future__ import annotations

import numpy as np

from raylib.errors import ModelError
from raylib.models.family import Family
from raylib.models.protocol import Encoder, ModelSpec
from raylib.types import Embeddings, EncodeContext

FAMILY = Family("made", "tests.evaluate.made:Letters", "dense", ("text", "image"))


class Letters(Encoder):
    """Dense: how often a, b and c occur in the text (or red, green and blue, 0 to 1, of the image), and a one.

    batches: the sizes of the forwards. fits: contents that a forward has memory for. preprocess fails for a text with
    "crash" in it, forward gives NaN for one with "nan" in it.
    """

    supported_options = frozenset({"pooling"})

    def __init__(self, name: str = "made/letters", fits: int | None = None, modalities=("text", "image"), fuses=False):
        self.modalities, self.fuses, self.fits = frozenset(modalities), fuses, fits
        super().__init__(ModelSpec(name), FAMILY)
        self.batches: list[int] = []
        self.texts: list[str] = []

    @property
    def identity(self):
        return {"made": type(self).__name__, "name": self.spec.name}

    def context(self, task, role, *, split=None, subset=None):
        return EncodeContext(role, task=task)

    def preprocess(self, batch, context):
        texts = batch.get("text", [""] * len(next(iter(batch.values()))))
        if any("crash" in text for text in texts):
            raise RuntimeError(f"cannot tokenise a batch of {len(texts)}")
        rows = [[text.count(letter) for letter in "abc"] for text in texts]
        if "image" in batch:
            colours = [np.asarray(image.convert("RGB")).mean(axis=(0, 1)) / 255 for image in batch["image"]]
            rows = [list(np.add(row, colour)) for row, colour in zip(rows, colours, strict=True)]
        for row, text in zip(rows, texts, strict=True):
            row[0] = np.nan if "nan" in text else row[0]
        self.texts += texts
        return {"counts": np.array(rows, dtype=np.float32), "n": np.arange(len(texts))}

    def forward(self, tensors):
        import torch

        counts = tensors["counts"]
        if self.fits is not None and len(counts) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB\nand more lines of advice")
        assert len(tensors["n"]) == len(counts), "every tensor of a batch is halved"
        self.batches.append(len(counts))
        return Embeddings.from_dense(np.hstack([counts, np.ones((len(counts), 1), np.float32)]))

    @property
    def encoded(self) -> int:
        return sum(self.batches)


class Words(Letters):
    """Late interaction: one vector a word; none for a text with "void" in it."""

    similarity = "maxsim"

    def preprocess(self, batch, context):
        words = np.empty(len(batch["text"]), dtype=object)
        for i, text in enumerate(batch["text"]):
            words[i] = [] if "void" in text else [[w.count(letter) for letter in "abc"] for w in text.split()]
        return {"words": words}

    def forward(self, tensors):
        self.batches.append(len(tensors["words"]))
        return Embeddings.from_list([np.array(w, np.float32).reshape(-1, 3) for w in tensors["words"]], 3)


def by_hand(text: str) -> list[float]:
    """What `Letters` gives for a text."""
    return [float(text.count(letter)) for letter in "abc"] + [1.0]


def letters() -> Letters:
    return Letters("tests.evaluate.made:letters")


def tired() -> Letters:
    """Has memory for three contents at a time."""
    return Letters("tests.evaluate.made:tired", fits=3)


def reader() -> Letters:
    """Reads text only."""
    return Letters("tests.evaluate.made:reader", modalities=["text"])


def broken() -> Letters:
    raise RuntimeError("no weights today")


class Nan(Letters):
    """Gives NaN for everything."""

    def forward(self, tensors):
        return Embeddings.from_dense(np.full((len(tensors["n"]), 4), np.nan, np.float32))


def nan() -> Letters:
    return Nan("tests.evaluate.made:nan")


class Unloadable(Letters):
    """Can be planned; its weights cannot be read."""

    def load(self):
        raise ModelError("tests.evaluate.made:unloadable: its weights cannot be read")


def unloadable() -> Letters:
    return Unloadable("tests.evaluate.made:unloadable")


def words() -> Words:
    return Words("tests.evaluate.made:words", modalities=["text"])
