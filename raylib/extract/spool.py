"""Finished batches of unfinished parts, on disk: what a killed run is spared when it goes on."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from raylib import storage
from raylib.extract.batches import BatchStates, RowBatch

_FOLDER = ".unfinished"
_RUN = "run.json"


class Spool:
    """One file per batch in a hidden folder beside the parts. A part that is written takes its batches with it."""

    def __init__(self, folder: str) -> None:
        self.folder = storage.join(folder, _FOLDER)

    def recall(self, settings: str) -> dict[str, Any]:
        """What `remember` was told under these settings; {} otherwise."""
        path = storage.join(self.folder, _RUN)
        try:
            found = json.loads(storage.read_text(path)) if storage.exists(path) else {}
        except (OSError, ValueError):
            return {}
        return found if found.get("settings") == settings else {}

    def remember(self, settings: str, **notes: Any) -> None:
        storage.write_text(storage.join(self.folder, _RUN), json.dumps({"settings": settings, **notes}))

    def add(self, states: BatchStates) -> None:
        with storage.atomic_write(self._path(states.part, states.name), "w+b") as stream:
            states.dump(stream)

    def finished(self, part: int) -> set[str]:
        """The names of the batches that are there."""
        suffix = ".npz"
        paths = storage.list_files(self._part(part), suffix)
        return {path.rpartition("/")[2].removesuffix(suffix) for path in paths}

    def load(self, batch: RowBatch) -> BatchStates | None:
        """None where it is not there, or cannot be read: it is then computed again."""
        path = self._path(batch.part, batch.name)
        if not storage.exists(path):
            return None
        try:
            return BatchStates.load(io.BytesIO(storage.read_bytes(path)), batch.part, batch.name)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            storage.remove(path)
            return None

    def drop(self, part: int) -> None:
        """Its batches go; the part is written, or is no part of this run."""
        storage.remove_folder(self._part(part))

    def close(self) -> None:
        """Nothing is unfinished any more."""
        storage.remove_folder(self.folder)

    def _part(self, part: int) -> str:
        return storage.join(self.folder, f"part_{part:03d}")

    def _path(self, part: int, name: str) -> str:
        return storage.join(self._part(part), f"{name}.npz")
