"""The encode stage as one Ray Data execution: read, decode and preprocess in tasks → forward and store in actors.

A row of the data set is a whole batch, so a batch stays as it was planned through every stage, every retry and every
resume. What runs in each stage is `raylib.evaluate.encode`; this module only says where.
"""

from __future__ import annotations

import logging
import pickle
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray.data import ActorPoolStrategy, DataContext

from raylib.cluster.session import MAX_ATTEMPTS, Workers, portable, worker_failure
from raylib.cluster.shared_store import require_store, store_marker
from raylib.cluster.ship import ShippedSource, ship
from raylib.evaluate.batching import MicroBatch
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import EncodeReport, Progress, run_forwards
from raylib.evaluate.prepare import Prepared, prepare
from raylib.models.protocol import Encoder
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings

_MAX_IMAGE_BATCHES_PER_PART = 8
_MAX_TEXT_BATCHES_PER_PART = 64
_PARTS_PER_RUN = 50
"""A part is what a call of an actor writes, and what a kill costs at most per actor: a fiftieth of the run or less."""


# A bound on retries can be given in no other way; Ray says that a named one comes before it takes this one out (2.64).
warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated", module=r"raylib\.cluster\.encode")


@dataclass(frozen=True)
class RayDataStage:
    """An `EncodeStage` on the connected cluster. `workers` is resolved when the stage runs.

    split: CPU halves in tasks of their own, away from the actors. By default so where actors hold GPUs; without GPUs
    both halves compete for the same cores, and handing tensors from one process to another would only cost.
    """

    workers: Workers
    progress: Progress = lambda n: None
    split: bool | None = None

    def __call__(
        self, encoder: Encoder, batches: Sequence[MicroBatch], sources: Sequence[Source], shelf: Shelf
    ) -> EncodeReport:
        """Encode `batches` and store them. Raises what went wrong on a worker (ModelError, UserError, StoreError), and
        ModelError when workers die `MAX_ATTEMPTS` times on the same contents; what was encoded until then is stored."""
        report = EncodeReport()
        start = time.time()
        first_forward = float("inf")
        try:
            with closing(self._receipts(encoder, batches, sources, shelf)) as receipts:
                for receipt in receipts:
                    report.add(receipt["report"])
                    first_forward = min(first_forward, receipt["started"])
                    self.progress(receipt["report"].encoded + len(receipt["report"].bad))
                    if receipt["failure"] is not None:
                        raise receipt["failure"]
        except ray.exceptions.RayError as error:
            raise worker_failure(error, encoder.spec.name) from error
        report.startup_seconds = max(0.0, min(first_forward, time.time()) - start)
        report.seconds = time.time() - start - report.startup_seconds
        return report

    def _receipts(
        self, encoder: Encoder, batches: Sequence[MicroBatch], sources: Sequence[Source], shelf: Shelf
    ) -> Generator[dict[str, Any], None, None]:
        workers = self.workers.for_model(encoder).resolve()
        assert workers.count is not None and workers.gpus is not None
        most = min(workers.count, max(1, len(batches) // 2))
        split = self.split if self.split is not None else workers.gpus > 0
        images = any("image" in batch.fields for batch in batches)
        shipped = ship(sources)
        rows = ray.data.from_items(
            [{"payload": pickle.dumps(batch)} for batch in batches],
            # One task each: a batch of images is worth a task, of texts sixteen are, but every actor gets its share.
            override_num_blocks=len(batches) if images else max(len(batches) // 16, min(len(batches), 4 * most)),
        )
        if split:
            rows = rows.map_batches(
                _Prepare(encoder, shipped),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=1 if workers.gpus else 0.5,
                max_retries=MAX_ATTEMPTS - 1,
            )
        most_batches = _MAX_IMAGE_BATCHES_PER_PART if images else _MAX_TEXT_BATCHES_PER_PART
        together = min(encoder.side_by_side, len(batches) // most)  # the batches of a call go side by side
        receipts = rows.map_batches(
            _Forward,
            fn_constructor_args=(encoder, None if split else shipped, shelf, store_marker(shelf), workers.cpus),
            compute=ActorPoolStrategy(min_size=min(workers.minimum, most), max_size=most, initial_size=most),
            batch_size=max(1, together, min(most_batches, len(batches) // _PARTS_PER_RUN)),
            batch_format="pyarrow",
            # Without GPUs Ray only admits by this number; it must leave room for the tasks of the other stage.
            num_cpus=workers.cpus if workers.gpus or not split else 0.4 * workers.cpus,
            num_gpus=workers.gpus or None,
            max_task_retries=MAX_ATTEMPTS - 1,  # Ray Data's own default is to try for ever
        )
        for row in receipts.iter_rows():
            yield pickle.loads(row["payload"])


def quiet_ray_data() -> None:
    """raylib shows its own progress."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


@dataclass
class _Prepare:
    """Stage one, in tasks: pickled MicroBatch → pickled Prepared, or the exception."""

    encoder: Encoder
    sources: list[ShippedSource]

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        encoder = _process_encoder(self.encoder)
        for payload in table.column("payload").to_pylist():
            try:
                prepared = prepare(encoder, pickle.loads(payload), self.sources)
            except Exception as error:
                prepared = portable(error)
            yield _one_row(prepared)


class _Forward:
    """Stage two, in the actor pool: some batches → one part of the store, and a receipt for the driver.

    The weights are loaded once per actor. sources: where the batches come unprepared. A failure travels in the receipt:
    raised here, Ray Data would wrap it in its own words and, in the constructor, start one actor after another.
    """

    def __init__(
        self, encoder: Encoder, sources: list[ShippedSource] | None, shelf: Shelf, marker: str | None, threads: int
    ) -> None:
        self.encoder, self.sources, self.shelf = encoder, sources, shelf
        self.failure: Exception | None = None
        try:
            self._load(marker, threads)
        except Exception as error:
            self.failure = portable(error)

    def _load(self, marker: str | None, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        require_store(marker)
        self.encoder.load()

    def __call__(self, table: pa.Table) -> pa.Table:
        started, cpu = time.time(), time.process_time()
        report = EncodeReport()
        failure = self.failure
        if failure is None:
            try:
                self._encode(table, report)
            except Exception as error:
                failure = portable(error)
        report.cpu_seconds = time.process_time() - cpu
        return _one_row({"report": report, "started": started, "failure": failure})

    def _encode(self, table: pa.Table, report: EncodeReport) -> None:
        """Encode the batches and store them; of a call that fails half way, what was encoded before."""
        keys: list[bytes] = []
        vectors: list[Embeddings] = []
        try:
            for encoded in run_forwards(self.encoder, self._prepared(table)):
                report.add(EncodeReport(len(encoded.keys), encoded.bad, encoded.notes))
                if encoded.embeddings is not None:
                    keys += encoded.keys
                    vectors.append(encoded.embeddings)
        finally:
            if vectors:
                self.shelf.write_batches(keys, vectors)

    def _prepared(self, table: pa.Table) -> Iterator[Prepared]:
        for payload in table.column("payload"):
            item: MicroBatch | Prepared | Exception = pickle.loads(payload.as_buffer())
            if isinstance(item, Exception):
                raise item
            if isinstance(item, MicroBatch):
                assert self.sources is not None
                item = prepare(self.encoder, item, self.sources)
            yield item


def _one_row(value: Any) -> pa.Table:
    data = pickle.dumps(value, protocol=5)
    return pa.table({"payload": pa.array([data], pa.large_binary())})


_encoders: dict[str, Encoder] = {}


def _process_encoder(encoder: Encoder) -> Encoder:
    """The encoder of this process: its tokenizer or image processor is loaded once, not once per task."""
    return _encoders.setdefault(encoder.fingerprint, encoder)
