"""A job of two halves as one Ray Data execution: batches are prepared on CPUs in tasks, and run in actors that hold a
model.

A row of the data set is a whole batch, so a batch stays as it was planned through every stage, every retry and every
resume. What the halves do is the job's own affair; this module only says where.
"""

from __future__ import annotations

import logging
import pickle
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from raylib.cluster.session import MAX_ATTEMPTS, Workers, portable

Result = TypeVar("Result")
Resident = TypeVar("Resident")

# A bound on retries can be given in no other way; Ray says that a named one comes before it takes this one out (2.64).
warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated", module=r"raylib\.cluster\.halves")


class Work(ABC, Generic[Result]):
    """What a job does with a batch. It travels: small until `load`, which happens once per actor."""

    @abstractmethod
    def prepare(self, batch: Any) -> Any:
        """The CPU half. What it loads should be `resident`: in tasks, every call may see another copy of this."""

    @abstractmethod
    def load(self) -> None:
        """Load the weights."""

    @abstractmethod
    def new_result(self) -> Result: ...

    @abstractmethod
    def run(self, prepared: Iterator[Any], result: Result) -> None:
        """The forwards of some batches, put into `result`, which is received whatever is raised here."""


@dataclass
class Receipt(Generic[Result]):
    """Of one call of an actor. started: seconds of the epoch; failure: what ended it, if anything did."""

    result: Result
    started: float
    cpu_seconds: float
    failure: Exception | None


@dataclass(frozen=True)
class Halves:
    """workers: resolved. most: actors. together: batches of a call of an actor. tasks: how many tasks prepare, where
    they do. split: CPU halves in tasks of their own, away from the actors. By default so where actors hold GPUs;
    without GPUs both halves compete for the same cores, and handing tensors from one process to another would only
    cost."""

    workers: Workers
    most: int
    together: int
    tasks: int
    split: bool | None = None

    def receipts(self, work: Work[Result], batches: Sequence[Any]) -> Generator[Receipt[Result], None, None]:
        """A receipt of every call, in the order in which calls end. Raises RayError where workers die."""
        workers = self.workers
        split = self.split if self.split is not None else bool(workers.gpus)
        rows = ray.data.from_items(
            [{"payload": pickle.dumps(batch)} for batch in batches], override_num_blocks=self.tasks
        )
        if split:
            rows = rows.map_batches(
                _Prepare(work),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=1 if workers.gpus else 0.5,
                max_retries=MAX_ATTEMPTS - 1,
            )
        receipts = rows.map_batches(
            _Run,
            fn_constructor_args=(work, not split, workers.cpus),
            compute=ActorPoolStrategy(
                min_size=min(workers.minimum, self.most), max_size=self.most, initial_size=self.most
            ),
            batch_size=self.together,
            batch_format="pyarrow",
            # Without GPUs Ray only admits by this number; it must leave room for the tasks of the other stage.
            num_cpus=workers.cpus if workers.gpus or not split else 0.4 * workers.cpus,
            num_gpus=workers.gpus or None,
            max_task_retries=MAX_ATTEMPTS - 1,  # Ray Data's own default is to try for ever
        )
        for row in receipts.iter_rows():
            yield pickle.loads(row["payload"])


def resident(key: str, value: Resident) -> Resident:
    """What this process keeps under `key`: `value`, or what was put there before, tokenizer and all."""
    return _residents.setdefault(key, value)


_residents: dict[str, Any] = {}


def quiet_ray_data() -> None:
    """raylib shows its own progress."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


@dataclass
class _Prepare:
    """Stage one, in tasks: pickled batch → what `prepare` gave, or the exception."""

    work: Work[Any]

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for payload in table.column("payload").to_pylist():
            try:
                prepared = self.work.prepare(pickle.loads(payload))
            except Exception as error:
                prepared = portable(error)
            yield _one_row(prepared)


class _Run:
    """Stage two, in the actor pool: some batches → a receipt for the driver.

    The weights are loaded once per actor. unprepared: the batches come as they were planned. A failure travels in the
    receipt: raised here, Ray Data would wrap it in its own words and, in the constructor, start actor after actor.
    """

    def __init__(self, work: Work[Any], unprepared: bool, threads: int) -> None:
        import torch

        self.work, self.unprepared = work, unprepared
        self.failure: Exception | None = None
        torch.set_num_threads(threads)
        try:
            work.load()
        except Exception as error:
            self.failure = portable(error)

    def __call__(self, table: pa.Table) -> pa.Table:
        started, cpu = time.time(), time.process_time()
        result = self.work.new_result()
        failure = self.failure
        if failure is None:
            try:
                self.work.run(self._prepared(table), result)
            except Exception as error:
                failure = portable(error)
        return _one_row(Receipt(result, started, time.process_time() - cpu, failure))

    def _prepared(self, table: pa.Table) -> Iterator[Any]:
        for payload in table.column("payload"):
            item = pickle.loads(payload.as_buffer())
            if isinstance(item, Exception):
                raise item
            yield self.work.prepare(item) if self.unprepared else item


def _one_row(value: Any) -> pa.Table:
    data = pickle.dumps(value, protocol=5)
    return pa.table({"payload": pa.array([data], pa.large_binary())})
