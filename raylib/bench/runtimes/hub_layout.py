"""What embed_anything is given in place of a hub: a checkpoint in the layout of the hub's cache, and its panics caught.

It loads by name from the hub alone; a folder's path is a panic. A name whose files lie in its cache at a full commit is
loaded without a question to the network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raylib.bench.protocol import Target
from raylib.bench.runtimes.checkpoints import commit_of
from raylib.errors import ModelError, RaylibError
from raylib.models.export import written_once

NAME = "raylib/bench"
"""Of every model that is laid out here: each has a hub cache of its own."""

_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")


@dataclass(frozen=True)
class Layout:
    """What is written for one target. home: an HF_HOME of its own; commit: 40 hex digits."""

    home: Path
    commit: str

    @classmethod
    def of(cls, target: Target, runtime: str, *told: object) -> Layout:
        """told: what else decides what is written; see `commit_of`."""
        commit = commit_of(target, *told)
        return cls(target.cache / runtime / commit, commit)

    def folder(self, home: Path) -> Path:
        """Where the files of `NAME` lie below an HF_HOME."""
        return home / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / self.commit

    def fill(self, write: Callable[[Path], None]) -> None:
        """Have `write` fill the snapshot's folder, unless it is there."""

        def fill(aside: Path) -> None:
            folder = self.folder(aside)
            folder.mkdir(parents=True)
            references = folder.parent.parent / "refs"
            references.mkdir()
            (references / "main").write_text(self.commit)
            write(folder)

        written_once(self.home, fill)

    def built(self, model: str, runtime: str) -> Path:
        """The snapshot's folder. Raises ModelError where nothing is built for a model."""
        folder = self.folder(self.home)
        if not folder.is_dir():
            raise ModelError(f"{model}: nothing is built for {runtime} in {self.home}; build it first")
        return folder


@contextmanager
def hub_home(home: Path) -> Iterator[None]:
    """The hub's cache of this process, for libraries that ask the environment when they load a model."""
    wanted = {"HF_HOME": str(home), **{name: str(home / "hub") for name in _CACHES}}
    before = {name: os.environ.get(name) for name in wanted}
    try:
        os.environ.update(wanted)
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def panics_told(name: str, what: str) -> Iterator[None]:
    """Whatever fails inside becomes a ModelError that names the model. embed_anything panics where others raise, and
    pyo3's PanicException is a BaseException: no `except Exception` would stop it."""
    try:
        yield
    except (RaylibError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        reason = " ".join(str(error).split())[:400]
        raise ModelError(f"{name}: {what}: {type(error).__name__}: {reason}") from error


def embed_texts(model: Any, texts: list[str]) -> np.ndarray:
    """[n, dim] float32 of texts, in one batch. Raises ModelError where some are missing: a batch that fails inside may
    just be left out."""
    import embed_anything as ea

    found = model.embed_query(texts, config=ea.TextEmbedConfig(batch_size=len(texts)))
    if len(found) != len(texts):
        raise ModelError(f"embed_anything gave {len(found)} vectors for {len(texts)} texts")
    return np.array([one.embedding for one in found], dtype=np.float32)
