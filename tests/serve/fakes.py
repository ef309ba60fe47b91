"""Stand-ins for what is behind HTTP: a corpus in memory, and an encoder whose forwards can be counted and held."""

from __future__ import annotations

import hashlib
import threading
from types import SimpleNamespace

import numpy as np

from raylib.errors import UserError
from raylib.models.protocol import Encoder, ModelSpec
from raylib.serve.protocol import Hit
from raylib.types import Embeddings, EncodeContext

DIM = 8


class CountingEncoder(Encoder):
    """Dense: a vector that is a hash of the text and its prompt. tensors: the lengths of the texts as tokens.

    gate: where set, a forward waits for it. forwards: how many texts each had. A text with "poison" fails the forward,
    one with "unreadable" the preprocessing; one with "breaks" this forward and all after it.
    """

    fields = ("text",)

    def __init__(self, name: str = "counting") -> None:
        super().__init__(ModelSpec(name), SimpleNamespace(name="fake"))  # pyright: ignore[reportArgumentType]
        self.supported_options = frozenset({"embedding_dim"})  # pyright: ignore[reportAttributeAccessIssue]
        self.forwards: list[int] = []
        self.gate: threading.Event | None = None
        self.broken = False

    @property
    def identity(self):
        return {"fake": self.spec.name}

    def default_prompt(self, task, role):
        return {"query": "q: ", "document": "d: ", None: ""}[role]

    def preprocess(self, batch, context: EncodeContext):
        if any("unreadable" in text for text in batch["text"]):
            raise RuntimeError("inside of /secret/path")
        texts = [context.prompt + text for text in batch["text"]]
        counts = [len(text) for text in batch["text"]]
        mask = np.zeros((len(texts), max(counts)), dtype=np.int64)
        for row, count in enumerate(counts):
            mask[row, :count] = 1
        digests = np.array([vector_of(text) for text in texts])
        harm = {name: np.array([name in text for text in texts]) for name in ("poison", "breaks")}
        return {"attention_mask": mask, "vectors": digests, **harm}

    def forward(self, tensors):
        if self.gate is not None:
            assert self.gate.wait(20)
        self.broken |= bool(tensors["breaks"].any())
        if self.broken or tensors["poison"].any():
            raise RuntimeError("inside of /secret/path")
        self.forwards.append(len(tensors["vectors"]))
        return Embeddings.from_dense(tensors["vectors"])


def vector_of(text: str) -> np.ndarray:
    """[DIM] float32 of unit length."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


class MemoryCorpus:
    """Dense cosine over a dict; a filter is a value that a field of the metadata must have."""

    def __init__(self, model: str = "counting") -> None:
        self.model = model
        self.contexts = {"query": EncodeContext("query", "q: "), "document": EncodeContext("document", "d: ")}
        self.held: dict[str, tuple] = {}

    async def search(self, queries, top_k, filters=None):
        if filters and any(isinstance(value, dict) for value in filters.values()):
            raise UserError("a filter is an object; expected a value")
        found = []
        for query in queries:
            hits = [
                Hit(name, float(query[0] @ vectors[0]), document.metadata)
                for name, (document, vectors) in self.held.items()
                if all(document.metadata.get(key) == value for key, value in (filters or {}).items())
            ]
            found.append(sorted(hits, key=lambda hit: (-hit.score, hit.id))[:top_k])
        return found

    async def add(self, documents, vectors):
        self.held.update({d.id: (d, v) for d, v in zip(documents, vectors, strict=True)})

    async def delete(self, ids):
        return [name for name in ids if self.held.pop(name, None) is not None]

    async def documents(self, ids):
        return [self.held[name][0] if name in self.held else None for name in ids]

    async def ids(self, start=0, count=100):
        return sorted(self.held)[start : start + count]

    async def changes(self):
        return {name: str(id(document)) for name, (document, _) in self.held.items()}, []

    async def vectors(self, ids):
        return Embeddings.from_list([self.held[name][1] for name in ids], DIM)

    async def count(self):
        return len(self.held)
