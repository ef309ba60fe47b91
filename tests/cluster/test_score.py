"""Tasks scored side by side on Ray: MTEB's own scores, whatever else runs, and whoever dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import mteb.mocks
import pytest

from raylib.cluster.evaluate import RayBackend
from raylib.cluster.session import MAX_ATTEMPTS
from raylib.evaluate.config import EvaluateConfig
from raylib.evaluate.job import EvaluateJob, Outcome
from raylib.evaluate.progress import QuietReporter
from tests import toys
from tests.cluster import watched_toys
from tests.cluster.conftest import CPUS
from tests.evaluate.compare import differences, flatten, scores_of
from tests.evaluate.mock_tasks import IMAGE_MOCKS, TEXT_MOCKS, grown_task

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
LATE = (
    "MockAny2AnyRetrievalI2TTask",
    "MockAny2AnyRetrievalT2ITask",
    "MockBitextMiningTask",
    "MockImageTextPairClassificationTask",
    "MockInstructionReranking",
    "MockInstructionRetrieval",
    "MockMultiChoiceTask",
    "MockMultilingualBitextMiningTask",
    "MockMultilingualImageTextPairClassificationTask",
    "MockMultilingualInstructionReranking",
    "MockMultilingualInstructionRetrieval",
    "MockMultilingualMultiChoiceTask",
    "MockMultilingualRerankingTask",
    "MockMultilingualRetrievalTask",
    "MockRerankingTask",
    "MockRetrievalDialogTask",
    "MockRetrievalTask",
)
"""What MTEB itself can do with late-interaction vectors."""

BATCH_SIZE = 16


def evaluate(models: list[str], tasks: list[str], folder: Path, workers: int = 2) -> Outcome:
    config = EvaluateConfig(
        models, tasks=tasks, output_folder=str(folder), batch_size=BATCH_SIZE, workers=workers, quiet=True
    )
    job = EvaluateJob(config, RayBackend.of(config), QuietReporter())
    return job.run(job.prepare([grown_task(name) for name in tasks]))


def scores(outcome: Outcome, model: str) -> dict[str, dict[str, Any]]:
    return {result.task_name: flatten(result.scores) for result in outcome.task_results[model]}


@cache
def plain_scores(model: str, task: str) -> dict[str, Any]:
    """What MTEB gives for a task of its own and a model that it sees for the first time."""
    return scores_of(getattr(toys, model)(), grown_task(task), BATCH_SIZE)


def differing(outcome: Outcome, name: str, tasks: Iterable[str]) -> list[str]:
    """Where the scores are not those of plain MTEB. tasks: names of classes, which are not those of the results."""
    found = scores(outcome, f"tests.toys:{name}")
    classes = {getattr(mteb.mocks, task).metadata.name: task for task in tasks}
    assert found.keys() == classes.keys()
    expected = {title: plain_scores(name, task) for title, task in classes.items()}
    return [f"{title} {line}" for title, got in found.items() for line in differences(got, expected[title])]


QUICK = ("dense", ONE_OF_EACH_KIND, "path")
EVERY = [("dense", ALL, "path"), ("dense", ALL, "value"), ("late", LATE, "path")]


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
