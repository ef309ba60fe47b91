"""Workers that are killed, that fail and that take their process down: nothing is lost, and the reason is one line."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from raylib import storage
from raylib.cluster.encode import RayDataStage
from raylib.cluster.pool import PoolStage
from raylib.cluster.session import MAX_ATTEMPTS, Workers
from raylib.errors import ModelError
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import EncodeReport, encode_locally
from raylib.evaluate.plan import Plan
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.store.embeddings import Shelf
from raylib.types import EncodeContext
from tests.cluster import watched_toys

pytestmark = pytest.mark.cluster

TWO_WORKERS = Workers(2)
STAGES: dict[str, Callable[[], Any]] = {
    "one stage": lambda: RayDataStage(TWO_WORKERS, split=False),
    "two stages": lambda: RayDataStage(TWO_WORKERS, split=True),
    "pool": lambda: PoolStage(TWO_WORKERS),
}


def on(*quick: str) -> Any:
    """Every stage; those that are not named take minutes in all and are left out of the quick run."""
    every = [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in STAGES]
    return pytest.mark.parametrize("stage", every, indirect=True)


class Reporting:
    """A stage that keeps what it reports."""

    def __init__(self, stage: Any, reports: list[EncodeReport] | None = None) -> None:
        self.stage, self.reports = stage, [] if reports is None else reports

    def __call__(self, *given: Any) -> None:
        self.reports.append(self.stage(*given))

    @property
    def report(self) -> EncodeReport:
        return self.reports[-1]


@pytest.fixture
def stage(request, cluster):
    made = STAGES[request.param]()
    yield Reporting(made)
    if isinstance(made, PoolStage):
        made.close()


def plan_of(factory: str, texts: list[str]) -> Plan:
    import datasets

    encoder: Any = resolve(ModelSpec(f"tests.cluster.watched_toys:{factory}"))
    plan = Plan(encoder)
    ids = [f"t{i}" for i in range(len(texts))]
    plan.add(Source("made/test queries", ids, datasets.Dataset.from_dict({"text": texts})), EncodeContext("query"))
    return plan


def run(stage: Any, plan: Plan, folder: Any, batch_size: int = 4) -> Shelf:
    shelf = Shelf(str(folder), plan.encoder.fingerprint)
    shelf.describe(plan.encoder.identity)
    stage(plan.encoder, plan.batches(batch_size), plan.sources, shelf)
    shelf.refresh()
    return shelf


@pytest.mark.parametrize("split", [False, True])
def test_a_call_of_a_worker_is_no_longer_than_a_part(cluster, monkeypatch, tmp_path, split):
    """Or the last one would work alone while the others have nothing to do."""
    monkeypatch.setattr("raylib.cluster.encode._PARTS_PER_RUN", 10)
    monkeypatch.setattr("raylib.cluster.encode._PARTS_PER_WORKER", 5)
    plan = plan_of("watched", [f"text {i}" for i in range(80)])
    shelf = run(RayDataStage(TWO_WORKERS, split=split), plan, tmp_path, batch_size=2)
    parts = storage.list_files(shelf.folder, ".parquet")
    assert [pq.read_metadata(part).num_rows for part in parts] == [8] * 10


def kill_the_first_that_works(log: str, after: int) -> threading.Thread:
    """In the background: once `after` contents are encoded, SIGKILL the process that encoded the first of them."""

    def wait_and_kill() -> None:
        deadline = time.monotonic() + 120
        while len(watched_toys.forwards(log)) < after and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(watched_toys.forwards(log)[0][0], signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


@on("one stage", "pool")
def test_a_killed_worker_costs_time_only(stage, watched, tmp_path):
    watched_toys.forget("slow")
    plan = plan_of("slow", [f"text number {i}" for i in range(96)])
    killer = kill_the_first_that_works("slow", after=12)

    shelf = run(stage, plan, tmp_path / "ray")

    killer.join()
    pids = {pid for pid, _ in watched_toys.forwards("slow")}
    killed = watched_toys.forwards("slow")[0][0]
    assert not os.path.exists(f"/proc/{killed}") and len(pids) >= 2
    assert len(watched_toys.forwards("slow")) < 2 * 96, "a kill must not start the work again"
    reference = Shelf(str(tmp_path / "here"), plan.encoder.fingerprint)
    encode_locally(plan.encoder, plan.batches(4), plan.sources, reference)
    assert np.array_equal(shelf.get(plan.keys()).values, reference.get(plan.keys()).values)


@on("pool")
def test_what_the_model_raises_arrives_in_its_own_words(stage, watched, tmp_path):
    plan = plan_of("not_a_number", [f"text {i}" for i in range(40)])

    with pytest.raises(ModelError) as error:
        run(stage, plan, tmp_path)

    assert type(error.value) is ModelError
    assert str(error.value).startswith("tests.cluster.watched_toys:not_a_number gave NaN or infinite embeddings for 4")
    assert "\n" not in str(error.value)


@on("one stage", "two stages", "pool")
def test_a_content_that_kills_its_worker_is_set_aside_by_name(stage, watched, tmp_path):
    texts = [f"text {i:02d}" for i in range(40)]
    texts[21] = "poison"
    plan = plan_of("poisoned", texts)

    shelf, report = run(stage, plan, tmp_path), stage.report

    (bad,) = report.bad
    assert (bad.source, bad.item_id) == ("made/test queries", "t21")
    assert bad.reason.startswith(f"{MAX_ATTEMPTS} worker processes died over it")
    assert report.encoded == 39 and int(shelf.contains(plan.keys()).sum()) == 39
    assert any("died; what they were at was done again" in note for note in report.notes)


def test_a_content_that_kills_its_worker_costs_another_caller_nothing(cluster, watched, tmp_path):
    """Two callers share the actors: the batches of the other one die with a worker too, three times and more."""
    texts = [f"text {i:02d}" for i in range(40)]
    poisoned = plan_of("poisoned", [*texts[:20], "poison", *texts[20:]])
    fine = plan_of("poisoned", [f"other {i}" for i in range(120)])
    stage, reports = PoolStage(Workers(1)), []

    def fail() -> None:
        run(Reporting(stage, reports), poisoned, tmp_path)

    caller = threading.Thread(target=fail)
    caller.start()
    shelf = run(Reporting(stage, reports), fine, tmp_path, batch_size=1)
    caller.join()
    stage.close()

    assert shelf.contains(fine.keys()).all()
    assert [bad.item_id for report in reports for bad in report.bad] == ["t20"]
