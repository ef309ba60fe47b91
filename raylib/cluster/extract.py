"""Extraction on the connected cluster: rows are decoded and processed on CPUs, actors that hold the model run them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import ray
import ray.exceptions

from raylib.cluster.halves import Halves, Work, quiet_ray_data, resident
from raylib.cluster.held import held
from raylib.cluster.metrics import Meter
from raylib.cluster.once import once
from raylib.cluster.session import Workers, lost_workers, started_here, worker_failure
from raylib.evaluate.batching import BatchRecord
from raylib.extract.batches import BatchStates, PreparedBatch, RowBatch, joined, prepare_batch, run_batch
from raylib.extract.collate import PreparedRow
from raylib.extract.extractor import Extractor
from raylib.extract.local import try_batch_sizes
from raylib.placement import Placement
from raylib.timeline import Held


@dataclass
class RayPlace:
    """A `raylib.extract.local.Place`. split: see `Halves`; held: by the workers of the last extraction."""

    workers: Workers
    split: bool | None = None
    held: Held = Held()  # noqa: RUF009, frozen

    @classmethod
    def of(cls, config: Placement) -> RayPlace:
        """Raises UserError for resources that the cluster cannot have."""
        quiet_ray_data()
        return cls(Workers.of(config).resolve())

    def extract(self, extractor: Extractor, batches: Sequence[RowBatch]) -> Iterator[BatchStates]:
        """The states of all batches, as they come. Raises what went wrong on a worker. A row over which workers die
        `MAX_ATTEMPTS` times has a reason in place of states."""
        assert self.workers.count is not None
        halves = Halves(self.workers, min(self.workers.count, len(batches)), 1, 1, self.split)
        meter, size = Meter.of(extractor.spec.name, "extract"), max((len(batch.rows) for batch in batches), default=1)
        work = _ExtractWork(meter, extractor)
        self.held = held(self.workers, halves.most)
        if not started_here():
            work.carried = {batch.name: ray.put(_carried(batch)) for batch in batches}
            batches = [replace(batch, rows=[]) for batch in batches]
        try:
            with closing(halves.receipts(work, batches)) as receipts:
                for receipt in receipts:
                    meter.count(retries=receipt.deaths, bucket_retries=receipt.repeated)
                    for found in receipt.result[:1]:
                        found.notes += lost_workers(extractor.spec.name, receipt.deaths)
                        found.retries = receipt.deaths
                    for found in receipt.result:
                        meter.batch(replace(found.record, fill=found.record.contents / size))
                    yield from receipt.result
                    if receipt.failure is not None:
                        raise receipt.failure
        except ray.exceptions.RayError as error:
            raise worker_failure(error, extractor.spec.name) from error

    def find_batch_size(self, extractor: Extractor, longest: PreparedRow, most: int) -> int:
        return once(self.workers, extractor.spec.name, try_batch_sizes, extractor, longest, most)


def _carried(batch: RowBatch) -> RowBatch:
    """With the bytes of its images, for machines that do not see their files."""
    return replace(batch, rows=[replace(row, image=row.image.carried()) for row in batch.rows])


@dataclass
class _ExtractWork(Work[list[BatchStates]]):
    """carried: batches by name that travel through the object store, which spills to disk what memory cannot hold. A
    reference to one must not be pickled by other hands than Ray's: it would be lost."""

    meter: Meter
    extractor: Extractor
    carried: dict[str, ray.ObjectRef] = field(default_factory=dict)

    def prepare(self, batch: RowBatch) -> PreparedBatch:
        return prepare_batch(resident(str(self.extractor), self.extractor), self._whole(batch))

    def _whole(self, batch: RowBatch) -> RowBatch:
        """With its rows, where these travel apart."""
        if batch.rows or batch.name not in self.carried:
            return batch
        found: Any = ray.get(self.carried[batch.name])
        return found

    def load(self) -> None:
        self.extractor.load()

    def new_result(self) -> list[BatchStates]:
        return []

    def run(self, prepared: Iterator[PreparedBatch], result: list[BatchStates]) -> None:
        for batch in prepared:
            result.append(run_batch(self.extractor, batch))
            self.meter.gpu_memory()

    def singles(self, batch: RowBatch) -> list[RowBatch]:
        found = self._whole(batch)
        return [replace(found, rows=[row]) for row in found.rows]

    def set_aside(self, single: RowBatch, reason: str, result: list[BatchStates]) -> None:
        failed = BatchStates.of_failures(single, {row.number: reason for row in single.rows})
        failed.record = BatchRecord(bad=len(single.rows))
        result.append(failed)

    def joined(self, result: list[BatchStates]) -> list[BatchStates]:
        return joined(result)
