"""Extraction in this process: the reference for the cluster, and the way to run on a machine without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from raylib.evaluate.auto_batch import largest_batch
from raylib.evaluate.encode import prepare_ahead
from raylib.extract.batches import BatchStates, RowBatch, prepare_batch, run_batch
from raylib.extract.collate import PreparedRow
from raylib.extract.extractor import Extractor
from raylib.timeline import Held, held_here

MAX_BATCH = 256


class Place(Protocol):
    """Where rows are run."""

    @property
    def held(self) -> Held:
        """By what runs them, or has run the last ones."""
        ...

    def extract(self, extractor: Extractor, batches: Sequence[RowBatch]) -> Iterator[BatchStates]:
        """The states of all batches, as they come."""
        ...

    def find_batch_size(self, extractor: Extractor, longest: PreparedRow, most: int) -> int:
        """How many rows as long as this one share a forward, up to `most`."""
        ...


@dataclass(frozen=True)
class ThisProcess:
    """A `Place`. Other threads decode and process the next batches while this one runs the forward."""

    @property
    def held(self) -> Held:
        import torch

        return held_here("cuda" if torch.cuda.is_available() else "cpu")

    def extract(self, extractor: Extractor, batches: Sequence[RowBatch]) -> Iterator[BatchStates]:
        extractor.load()
        for prepared in prepare_ahead(partial(prepare_batch, extractor), batches):
            yield run_batch(extractor, prepared)

    def find_batch_size(self, extractor: Extractor, longest: PreparedRow, most: int) -> int:
        return try_batch_sizes(extractor, longest, most)


def try_batch_sizes(extractor: Extractor, longest: PreparedRow, most: int) -> int:
    """--batch-size auto: the largest batch up to `most` that fits, and on a CPU pays. Raises ModelError where one row
    alone does not fit."""
    extractor.load()

    def forward(size: int) -> object:
        return extractor.forward([longest] * size)

    return largest_batch(extractor.spec.name, extractor.device, forward, min(most, MAX_BATCH))
