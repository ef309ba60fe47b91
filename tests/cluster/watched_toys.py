"""Toy models that write down what they do, in the folder RAYLIB_WATCHED, and toys that fail.

They leave `encode` as it is: what a model's `encode` is told and might read becomes part of the store's keys.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.toys import ToyModel


def folder() -> Path:
    return Path(os.environ["RAYLIB_WATCHED"])


def forwards(log: str) -> list[tuple[int, str]]:
    """(process id, digest of the content) of every content that a toy has encoded, in order."""
    path = folder() / log
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(pid), digest) for pid, digest in (line.split() for line in lines)]


def forget(log: str) -> None:
    (folder() / log).unlink(missing_ok=True)


class Watched(ToyModel):
    """The dense toy; before it gives a batch away it appends a line per content to its log."""

    log = "watched"
    seconds_per_batch = 0.0

    def _matrices(self, inputs: Any) -> list[np.ndarray]:
        batches = list(inputs)
        time.sleep(self.seconds_per_batch)
        matrices = super()._matrices(batches)
        lines = [f"{os.getpid()} {digest}\n" for batch in batches for digest in digests(batch)]
        with open(folder() / self.log, "a") as stream:
            stream.write("".join(lines))
        return matrices


def digests(batch: dict[str, list[Any]]) -> Iterator[str]:
    for text, image in zip(batch.get("text") or batch["image"], batch.get("image") or batch["text"], strict=True):
        seen = text.encode() if isinstance(text, str) else image.tobytes()
        yield hashlib.sha256(seen).hexdigest()


class Slow(Watched):
    """A quarter of a second a batch: time to be killed in."""

    log = "slow"
    seconds_per_batch = 0.25


class FullDisk(Watched):
    """Whichever process it runs in finds no room on its disk any more once 32 contents were encoded, if there is the
    file no-room."""

    log = "full"

    def _matrices(self, inputs: Any) -> list[np.ndarray]:
        if len(forwards(self.log)) >= 32 and (folder() / "no-room").exists():
            os.fsync = no_room
        return super()._matrices(inputs)


def no_room(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Poisoned(ToyModel):
    """Dies, process and all, on a text that holds the word poison."""

    def _matrices(self, inputs: Any) -> list[np.ndarray]:
        batches = list(inputs)
        if any("poison" in text for batch in batches for text in batch.get("text") or []):
            os.kill(os.getpid(), 9)
        return super()._matrices(batches)


class Breakable(ToyModel):
    """A text that holds the word breaks is its end: it fails on everything from then on, until another process has
    it. As a GPU does after an illegal access."""

    broken = False

    def _matrices(self, inputs: Any) -> list[np.ndarray]:
        batches = list(inputs)
        self.broken |= any("breaks" in text for batch in batches for text in batch.get("text") or [])
        if self.broken:
            raise RuntimeError("illegal memory access")
        return super()._matrices(batches)


class NotANumber(ToyModel):
    def _matrices(self, inputs: Any) -> list[np.ndarray]:
        return [matrix * np.float32("nan") for matrix in super()._matrices(inputs)]


def watched() -> Watched:
    return Watched()


def slow() -> Slow:
    return Slow()


def full_disk() -> FullDisk:
    return FullDisk()


def poisoned() -> Poisoned:
    return Poisoned()


def breakable() -> Breakable:
    return Breakable()


def not_a_number() -> NotANumber:
    return NotANumber()
