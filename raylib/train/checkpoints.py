"""The checkpoints of a run: written whole or not at all, the newest and the best kept, damaged ones passed over.

The folder may be local or in an object store. Locally a checkpoint is written aside and renamed; in a store its
manifest is uploaded last, and without one it is none.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raylib import storage
from raylib.errors import StoreError, UserError
from raylib.train.checkpoint_files import (
    MANIFEST,
    MODEL,
    STATE,
    Checkpoint,
    find_damage,
    flush_folder,
    name_of,
    read_checkpoint,
    step_of,
    write_files,
)

SCORES = "scores.json"


class Checkpoints:
    """Those in `folder`. Of them the newest `keep_last` are kept, and besides the `keep_best` with the highest scores.

    tell: gets a line about each one that is damaged. One process writes at a time.
    """

    def __init__(self, folder: str | Path, keep_last: int, keep_best: int, tell: Callable[[str], None]) -> None:
        if keep_last < 1:
            raise UserError(
                f"--keep-last is {keep_last}; expected at least 1: a run goes on from the newest checkpoint"
            )
        if keep_best < 0:
            raise UserError(f"--keep-best is {keep_best}; expected 0 or more")
        self.folder, self.keep_last, self.keep_best, self.tell = str(folder).rstrip("/"), keep_last, keep_best, tell
        self._remote = storage.is_remote(folder)
        self._checked: set[tuple[str, str]] = set()
        """(checkpoint, file) that this process has found whole."""
        self._damaged: set[str] = set()
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    # Writing.

    def save(
        self, step: int, write_model: Callable[[Path], None], state: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> None:
        """Write the checkpoint of a step, in the place of one that is there, and remove those that are not kept.

        write_model: writes a model, an adapter or heads into the empty local folder that it is given. Whatever it
        raises, and a full disk (UserError), leaves the checkpoints that there were.
        """
        self._remove_leftovers()
        name = name_of(step)
        try:
            with self._aside(name) as aside:
                write_files(aside, write_model, state, {**facts, "step": step})
                self._publish(aside, name)
        except OSError as error:
            raise UserError(
                f"cannot write the checkpoint {storage.join(self.folder, name)}: {error.strerror or error}. Those "
                "before it are intact: free some space, and go on with --resume"
            ) from error
        self._damaged.discard(name)
        self._forget(name)
        self._prune()

    @contextmanager
    def _aside(self, name: str) -> Iterator[Path]:
        """An empty local folder; what is left of it at the end is removed."""
        if self._remote:
            with tempfile.TemporaryDirectory(prefix="raylib-checkpoint-") as folder:
                yield Path(folder)
            return
        folder = Path(self.folder, f".{name}.{uuid.uuid4().hex}.part")
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, aside: Path, name: str) -> None:
        final = storage.join(self.folder, name)
        if self._remote:  # without its manifest the old one is none, while its files are replaced one by one
            storage.remove(storage.join(final, MANIFEST))
            storage.remove_folder(final)
            storage.upload_folder(aside, final, last=MANIFEST)
            return
        if os.path.exists(final):  # a folder that holds files cannot be renamed onto
            os.rename(final, Path(self.folder, f".{name}.{uuid.uuid4().hex}.part"))
        os.rename(aside, final)
        flush_folder(Path(self.folder))
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """What a killed save has left on a local disk."""
        if self._remote or not os.path.isdir(self.folder):
            return
        for entry in list(os.scandir(self.folder)):
            if entry.name.endswith(".part") and entry.is_dir() and step_of(entry.name[1:].split(".")[0]) is not None:
                shutil.rmtree(entry.path, ignore_errors=True)

    def _prune(self) -> None:
        scores = self._scores()
        whole = [checkpoint for checkpoint in self.all() if checkpoint.name not in self._damaged]
        scored = [checkpoint for checkpoint in whole if checkpoint.step in scores]
        best = sorted(scored, key=lambda checkpoint: (-scores[checkpoint.step], checkpoint.step))
        kept = {checkpoint.name for checkpoint in [*whole[-self.keep_last :], *best[: self.keep_best]]}
        for name in self._names():
            if name not in kept:
                # The manifest goes first: what is removed by halves is no checkpoint.
                storage.remove(storage.join(self.folder, name, MANIFEST))
                storage.remove_folder(storage.join(self.folder, name))
                self._forget(name)

    def _forget(self, name: str) -> None:
        """What this process knows of a checkpoint that was replaced or removed."""
        self._checked = {one for one in self._checked if one[0] != name}
        if self._copies is not None:
            shutil.rmtree(Path(self._copies.name, name), ignore_errors=True)

    # Reading.

    def _names(self) -> list[str]:
        """Of the folders of checkpoints, damaged ones too, by step."""
        names = [name for name in storage.list_folders(self.folder) if step_of(name) is not None]
        return sorted(names, key=lambda name: step_of(name) or 0)

    def all(self) -> list[Checkpoint]:
        """Those that were written to their end, by step. Their files are not looked at."""
        found = [read_checkpoint(storage.join(self.folder, name)) for name in self._names()]
        return [one for one in found if isinstance(one, Checkpoint)]

    def newest(self) -> Checkpoint | None:
        """The newest one whose every file is what was written; None where there is none. Those that are passed over are
        told, and removed when the next one was saved."""
        damage: dict[str, str] = {}
        found = None
        for name in reversed(self._names()):
            one = read_checkpoint(storage.join(self.folder, name))
            wrong = one if isinstance(one, str) else self._damage(one, list(one.files))
            if wrong is None and not isinstance(one, str):
                found = one
                break
            damage[name] = str(wrong)
        after = f"going on from {found.name}" if found is not None else "there is no whole one before it"
        for name, wrong in damage.items():
            self.tell(f"checkpoint {name} is damaged: {wrong}; {after}")
        self._damaged |= set(damage)
        return found

    def load(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The state that was saved, on the CPU. Raises StoreError where it is damaged."""
        import torch

        path = self._whole(checkpoint, [STATE]) / STATE
        return torch.load(path, map_location="cpu", weights_only=True)

    def model_folder(self, checkpoint: Checkpoint) -> Path:
        """A local folder with what write_model wrote; of an object store a copy, which lasts as long as this object and
        the checkpoint. Raises StoreError where it is damaged."""
        names = [name for name in checkpoint.files if name.startswith(f"{MODEL}/")]
        folder = self._whole(checkpoint, names) / MODEL
        folder.mkdir(parents=True, exist_ok=True)  # a store has no empty folders
        return folder

    def _whole(self, checkpoint: Checkpoint, names: list[str]) -> Path:
        wrong = self._damage(checkpoint, names)
        if wrong is not None:
            raise StoreError(
                f"checkpoint {storage.join(self.folder, checkpoint.name)} is damaged: {wrong}; use another step"
            )
        return self._local(checkpoint)

    def _damage(self, checkpoint: Checkpoint, names: list[str]) -> str | None:
        """As find_damage; what was found whole is not read again."""
        names = [name for name in names if (checkpoint.name, name) not in self._checked]
        folder = self._local(checkpoint)
        if self._remote:
            for name in names:
                try:
                    storage.download_file(storage.join(checkpoint.folder, name), folder / name)
                except FileNotFoundError:
                    return f"{name} is missing"
        try:
            wrong = find_damage(folder, checkpoint, names)
        except OSError as error:  # of a disk; a store that does not answer has damaged nothing, and is an error above
            wrong = f"it cannot be read ({error.strerror or error})"
        if wrong is None:
            self._checked |= {(checkpoint.name, name) for name in names}
        return wrong

    def _local(self, checkpoint: Checkpoint) -> Path:
        """Where the files of a checkpoint are, or are copied to."""
        if not self._remote:
            return Path(checkpoint.folder)
        if self._copies is None:
            self._copies = tempfile.TemporaryDirectory(prefix="raylib-checkpoints-")
        return Path(self._copies.name, checkpoint.name)

    # Scores.

    def score(self, step: int, value: float) -> None:
        """Keep what an evaluation of a step gave; more is better."""
        if not math.isfinite(value):
            raise UserError(f"the score of step {step} is {value}; expected a number, for it decides what is kept")
        scores = {str(one): kept for one, kept in sorted({**self._scores(), step: float(value)}.items())}
        storage.write_text(storage.join(self.folder, SCORES), json.dumps(scores, indent=1) + "\n")

    def scored(self, step: int) -> bool:
        """Whether a score was told for it."""
        return step in self._scores()

    def best(self) -> tuple[int, float] | None:
        """(step, score) of the highest score, of equal ones the first; whether its checkpoint is there or not."""
        scores = self._scores()
        return min(scores.items(), key=lambda one: (-one[1], one[0])) if scores else None

    def _scores(self) -> dict[int, float]:
        path = storage.join(self.folder, SCORES)
        try:
            return {int(step): float(value) for step, value in json.loads(storage.read_text(path)).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{path} cannot be read ({error}); remove it, and the best checkpoint is unknown"
            ) from error
