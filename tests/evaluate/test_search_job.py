"""`raylib evaluate --local` with each search option, from the flag to the number that says what it cost."""

import json

import pytest

import raylib
from tests.tasks.local_vidore import write_local_vidore

TASK = "VidoreArxivQARetrieval"

pytestmark = pytest.mark.usefixtures("private_caches")


def qualities(folder):
    """What every result in a folder says of its search."""
    lines = [line for path in folder.rglob("raylib.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line).get("quality") for line in lines]


@pytest.mark.parametrize(
    ("model", "settings", "share"),
    [
        ("late", {"candidates": "int8"}, 1 / 4),
        ("late", {"candidates": "binary"}, 1 / 32),
        ("late", {"token_pooling": 2}, 1 / 2),
        ("dense", {"index": "IVF2,Flat;nprobe=2"}, None),
    ],
    ids=str,
)
def test_an_option_reaches_the_search_and_its_cost_the_results(model, settings, share, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_local_vidore(str(data), pages=40, queries=12, size=(48, 64))
    run = {"tasks": [TASK], "data_root": str(data), "output_folder": str(out), "local": True, "quiet": True}
    outcome = raylib.evaluate([f"tests.toys:{model}"], **run, **settings)
    assert outcome.ok
    ((quality,),) = [list(found.values()) for found in qualities(out)]
    assert quality["sampled_queries"] == 12 and 0 < quality["recall_at_10"] <= 1
    if share is None:
        assert quality["index"] == settings["index"] and quality["recall_at_10"] == 1
    else:
        assert quality["bytes_per_document"] == pytest.approx(share * quality["bytes_per_document_float32"], rel=0.01)
    assert raylib.evaluate([f"tests.toys:{model}"], **run).ok
    exact = [found for found in qualities(out) if not found]
    assert len(exact) == 1, "an exact search has nothing to report, and its results lie in another folder"


def test_an_index_for_late_interaction_fails_in_a_line(tmp_path):
    data = tmp_path / "data"
    write_local_vidore(str(data), pages=6, queries=3, size=(48, 64))
    outcome = raylib.evaluate(
        ["tests.toys:late"],
        tasks=[TASK],
        data_root=str(data),
        output_folder=str(tmp_path / "out"),
        local=True,
        quiet=True,
        index="IVF2,Flat",
    )
    assert not outcome.ok and outcome.summaries[0].error.startswith("--index 'IVF2,Flat' is for dense vectors")
