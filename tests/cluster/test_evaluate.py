"""`raylib evaluate` on Ray: the scores of --local to the last bit, and every distinct page encoded once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

import raylib
from raylib.cluster.encode import RayDataStage
from raylib.evaluate.job import Outcome
from tests import exact_toys
from tests.cluster import watched_toys
from tests.cluster.conftest import CPUS
from tests.evaluate.compare import flatten

pytestmark = pytest.mark.cluster

V2, V3 = "Vidore2ESGReportsRetrieval", "Vidore3FinanceEnRetrieval"
PAGES, QUERIES = 40, 12
DISTINCT = PAGES + (4 + 2) * QUERIES
"""Both layouts show the same pages; v3 asks in two languages more, and in the four of v2 what v2 asks."""


def evaluate(model: str, folder: Path, data_root: str, **settings: Any) -> Outcome:
    outcome = raylib.evaluate(
        model, data_root=data_root, output_folder=str(folder), batch_size=8, quiet=True, **settings
    )
    assert outcome.ok, [(s.error, s.tasks_failed) for s in outcome.summaries]
    return outcome


def scores(outcome: Outcome) -> dict[str, Any]:
    (results,) = outcome.task_results.values()
    return flatten({result.task_name: result.scores for result in results})


@pytest.fixture(scope="module")
def reference(tmp_path_factory, vidore) -> dict[str, Any]:
    """Scores of each toy in this process, without Ray."""
    folder = tmp_path_factory.mktemp("local")
    return {
        name: scores(evaluate(f"tests.toys:{name}", folder / name, vidore, tasks=[V2, V3], local=True))
        for name in ("dense", "late")
    }


@pytest.mark.parametrize(
    ("shipping", "split"),
    [
        ("path", False),
        ("value", True),
        pytest.param("path", True, marks=pytest.mark.slow),
        pytest.param("value", False, marks=pytest.mark.slow),
    ],
    indirect=["shipping"],
)
def test_scores_on_ray_are_those_of_local(split, cluster, shipping, reference, vidore, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "raylib.cluster.evaluate.RayDataStage", lambda workers, progress: RayDataStage(workers, progress, split=split)
    )
    name = "late" if split else "dense"

    outcome = evaluate(f"tests.toys:{name}", tmp_path, vidore, tasks=[V2, V3], workers=2)

    assert repr(scores(outcome)) == repr(reference[name])  # repr: NaN equals NaN, and nothing else is forgiven
    assert outcome.summaries[0].contents == {"planned": DISTINCT, "reused": 0, "encoded": DISTINCT, "failed": 0}


def test_a_batch_size_is_found_on_a_worker_and_kept(cluster, reference, vidore, tmp_path):
    outcome = raylib.evaluate(
        "tests.toys:dense", tasks=[V2, V3], data_root=vidore, output_folder=str(tmp_path), batch_size="auto", quiet=True
    )
    assert repr(scores(outcome)) == repr(reference["dense"])
    (found,) = [json.loads(path.read_text()) for path in tmp_path.rglob("batch_sizes.json")]
    assert {name.split(" | ")[1] for name in found} == {"text + query", "image"}, "queries and pages are tried apart"
    assert all(name.startswith("cpu, 1 threads") and size["contents"] >= 1 for name, size in found.items())


@pytest.mark.parametrize("local", [False, True], ids=["ray", "local"])
def test_every_distinct_content_is_encoded_once(local, cluster, watched, vidore, tmp_path):
    watched_toys.forget("watched")

    first = evaluate("tests.cluster.watched_toys:watched", tmp_path, vidore, tasks=[V2], local=local)

    after_v2 = [digest for _, digest in watched_toys.forwards("watched")]
    assert len(after_v2) == len(set(after_v2)) == PAGES + 4 * QUERIES
    assert first.summaries[0].contents["encoded"] == PAGES + 4 * QUERIES

    both = evaluate("tests.cluster.watched_toys:watched", tmp_path, vidore, tasks=[V2, V3], local=local)

    after_v3 = [digest for _, digest in watched_toys.forwards("watched")]
    assert len(after_v3) == len(set(after_v3)) == DISTINCT
    assert both.summaries[0].contents == {
        "planned": DISTINCT,
        "reused": PAGES + 4 * QUERIES,
        "encoded": 2 * QUERIES,
        "failed": 0,
    }


def test_one_bad_model_does_not_stop_the_other(cluster, watched, vidore, tmp_path, capfd):
    models = ["tests.cluster.watched_toys:not_a_number", "tests.toys:dense"]

    outcome = raylib.evaluate(
        models, tasks=[V2], data_root=vidore, output_folder=str(tmp_path), batch_size=8, workers=2, quiet=True
    )

    failed, fine = outcome.summaries
    assert not outcome.ok
    assert fine.status == "success" and len(outcome.task_results["tests.toys:dense"]) == 1
    assert failed.status == "failed" and failed.error is not None
    assert "not_a_number" in failed.error and "NaN" in failed.error and "\n" not in failed.error
    assert "Traceback" not in "".join(capfd.readouterr())
    deadline = time.monotonic() + 30
    while cluster.available_resources().get("CPU") != CPUS:
        assert time.monotonic() < deadline, "a run that failed must give its workers back"
        time.sleep(0.2)
    (summary,) = [s for p in tmp_path.rglob("*.json") if (s := _summary(p)).get("error")]
    assert summary["error"] == failed.error


def _summary(path: Path) -> dict[str, Any]:
    loaded = json.loads(path.read_text())
    return loaded if isinstance(loaded, dict) else {}


def test_exact_mteb_gives_every_metric_of_mteb(cluster, vidore, tmp_path):
    """Two tasks in a row over the same actors, with vectors whose score depends on the padding of the whole call."""
    import mteb

    from raylib.tasks.local_data import redirect

    model, settings = "tests.exact_toys:padded", {"batch_size": 8, "show_progress_bar": False}
    outcome = evaluate(model, tmp_path, vidore, tasks=[V2, V3], workers=2, exact_mteb=True)
    for result in outcome.task_results[model]:
        task = redirect(mteb.get_task(result.task_name), vidore)
        (plain,) = mteb.evaluate(exact_toys.padded(), task, cache=None, encode_kwargs=settings).task_results
        assert exact_toys.unequal(flatten(result.scores), flatten(plain.scores)) == []
    assert len(outcome.task_results[model]) == 2 and not list(tmp_path.rglob("part-*.parquet"))
