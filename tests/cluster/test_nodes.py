"""Evaluate, extract and mine on three Ray nodes, one of which is lost: the results are those of a calm run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import raylib
from tests.cluster import watched_toys
from tests.cluster.nodes import lose_a_node
from tests.cluster.test_driver_killed import CONTENTS, TASK, scores_in
from tests.cluster.test_extract import folder, settings
from tests.extract.made import columns

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

__all__ = ["folder", "settings"]  # fixtures

SLOW = "tests.cluster.watched_toys:slow"


def _under_way() -> bool:
    return len(watched_toys.forwards("slow")) > 12


def test_evaluate(watched, vidore, tmp_path: Path):
    watched_toys.forget("slow")
    flags = {"--model": SLOW, "--tasks": TASK, "--data-root": vidore, "--batch-size": "2", "--workers": "3"}
    flags["--output-folder"] = str(tmp_path / "out")
    arguments = ["evaluate", *(part for pair in flags.items() for part in pair)]
    status, said = lose_a_node(arguments, tmp_path / "log", _under_way)
    assert status == 0, said
    (summary,) = (json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").glob("*.json"))
    assert summary["contents"]["encoded"] == CONTENTS
    raylib.evaluate(
        "tests.toys:dense", tasks=[TASK], data_root=vidore, output_folder=str(tmp_path / "calm"), local=True, quiet=True
    )
    assert repr(scores_in(tmp_path / "out")) == repr(scores_in(tmp_path / "calm"))


def test_extract(folder, settings, tmp_path: Path):
    calm, out = tmp_path / "calm", tmp_path / "out"
    given = {**settings, "checkpoint_interval": 4, "batch_size": 1}
    assert raylib.extract(**given, output_dir=str(calm), local=True).ok
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if name != "quiet"]
    arguments = ["extract", *flags, f"--output-dir={out}", "--workers=2"]
    status, said = lose_a_node(arguments, tmp_path / "log", lambda: _parts(out) > 0)
    assert status == 0, said
    assert columns(out) == columns(calm)


def _parts(folder: Path) -> int:
    """Files of states, finished or under way."""
    return len([path for path in folder.rglob("*") if path.suffix in (".h5", ".parquet")])


def test_mine(watched, tmp_path: Path):
    watched_toys.forget("slow")
    rows = [{"query": f"query {i} of {i % 7}", "pos": f"a page about {i % 13} and {i}"} for i in range(60)]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["mine", "negatives", "--data", str(data), "--k", "5", "--encode-batch-size", "2"]
    arguments = [*common, "--model", SLOW, "--output", str(tmp_path / "out.jsonl"), "--workers", "3"]
    status, said = lose_a_node(arguments, tmp_path / "log", _under_way)
    assert status == 0, said
    calm = tmp_path / "calm.jsonl"
    raylib.mine_negatives("tests.toys:dense", data=str(data), k=5, output=str(calm), local=True, quiet=True)
    assert (tmp_path / "out.jsonl").read_text() == calm.read_text()
