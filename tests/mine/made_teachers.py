"""Teachers whose scores can be worked out by hand, and training data to mine with them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from raylib.types import Embeddings, EncodeContext
from tests.evaluate.made import Letters, Words

DOT = "tests.mine.made_teachers:dot"
SIDED = "tests.mine.made_teachers:sided"
BAG = "tests.mine.made_teachers:bag"
LATE = "tests.mine.made_teachers:late"


class Dot(Letters):
    """By inner product: letters a, b and c that two texts share, times one another, and a one."""

    similarity = "dot"


class Sided(Dot):
    """Has a prompt for each role. To a query it gives its letters backwards: its c where others have their a."""

    def context(self, task, role, *, split=None, subset=None):
        return EncodeContext(role, prompt=f"{role}: ", task=task)

    def preprocess(self, batch, context):
        tensors = super().preprocess(batch, context)
        if context.role == "query":
            tensors["counts"] = tensors["counts"][:, ::-1]
        return tensors


class Bag(Letters):
    """By cosine: the mean of a vector by chance for each word, the same in every run."""

    def preprocess(self, batch, context):
        tensors = super().preprocess(batch, context)
        rows = [np.mean([_of_word(word) for word in text.split()], axis=0) for text in batch["text"]]
        return {**tensors, "counts": np.array(rows, dtype=np.float32)}


class Sparse(Letters):
    similarity = "sparse"


def _of_word(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=64)


def dot() -> Letters:
    return Dot(DOT)


def sided() -> Letters:
    return Sided(SIDED)


def bag() -> Letters:
    return Bag(BAG, modalities=["text"])


def late() -> Words:
    return Words(LATE, modalities=["text"])


def sparse() -> Letters:
    return Sparse("tests.mine.made_teachers:sparse")


class Several(Dot):
    """Says that it compares single vectors and gives two for each content."""

    def forward(self, tensors):
        found = super().forward(tensors)
        return Embeddings(np.repeat(found.values, 2, axis=0), found.offsets * 2)


def several() -> Letters:
    return Several("tests.mine.made_teachers:several")


def topics(n_topics: int, size: int, seed: int = 0) -> list[dict]:
    """Rows, topic after topic: queries and documents are four of the six words that a topic has."""
    rng = np.random.default_rng(seed)
    rows = []
    for topic in range(n_topics):
        words = [f"t{topic}w{word}" for word in range(6)]
        for number in range(size):
            query, document = (" ".join(rng.permutation(words)[:4]) for _ in range(2))
            own = f"t{topic}n{number}"  # so that no two are equal
            rows.append({"id": own, "query": f"{query} {own}", "pos": f"{document} {own}"})
    return rows


def write_rows(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read_rows(path: Path | str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
