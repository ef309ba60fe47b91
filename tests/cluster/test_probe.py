"""`raylib probe` on Ray: the numbers of one process, whatever the number of workers, and though one dies."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import raylib
from raylib.cluster.probe import RayPlace
from raylib.errors import UserError
from raylib.probe.place import ProbeTask
from tests.probe.made import planted
from tests.probe.test_job import write_parts

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    data, layers = planted(rows=300, images=150, width=16)
    write_parts(folder / "states", data.ids, data.images, layers)
    with open(folder / "labels.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["question_id", "wrong"], *zip(data.ids, data.y.tolist(), strict=True)])
    given = {"labels": str(folder / "labels.csv"), "target": "wrong", "epochs": 5, "resamples": 40, "quiet": True}
    return {"states": str(folder / "states"), **given}


def told(folder: Path) -> dict[str, dict]:
    """What every probe's results.json says, but for how long it took and what its files' digests are."""
    found = {}
    for path in sorted(folder.glob("*/results.json")):
        result = json.loads(path.read_text())
        found[path.parent.name] = {k: v for k, v in result.items() if k not in ("seconds", "files", "sha256")}
    return found


def test_two_workers_give_the_numbers_of_one_process(cluster, settings, tmp_path):
    local = raylib.probe(**settings, output_dir=str(tmp_path / "local"), local=True)
    found = raylib.probe(**settings, output_dir=str(tmp_path / "ray"), workers=2)
    assert [result.name for result in found.results] == [result.name for result in local.results]
    for ours, theirs in zip(found.results, local.results, strict=True):
        assert (ours.test, ours.validation, ours.train) == (theirs.test, theirs.validation, theirs.train)
        np.testing.assert_array_equal(ours.test_scores, theirs.test_scores)
    assert found.best.name == local.best.name and len(found.results) == 6
    assert told(tmp_path / "ray").keys() == told(tmp_path / "local").keys()


class Fatal(ProbeTask):
    """Kills the process that runs it, the first time."""

    def run(self, states, common):
        flag = Path(common.target)
        if not flag.exists():
            flag.write_text("died")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.name, {"rows": len(states)}


class Bad(ProbeTask):
    def run(self, states, common):
        raise UserError("no such probe")


class Told:
    """Stands for `Common`."""

    def __init__(self, target):
        self.target = target


def test_a_task_whose_worker_dies_is_run_again(cluster, settings, tmp_path):
    from raylib.store.representations import Representation

    task = Fatal(Representation("query_token", 0), "mlp")
    place = RayPlace(1)
    (found,) = place.train([task], Told(str(tmp_path / "flag")), lambda one: np.zeros((5, 2), np.float32))
    assert found == (task, "query_token_layer0", {"rows": 5}) and (tmp_path / "flag").exists()
    bad = Bad(Representation("query_token", 0), "mlp")
    with pytest.raises(UserError, match="no such probe"):
        list(place.train([bad], Told(""), lambda one: np.zeros((5, 2), np.float32)))
