"""Tasks scored side by side on Ray: MTEB's own scores, whatever else runs, and whoever dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from concurrent.futures import wait
from functools import cache
from pathlib import Path
from typing import Any

import mteb.mocks
import psutil
import pytest

from raylib.cluster.encode import RayDataStage
from raylib.cluster.evaluate import RayBackend
from raylib.cluster.session import MAX_ATTEMPTS, Workers
from raylib.cluster.shared_pool import PooledPlan
from raylib.evaluate.config import EvaluateConfig
from raylib.evaluate.job import EvaluateJob, Outcome
from raylib.evaluate.progress import QuietReporter
from tests import toys
from tests.cluster import watched_toys
from tests.cluster.conftest import CPUS
from tests.evaluate.compare import differences, flatten, scores_of
from tests.evaluate.mock_tasks import IMAGE_MOCKS, LATE_MOCKS, TEXT_MOCKS, grown_task

pytestmark = pytest.mark.cluster

ONE_OF_EACH_KIND = (
    "MockAny2AnyRetrievalT2ITask",
    "MockBitextMiningTask",
    "MockClusteringTask",
    "MockImageClassificationTask",
    "MockImageTextPairClassificationTask",
    "MockInstructionReranking",
    "MockMultiChoiceTask",
    "MockMultilabelClassification",
    "MockMultilingualClusteringFastTask",
    "MockMultilingualRetrievalTask",
    "MockPairClassificationTask",
    "MockRegressionTask",
    "MockRetrievalDialogTask",
    "MockSTSTask",
    "MockSummarizationTask",
    "MockZeroShotClassificationTask",
)
ALL = (*TEXT_MOCKS, *IMAGE_MOCKS)

BATCH_SIZE = 16


def evaluate(models: list[str], tasks: list[str], folder: Path) -> Outcome:
    return job_over(models, [grown_task(name) for name in tasks], folder)


def job_over(models: list[str], tasks: list[Any], folder: Path) -> Outcome:
    names = [task.metadata.name for task in tasks]
    config = EvaluateConfig(
        models, tasks=names, output_folder=str(folder), batch_size=BATCH_SIZE, workers=2, quiet=True
    )
    job = EvaluateJob(config, RayBackend.of(config), QuietReporter())
    return job.run(job.prepare(tasks))


def scores(outcome: Outcome, model: str) -> dict[str, dict[str, Any]]:
    return {result.task_name: flatten(result.scores) for result in outcome.task_results[model]}


@cache
def plain_scores(model: str, task: str) -> dict[str, Any]:
    """What MTEB gives for a task of its own and a model that it sees for the first time."""
    return scores_of(getattr(toys, model)(), grown_task(task), BATCH_SIZE)


def differing(outcome: Outcome, name: str, tasks: Iterable[str], model: str | None = None) -> list[str]:
    """Where the scores are not those of plain MTEB with the toy `name`. tasks: names of classes, which are not those of
    the results."""
    found = scores(outcome, model or f"tests.toys:{name}")
    classes = {getattr(mteb.mocks, task).metadata.name: task for task in tasks}
    assert found.keys() == classes.keys()
    expected = {title: plain_scores(name, task) for title, task in classes.items()}
    return [f"{title} {line}" for title, got in found.items() for line in differences(got, expected[title])]


QUICK = ("dense", ONE_OF_EACH_KIND, "path")
EVERY = [("dense", ALL, "path"), ("dense", ALL, "value"), ("late", LATE_MOCKS, "path")]


@pytest.mark.parametrize(
    ("name", "tasks", "shipping"),
    [QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in EVERY)],
    indirect=["shipping"],
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)
def test_scores_of_tasks_side_by_side_are_those_of_mteb(name, tasks, shipping, cluster, tmp_path):
    outcome = evaluate([f"tests.toys:{name}"], list(tasks), tmp_path)

    assert outcome.ok, outcome.summaries[0].tasks_failed
    assert differing(outcome, name, tasks) == []


@pytest.mark.parametrize("shipping", ["path"], indirect=True)
def test_two_models_get_the_scores_that_mteb_gives_each_alone(cluster, shipping, watched, tmp_path):
    """Both are the dense toy; MTEB draws from a random state of the task in two of these."""
    watched_toys.forget("watched")
    tasks = ["MockMultilabelClassification", "MockMultilingualClusteringFastTask", "MockMultilingualRetrievalTask"]
    models = ["tests.toys:dense", "tests.cluster.watched_toys:watched"]

    with Titles() as seen:
        outcome = evaluate(models, tasks, tmp_path)

    assert outcome.ok, [summary.tasks_failed for summary in outcome.summaries]
    for model in models:
        assert differing(outcome, "dense", tasks, model) == []
    assert {"_ScoreWorker", "_PoolWorker"} <= seen.names, "the sampler sees them"
    contents = [digest for _, digest in watched_toys.forwards("watched")]
    assert len(contents) == len(set(contents)), "tasks share vectors"
    assert len({pid for pid, _ in watched_toys.forwards("watched")}) <= 2 + 2, "those of the plan, those of requests"
    no_actors_left(cluster)


@pytest.mark.parametrize("shipping", ["path"], indirect=True)
def test_a_plan_goes_through_the_actors_that_will_be_asked(cluster, shipping):
    backend = RayBackend(Workers(2).resolve(), Workers(2))
    scorer = backend.score_stage()
    try:
        assert isinstance(backend.plan_stage(lambda n: None, requests=True), PooledPlan)
        assert isinstance(backend.plan_stage(lambda n: None, requests=False), RayDataStage)
    finally:
        scorer.close()


def test_a_task_that_fails_does_not_take_the_others_down(cluster, tmp_path):
    """MTEB cannot classify late-interaction vectors."""
    tasks = ["MockRetrievalTask", "MockClassificationTask", "MockRerankingTask"]

    outcome = evaluate(["tests.toys:late"], tasks, tmp_path)

    (summary,) = outcome.summaries
    assert [failed["task_name"] for failed in summary.tasks_failed] == ["MockClassificationTask"]
    assert "Error: " in summary.tasks_failed[0]["error"] and "\n" not in summary.tasks_failed[0]["error"]
    assert summary.status == "partial"
    assert differing(outcome, "late", ["MockRetrievalTask", "MockRerankingTask"]) == []


def test_a_killed_process_costs_time_only(cluster, watched, tmp_path):
    watched_toys.forget("slow")
    tasks = ["MockSTSTask", "MockPairClassificationTask"]
    model = "tests.cluster.watched_toys:slow"
    killed = []

    def wait_and_kill() -> None:
        deadline = time.monotonic() + 120
        while len(watched_toys.forwards("slow")) < 3 * BATCH_SIZE and time.monotonic() < deadline:
            time.sleep(0.05)
        victim = processes("_ScoreWorker")[0]
        killed.append(victim.pid)
        victim.kill()

    killer = threading.Thread(target=wait_and_kill)
    killer.start()
    outcome = evaluate([model], tasks, tmp_path)
    killer.join()

    assert killed and outcome.ok, outcome.summaries[0].tasks_failed
    assert differing(outcome, "dense", tasks, model) == []


def test_a_task_that_kills_its_process_fails_alone(cluster, tmp_path):
    tasks = [grown_task(name) for name in ("MockSTSTask", "MockSummarizationTask")]
    driver = os.getpid()

    def die(*args: Any, **kwargs: Any) -> None:
        assert os.getpid() != driver
        os.kill(os.getpid(), signal.SIGKILL)

    tasks[0].evaluate = die  # pyright: ignore[reportAttributeAccessIssue]

    outcome = job_over(["tests.toys:dense"], tasks, tmp_path)

    (failed,) = outcome.summaries[0].tasks_failed
    assert failed["task_name"] == tasks[0].metadata.name and f"died {MAX_ATTEMPTS} times" in failed["error"]
    assert "tests.toys:dense" in failed["error"] and "\n" not in failed["error"]
    assert differing(outcome, "dense", ["MockSummarizationTask"]) == []


def test_an_interrupted_job_leaves_no_process(cluster, watched, tmp_path, monkeypatch):
    def interrupted(futures: Any, **kwargs: Any) -> Any:
        found = wait(futures, timeout=1, **kwargs)
        if processes("_ScoreWorker") and processes("_PoolWorker"):
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr("raylib.evaluate.job.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(["tests.cluster.watched_toys:slow"], ["MockSTSTask", "MockPairClassificationTask"], tmp_path)
    no_actors_left(cluster)


def test_nothing_starts_that_nobody_needs(cluster, tmp_path):
    """One task is scored in the driver; planned tasks need no encode actors but those of the plan; what is known needs
    nothing."""
    two = ["MockRetrievalTask", "MockAny2AnyRetrievalT2ITask"]
    no_actors_left(cluster)  # of tests before this one
    with Titles() as seen:
        assert evaluate(["tests.toys:dense"], two[:1], tmp_path).ok
    assert not {"_ScoreWorker", "_PoolWorker", "_Keeper"} & seen.names
    with Titles() as seen:
        outcome = evaluate(["tests.toys:dense"], two, tmp_path / "other")
    assert "_ScoreWorker" in seen.names and "_PoolWorker" not in seen.names
    assert differing(outcome, "dense", two) == []
    no_actors_left(cluster)
    with Titles() as seen:
        assert evaluate(["tests.toys:dense"], two, tmp_path / "other").ok
    assert not {"_ScoreWorker", "_PoolWorker", "_Keeper"} & seen.names


OURS = ("_ScoreWorker", "_PoolWorker", "_Keeper")


def processes(title: str) -> list[psutil.Process]:
    """Processes of this test's Ray that run an actor of this class."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if f"ray::{title}" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


class Titles:
    """Which of our actors ran at any time inside the block."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.names |= {name for name in OURS if processes(name)}

    def __enter__(self) -> Titles:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._over.set()
        self._thread.join()


def no_actors_left(cluster: Any) -> None:
    deadline = time.monotonic() + 60
    while any(processes(name) for name in OURS) or cluster.available_resources().get("CPU") != CPUS:
        assert time.monotonic() < deadline, [(name, processes(name)) for name in OURS]
        time.sleep(0.2)
