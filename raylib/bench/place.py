"""Where cells are measured: nodes, each of which does one thing at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from raylib.bench.spawn import run_process


class Node(Protocol):
    """One machine that is this run's alone. Jobs name files in the node's own cache, so those of one model go to the
    node that the first of them went to."""

    @property
    def type(self) -> str | None:
        """What the tables and the price table call it."""
        ...

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """What `raylib.bench.spawn.run_process` gives there. One call at a time."""
        ...


class Place(Protocol):
    def nodes(self) -> Sequence[Node]:
        """One of each type that is to be measured."""
        ...


class ThisMachine:
    """A `Place`, and its only `Node`."""

    def __init__(self, node_type: str | None = None) -> None:
        self._type = node_type

    @property
    def type(self) -> str | None:
        return self._type

    def nodes(self) -> Sequence[Node]:
        return [self]

    def run(self, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        return run_process(job, timeout_s)
