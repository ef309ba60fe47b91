"""`raylib mine` on Ray: what --local gives, every distinct content encoded once, and again nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

import raylib
from raylib.examples.batch_plan import read_plan
from tests.cluster import watched_toys

pytestmark = pytest.mark.cluster

MODEL = "tests.cluster.watched_toys:watched"
WORDS = ("page", "chart", "table", "report", "figure", "index", "north", "river")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty pairs of texts; the last two have the positive of the first."""
    rng = np.random.default_rng(0)
    rows = [
        {"query": f"{rng.choice(WORDS)} {i}", "pos": f"{rng.choice(WORDS)} {rng.choice(WORDS)} {i}"} for i in range(60)
    ]
    rows[58]["pos"] = rows[59]["pos"] = rows[0]["pos"]
    path = tmp_path_factory.mktemp("in") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_negatives_and_batches_on_ray_are_those_of_local(cluster, watched, data, tmp_path):
    watched_toys.forget("watched")
    places = {"local": {"local": True}, "ray": {"workers": 2}}
    triples, plans = {}, {}
    for name, place in places.items():
        out = tmp_path / name
        about = {"data": data, "quiet": True, **place}
        watched_toys.forget("watched")
        found = raylib.mine_negatives(MODEL, output=str(out / "mined.jsonl"), k=5, **about)
        assert found.ok and found.counts["encoded"] == 60 + 58
        encoded = [digest for _, digest in watched_toys.forwards("watched")]
        assert len(encoded) == len(set(encoded)) == 118
        batches = {"batch_size": 8, "cluster_size": 4, "skip_top": "2", "neighbours": 10, "split_above": 30}
        made = raylib.mine_batches(MODEL, output=str(out / "plan.parquet"), hard_negatives=2, **batches, **about)
        assert made.ok and made.counts["encoded"] == 0
        assert len(watched_toys.forwards("watched")) == 118
        triples[name], plans[name] = (out / "mined.jsonl").read_text(), read_plan(str(out / "plan.parquet"))
    assert triples["ray"] == triples["local"]
    assert np.array_equal(plans["ray"].batches, plans["local"].batches)
    assert np.array_equal(plans["ray"].hard_negatives, plans["local"].hard_negatives)
    assert plans["ray"].teacher == plans["local"].teacher
