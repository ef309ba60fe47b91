"""Getting contents to workers: by path where they see the same disk, by value through the object store elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from raylib.cluster.session import started_here
from raylib.evaluate.contents import Source

_PIECE_BYTES = 128 * 2**20


@dataclass
class ShippedSource:
    """A source as a worker sees it: pieces of consecutive rows, fetched when first read.

    It offers what `raylib.evaluate.prepare` needs of a `Source`.
    """

    name: str
    required: str | None
    starts: list[int]
    pieces: list[ray.ObjectRef]

    def rows(self, indices: Sequence[int], fields: Sequence[str] | None = None) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for piece, mine in self._by_piece(indices).items():
            first = self.starts[piece]
            rows = _fetch(self.pieces[piece]).rows([i - first for i in mine], fields)
            found.update(zip(mine, rows, strict=True))
        return [found[i] for i in indices]

    def id_of(self, row: int) -> str:
        ((piece, _),) = self._by_piece([row]).items()
        return _fetch(self.pieces[piece]).id_of(row - self.starts[piece])

    def _by_piece(self, indices: Sequence[int]) -> dict[int, list[int]]:
        grouped: dict[int, list[int]] = {}
        for i in indices:
            piece = max(p for p, start in enumerate(self.starts) if start <= i)
            grouped.setdefault(piece, []).append(i)
        return grouped


@functools.lru_cache(maxsize=64)
def _fetch(ref: ray.ObjectRef) -> Source:
    """A piece, once per process. Its buffers stay in shared memory: nothing is copied."""
    return ray.get(ref)


def ship(sources: Sequence[Source]) -> list[ShippedSource]:
    """Make `sources` readable on every worker.

    On a cluster that this process started on its own machine, data sets on disk travel as paths. Elsewhere their rows
    are put into the object store, in pieces of about 128 MiB, which spills to disk what memory cannot hold.
    """
    by_path = started_here()
    shipped = []
    for source in sources:
        starts = [0]
        if not by_path:
            step = max(1, int(_PIECE_BYTES * len(source) / max(1, source.nbytes)))
            starts = list(range(0, max(1, len(source)), step))
        stops = [*starts[1:], len(source)]
        pieces = [source if by_path else source.piece(a, b) for a, b in zip(starts, stops, strict=True)]
        shipped.append(ShippedSource(source.name, source.required, starts, [ray.put(piece) for piece in pieces]))
    return shipped
