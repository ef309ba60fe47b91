"""A model whose forward sleeps: more workers than cores then show what the cluster costs, and nothing else."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

DIM = 128
SECONDS, LOG = "RAYLIB_BENCHMARK_SLEEP", "RAYLIB_BENCHMARK_LOG"
"""Environment variables, set before Ray starts its workers: the seconds that a content takes, and a file that gets a
line of every forward: process, seconds of the epoch at its begin, contents."""


class Sleeping(AbsEncoder):
    """One vector a content, after `seconds` for each."""

    def __init__(self, seconds: float) -> None:
        meta = {"name": f"benchmark/sleeping-{seconds:g}", "revision": "1", "modalities": ["text", "image"]}
        self.mteb_model_meta = ModelMeta.create_empty({**meta, "similarity_fn_name": ScoringFunction.COSINE})
        self.model: Any = None
        self._seconds = seconds

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, prompt_type: Any = None, **kwargs: Any
    ) -> np.ndarray:
        del task_metadata, hf_split, hf_subset, prompt_type, kwargs
        texts = [text for batch in inputs for text in batch["text"]]
        if self._seconds:
            with open(os.environ[LOG], "a", encoding="ascii") as log:
                log.write(f"{os.getpid()} {time.time()} {len(texts)}\n")
        time.sleep(self._seconds * len(texts))
        return np.array([[len(text), *[1.0] * (DIM - 1)] for text in texts], dtype=np.float32)


def sleeping() -> Sleeping:
    return Sleeping(float(os.environ[SECONDS]))


def instant() -> Sleeping:
    return Sleeping(0.0)
