"""The types that cross a package border: embeddings, and what is asked of an encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard, cast, get_args

import numpy as np

Role = Literal["query", "document"]
"""Which side of a retrieval a content is on. None where a task has no sides (classification, STS)."""


@dataclass(frozen=True)
class Hybrid:
    """The weighted mean of three scores of one pair: the cosine of their dense vectors, the product of their token
    weights, and MaxSim divided by the number of query tokens (as BGE-M3 defines them, https://arxiv.org/abs/2402.03216).

    dense, sparse, multi_vector: the weights, finite, at least 0, not all 0.
    """

    dense: float = 0.4
    sparse: float = 0.2
    multi_vector: float = 0.4

    def __str__(self) -> str:
        return f"hybrid:{self.dense!r},{self.sparse!r},{self.multi_vector!r}"


VectorSimilarity = Literal["cosine", "dot", "maxsim"]
"""How vectors are compared, one a content or several. MTEB knows these too."""

Similarity = VectorSimilarity | Literal["sparse"] | Hybrid
""" "sparse": the product of the weights of the tokens that both contents have, see `raylib.token_weights`."""


def compares_vectors(similarity: Similarity) -> TypeGuard[VectorSimilarity]:
    """False for token weights, alone or in a hybrid: there only raylib's search can say how alike two contents are."""
    return similarity in get_args(VectorSimilarity)


def named_similarity(name: str) -> Similarity | None:
    """The similarity whose `str` this is; None for another text."""
    if name in ("sparse", *get_args(VectorSimilarity)):
        return cast("Similarity", name)
    kind, _, weights = name.partition(":")
    try:
        dense, sparse, multi_vector = map(float, weights.split(","))
    except ValueError:
        return None
    return Hybrid(dense, sparse, multi_vector) if kind == "hybrid" else None


Batch = dict[str, list[Any]]
"""MTEB's BatchedInput: column name → one entry per content. Images are PIL images."""

Tensors = dict[str, np.ndarray]
"""What `Encoder.preprocess` hands to `Encoder.forward`. Every array has the contents as its first axis,
so that a batch that does not fit the device can be halved."""


@dataclass(frozen=True)
class Embeddings:
    """Vectors of n contents, ragged and never padded.

    values: [total_tokens, dim] float16 or float32. offsets: [n + 1] int64; content i owns the rows
    offsets[i]:offsets[i + 1]. A dense encoder gives one row per content, a late-interaction encoder one per token.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype not in (np.float16, np.float32):
            raise ValueError(
                f"Embeddings.values is {self.values.dtype}{list(self.values.shape)}; "
                "expected float16 or float32 of shape [total_tokens, dim]"
            )
        if self.offsets.ndim != 1 or self.offsets.dtype != np.int64 or len(self.offsets) == 0:
            raise ValueError(
                f"Embeddings.offsets is {self.offsets.dtype}{list(self.offsets.shape)}; expected int64 of shape [n + 1]"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.values) or (np.diff(self.offsets) < 0).any():
            raise ValueError("Embeddings.offsets must rise from 0 to the number of rows of values")

    @classmethod
    def from_dense(cls, vectors: np.ndarray) -> Embeddings:
        """vectors [n, dim] → one token per content."""
        return cls(vectors, np.arange(len(vectors) + 1, dtype=np.int64))

    @classmethod
    def from_list(cls, items: Sequence[np.ndarray], dim: int | None = None) -> Embeddings:
        """items: one [tokens_i, dim] array per content; `dim` is needed only for an empty list."""
        offsets = np.zeros(len(items) + 1, dtype=np.int64)
        np.cumsum([len(item) for item in items], out=offsets[1:])
        values = np.concatenate(items) if items else np.zeros((0, dim or 0), dtype=np.float32)
        return cls(values, offsets)

    @classmethod
    def concatenate(cls, parts: Iterable[Embeddings]) -> Embeddings:
        """The contents of all parts, in order. All parts share one dim and one dtype."""
        parts = list(parts)
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        return cls(np.concatenate([part.values for part in parts]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """The vectors of one content, [tokens, dim]."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"content {index} of {len(self)}")
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    @property
    def dim(self) -> int:
        return self.values.shape[1]

    @property
    def token_counts(self) -> np.ndarray:
        """[n] int64."""
        return np.diff(self.offsets)

    @property
    def is_dense(self) -> bool:
        """True when every content has exactly one vector."""
        return len(self.values) == len(self) and bool((self.token_counts == 1).all())

    def dense(self) -> np.ndarray:
        """[n, dim]; raises ValueError for late-interaction vectors."""
        if not self.is_dense:
            raise ValueError(f"{len(self)} contents have {len(self.values)} vectors; expected one vector per content")
        return self.values

    def take(self, indices: Sequence[int] | np.ndarray) -> Embeddings:
        """The contents at `indices`, in that order; an index may repeat. Raises IndexError outside 0 … n - 1."""
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"contents {indices.min()} to {indices.max()} of {len(self)}")
        if self.is_dense:
            return Embeddings.from_dense(self.values[indices])
        counts = self.token_counts[indices]
        offsets = np.zeros(len(indices) + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], counts)
        return Embeddings(self.values[rows], offsets)

    def astype(self, dtype: np.dtype | type) -> Embeddings:
        return Embeddings(self.values.astype(dtype, copy=False), self.offsets)


@dataclass(frozen=True)
class EncodeContext:
    """What, besides the content, decides a vector: contents of one context can share a batch.

    role and prompt are part of the store's key. `task` is what a bridged MTEB model is told besides
    (its TaskMetadata, split and subset); whatever in it changes the vector must show in `prompt`.
    """

    role: Role | None
    prompt: str = ""
    task: Any = field(default=None, compare=False)
