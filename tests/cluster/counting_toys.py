"""Toys whose tokens can be counted by hand: one a word."""

from __future__ import annotations

import os

import numpy as np

from raylib.types import Batch, Embeddings, EncodeContext, Tensors
from tests.evaluate.made import Letters


class Words(Letters):
    """A word is a token; its process dies over the word poison."""

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        counts = np.array([len(text.split()) for text in batch["text"]])
        mask = (np.arange(counts.max()) < counts[:, None]).astype(np.int64)
        poisoned = np.array(["poison" in text for text in batch["text"]])
        return {**super().preprocess(batch, context), "attention_mask": mask, "poisoned": poisoned}

    def forward(self, tensors: Tensors) -> Embeddings:
        if tensors["poisoned"].any():
            os.kill(os.getpid(), 9)
        return super().forward({name: tensors[name] for name in ("counts", "n")})


def words() -> Words:
    return Words("tests.cluster.counting_toys:words")


def poisoned() -> Words:
    return Words("tests.cluster.counting_toys:poisoned")
