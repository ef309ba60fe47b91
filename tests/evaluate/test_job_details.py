"""What the evaluate job keeps beside a result, and what it says of a search that is not exact."""

import json

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import raylib
from raylib.evaluate.report import build_report
from raylib.evaluate.score_task import Scorer
from raylib.metrics.details import read_details
from raylib.store.embeddings import Shelf
from tests.evaluate.colours import RELEVANT, V1, V2, write_v1, write_v2
from tests.evaluate.made import by_hand

LETTERS = "tests.evaluate.made:letters"

pytestmark = pytest.mark.usefixtures("private_caches")


@pytest.fixture
def run(tmp_path, fresh_factories):
    def once(*models, tasks=(V1,), **settings):
        fresh_factories.clear()
        settings = {"data_root": str(tmp_path / "data"), "output_folder": str(tmp_path / "out"), **settings}
        outcome = raylib.evaluate(list(models or [LETTERS]), tasks=list(tasks), local=True, **settings)
        assert outcome.ok, outcome.summaries[0].tasks_failed
        return outcome

    return once


@pytest.fixture
def scored(monkeypatch):
    names, score_unit = [], Scorer.__call__
    monkeypatch.setattr(Scorer, "__call__", lambda self, unit: names.append(unit.task.name) or score_unit(self, unit))
    return names


def folder_of(out, task=V1):
    (path,) = out.rglob(f"details/{task}")
    return path


def test_details_of_a_task(run, tmp_path):
    """Three queries, four pages; "ccc" finds the blue page first and the white one, which is relevant, second."""
    write_v1(tmp_path / "data", relevant={0: 0, 1: 1, 2: 3})
    (result,) = run().task_results[LETTERS]

    details = read_details(str(folder_of(tmp_path / "out")))

    assert details.rankings.num_rows == 3 * 4 and set(details.rankings["rank"].to_pylist()) == {1, 2, 3, 4}
    third = details.rankings.filter(pc.field("query_id") == "query-test-2").to_pylist()
    found = [(row["document_id"], row["relevance"]) for row in third[:2]]
    assert found == [("corpus-test-2", None), ("corpus-test-3", 1)]
    assert third[0]["score"] == pytest.approx(4 / 20**0.5)  # (0 0 3 1) and blue's (0 0 1 1)
    (scores,) = result.scores["test"]
    for measure in details.queries.column_names[4:]:
        assert pc.mean(details.queries[measure]).as_py() == pytest.approx(scores[measure], abs=1e-5), measure
    assert {"ndcg_at_5", "ndcg_at_10", "recall_at_100", "mrr_at_10"} <= set(details.queries.column_names)


def test_contents_lead_to_the_vectors(run, tmp_path):
    write_v1(tmp_path / "data")
    run()
    contents = read_details(str(folder_of(tmp_path / "out"))).contents
    assert contents is not None and contents.num_rows == 3 + 4
    about = {name.decode(): value.decode() for name, value in contents.schema.metadata.items()}
    assert about["model"] == LETTERS and about["similarity"] == "cosine" and about["store"] == f"{tmp_path}/out/store"
    (row,) = [row for row in contents.to_pylist() if row["id"] == "query-test-0"]
    shelf = Shelf(about["store"], about["fingerprint"])
    assert list(shelf.get([row["key"]]).dense()[0]) == by_hand("aaa")


def test_mteb_and_the_report_read_the_folder_as_before(run, tmp_path):
    import mteb

    write_v1(tmp_path / "data")
    write_v2(tmp_path / "data")
    run(tasks=[V1, V2], output_folder=str(tmp_path / "cache" / "results"))

    read = mteb.ResultCache(tmp_path / "cache").load_results()
    assert sorted(result.task_name for model in read.model_results for result in model.task_results) == sorted([V1, V2])
    report = build_report(tmp_path / "cache" / "results")
    assert len(report.columns) == 2 and report.problems == () and len(report.models) == 1


def test_a_number_of_documents_and_none(run, tmp_path, scored):
    write_v1(tmp_path / "data")
    run(keep_rankings=0)
    assert list(tmp_path.rglob("rankings.parquet")) == []
    run(keep_rankings=2)
    assert read_details(str(folder_of(tmp_path / "out"))).rankings.num_rows == 3 * 2
    assert scored == [V1, V1], "they were missing, though asked for"
    run(keep_rankings=1)
    run(keep_rankings=0)
    assert scored == [V1, V1] and read_details(str(folder_of(tmp_path / "out"))).rankings.num_rows == 3 * 2
    run(keep_rankings=3)
    assert scored == [V1, V1, V1], "more were asked for than there are"


def test_a_known_result_keeps_its_files_and_another_replaces_them(run, tmp_path, scored):
    write_v1(tmp_path / "data")
    run()
    path = folder_of(tmp_path / "out") / "rankings.parquet"
    before = path.stat().st_mtime_ns
    run()
    assert scored == [V1] and path.stat().st_mtime_ns == before
    write_v1(tmp_path / "data", relevant={**RELEVANT, 0: 3})
    run()
    relevant = pq.read_table(path).filter(pc.field("query_id") == "query-test-0").filter(pc.field("relevance") == 1)
    assert relevant["document_id"].to_pylist() == ["corpus-test-3"]
    path.unlink()
    run()
    assert scored == [V1] * 3 and path.exists()


def test_a_run_that_fails_leaves_no_details_of_another_result(run, tmp_path, monkeypatch):
    write_v1(tmp_path / "data")
    run()
    monkeypatch.setattr("raylib.evaluate.task_results.save_task_result", lambda *a, **k: 1 / 0)
    with pytest.raises(AssertionError):
        run(overwrite=True)
    assert list(tmp_path.rglob("rankings.parquet")) == []


def test_languages_of_two_runs_come_together(run, tmp_path):
    write_v2(tmp_path / "data")
    run(tasks=[V2], languages=["eng"])
    run(tasks=[V2], languages=["fra"])
    details = read_details(str(folder_of(tmp_path / "out", V2)))
    assert set(details.queries["subset"].to_pylist()) == {"english", "french"}
    assert details.contents is not None and details.contents.num_rows == 2 * (3 + 4)
    run(tasks=[V2])
    details = read_details(str(folder_of(tmp_path / "out", V2)))
    assert details.queries.num_rows == 4 * 3, "a whole run replaces what was there"


def test_a_model_that_searches_by_itself_has_rankings_and_no_contents(run, tmp_path):
    outcome = run("raylib/bm25", tasks=["StdlibPagesT2T"], data_root=None, limit=5)
    details = read_details(str(folder_of(tmp_path / "out", "StdlibPagesT2T")))
    assert details.contents is None and set(details.queries["query_id"].to_pylist()) == set(
        details.rankings["query_id"].to_pylist()
    )
    ((entry,),) = outcome.task_results["raylib/bm25"][0].scores.values()
    assert pc.mean(details.queries["ndcg_at_10"]).as_py() == pytest.approx(entry["ndcg_at_10"], abs=1e-5)


def test_what_a_search_says_of_itself_is_told_and_kept(run, tmp_path, monkeypatch, capsys):
    score_unit = Scorer.__call__

    def measured(self, unit):
        found = score_unit(self, unit)
        found.quality = {("test", "default"): {"recall_at_10": 0.9}, ("test", "b"): {"recall_at_10": 0.75}}
        return found

    monkeypatch.setattr(Scorer, "__call__", measured)
    write_v1(tmp_path / "data")
    for took in (" s", "known"):
        summary = run().summaries[0].to_dict()
        assert summary["search"][V1]["test/default"] == {"recall_at_10": 0.9}
        assert f"{took}; recall_at_10 0.75)" in capsys.readouterr().out, "the worst of the subsets"
    (records,) = (tmp_path / "out").rglob("raylib.jsonl")
    assert json.loads(records.read_text())["quality"]["test/b"] == {"recall_at_10": 0.75}


def test_an_index_is_measured_and_is_another_result(run, tmp_path, scored, capsys):
    """Four pages, of which a flat index finds all."""
    write_v1(tmp_path / "data")
    run()
    outcome = run(index="Flat")
    assert scored == [V1, V1] and len(list((tmp_path / "out").rglob("rankings.parquet"))) == 2
    (found,) = outcome.summaries[0].search[V1].values()
    assert found["recall_at_4"] == 1 and "; recall_at_4 1, " in capsys.readouterr().out
    run(index="Flat")
    assert scored == [V1, V1], "known"


def test_a_model_that_searches_by_itself_has_no_options_of_search(run, tmp_path):
    write_v1(tmp_path / "data")
    with pytest.raises(AssertionError):
        run("raylib/bm25", tasks=["StdlibPagesT2T"], data_root=None, limit=5, index="Flat")
    (path,) = (tmp_path / "out" / "runs").glob("*.json")
    assert "searches by itself; leave out --index" in json.loads(path.read_text())["error"]
