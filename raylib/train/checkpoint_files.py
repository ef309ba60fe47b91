"""One checkpoint on a disk: its files, and the manifest that tells whether they are what was written.

step-00000050/
    model/        what the model writes: weights, an adapter or heads
    state.pt      what a resumed run needs
    files.json    size and SHA-256 of each, and the step; written last
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylib import storage

MANIFEST, MODEL, STATE = "files.json", "model", "state.pt"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """One that was written to its end. facts: step, epoch, position and what else was told. files: path in the folder
    → (bytes, SHA-256 in hex)."""

    step: int
    folder: str
    facts: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]

    @property
    def name(self) -> str:
        return name_of(self.step)


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """None for the name of something else."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found and name_of(int(found[1])) == name else None


def write_files(
    folder: Path, write_model: Callable[[Path], None], state: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Into an empty local folder; all of it is on the disk when this returns. Raises OSError."""
    import torch

    _check_plain(state, "state")
    (folder / MODEL).mkdir()
    write_model(folder / MODEL)
    with open(folder / STATE, "wb") as stream:
        torch.save(dict(state), stream)
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _flushed_digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    storage.write_text(folder / MANIFEST, json.dumps({"facts": dict(facts), "files": files}, indent=1) + "\n")
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        flush_folder(path)


def _check_plain(value: Any, where: str) -> None:
    """A state is read back without running any code of its file: found now, not when it is needed."""
    import torch

    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_plain(inner, f"{where}[{name!r}]")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_plain(inner, f"{where}[{number}]")
    else:
        plain = value is None or type(value) in (bool, int, float, str, bytes) or isinstance(value, torch.Tensor)
        assert plain, f"{where} is a {type(value).__name__}; a checkpoint takes tensors, numbers and texts"


def _flushed_digest(path: Path) -> str:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush_folder(folder: Path) -> None:
    """The names in a folder, too, survive that the machine goes away."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def read_checkpoint(folder: str) -> Checkpoint | str:
    """What the manifest in a local or remote folder says; or, in words, why it is no checkpoint. Raises OSError where
    it cannot be known."""
    path = storage.join(folder, MANIFEST)
    try:
        found = json.loads(storage.read_text(path))
        files = {name: (int(file["bytes"]), str(file["sha256"])) for name, file in found["files"].items()}
        step, facts = int(found["facts"]["step"]), found["facts"]
    except FileNotFoundError:
        return f"it has no {MANIFEST}, so that it was never written to its end"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({type(error).__name__}: {error})"
    if name_of(step) != folder.rsplit("/", 1)[-1]:
        return f"its {MANIFEST} is of step {step}"
    if unsafe := [name for name in files if name.startswith("/") or ".." in name.split("/")]:
        return f"its {MANIFEST} names {unsafe[0]}, outside of it"
    return Checkpoint(step, folder, facts, files)


def find_damage(folder: Path, checkpoint: Checkpoint, names: Iterable[str]) -> str | None:
    """In words, the first of the files `names` that is not as the manifest says; None where all are. The files are read
    from the local `folder`. Raises OSError."""
    for name in names:
        path = folder / name
        size, digest = checkpoint.files[name]
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes of {size:,}"
        with open(path, "rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                return f"{name} has not the contents that were written (another SHA-256)"
    return None
