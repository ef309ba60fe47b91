"""What a runtime must provide to be measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from raylib.models.protocol import ModelSpec
from raylib.types import Batch, Tensors

Tower = Literal["text", "image"]
Precision = Literal["fp32", "bf16", "int8"]


@dataclass(frozen=True)
class Target:
    """What a process loads. spec: the model as PyTorch runs it in float32; cache: of exported graphs."""

    spec: ModelSpec
    tower: Tower
    precision: Precision
    threads: int
    cache: Path


class Runner(ABC):
    """A model that is loaded, in the process that measures it."""

    disk_bytes: int
    """Of the files that were loaded."""

    @abstractmethod
    def embed(self, contents: Batch) -> np.ndarray:
        """[n, dim] float32 of length 1: from texts or images to vectors, all of it."""

    def prepare(self, contents: Batch) -> Tensors | None:
        """The half before the model; None where the runtime cannot be entered behind it."""
        del contents
        return None

    def run(self, tensors: Tensors) -> np.ndarray:
        """[n, dim] float32 of length 1, of what `prepare` gave."""
        raise AssertionError("only where prepare gives tensors")


class Runtime(ABC):
    name: ClassVar[str]
    language: ClassVar[str] = "python"
    """Of what calls the model: a column of the table."""

    @abstractmethod
    def hole(self, target: Target) -> str | None:
        """Why this runtime cannot run it, in one sentence that says what to install or change; None where it can.
        Loads no weights."""

    @abstractmethod
    def build(self, target: Target) -> None:
        """Write into the cache what `load` reads, unless it is there: exported graphs, rewritten configurations."""

    @abstractmethod
    def load(self, target: Target) -> Runner:
        """With `target.threads` threads. Raises ModelError."""

    def max_tokens(self, target: Target) -> int | None:
        """Where it cuts texts, if not where the model does: longer ones are holes. None where both cut alike."""
        del target
        return None

    def encoder_spec(self, target: Target) -> ModelSpec | None:
        """Under what spec `raylib evaluate` runs the same, for its quality on a task; None where it cannot."""
        del target
        return None

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """Of the packages that compute, by name."""


def folder_bytes(folder: Path) -> int:
    """Of all files below, those that are links too."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def unit_vectors(vectors: np.ndarray, dim: int | None = None) -> np.ndarray:
    """[n, full] → [n, dim] float32 of length 1, cut to `dim` where it is given."""
    vectors = vectors[:, :dim].astype(np.float32, copy=False)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
