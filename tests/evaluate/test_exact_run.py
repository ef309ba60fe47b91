"""`raylib evaluate --exact-mteb`: MTEB's own scores through the whole job, and no mixing of the two modes."""

from __future__ import annotations

import json

import pytest

import raylib
from raylib.errors import UserError
from raylib.tasks.local_data import redirect
from tests import exact_toys
from tests.evaluate.colours import V1, write_v1
from tests.exact_toys import unequal

PADDED = "tests.exact_toys:padded"

pytestmark = pytest.mark.usefixtures("private_caches", "fresh_factories")


@pytest.fixture
def run(tmp_path):
    write_v1(tmp_path / "data")

    def once(**settings):
        return raylib.evaluate(
            PADDED,
            tasks=[V1],
            local=True,
            data_root=str(tmp_path / "data"),
            output_folder=str(tmp_path / "out"),
            batch_size=2,
            **settings,
        )

    return once


def scores(outcome):
    (result,) = outcome.task_results[PADDED]
    return result.scores["test"][0]


def plain(tmp_path):
    import mteb

    task = mteb.get_task(V1)
    redirect(task, str(tmp_path / "data"))
    settings = {"batch_size": 2, "show_progress_bar": False}
    (result,) = mteb.evaluate(exact_toys.padded(), task, cache=None, encode_kwargs=settings).task_results
    return result.scores["test"][0]


def test_scores_are_mtebs_and_nothing_is_stored(run, tmp_path):
    outcome = run(exact_mteb=True)
    assert outcome.ok, outcome.summaries[0].tasks_failed
    assert unequal({"s": scores(outcome)}, {"s": plain(tmp_path)}) == []
    assert not list(tmp_path.rglob("part-*.parquet"))
    (record,) = [json.loads(line) for path in tmp_path.rglob("raylib.jsonl") for line in path.read_text().splitlines()]
    assert record["digest"] == "exact-mteb" and record["fingerprint"].startswith("exact-mteb ")


def test_a_result_is_made_anew_every_time(run):
    run(exact_mteb=True)
    outcome = run(exact_mteb=True)
    assert outcome.ok and outcome.summaries[0].contents == {}


@pytest.mark.parametrize("first", [True, False])
def test_one_mode_does_not_replace_the_results_of_the_other(run, first):
    assert run(exact_mteb=first).ok
    outcome = run(exact_mteb=not first)
    assert not outcome.ok
    (failed,) = outcome.summaries[0].tasks_failed
    made = "with --exact-mteb" if first else "without --exact-mteb"
    assert made in failed["error"] and "--overwrite" in failed["error"]
    assert run(exact_mteb=not first, overwrite=True).ok


def test_options_of_search_do_not_go_with_it(run):
    with pytest.raises(UserError, match="--exact-mteb searches as MTEB does"):
        run(exact_mteb=True, token_pooling=2)
