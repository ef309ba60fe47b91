"""raylib/hashed-ngrams: a dense lexical encoder that needs no weights and no fitting.

Words, pairs of words and character n-grams are counted, damped by a logarithm, and folded into a short vector by sign
hashing (feature hashing, https://arxiv.org/abs/0902.2206), whose dot products estimate those of the full counts
without bias. A vector depends on its content alone. An honest baseline: on summary lines of the standard library's
docstrings against 681 pages of them it reaches an nDCG@10 of 0.83, where BM25 has 0.87 and chance 0.01.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from raylib.errors import UserError
from raylib.models.protocol import Encoder
from raylib.types import Batch, Embeddings, EncodeContext, Tensors

DIM = 1024
_BUCKETS = 2**18
_SEED = 20240229


class HashedEncoder(Encoder):
    """All work is in `preprocess`, on CPU workers; `forward` only hands the vectors on. Deterministic everywhere."""

    supported_options: ClassVar[frozenset[str]] = frozenset()
    fields: ClassVar[tuple[str, ...] | None] = ("text",)
    ENCODING_VERSION: ClassVar[int] = 1

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"family": "hashed-ngrams", "version": self.ENCODING_VERSION, "dim": DIM}

    @cached_property
    def _counters(self) -> list[Any]:
        """Words with their pairs, and character n-grams inside words: each an equal share of the vector."""
        from sklearn.feature_extraction.text import HashingVectorizer

        plain: Any = {"n_features": _BUCKETS, "alternate_sign": False, "norm": None}
        words = HashingVectorizer(analyzer="word", ngram_range=(1, 2), stop_words="english", **plain)
        return [words, HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), **plain)]

    @cached_property
    def _folds(self) -> list[Any]:
        """Per counter, a sparse [buckets, DIM] matrix: one entry of ±1 in each row."""
        from scipy.sparse import csr_matrix

        random = np.random.default_rng(_SEED)
        places = (np.arange(_BUCKETS), np.arange(_BUCKETS) % DIM)
        signs = [random.integers(0, 2, _BUCKETS).astype(np.float32) * 2 - 1 for _ in self._counters]
        return [csr_matrix((sign, places), shape=(_BUCKETS, DIM)) for sign in signs]

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        """Gives "vectors" [n, DIM] float32 of length 1; all zeros for a text without letters or digits."""
        from sklearn.preprocessing import normalize

        del context  # no prompts
        if "text" not in batch:
            raise UserError(f"{self.spec.name} encodes text; this content has {sorted(batch) or 'nothing'}")
        total = np.zeros((len(batch["text"]), DIM), dtype=np.float64)
        for counter, fold in zip(self._counters, self._folds, strict=True):
            counts = counter.transform(batch["text"])
            counts.data = 1 + np.log(counts.data)
            total += (normalize(counts) @ fold).toarray()
        return {"vectors": np.asarray(normalize(total), dtype=np.float32)}

    def forward(self, tensors: Tensors) -> Embeddings:
        return Embeddings.from_dense(tensors["vectors"])

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_counters", "_folds")}
