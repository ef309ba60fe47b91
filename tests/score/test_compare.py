"""Comparing two runs query by query."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.cli import main
from raylib.errors import UserError
from raylib.metrics.runs import write_run
from raylib.score.compare import compare, paired_interval
from raylib.score.config import CompareConfig

A = {"q1": 0.5, "q2": 0.25, "q3": 1.0, "q4": 0.0, "alone": 0.9}
B = {"q1": 0.75, "q2": 0.0, "q3": 1.0, "q4": 1.0, "other": 0.1, "another": 0.1}


def queries_file(folder, values, split="test", subset="default", measure="ndcg_at_5"):
    """queries.parquet as evaluate and score write it; values: query id → value."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "split": [split] * len(values),
        "subset": [subset] * len(values),
        "query_id": list(values),
        "n_relevant": pa.array([1] * len(values), pa.int32()),
        "recall_at_9": [0.5] * len(values),
        measure: list(values.values()),
    }
    path = folder / "queries.parquet"
    parts = [pq.read_table(path)] if path.exists() else []
    pq.write_table(pa.concat_tables([*parts, pa.table(columns)]), path)


def score_folder(folder, values, task="", **more):
    queries_file(folder, values, **more)
    (folder / "summary.json").write_text(json.dumps({"task": task}))
    return str(folder)


def config(a, b=None, **more):
    return CompareConfig(str(a), None if b is None else str(b), **{"resamples": 500, **more})


def test_two_score_folders_by_hand(tmp_path):
    found = compare(config(score_folder(tmp_path / "a", A), score_folder(tmp_path / "b", B)))
    assert found.measure == "ndcg_at_5"
    (task,) = found.tasks
    assert (task.queries, task.only_a, task.only_b) == (4, 1, 2)
    assert (task.mean_a, task.mean_b, task.difference) == (0.4375, 0.6875, 0.25)
    assert (task.better, task.worse, task.equal) == (2, 1, 1)
    assert task.low is not None and task.high is not None and task.low < 0.25 < task.high
    changed = [(c.query_id, c.a, c.b, c.difference) for c in found.changed]
    assert changed == [("q4", 0.0, 1.0, 1.0), ("q1", 0.5, 0.75, 0.25), ("q2", 0.25, 0.0, -0.25)]
    fewer = compare(config(tmp_path / "a", tmp_path / "b", changed=1))
    assert [c.query_id for c in fewer.changed] == ["q4"] and fewer.tasks == found.tasks


def test_the_interval_is_the_paired_bootstraps():
    """Against percentiles of resampled means made here, for a sample large enough that BCa and percentiles agree."""
    rng = np.random.default_rng(3)
    differences = rng.normal(0.1, 1, 2000)
    means = np.array([differences[rng.integers(0, 2000, 2000)].mean() for _ in range(4000)])
    found = paired_interval(differences, 4000, 0)
    assert found == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.006)
    assert found == paired_interval(differences, 4000, 0), "the same seed, the same interval"
    assert found != paired_interval(differences, 4000, 1)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        low, high = paired_interval(rng.normal(0.3, 1, 60), 400, 0) or (0.0, 0.0)
        hits += low <= 0.3 <= high
    assert 176 <= hits <= 200  # 95 % of 200, four standard errors down


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([0.5], None), ([0.25, 0.25, 0.25], (0.25, 0.25)), ([0.0, 0.0], (0.0, 0.0)), ([], None)],
)
def test_where_there_is_nothing_to_resample(differences, expected):
    assert paired_interval(np.array(differences), 500, 0) == expected


@pytest.mark.parametrize("differences", [[0.0, 1.0], [0.0] * 50 + [1.0], [0.0, 0.0, 1e-300], [-1.0, 1.0]])
def test_an_interval_of_few_values_is_finite_and_holds_the_mean(differences):
    low, high = paired_interval(np.array(differences), 500, 0) or (1.0, 0.0)
    assert np.isfinite([low, high]).all() and low <= np.mean(differences) <= high


def test_many_queries_take_little_memory():
    import tracemalloc

    differences = np.random.default_rng(0).normal(size=9_000)
    paired_interval(differences[:10], 100, 0)  # scipy is loaded
    tracemalloc.start()
    paired_interval(differences, 2_000, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 160 * 2**20, "all resamples at once would take 144 MB and their indices as much, the jackknife 648 MB"


def results(folder, model, revision="1", tasks=("T",), scale=1.0, subsets=("default",), experiment=None):
    where = folder / model.replace("/", "__") / revision
    where = where / "experiments" / experiment if experiment else where
    for task in tasks:
        for subset in subsets:
            values = {q: v * scale for q, v in A.items()}
            queries_file(where / "details" / task, values, subset=subset)
    return where


def test_models_of_an_output_folder(tmp_path):
    results(tmp_path, "org/one", tasks=("T", "U", "V"), subsets=("eng", "fra"))
    results(tmp_path, "org/two", tasks=("U", "T"), subsets=("eng",), scale=0.5)
    found = compare(config(tmp_path, model=["org/one", "org/two"]))
    assert (found.a, found.b) == ("org/one", "org/two")
    assert [(t.task, t.split, t.subset, t.difference) for t in found.tasks] == [
        ("T", "test", "eng", pytest.approx(-0.265)),
        ("U", "test", "eng", pytest.approx(-0.265)),
    ]
    assert found.notes == [
        f"{t} is only in org/one: left out" for t in ("T test fra", "U test fra", "V test eng", "V test fra")
    ]
    only = compare(config(tmp_path, model=["org/one,org/two"], tasks=["U"]))
    assert [t.task for t in only.tasks] == ["U"]


def test_one_model_in_two_output_folders_and_result_folders(tmp_path):
    one, two = results(tmp_path / "x", "m"), results(tmp_path / "y", "m", scale=0)
    found = compare(config(tmp_path / "x", tmp_path / "y", model=["m"]))
    assert (found.a, found.b) == (f"{tmp_path / 'x'}: m", f"{tmp_path / 'y'}: m")
    assert found.tasks[0].difference == pytest.approx(-0.53)
    assert compare(config(one, two)).tasks == found.tasks
    assert compare(config(one / "details" / "T", two / "details" / "T")).tasks == found.tasks


def test_run_files_are_scored_with_the_judgements(tmp_path):
    write_run({"q1": {"a": 1.0, "b": 0.5}, "q2": {"a": 1.0}}, str(tmp_path / "a.trec"), "a")
    write_run({"q1": {"a": 0.5, "b": 1.0}, "q2": {"a": 1.0}}, str(tmp_path / "b.trec"), "b")
    (tmp_path / "qrels").write_text("q1 0 a 1\nq2 0 a 1\n")
    given = {"qrels": str(tmp_path / "qrels"), "measure": "mrr_at_7"}
    found = compare(config(tmp_path / "a.trec", tmp_path / "b.trec", **given))
    assert found.measure == "mrr_at_7" and found.tasks[0].difference == -0.25
    assert [(c.query_id, c.a, c.b) for c in found.changed] == [("q1", 1.0, 0.5)]
    folder = score_folder(tmp_path / "s", {"q1": 0.0, "q2": 0.0}, task="T", measure="mrr_at_7")
    mixed = compare(config(folder, tmp_path / "b.trec", **given))
    assert [(t.task, t.difference) for t in mixed.tasks] == [("T", 0.75)], "a run file goes with the one task there is"


def test_the_measure_is_one_that_both_have(tmp_path):
    a = score_folder(tmp_path / "a", A)
    b = score_folder(tmp_path / "b", B, measure="mrr_at_10")
    assert compare(config(a, b)).measure == "recall_at_9"
    with pytest.raises(UserError, match=r"unknown measure of both sides: 'ndcg_at_5'\. Both have recall_at_9\."):
        compare(config(a, b, measure="ndcg_at_5"))


def test_equal_runs_have_no_changed_query(tmp_path, capsys):
    folder = score_folder(tmp_path / "a", A)
    found = compare(config(folder, folder))
    assert found.changed == [] and (found.tasks[0].low, found.tasks[0].high) == (0.0, 0.0)
    assert main(["compare", folder, folder]) == 0
    assert "no query changed" in capsys.readouterr().out


def test_the_written_files_and_the_terminal(tmp_path, capsys):
    a = score_folder(tmp_path / "a", {**A, "pipe|q": 0.0})
    b = score_folder(tmp_path / "b", {**B, "pipe|q": 1.0, "[red]x": 1.0})
    outputs = [str(tmp_path / "c.json"), str(tmp_path / "c.md")]
    assert main(["compare", a, b, "--output", ",".join(outputs), "--changed", "2"]) == 0
    out = capsys.readouterr().out
    assert "+40.00" in out and "pipe|q" in out and all(path in out for path in outputs)
    assert " 3/1/1 " in out and out.count(" 1/3") == 1
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["tasks"][0]["difference"] == pytest.approx(0.4) and data["tasks"][0]["only_b"] == 3
    assert [c["query_id"] for c in data["changed"]] == ["pipe|q", "q4"]
    lines = (tmp_path / "c.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 2 + 3 and any("pipe\\|q" in row for row in rows)
    assert len({row.replace("\\|", "").count("|") for row in rows[:2]}) == 1


@pytest.mark.parametrize("flags", [["--output", "x.txt"], ["--changed=-1"], ["--resamples", "3"]])
def test_settings_that_cannot_be(flags, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["compare", "a", "b", *flags])
    assert end.value.code == 2 and flags[0].split("=")[0] in capsys.readouterr().err


def test_what_cannot_be_compared(tmp_path):
    a, b = score_folder(tmp_path / "a", A), score_folder(tmp_path / "b", {"x": 1.0})
    results(tmp_path / "r", "org/one")
    results(tmp_path / "r", "org/two")
    results(tmp_path / "r", "org/two", experiment="limit-10")
    other = results(tmp_path / "o", "org/one", tasks=("Other",))
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").write_text("q1 Q0 a 1 1 x\n")
    (tmp_path / "qrels").write_text("q9 0 a 1\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "queries.parquet").write_text("x")
    for arguments, message in [
        ((a,), "one side was given; add the other, or --model with two models"),
        ((a, str(tmp_path / "gone")), "gone does not exist"),
        ((a, b), "have nothing in common: test: no query is on both sides"),
        ((a, str(tmp_path / "empty")), "neither an output folder of `raylib score` nor the result folder of a model"),
        ((a, str(tmp_path / "run")), "is a run file; add --qrels FILE"),
        ((a, str(tmp_path / "broken")), r"queries\.parquet cannot be read"),
        ((a, str(tmp_path / "run"), {"qrels": str(tmp_path / "qrels")}), "no query of .*run is judged in .*qrels"),
        (
            (str(tmp_path / "r"), None, {"model": ["org/one", "org/tow"]}),
            r"unknown model 'org/tow'\. Did you mean org/two",
        ),
        (
            (str(tmp_path / "r"), None, {"model": ["org/one", "org/two"]}),
            "has 2 results of org/two: .*experiments/limit-10",
        ),
        ((str(tmp_path / "r"), None, {"model": ["a", "b", "c"]}), "--model names 3 models; expected one or two"),
        (
            (str(tmp_path / "r" / "org__one" / "1"), str(other)),
            "no task, split and subset in common: T test is only in",
        ),
        ((str(other), str(other), {"tasks": ["Othr"]}), r"unknown task 'Othr'\. Did you mean Other"),
    ]:
        *sides, more = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
        with pytest.raises(UserError, match=message):
            compare(config(*sides, **more))
