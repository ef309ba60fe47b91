"""Names, languages and splits → tasks."""

import mteb
import pytest

from raylib.errors import UnknownNameError, UserError
from raylib.tasks.selection import list_benchmarks, list_tasks, select_tasks

VIDORE2 = [
    "Vidore2ESGReportsRetrieval",
    "Vidore2EconomicsReportsRetrieval",
    "Vidore2BioMedicalLecturesRetrieval",
    "Vidore2ESGReportsHLRetrieval",
]


def names(tasks):
    return [task.metadata.name for task in tasks]


def test_benchmarks_then_tasks_in_order_each_once():
    selected = select_tasks(
        benchmarks=["ViDoRe(v2)", "StdlibPages"],
        tasks=["VidoreArxivQARetrieval", "Vidore2ESGReportsRetrieval", "StdlibPagesT2T"],
    )
    own = ["StdlibPagesT2I", "StdlibPagesT2T", "StdlibPagesT2IT"]
    assert names(selected) == [*VIDORE2, *own, "VidoreArxivQARetrieval"]


def test_an_alias_of_mteb_names_the_same_benchmark():
    assert names(select_tasks(["VisualDocumentRetrieval"])) == names(mteb.get_benchmark("ViDoRe(v1&v2)").tasks)


def test_tasks_are_fresh_objects():
    (task,) = select_tasks(tasks=["Vidore2ESGReportsRetrieval"], languages=["fra"])
    assert task.hf_subsets == ["french"]
    (other,) = [t for t in mteb.get_benchmark("ViDoRe(v2)").tasks if t.metadata.name == task.metadata.name]
    assert other.hf_subsets == ["french", "spanish", "english", "german"]
    (again,) = select_tasks(tasks=["Vidore2ESGReportsRetrieval"])
    assert again is not task and len(again.hf_subsets) == 4


def test_a_benchmark_that_narrows_its_tasks_keeps_them_narrow():
    expected = {task.metadata.name: task for task in mteb.get_benchmark("MTEB(eng, v2)").tasks}
    for task in select_tasks(["MTEB(eng, v2)"]):
        assert task.hf_subsets == expected[task.metadata.name].hf_subsets
        assert list(task.eval_splits) == list(expected[task.metadata.name].eval_splits)
    assert expected["STS17"].hf_subsets == ["en-en"], "this benchmark does narrow"


@pytest.mark.parametrize("wanted", [["fra", "deu"], ["fra-Latn", "german"], ["french", "deu-Latn"]])
def test_languages_choose_subsets_and_leave_out_tasks_without_them(wanted):
    selected = select_tasks(["ViDoRe(v2)"], ["Vidore3FinanceEnRetrieval"], languages=wanted)

    assert names(selected) == [*VIDORE2[:3], "Vidore3FinanceEnRetrieval"], "the fourth of v2 is English only"
    assert {frozenset(task.hf_subsets) for task in selected} == {frozenset({"french", "german"})}


def test_splits_choose_splits():
    (task,) = select_tasks(tasks=["Banking77Classification.v2"], splits=["test"])
    assert list(task.eval_splits) == ["test"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no task is selected"),
        ({"benchmarks": ["ViDoRe(v2)"], "languages": ["fra", "jpn"]}, "language jpn; there are: deu, eng, fra, spa"),
        ({"benchmarks": ["ViDoRe(v2)"], "splits": ["dev"]}, "split dev; there are: test"),
    ],
)
def test_what_selects_nothing_says_what_there_is(options, message):
    with pytest.raises(UserError, match=message):
        select_tasks(**options)


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(UnknownNameError) as error:
        select_tasks(["vidore(V2)"])
    assert error.value.kind == "benchmark" and error.value.nearest[0] == "ViDoRe(v2)"
    with pytest.raises(UnknownNameError) as error:
        select_tasks(tasks=["VidoreArxivQARetrival"])
    assert error.value.kind == "task" and error.value.nearest[0] == "VidoreArxivQARetrieval"


def test_lists():
    rows = list_benchmarks()
    assert rows[0].name == "StdlibPages" and rows[0].n_tasks == 3 and rows[0].main_score == "ndcg_at_5"
    assert {row.name for row in list_benchmarks("vidore")} >= {"ViDoRe(v1)", "ViDoRe(v2)", "ViDoRe(v3)"}
    assert [row.name for row in list_benchmarks("visualdocument")] == ["ViDoRe(v1&v2)"], "an alias is found too"
    rows = list_tasks("ViDoRe(v2)")
    assert [row.name for row in rows] == VIDORE2
    assert (rows[0].category, rows[0].main_score, rows[0].languages) == (
        "t2i",
        "ndcg_at_5",
        ("deu", "eng", "fra", "spa"),
    )
    assert [row.name for row in list_tasks(match="StdlibPages")] == [
        "StdlibPagesT2I",
        "StdlibPagesT2IT",
        "StdlibPagesT2T",
    ]
    assert len(list_tasks()) > 1000
    with pytest.raises(UnknownNameError):
        list_tasks("ViDoRe(v9)")
