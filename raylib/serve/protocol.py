"""What stands behind the HTTP interface: models that embed, and corpora that are searched and grow.

`raylib.serve.app` knows nothing else, so the same application runs in one process and on Ray Serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from raylib.models.protocol import Encoder
from raylib.types import Embeddings, EncodeContext, Role

Metadata = Mapping[str, str | int | float | bool]
"""What a document says of itself beside its content; filters of a search compare these."""


Asked = Role | EncodeContext | None
"""How contents are encoded: as a side of a retrieval, as the model does that by itself, or under the very prompt that
the contents they are compared with have."""


@dataclass(frozen=True)
class Content:
    """What is embedded: a text, an image, or both where the model fuses them.

    image: the bytes of a PNG, JPEG or WebP that was checked already (`raylib.serve.images`): decoding it is safe.
    """

    text: str | None = None
    image: bytes | None = None


@dataclass(frozen=True)
class Document:
    """A document of a corpus. id: any text, never a path."""

    id: str
    content: Content
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    """score: of the model's own similarity; higher is better."""

    id: str
    score: float
    metadata: Metadata = field(default_factory=dict)


class WorkerDiedError(ConnectionError):
    """What ran a model went away over a batch, or the model there works no more: the batch may be tried elsewhere."""


class Embedder(Protocol):
    """One model, which batches what many callers ask at once.

    encoder: without weights, for its name, similarity, modalities, `token_grid` and `token_texts`.
    """

    encoder: Encoder

    async def embed(
        self, contents: Sequence[Content], asked: Asked, seconds: float | None = None
    ) -> tuple[Embeddings, list[int]]:
        """One entry a content, in order, and the tokens that each had.

        seconds: what is left until the caller's deadline. Raises OverloadedError where the queue is full,
        DeadlineError where time ran out before the forward, RefusedContentsError for contents the model cannot read.
        """
        ...


class Corpus(Protocol):
    """Documents with vectors of one model, searched exactly, durable.

    What `add` and `delete` were asked is on disk when they return, and is there after a kill. contexts: the prompts
    under which queries and documents are to be encoded.
    """

    model: str

    @property
    def contexts(self) -> Mapping[Role, EncodeContext]: ...

    async def search(
        self, queries: Embeddings, top_k: int, filters: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        """Per query at most `top_k` hits, best first, ties as in `raylib evaluate`. Raises UserError for a filter that
        cannot be right."""
        ...

    async def add(self, documents: Sequence[Document], vectors: Embeddings) -> None:
        """Put documents in; one with an id that is there replaces the other."""
        ...

    async def delete(self, ids: Sequence[str]) -> list[str]:
        """Take documents out; gives the ids that were there."""
        ...

    async def documents(self, ids: Sequence[str]) -> list[Document | None]:
        """With text, image bytes and metadata, in order; None for an id that is not there."""
        ...

    async def ids(self, start: int = 0, count: int = 100) -> list[str]:
        """Some ids in sorted order, from place `start`."""
        ...

    async def changes(self) -> tuple[dict[str, str], list[str]]:
        """What clients did: the ids of documents that they put in → a state, another one for another document of that
        id (and perhaps for the same one); and the ids that they took out of what the corpus began with."""
        ...

    async def vectors(self, ids: Sequence[str]) -> Embeddings:
        """Their vectors, in order. Raises UserError for an id that is not there."""
        ...

    async def count(self) -> int: ...


@dataclass(frozen=True)
class Served:
    """A model, and the corpus in its vectors where one is served."""

    name: str
    embedder: Embedder
    corpus: Corpus | None = None

    def asked(self, role: Role) -> Asked:
        """How a content is encoded that is compared with the corpus."""
        return role if self.corpus is None else self.corpus.contexts[role]
