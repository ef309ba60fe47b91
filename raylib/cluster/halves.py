"""A job of two halves as one Ray Data execution: batches are prepared on CPUs in tasks, and run in actors that hold a
model.

A row of the data set is a whole batch, so a batch stays as it was planned through every stage, every retry and every
resume. What the halves do is the job's own affair; this module only says where.
"""

from __future__ import annotations

import logging
import math
import pickle
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from raylib.buckets import Repeats
from raylib.cluster.ledger import Ledger
from raylib.cluster.metrics import Meter
from raylib.cluster.session import MAX_ATTEMPTS, Workers, died_over_it, portable
from raylib.errors import ModelError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Resident = TypeVar("Resident")

# A bound on retries can be given in no other way; Ray says that a named one comes before it takes this one out (2.64).
warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated", module=r"raylib\.cluster\.halves")


class Work(ABC, Generic[Result]):
    """What a job does with a batch. It travels: small until `load`, which happens once per actor."""

    meter: Meter
    """What the job's metrics and log lines are filed under."""

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

    @abstractmethod
    def singles(self, batch: Any) -> list[Any]:
        """A batch of each content of a batch."""

    @abstractmethod
    def set_aside(self, single: Any, reason: str, result: Result) -> None:
        """Into `result`: why a batch of one content was not run."""

    def joined(self, result: Result) -> Result:
        """`result` where batches of one stand in it for a whole batch, if that makes a difference."""
        return result


@dataclass
class Receipt(Generic[Result]):
    """Of one call of an actor. started: seconds of the epoch; failure: what ended it, if anything did; deaths: of
    processes that were at it before; repeated: requests to buckets that were sent again."""

    result: Result
    started: float
    cpu_seconds: float
    failure: Exception | None
    deaths: int = 0
    repeated: int = 0


@dataclass(frozen=True)
class Halves:
    """workers: resolved. most: actors. together: batches of a call of an actor. prepared: of a task that prepares,
    where tasks do. split: CPU halves in tasks of their own, away from the actors. By default so where actors hold GPUs;
    without GPUs both halves compete for the same cores, and handing tensors from one process to another would only
    cost."""

    workers: Workers
    most: int
    together: int
    prepared: int
    split: bool | None = None

    def receipts(self, work: Work[Result], batches: Sequence[Any]) -> Generator[Receipt[Result], None, None]:
        """A receipt of every call, in the order in which calls end.

        A process that dies is started again, and what it was at is done batch by batch, then content by content; one
        over which `MAX_ATTEMPTS` died is set aside. Raises RayError where Ray itself gives up.
        """
        with closing(Ledger()) as ledger:
            for row in self._receipts(work, batches, ledger).iter_rows():
                yield pickle.loads(row["payload"])

    def _receipts(self, work: Work[Result], batches: Sequence[Any], ledger: Ledger) -> ray.data.Dataset:
        workers = self.workers
        split = self.split if self.split is not None else bool(workers.gpus)
        rows = ray.data.from_items(
            [{"number": number, "batch": pickle.dumps(batch)} for number, batch in enumerate(batches)],
            # Without a stage before it, a block is what one call of an actor takes: Ray Data gives actors whole blocks,
            # and large ones would leave all but the last actor without work at the end.
            override_num_blocks=math.ceil(len(batches) / (self.prepared if split else self.together)),
        )
        if split:
            rows = rows.map_batches(
                _Prepare(work, ledger),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=1 if workers.gpus else 0.5,
                max_retries=-1,
            )
        return rows.map_batches(
            _Run,
            fn_constructor_args=(work, ledger, workers.cpus),
            compute=ActorPoolStrategy(
                min_size=min(workers.minimum, self.most), max_size=self.most, initial_size=self.most
            ),
            batch_size=self.together if split else None,
            batch_format="pyarrow",
            # Without GPUs Ray only admits by this number; it must leave room for the tasks of the other stage.
            num_cpus=workers.cpus if workers.gpus or not split else 0.4 * workers.cpus,
            num_gpus=workers.gpus or None,
            max_task_retries=-1,
        )


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
    """Stage one, in tasks: adds to a batch what `prepare` gave, or the exception; nothing where a process died over it,
    which an actor then does itself, carefully."""

    work: Work[Any]
    ledger: Ledger

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for row in table.to_pylist():  # batches are small before they are prepared
            with self.ledger.attempt(f"prepare {row['number']}") as deaths:
                prepared = None if deaths else self._prepared(row["batch"])
            yield _table_of_one(**row, prepared=pickle.dumps(prepared, protocol=5))

    def _prepared(self, batch: bytes) -> Any:
        try:
            return self.work.prepare(pickle.loads(batch))
        except Exception as error:
            return portable(error)


class _Run:
    """Stage two, in the actor pool: some batches → a receipt for the driver.

    The weights are loaded once per actor. A failure travels in the receipt: raised here, Ray Data would wrap it in its
    own words and, in the constructor, start actor after actor.
    """

    def __init__(self, work: Work[Any], ledger: Ledger, threads: int) -> None:
        import torch

        self.work, self.ledger = work, ledger
        self.failure: Exception | None = None
        torch.set_num_threads(threads)
        try:
            self._load()
        except Exception as error:
            self.failure = portable(error)

    def _load(self) -> None:
        with self.ledger.attempt(f"load {ray.get_runtime_context().get_actor_id()}") as deaths:
            if deaths >= MAX_ATTEMPTS:
                raise ModelError(
                    f"{deaths} worker processes died while they loaded the model. Too little memory? Try fewer "
                    "--workers, or --dtype bfloat16"
                )
            self.work.load()

    def __call__(self, table: pa.Table) -> pa.Table:
        started, cpu, repeats = time.time(), time.process_time(), Repeats()
        result = self.work.new_result()
        failure, deaths, rows = self.failure, 0, _rows_of(table)
        if failure is None:
            try:
                with self.ledger.attempt(f"call {rows[0]['number']}") as deaths:
                    result = self._run_carefully(rows, result) if deaths else self._run(rows, result)
            except Exception as error:
                failure = portable(error)
        receipt = Receipt(result, started, time.process_time() - cpu, failure, deaths, repeats.count)
        about = {**self.work.meter.about, "shard": rows[0]["number"]}
        logger.info("batches done: %d, in %.3f s", len(rows), time.time() - started, extra=about)
        return _table_of_one(payload=pickle.dumps(receipt, protocol=5))

    def _run(self, rows: Sequence[dict[str, Any]], result: Any) -> Any:
        self.work.run(self._prepared(rows), result)
        return result

    def _prepared(self, rows: Sequence[dict[str, Any]]) -> Iterator[Any]:
        for row in rows:
            item = pickle.loads(row["prepared"]) if "prepared" in row else None
            if isinstance(item, Exception):
                raise item
            yield self.work.prepare(pickle.loads(row["batch"])) if item is None else item

    def _run_carefully(self, rows: Sequence[dict[str, Any]], result: Any) -> Any:
        """After a death: batch by batch, and where there was another one, content by content."""
        for row in rows:
            if len(rows) == 1:
                result = self._run_alone(row, result, already=1)
                continue
            with self.ledger.attempt(f"batch {row['number']}") as deaths:
                result = self._run_alone(row, result, already=2) if deaths else self._run([row], result)
        return result

    def _run_alone(self, row: dict[str, Any], result: Any, already: int) -> Any:
        """already: how often processes died over the batch, at least."""
        for place, single in enumerate(self.work.singles(pickle.loads(row["batch"]))):
            with self.ledger.attempt(f"content {row['number']} {place}") as deaths:
                if already + deaths >= MAX_ATTEMPTS:
                    self.work.set_aside(single, died_over_it(), result)
                else:
                    self.work.run(iter([self.work.prepare(single)]), result)
        return self.work.joined(result)


def _rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Bytes as buffers of the table itself: prepared images are large."""
    columns = {name: list(table.column(name)) for name in table.column_names}
    return [{name: _value(values[row]) for name, values in columns.items()} for row in range(table.num_rows)]


def _value(scalar: pa.Scalar) -> Any:
    return scalar.as_buffer() if isinstance(scalar, pa.BinaryScalar | pa.LargeBinaryScalar) else scalar.as_py()


def _table_of_one(**values: Any) -> pa.Table:
    """Of one row; bytes of any length."""
    kinds = {name: pa.large_binary() if isinstance(value, bytes) else None for name, value in values.items()}
    return pa.table({name: pa.array([value], kinds[name]) for name, value in values.items()})
