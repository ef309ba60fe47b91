"""raylib evaluate, then raylib inspect-run, on the built-in benchmark with a model of random weights."""

import json

import pytest

from raylib.cli import main
from raylib.tasks import docstrings
from tests.inspect.made import parsed
from tests.tasks.test_stdlib_pages import FEW


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    modules = docstrings.collect(names=FEW)
    folder = tmp_path_factory.mktemp("end-to-end") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(docstrings, "collect", lambda: modules)
        arguments = ["--model", "raylib/untrained-colpali", "--tasks", "StdlibPagesT2I,StdlibPagesT2IT", "--local"]
        assert main(["evaluate", *arguments, "--limit", "5", "--output-folder", str(folder), "--quiet"]) == 0
    return folder


@pytest.mark.parametrize("task", ["StdlibPagesT2I", "StdlibPagesT2IT"])
def test_the_heat_maps_are_of_the_vectors_that_gave_the_score(task, results, tmp_path, capsys):
    """Σ, the MaxSim of the vectors behind the map, is the score in the ranking, also where texts come before pages."""
    path = tmp_path / "page.html"
    arguments = ["--model", "raylib/untrained-colpali", "--task", task, "--top-k", "3", "--output", str(path)]
    assert main(["inspect-run", str(results), *arguments]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {path}: 5 queries"), "nothing to note"

    queries = parsed(path.read_text(encoding="utf-8")).all(".query")
    assert len(queries) == 5
    for query in queries:
        tokens = [button.text for button in query.one(".tokens").all("button")]
        assert tokens[:2] == ["All tokens", "<bos>"] and tokens[-10:] == ["<pad>"] * 10
        for card in query.all(".card"):
            sheet = card.one("button").attributes
            assert (sheet["data-rows"], sheet["data-columns"]) == ("8", "8")
            best = json.loads(sheet["data-best"])
            assert len(best) == len(tokens)
            assert best[0][0] == pytest.approx(float(card.one(".score").text), rel=6e-4)
            assert sum(b[0] for b in best[1:]) == pytest.approx(best[0][0], rel=6e-4)
            assert bool(card.all(".text")) == (task == "StdlibPagesT2IT")
