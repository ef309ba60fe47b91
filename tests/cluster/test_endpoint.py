"""A served model on Ray: the scores of --local, many requests under way over the actors, and no GPU taken."""

from __future__ import annotations

import numpy as np
import pytest

import raylib
from raylib.cluster.pool import PoolStage
from raylib.cluster.session import Workers
from raylib.evaluate.plan import Plan
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from tests.evaluate.compare import flatten
from tests.evaluate.test_encode import CONTEXT, Kept, texts
from tests.models.embeddings_server import serving, vector_of

pytestmark = pytest.mark.cluster

TASK = "StdlibPagesT2T"
DIM = 8


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / "cache"))
    with serving(vectors=lambda texts: np.stack([vector_of(text) for text in texts])) as server:
        yield server


def scores(server, folder, **settings):
    outcome = raylib.evaluate(
        "served", endpoint=server.url, tasks=[TASK], limit=40, output_folder=str(folder), quiet=True, **settings
    )
    assert outcome.ok, [(s.error, s.tasks_failed) for s in outcome.summaries]
    (results,) = outcome.task_results.values()
    return repr(flatten({result.task_name: result.scores for result in results}))


def test_scores_are_those_of_local_and_requests_are_many_at_a_time(cluster, server, tmp_path):
    local = scores(server, tmp_path / "local", batch_size=4, local=True)
    server.at_once, server.together = 0, 6
    assert scores(server, tmp_path / "ray", batch_size=4, workers=2) == local
    assert server.at_once >= 6, "two actors, several each"


def test_a_long_lived_actor_has_several_requests_under_way(cluster, server):
    words = [f"word {i}" for i in range(32)]
    plan, shelf = Plan(resolve(ModelSpec("served", endpoint=server.url))), Kept()
    keys = plan.add(texts(*words), CONTEXT)
    stage = PoolStage(Workers(1, gpus=0))
    server.together = 4
    try:
        report = stage(plan.encoder, plan.batches(2), plan.sources, shelf)
    finally:
        stage.close()
    assert report.encoded == 32 and server.at_once >= 4
    assert np.array_equal([shelf.found[key][0] for key in keys], [vector_of(word) for word in words])


def test_an_encoder_that_needs_no_device_takes_no_gpu():
    served, here = (resolve(ModelSpec("m", endpoint="http://h/v1")), resolve(ModelSpec("raylib/untrained-clip")))
    workers = Workers(4, 1, 1.0, 2)
    assert workers.for_model(served) == Workers(4, 1, 0.0, 2) and workers.for_model(here) == workers
