"""Toy models whose vectors depend on the content alone, as plain MTEB models: what raylib must agree with."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

DIM = 48


def _seeded(text: bytes, n: int = DIM) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


def _tokens_of(text: str | None, image: Any) -> list[bytes]:
    """The words of a text and the quarters of an image, as bytes: what a toy "reads" of a content."""
    tokens = [word.encode() for word in (text or "").lower().split()] if text is not None else []
    if image is not None:
        width, height = image.size
        for left, top in ((0, 0), (0, height // 2), (width // 2, 0), (width // 2, height // 2)):
            quarter = image.crop((left, top, left + width - width // 2, top + height - height // 2))
            tokens.append(repr((image.mode, image.size)).encode() + quarter.tobytes())
    return tokens or [b"nothing"]


def token_matrix(text: str | None, image: Any) -> np.ndarray:
    """[tokens, DIM] float32, rows of length 1."""
    rows = np.stack([_seeded(token) for token in _tokens_of(text, image)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def meta(name: str, scoring: ScoringFunction) -> ModelMeta:
    return ModelMeta.create_empty(
        {"name": f"toy/{name}", "revision": "1", "similarity_fn_name": scoring, "modalities": ["text", "image"]}
    )


class ToyModel(AbsEncoder):
    """Dense: the mean of the token vectors. Counts the contents it has encoded."""

    def __init__(self) -> None:
        self.mteb_model_meta = meta("dense", ScoringFunction.COSINE)
        self.model = None
        self.encoded = 0

    def _matrices(self, inputs: Any) -> list[np.ndarray]:
        matrices = []
        for batch in inputs:
            n = len(next(iter(batch.values())))
            texts, images = batch.get("text") or [None] * n, batch.get("image") or [None] * n
            matrices += [token_matrix(t, i) for t, i in zip(texts, images, strict=True)]
        self.encoded += len(matrices)
        return matrices

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **kwargs: Any
    ):
        del task_metadata, hf_split, hf_subset, prompt_type, kwargs
        return np.stack([m.mean(axis=0) for m in self._matrices(inputs)])


class ToyLateModel(ToyModel):
    """Late interaction: a list of token matrices, scored by MTEB's MaxSim.

    No component is negative: MTEB pads with zeros, which would win over negative similarities, while raylib counts
    real tokens only. Every token holds a little of its whole content, as the tokens of a transformer do: two pages
    that share all words of a query would tie otherwise, and rounding alone would order them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mteb_model_meta = meta("late", ScoringFunction.MAX_SIM)

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **kwargs: Any
    ):
        import torch

        del task_metadata, hf_split, hf_subset, prompt_type, kwargs
        matrices = [np.abs(m) for m in self._matrices(inputs)]
        return [torch.from_numpy(m + 0.1 * m.mean(axis=0)) for m in matrices]


def dense() -> ToyModel:
    return ToyModel()


def late() -> ToyLateModel:
    return ToyLateModel()
