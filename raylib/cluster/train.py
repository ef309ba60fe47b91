"""Training on the connected cluster: Ray Train starts the processes, and starts them again where one dies."""

from __future__ import annotations

import contextvars
import os
import pickle
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # paths of the settings are from where the job was started

import ray
import ray.exceptions
import ray.train
import ray.train.torch

from raylib.cluster.held import held
from raylib.cluster.metrics import Meter
from raylib.cluster.session import Workers, beside_the_job, first_line, portable
from raylib.errors import ModelError, RaylibError
from raylib.evaluate.progress import Reporter
from raylib.placement import Placement
from raylib.timeline import Held
from raylib.train.assignment import Assignment, Trained
from raylib.train.team import Group
from raylib.train.worker import work

_SECONDS_TO_FAIL = 5.0
"""How long a process that failed waits for the others to say the same."""

_SECONDS_TO_MEET = 6 * 3600
"""How long processes wait for each other: while the first one scores an evaluation the others wait."""


@dataclass(frozen=True)
class RayTrainPlace:
    """A `raylib.train.place.TrainPlace`. max_failures: how often processes that died are started again."""

    workers: Workers
    max_failures: int

    @classmethod
    def of(cls, config: Placement, max_failures: int) -> RayTrainPlace:
        """Raises UserError for resources that the cluster cannot have."""
        return cls(Workers.of(config).resolve(), max_failures)

    @property
    def processes(self) -> int:
        assert self.workers.count is not None, "resolved"
        return self.workers.count

    def held(self) -> Held:
        return held(self.workers, self.processes)

    def run(self, assignment: Assignment, reporter: Reporter) -> Trained:
        """Raises what a process raises, in its own words; ModelError where processes die too often."""
        maker: Any = ray.remote(_Desk)
        desk: Any = maker.options(num_cpus=0, scheduling_strategy=beside_the_job()).remote()
        folder = tempfile.mkdtemp(prefix="raylib-train-")
        counted = Counted(assignment, self.processes)
        try:
            with _lines_from(desk, reporter, counted):
                self._fit(assignment, desk, folder)
            return replace(_outcome(ray.get(desk.outcome.remote())), retries=counted.retries)
        except ray.train.TrainingFailedError as error:
            _outcome(ray.get(desk.outcome.remote()), raise_only=True)
            raise ModelError(
                f"training stopped after its processes were started {self.max_failures + 1} times ({_cause(error)}). "
                "The last checkpoint is kept, and the same command goes on from it. Too little memory? Try a smaller "
                "--micro-batch-size"
            ) from error
        finally:
            ray.kill(desk)
            shutil.rmtree(folder, ignore_errors=True)

    def _fit(self, assignment: Assignment, desk: Any, folder: str) -> None:
        workers = self.workers
        gpus = workers.gpus or 0.0
        share: dict[str, float] = {"CPU": workers.cpus, **({"GPU": gpus} if gpus else {})}
        fewest = workers.minimum if workers.minimum > 1 else self.processes
        trainer = ray.train.torch.TorchTrainer(
            _process,
            train_loop_config={
                "assignment": ray.put(assignment),
                "desk": desk,
                "threads": workers.cpus,
                "meter": meter_of(assignment),
            },
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=_SECONDS_TO_MEET),
            scaling_config=ray.train.ScalingConfig(
                num_workers=self.processes if fewest == self.processes else (fewest, self.processes),
                use_gpu=gpus > 0,
                resources_per_worker=share,
            ),
            run_config=ray.train.RunConfig(
                name="train",
                storage_path=folder,
                failure_config=ray.train.FailureConfig(max_failures=self.max_failures),
            ),
        )
        trainer.fit()


def meter_of(assignment: Assignment) -> Meter:
    return Meter.of(assignment.config.model[0], "train")


class Counted:
    """Steps as metrics. A step that is done again after a failure counts again: it was work. retries: how often the
    processes were started again."""

    def __init__(self, assignment: Assignment, processes: int) -> None:
        size = assignment.schedule.plan_of(0).shape[1]
        self._examples = [size * len(window.batches) for window in assignment.schedule.windows(0)]
        self._meter, self._processes = meter_of(assignment), processes
        self._begun, self._last = 0, 0

    @property
    def retries(self) -> int:
        return max(0, self._begun - 1)

    def begin(self, _: None) -> None:
        self._begun += 1
        self._meter.count(retries=int(self._begun > 1))

    def log(self, told: tuple[int, Mapping[str, float]]) -> None:
        """(step, values): of the steps since the one that was told before; without values where an attempt begins."""
        step, values = told
        if values:
            examples, rate = sum(self._examples[self._last : step]), values["examples_per_second"]
            tokens = examples * values["tokens_per_second"] / rate
            self._meter.count(contents=examples, tokens=tokens, busy_seconds=self._processes * examples / rate)
        self._last = step


class _Desk:
    """An actor between the processes and the job, on the job's node, so that it is lost with the job alone: lines on
    their way to a person, and how it ended."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, Any]] = []
        self._outcome: Trained | Exception | None = None
        self._failed: set[int] = set()

    def put(self, kind: str, told: Any) -> None:
        """kind: say or warn, with a text; begin, of an attempt's first process; log, with (step, values)."""
        self._lines.append((kind, told))

    def take(self) -> list[tuple[str, Any]]:
        lines, self._lines = self._lines, []
        return lines

    def end(self, trained: Trained) -> None:
        self._outcome = trained

    def fail(self, rank: int, pickled: bytes) -> None:
        """The first failure counts: others follow from it."""
        self._failed.add(rank)
        if not isinstance(self._outcome, Exception):
            self._outcome = pickle.loads(pickled)

    def failed(self) -> int:
        """How many processes have."""
        return len(self._failed)

    def outcome(self) -> bytes:
        """Pickled: an exception that an actor gives would be raised by Ray."""
        return pickle.dumps(self._outcome)


def _outcome(pickled: bytes, *, raise_only: bool = False) -> Any:
    found = pickle.loads(pickled)
    if isinstance(found, Exception):
        raise found
    assert raise_only or found is not None, "a run that ends well says how"
    return found


@contextmanager
def _lines_from(desk: Any, reporter: Reporter, counted: Counted) -> Iterator[None]:
    """What processes say, said here, and what they count, counted here."""
    ended = threading.Event()
    takers = {"say": reporter.say, "warn": reporter.warn, "begin": counted.begin, "log": counted.log}

    def pass_on() -> None:
        for kind, told in ray.get(desk.take.remote()):
            takers[kind](told)

    def until_ended() -> None:
        while not ended.wait(0.3):
            pass_on()

    about = contextvars.copy_context()  # what lines of this thread are about, those of the other are, too
    thread = threading.Thread(target=about.run, args=(until_ended,), name="train-lines", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        pass_on()


def _process(config: dict[str, Any]) -> None:
    """One process. A failure that another attempt would meet again is told, and that attempt ends at once."""
    import torch

    desk = config["desk"]
    if isinstance(pickle.loads(ray.get(desk.outcome.remote())), Exception):
        return
    torch.set_num_threads(max(1, int(config["threads"])))
    device = str(ray.train.torch.get_device())
    team = Group(device if device.startswith("cuda") else "cpu")

    meter: Meter = config["meter"]

    def tell(kind: str, told: Any) -> None:
        ray.get(desk.put.remote(kind, told))

    def log(step: int, values: Mapping[str, float]) -> None:
        meter.gpu_memory()
        tell("log", (step, dict(values)))

    if team.rank == 0:
        tell("begin", None)
    try:
        found = work(
            ray.get(config["assignment"]), team, lambda text: tell("say", text), lambda text: tell("warn", text), log
        )
    except RaylibError as error:
        ray.get(desk.fail.remote(team.rank, pickle.dumps(portable(error))))
        if not _all_failed(desk, team.size):
            raise  # the others wait for this process, and only its end ends them
        return
    if team.rank == 0:
        ray.get(desk.end.remote(found))


def _all_failed(desk: Any, size: int) -> bool:
    """Whether every process has met the same, as one that all of them compute."""
    until = time.monotonic() + _SECONDS_TO_FAIL
    while time.monotonic() < until:
        if ray.get(desk.failed.remote()) == size:
            return True
        time.sleep(0.1)
    return False


def _cause(error: BaseException) -> str:
    """What the processes that failed last said first."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        return first_line(failure)
    return first_line(error)
