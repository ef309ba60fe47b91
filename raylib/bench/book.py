"""The results of a run as it grows, and those of runs before it in the same folder."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from raylib.bench.records import Cell, Result
from raylib.bench.result_files import read_results, write_results

Key = tuple[Cell, str | None]
"""A cell, and the type of the node that it is measured on."""


def key_of(result: Result) -> Key:
    return result.cell, result.machine.get("node_type")


class Book:
    """Every change is in the files at once. Nodes may write at the same time."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._results = {key_of(result): result for result in read_results(folder)}
        self._lock = threading.Lock()

    @property
    def results(self) -> list[Result]:
        return list(self._results.values())

    def put(self, *results: Result) -> None:
        """Keep these, in place of what was known of their cells."""
        with self._lock:
            self._results.update({key_of(result): result for result in results})
            changed = {(result.cell.model, result.cell.runtime) for result in results}
            write_results(self.folder, [r for r in self._results.values() if (r.cell.model, r.cell.runtime) in changed])

    def known(self, cell: Cell, machine: Mapping[str, Any], protocol: Mapping[str, Any]) -> Result | None:
        """What was measured of a cell before, if it was on such a machine, with these versions, by this protocol."""
        found = self._results.get((cell, machine.get("node_type")))
        if found is None or found.status != "measured" or found.machine != machine or found.protocol != protocol:
            return None
        return found
