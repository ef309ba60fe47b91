"""Runtimes that go wrong in every way that a process can, and small ones that do not; none of them needs torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from raylib.bench.protocol import Runner, Runtime, Target
from raylib.bench.runtimes.torch_runtime import EncoderRunner, TorchRuntime
from raylib.models.protocol import ModelSpec
from raylib.types import Batch


class Idle(Runtime):
    """Says in its versions what a process was started with."""

    name: ClassVar[str] = "idle"
    language: ClassVar[str] = "toy"

    def hole(self, target: Target) -> str | None:
        return None

    def build(self, target: Target) -> None:
        pass

    def load(self, target: Target) -> Runner:
        raise AssertionError("never asked for")

    def versions(self) -> Mapping[str, str]:
        return {n: v for n, v in os.environ.items() if n.endswith("_NUM_THREADS") or n.startswith(("OMP_", "TOKEN"))}


class Exits(Idle):
    def build(self, target: Target) -> None:
        print("the library says farewell", file=sys.stderr, flush=True)
        os._exit(7)


class Killed(Idle):
    def build(self, target: Target) -> None:
        os.kill(os.getpid(), 9)


class PanicError(BaseException):
    """As pyo3's PanicException: no Exception."""


class Panics(Idle):
    def build(self, target: Target) -> None:
        raise PanicError("capacity overflow")


class Hangs(Idle):
    """Leaves a child behind, whose id it writes down."""

    def build(self, target: Target) -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(os.environ["TESTS_BENCH_CHILD"]).write_text(str(child.pid))
        time.sleep(600)


class WrongPooling(TorchRuntime):
    """Takes the first token's state for a model that takes the mean."""

    name: ClassVar[str] = "wrong-pooling"

    def spec(self, target: Target) -> ModelSpec:
        return replace(super().spec(target), pooling="cls")


class Twin(TorchRuntime):
    """PyTorch under another name."""

    name: ClassVar[str] = "twin"


class _Broken(EncoderRunner):
    def __init__(self, runner: EncoderRunner) -> None:
        super().__init__(runner.encoder, runner.disk_bytes)

    def embed(self, contents: Batch) -> np.ndarray:
        if len(contents["text"]) == 2:
            raise PanicError("two are too many")
        return super().embed(contents)


class NoPairs(TorchRuntime):
    """Right in the gate, and panics at a batch of two."""

    name: ClassVar[str] = "no-pairs"

    def load(self, target: Target) -> EncoderRunner:
        return _Broken(super().load(target))


class NotInstalled(Idle):
    def hole(self, target: Target) -> str | None:
        return f"it has no {target.precision}; install toy"
