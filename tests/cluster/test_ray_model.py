"""`mteb.evaluate(RayModel)` gives what `mteb.evaluate(plain model)` gives: real ViDoRe classes and grown mocks."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from raylib.tasks.selection import select_tasks
from tests import toys
from tests.evaluate.compare import differences, scores_of
from tests.evaluate.mock_tasks import IMAGE_MOCKS, TEXT_MOCKS, grown_task

pytestmark = pytest.mark.cluster

VIDORE = (
    "VidoreArxivQARetrieval",
    "Vidore2ESGReportsRetrieval",
    "Vidore3FinanceEnRetrieval",
    "Vidore3FinanceEnRetrieval.v2",
)

ONE_OF_EACH_KIND = (
    "LegacyMockClusteringFastTask",
    "MockAny2AnyRetrievalT2ITask",
    "MockBitextMiningTask",
    "MockImageClassificationTask",
    "MockImageTextPairClassificationTask",
    "MockMultiChoiceTask",
    "MockMultilabelClassification",
    "MockMultilingualInstructionReranking",
    "MockMultilingualRetrievalTask",
    "MockPairImageClassificationTask",
    "MockRegressionTask",
    "MockSTSTask",
    "MockSummarizationTask",
    "MockZeroShotClassificationTask",
)

OTHER_MOCKS = [
    pytest.param(name, marks=pytest.mark.slow) for name in (*TEXT_MOCKS, *IMAGE_MOCKS) if name not in ONE_OF_EACH_KIND
]

BATCH_SIZE = 16


SLOW = [pytest.param((name, workers), marks=pytest.mark.slow) for name, workers in (("dense", 3), ("late", 2))]


@pytest.fixture(scope="module", params=[("dense", 2), ("late", 3), *SLOW], ids=str)
def models(request, cluster):
    """(name of the toy, RayModel); its actors live for all tests of one toy and number of workers."""
    import raylib

    name, workers = request.param
    model = raylib.RayModel(f"tests.toys:{name}", workers=workers, batch_size=BATCH_SIZE)
    yield name, model
    model.close()


@cache
def plain_scores(model: str, task: str, data_root: str | None) -> dict[str, Any]:
    return scores_of(getattr(toys, model)(), the_task(task, data_root), BATCH_SIZE)


def the_task(name: str, data_root: str | None) -> Any:
    if data_root is None:
        return grown_task(name)
    (task,) = select_tasks(tasks=[name], data_root=data_root)
    return task


@pytest.mark.parametrize("task", VIDORE)
def test_vidore_scores_are_those_of_mteb(task, models, vidore):
    name, model = models

    got = scores_of(model, the_task(task, vidore), BATCH_SIZE)

    assert differences(got, plain_scores(name, task, vidore)) == []


@pytest.mark.parametrize("task", [*ONE_OF_EACH_KIND, *OTHER_MOCKS])
@pytest.mark.parametrize("models", [("dense", 2)], indirect=True, ids=str)
def test_mock_scores_are_those_of_mteb(task, models):
    name, model = models

    got = scores_of(model, the_task(task, None), BATCH_SIZE)

    assert differences(got, plain_scores(name, task, None)) == []


def test_search_options_go_by_keyword_and_say_what_they_lose(cluster, vidore):
    import raylib

    model = raylib.RayModel("tests.toys:late", workers=1, batch_size=BATCH_SIZE, candidates="int8", token_pooling=2)
    try:
        scores_of(model, the_task("VidoreArxivQARetrieval", vidore), BATCH_SIZE)
        (quality,) = model.quality.values()
    finally:
        model.close()
    assert 0 < quality["recall_at_10"] <= 1
    assert quality["bytes_per_document"] < quality["bytes_per_document_float32"] / 4
    assert model.mteb_model_meta.experiment_kwargs == {"candidates": "int8", "token_pooling": 2}
