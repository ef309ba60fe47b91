"""Small MTEB models for `module:factory`. Vectors are counts of letters, so that expected values can be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from raylib.models.families import family
from raylib.models.hashed import HashedEncoder
from raylib.models.protocol import Encoder, ModelSpec

calls: list[str] = []


def letters(text: str) -> np.ndarray:
    """[3] float32: how often a, b and c occur, and a one so that no vector is zero."""
    return np.array([text.count("a"), text.count("b"), text.count("c") + 1], dtype=np.float32)


def meta(name: str, scoring: ScoringFunction | None = None) -> ModelMeta:
    return ModelMeta.create_empty({"name": f"made/{name}", "revision": "7", "similarity_fn_name": scoring})


class Plain(AbsEncoder):
    """Depends on the content alone."""

    def __init__(self) -> None:
        calls.append(type(self).__name__)
        self.mteb_model_meta = meta("plain")

    def encode(self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, **kwargs: Any) -> Any:
        del task_metadata, hf_split, hf_subset, kwargs
        return np.stack([letters(text) for batch in inputs for text in batch["text"]])


class Prompted(Plain):
    """Puts the task's name in front of a query; hands split and subset on."""

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **kwargs: Any
    ):
        prompt = task_metadata.name if prompt_type is not None and prompt_type.value == "query" else ""
        return self._run(inputs, prompt, hf_split=hf_split, hf_subset=hf_subset)

    def _run(self, inputs: Any, prompt: str, **kwargs: Any) -> np.ndarray:
        return np.stack([letters(prompt + text) for batch in inputs for text in batch["text"]])


class BySubset(Plain):
    """Depends on the subset, as a model with one head per language does."""

    def encode(self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, **kwargs: Any) -> Any:
        return np.stack([letters(hf_subset + text) for batch in inputs for text in batch["text"]])


class PaddedLate(Plain):
    """Late interaction: one vector per word, padded with zeros to the longest text of the call."""

    def __init__(self) -> None:
        super().__init__()
        self.mteb_model_meta = meta("late", ScoringFunction.MAX_SIM)

    def encode(self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, **kwargs: Any) -> Any:
        import torch

        del task_metadata, hf_split, hf_subset, kwargs
        words = [[letters(w) for w in text.split()] for batch in inputs for text in batch["text"]]
        padded = torch.zeros(len(words), max(map(len, words)), 3)
        for row, vectors in zip(padded, words, strict=True):
            row[: len(vectors)] = torch.from_numpy(np.stack(vectors))
        return padded


class Searcher:
    """Has its own search and no vectors."""

    mteb_model_meta = meta("searcher")

    def index(self, corpus: Any, **kwargs: Any) -> None:
        self.ids = list(corpus["id"])

    def search(self, queries: Any, **kwargs: Any) -> dict:
        return {query: dict.fromkeys(self.ids, 1.0) for query in queries["id"]}


class OwnSimilarity(Plain):
    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        return -np.linalg.norm(embeddings1[:, None] - embeddings2[None], axis=2)


def plain() -> Plain:
    return Plain()


def own_encoder() -> Encoder:
    return HashedEncoder(ModelSpec("raylib/hashed-ngrams"), family("hashed-ngrams"))


def failing() -> Plain:
    raise RuntimeError("no weights today")


def nothing() -> int:
    return 3


number = 3
