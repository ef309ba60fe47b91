"""The encode stage on Ray Data: read, decode and preprocess in tasks → forward and store in actors.

What runs in each stage is `raylib.evaluate.encode`; `raylib.cluster.halves` says where.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import ray.exceptions

from raylib.cluster.halves import Halves, Work, resident
from raylib.cluster.held import held
from raylib.cluster.metrics import Meter
from raylib.cluster.session import Workers, lost_workers, worker_failure
from raylib.cluster.shared_store import require_store, store_marker
from raylib.cluster.ship import ShippedSource, ship
from raylib.errors import DiskFullError
from raylib.evaluate.batching import BatchRecord, MicroBatch, singles
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import EncodeReport, Progress, no_progress, run_forwards
from raylib.evaluate.prepare import Prepared, bad_content, prepare
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings

logger = logging.getLogger(__name__)

_MAX_IMAGE_BATCHES_PER_PART = 8
_MAX_TEXT_BATCHES_PER_PART = 64
_PARTS_PER_RUN, _PARTS_PER_WORKER = 50, 25
"""A part is what a call of an actor writes, and what a kill costs at most per actor: a fiftieth of the run or less. So
many parts for every actor that it matters little which of them ends last."""


@dataclass(frozen=True)
class RayDataStage:
    """An `EncodeStage` on the connected cluster. `workers` is resolved when the stage runs; split: see `Halves`."""

    workers: Workers
    progress: Progress = no_progress
    split: bool | None = None

    def __call__(
        self, encoder: Encoder, batches: Sequence[MicroBatch], sources: Sequence[Source], shelf: Shelf
    ) -> EncodeReport:
        """Encode `batches` and store them. Raises what went wrong on a worker (ModelError, UserError, StoreError); what
        was encoded until then is stored. A content over which workers die `MAX_ATTEMPTS` times is a bad one."""
        report = EncodeReport()
        start = time.time()
        first_forward, meter = float("inf"), Meter.of(encoder.spec.name, "encode")
        work = _EncodeWork(meter, encoder, ship(sources), shelf, store_marker(shelf))
        halves = self._halves(encoder, batches)
        try:
            with closing(halves.receipts(work, batches)) as receipts:
                for receipt in receipts:
                    receipt.result.cpu_seconds, receipt.result.retries = receipt.cpu_seconds, receipt.deaths
                    receipt.result.repeated = receipt.repeated
                    receipt.result.write_kept(shelf)
                    report.add(receipt.result)
                    meter.count(retries=receipt.deaths, bucket_retries=receipt.repeated)
                    for record in receipt.result.records:
                        meter.batch(record)
                    first_forward = min(first_forward, receipt.started)
                    bad = len(receipt.result.bad)
                    self.progress(receipt.result.encoded + bad, bad)
                    if receipt.failure is not None:
                        raise receipt.failure
        except ray.exceptions.RayError as error:
            raise worker_failure(error, encoder.spec.name) from error
        report.notes += lost_workers(encoder.spec.name, report.retries)
        report.held = held(halves.workers, halves.most)
        report.startup_seconds = max(0.0, min(first_forward, time.time()) - start)
        report.seconds = time.time() - start - report.startup_seconds
        return report

    def _halves(self, encoder: Encoder, batches: Sequence[MicroBatch]) -> Halves:
        workers = self.workers.for_model(encoder).resolve()
        assert workers.count is not None
        most = min(workers.count, max(1, len(batches) // 2))
        images = any("image" in batch.fields for batch in batches)
        most_batches = _MAX_IMAGE_BATCHES_PER_PART if images else _MAX_TEXT_BATCHES_PER_PART
        side_by_side = min(encoder.side_by_side, len(batches) // most)
        parts = max(_PARTS_PER_RUN, _PARTS_PER_WORKER * most)
        together = max(1, side_by_side, min(most_batches, len(batches) // parts))
        # A batch of images is worth a task that prepares it; of texts, what one call of an actor takes.
        return Halves(workers, most, together, 1 if images else together, self.split)


@dataclass
class _Part(EncodeReport):
    """records: of its batches. kept: what found no room on the disk of the worker's node, for the job to write."""

    records: list[BatchRecord] = field(default_factory=list)
    kept: tuple[list[bytes], list[Embeddings]] | None = None

    def store(self, shelf: Shelf, keys: list[bytes], vectors: list[Embeddings]) -> None:
        """On the worker. A node without room goes on as long as the job has some."""
        try:
            shelf.write_batches(keys, vectors)
        except DiskFullError as error:
            self.kept = keys, vectors
            node = os.uname().nodename
            self.notes.append(f"the disk of the node {node} is full; the job wrote what was encoded there")
            logger.warning("kept for the job: %s", error)

    def write_kept(self, shelf: Shelf) -> None:
        """In the job. Raises DiskFullError where it finds no room either."""
        if self.kept is not None:
            shelf.write_batches(*self.kept)


@dataclass
class _EncodeWork(Work[_Part]):
    """Some batches → one part of the store."""

    meter: Meter
    encoder: Encoder
    sources: list[ShippedSource]
    shelf: Shelf
    marker: str | None

    def prepare(self, batch: MicroBatch) -> Prepared:
        return prepare(resident(self.encoder.fingerprint, self.encoder), batch, self.sources)

    def load(self) -> None:
        require_store(self.marker)
        self.encoder.load()

    def new_result(self) -> _Part:
        return _Part()

    def run(self, prepared: Iterator[Prepared], result: _Part) -> None:
        """Encode the batches and store them; of a call that fails half way, what was encoded before."""
        keys: list[bytes] = []
        vectors: list[Embeddings] = []
        try:
            for encoded in run_forwards(self.encoder, prepared):
                result.add(EncodeReport.of(encoded))
                result.records.append(encoded.record)
                self.meter.gpu_memory()
                if encoded.embeddings is not None:
                    keys += encoded.keys
                    vectors.append(encoded.embeddings)
        finally:
            if vectors:
                result.store(self.shelf, keys, vectors)

    def singles(self, batch: MicroBatch) -> list[MicroBatch]:
        return singles(batch)

    def set_aside(self, single: MicroBatch, reason: str, result: _Part) -> None:
        result.bad.append(bad_content(single, self.sources, reason))
        result.records.append(BatchRecord(bad=1))
