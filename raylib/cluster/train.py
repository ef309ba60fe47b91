"""Training on the connected cluster: Ray Train starts the processes, and starts them again where one dies."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # paths of the settings are from where the job was started

import ray
import ray.exceptions
import ray.train
import ray.train.torch

from raylib.cluster.session import Workers, beside_the_job, first_line, portable
from raylib.errors import ModelError, RaylibError
from raylib.evaluate.progress import Reporter
from raylib.placement import Placement
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

    def run(self, assignment: Assignment, reporter: Reporter) -> Trained:
        """Raises what a process raises, in its own words; ModelError where processes die too often."""
        maker: Any = ray.remote(_Desk)
        desk: Any = maker.options(num_cpus=0, scheduling_strategy=beside_the_job()).remote()
        folder = tempfile.mkdtemp(prefix="raylib-train-")
        try:
            with _lines_from(desk, reporter):
                self._fit(assignment, desk, folder)
            return _outcome(ray.get(desk.outcome.remote()))
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
            train_loop_config={"assignment": ray.put(assignment), "desk": desk, "threads": workers.cpus},
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


class _Desk:
    """An actor between the processes and the job, on the job's node, so that it is lost with the job alone: lines on
    their way to a person, and how it ended."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []
        self._outcome: Trained | Exception | None = None
        self._failed: set[int] = set()

    def put(self, kind: str, text: str) -> None:
        self._lines.append((kind, text))

    def take(self) -> list[tuple[str, str]]:
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
def _lines_from(desk: Any, reporter: Reporter) -> Iterator[None]:
    """What processes say, said here."""
    ended = threading.Event()

    def pass_on() -> None:
        for kind, text in ray.get(desk.take.remote()):
            (reporter.warn if kind == "warn" else reporter.say)(text)

    def until_ended() -> None:
        while not ended.wait(0.3):
            pass_on()

    thread = threading.Thread(target=until_ended, name="train-lines", daemon=True)
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

    def tell(kind: str, text: str) -> None:
        ray.get(desk.put.remote(kind, text))

    try:
        found = work(
            ray.get(config["assignment"]), team, lambda text: tell("say", text), lambda text: tell("warn", text)
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
