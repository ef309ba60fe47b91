"""The leaderboard, from result files written by hand: every expected mean below is worked out on paper."""

import io
import json
from html.parser import HTMLParser

import pytest
from rich.console import Console

from raylib.errors import UserError
from raylib.evaluate.report import (
    build_report,
    metric_title,
    print_leaderboard,
    render_html,
    render_markdown,
    write_leaderboard,
)
from raylib.evaluate.results import RunSummary, save_task_result


def entry(score, subset="default", languages=("eng-Latn",), **metrics):
    return {"main_score": score, "hf_subset": subset, "languages": list(languages), **metrics}


def write_result(folder, task, *entries, splits=None, revision="data-1", date=1741046400.0):
    """One TaskResult as MTEB lays it out; date: 2025-03-04 unless told."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "dataset_revision": revision,
        "task_name": task,
        "mteb_version": "2.26.24",
        "scores": splits or {"test": list(entries)},
        "evaluation_time": 1.0,
        "date": date,
    }
    (folder / f"{task}.json").write_text(json.dumps(data))


def write_meta(folder, name, revision="main", **options):
    folder.mkdir(parents=True, exist_ok=True)
    meta = {"name": name, "revision": revision, "experiment_kwargs": options or None}
    (folder / "model_meta.json").write_text(json.dumps(meta))


def table(report, metric="main_score"):
    """Model → scores as shown, the best with a star."""
    columns = [column.task for column in report.columns]
    return {
        row.model.model: {
            column: None if cell.value is None else f"{100 * cell.value:.2f}{'*' if cell.best else ''}"
            for column, cell in zip([*columns, "mean"], [*row.cells, row.mean], strict=True)
        }
        for row in report.view(metric).rows
    }


@pytest.fixture
def two_models(tmp_path):
    """b is better where both were scored; only a was scored on Three."""
    write_result(tmp_path / "org__a" / "main", "One", entry(0.5))
    write_result(tmp_path / "org__a" / "main", "Two", entry(0.2, "english"), entry(0.4, "french", ["fra-Latn"]))
    write_result(tmp_path / "org__a" / "main", "Three", entry(0.9))
    write_result(tmp_path / "org__b" / "main", "One", entry(0.6))
    write_result(tmp_path / "org__b" / "main", "Two", entry(0.5, "english"), entry(0.3, "french", ["fra-Latn"]))
    return tmp_path


def test_scores_are_means_over_subsets_and_tasks(two_models):
    report = build_report(two_models)
    # a: Two = (0.2 + 0.4) / 2; mean = (0.5 + 0.3 + 0.9) / 3. b: Two = (0.5 + 0.3) / 2; mean = (0.6 + 0.4) / 2
    assert table(report) == {
        "org/b": {"One": "60.00*", "Three": None, "Two": "40.00*", "mean": "50.00"},
        "org/a": {"One": "50.00", "Three": "90.00", "Two": "30.00", "mean": "56.67"},
    }


def test_models_with_different_tasks_are_ranked_by_the_tasks_they_share(two_models):
    view = build_report(two_models).view()
    assert [(row.model.model, row.rank, row.count) for row in view.rows] == [("org/b", 1, 2), ("org/a", 2, 3)]
    assert (view.shared, view.ranked) == (2, True)
    # shared: One and Two. b: (0.6 + 0.4) / 2, a: (0.5 + 0.3) / 2
    assert [round(row.shared_mean.value, 9) for row in view.rows] == [0.5, 0.4]
    assert [row.shared_mean.best for row in view.rows] == [True, False]


def test_too_few_shared_tasks_give_no_rank(tmp_path):
    for model, tasks in {"a": "One Two Three", "b": "One", "c": "One Three"}.items():
        for task in tasks.split():
            write_result(tmp_path / model / "r", task, entry(0.5))
    view = build_report(tmp_path).view()
    assert (view.shared, view.ranked, [row.rank for row in view.rows]) == (1, False, [None, None, None])
    assert view.rows[0].model.model == "a"  # the most tasks first
    assert not any(row.mean.best for row in view.rows)


def test_equal_scores_share_rank_and_bold(tmp_path):
    for model, score in {"a": 0.5, "b": 0.500001, "c": 0.4}.items():
        write_result(tmp_path / model / "r", "One", entry(score))
    rows = build_report(tmp_path).view().rows
    assert [(row.model.model, row.cells[0].best) for row in rows] == [("b", True), ("a", True), ("c", False)]


def test_subsets_that_a_model_lacks_keep_the_task_out_of_its_mean(tmp_path):
    write_result(tmp_path / "full" / "r", "One", entry(0.2, "english"), entry(0.4, "french"))
    write_result(tmp_path / "part" / "r", "One", entry(0.9, "english"))
    write_result(tmp_path / "full" / "r", "Two", splits={"test": [entry(0.6)], "dev": [entry(0.8)]})
    write_result(tmp_path / "part" / "r", "Two", splits={"test": [entry(0.5)], "dev": [entry(0.5)]})
    report = build_report(tmp_path)
    assert table(report) == {
        "full": {"One": "30.00", "Two": "70.00*", "mean": "50.00"},
        "part": {"One": "90.00", "Two": "50.00", "mean": "50.00"},
    }
    part = next(row for row in report.view().rows if row.model.model == "part")
    assert (part.count, part.cells[0].note) == (1, "1 of 2 splits and subsets")


def test_folders_that_mteb_wrote(tmp_path):
    mteb = pytest.importorskip("mteb")
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult

    result = TaskResult(
        dataset_revision="r",
        task_name="One",
        mteb_version="2.26.24",
        scores={"test": [entry(0.25, "x"), entry(0.75, "y")]},
        evaluation_time=1.0,
    )
    cache = mteb.ResultCache(tmp_path)
    for revision in ("first", "second"):
        cache.save_to_cache(result, ModelMeta.create_empty({"name": "org/m__x", "revision": revision}))
    variant = {"name": "org/m__x", "revision": "first", "experiment_kwargs": {"pooling": "last", "dim": 256}}
    cache.save_to_cache(result, ModelMeta.create_empty(variant))

    expected = [("org/m__x", "first", ""), ("org/m__x", "first", "dim=256, pooling=last"), ("org/m__x", "second", "")]
    for folder in (tmp_path, tmp_path / "results"):
        report = build_report(folder)
        assert [(m.model, m.revision, m.variant) for m in report.models] == expected
        assert [row.cells[0].value for row in report.view().rows] == [0.5, 0.5, 0.5]
        assert report.problems == ()
    assert [m.revision for m in build_report(tmp_path / "results" / "org__m__x" / "second").models] == ["second"]


def test_raylibs_own_folder(tmp_path):
    pytest.importorskip("mteb")
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult

    def save(task, official, untrained=False):
        scores = {"test": [entry(0.25)]}
        result = TaskResult(
            dataset_revision="r", task_name=task, mteb_version="2.26.24", scores=scores, evaluation_time=1.0
        )
        meta = ModelMeta.create_empty({"name": "tiny", "revision": "main"})
        save_task_result(tmp_path, result, meta, official=official, digest="d", untrained=untrained)

    save("One", official=True, untrained=True)
    save("Two", official=False)
    report = build_report(tmp_path)
    write_leaderboard(report, tmp_path)
    again = build_report(tmp_path)  # its own leaderboard is no result

    assert again == report
    assert [(c.task, c.official) for c in report.columns] == [("One", True), ("Two", False)]
    (row,) = report.view().rows
    assert row.untrained
    html = (tmp_path / "leaderboard.html").read_text()
    assert html.count('<span class="mark">untrained</span>') == 1
    assert "local data" in html
    assert "Two (local data)" in (tmp_path / "leaderboard.md").read_text()


def test_what_a_record_says_holds_only_for_the_file_it_was_written_for(tmp_path):
    mteb = pytest.importorskip("mteb")
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult

    def result(score):
        scores = {"test": [entry(score)]}
        return TaskResult(
            dataset_revision="r", task_name="One", mteb_version="2.26.24", scores=scores, evaluation_time=1.0
        )

    meta = ModelMeta.create_empty({"name": "m", "revision": "main"})
    save_task_result(tmp_path / "results", result(0.1), meta, official=True, digest="d", untrained=True)
    assert build_report(tmp_path).view().rows[0].untrained
    mteb.ResultCache(tmp_path).save_to_cache(result(0.8), meta)
    (row,) = build_report(tmp_path).view().rows
    assert (row.untrained, row.mean.value) == (False, 0.8)


def test_official_and_local_results_are_never_compared(tmp_path):
    write_result(tmp_path / "a" / "r", "One", entry(0.5))
    write_result(tmp_path / "b" / "r", "One", entry(0.9), revision="local")
    report = build_report(tmp_path)
    assert [(c.task, c.official) for c in report.columns] == [("One", True), ("One", False)]
    assert not any(cell.best for row in report.view().rows for cell in row.cells)
    assert "not official" in render_html(report)


@pytest.mark.parametrize(
    ("revisions", "told"),
    [
        (("part",), "a part of the data"),
        (("local",), "local data"),
        (("part", "local"), "local data, and a part of it"),
    ],
)
def test_what_was_scored_is_said_where_it_is_not_the_published_data(tmp_path, revisions, told):
    for revision in revisions:
        write_result(tmp_path / revision / "r", "One", entry(0.5), revision=revision)
    report = build_report(tmp_path)
    assert f"One ({told})" in render_markdown(report) and f"on {told}, not official" in render_markdown(report)
    assert f'<span class="mark">{told}</span>' in render_html(report)


def test_a_broken_file_is_named_and_stops_nothing(two_models):
    folder = two_models / "org__a" / "main"
    write_meta(folder, "org/a")
    (folder / "Broken.json").write_text('{"task_name": "Bro')
    (folder / "Binary.json").write_bytes(b"\xff\xfe\x00")
    (folder / "Other.json").write_text("[1, 2]")
    (folder / "Empty.json").write_text('{"task_name": "Empty", "scores": {}}')
    (folder / "NoScore.json").write_text('{"task_name": "NoScore", "scores": {"test": [{"hf_subset": "default"}]}}')
    (two_models / "settings.json").write_text('{"unrelated": true}')
    (two_models / "org__b" / "main" / "model_meta.json").write_text("{")

    report = build_report(two_models)

    assert {p.path: p.reason.partition(":")[0] for p in report.problems} == {
        "org__a/main/Broken.json": "broken JSON",
        "org__a/main/Binary.json": "broken JSON",
        "org__a/main/Other.json": "not a result",
        "org__a/main/Empty.json": "not an MTEB result",
        "org__a/main/NoScore.json": "not an MTEB result",
        "org__b/main/model_meta.json": "broken JSON",
    }
    assert table(report)["org/b"]["One"] == "60.00*"
    write_leaderboard(report, two_models)
    for name in ("leaderboard.md", "leaderboard.html"):
        assert "org__a/main/Broken.json: broken JSON" in (two_models / name).read_text().replace("\\", "")


def test_a_score_that_is_not_a_number_is_missing(tmp_path):
    write_result(tmp_path / "a" / "r", "One", entry(float("nan"), "x"), entry(0.5, "y"))
    write_result(tmp_path / "a" / "r", "Two", entry(0.5))
    write_result(tmp_path / "b" / "r", "One", entry(None, "x"), entry(0.5, "y"))
    report = build_report(tmp_path)
    assert table(report) == {
        "a": {"One": None, "Two": "50.00", "mean": "50.00"},
        "b": {"One": None, "Two": None, "mean": None},
    }
    assert report.notes == [
        "a/r/One.json: the main score is not a number.",
        "b/r/One.json: the main score is not a number.",
    ]
    assert "NaN" not in page_values(render_html(report))[1]


def test_other_metrics_can_be_chosen(tmp_path):
    write_result(tmp_path / "a" / "r", "One", entry(0.5, ndcg_at_5=0.5, recall_at_1=0.1, nauc_recall_at_1_max=0.3))
    write_result(tmp_path / "b" / "r", "One", entry(0.4, ndcg_at_5=0.4, recall_at_1=0.2))
    report = build_report(tmp_path)
    assert report.columns[0].metric == "ndcg_at_5"  # the one that equals the main score everywhere
    assert report.metrics == ("main_score", "ndcg_at_5", "recall_at_1")
    assert table(report, "recall_at_1") == {
        "b": {"One": "20.00*", "mean": "20.00*"},
        "a": {"One": "10.00", "mean": "10.00"},
    }
    values, _ = page_values(render_html(report))
    assert values["recall_at_1"] == [  # models by name; mean over shared tasks, mean, One
        {"rank": 2, "scores": [[10.0, 0, ""], [10.0, 0, ""], [10.0, 0, ""]]},
        {"rank": 1, "scores": [[20.0, 1, ""], [20.0, 1, ""], [20.0, 1, ""]]},
    ]


def test_metric_titles():
    assert [metric_title(m) for m in ("main_score", "ndcg_at_10", "map_at_10", "recall_at_100", "accuracy")] == [
        "Main score",
        "nDCG@10",
        "MAP@10",
        "Recall@100",
        "Accuracy",
    ]


def test_two_revisions_of_data_are_told(tmp_path):
    write_result(tmp_path / "a" / "r", "One", entry(0.5), revision="x")
    write_result(tmp_path / "b" / "r", "One", entry(0.5), revision="y")
    assert build_report(tmp_path).notes == ["One was scored on 2 revisions of its data: x, y."]


def test_of_two_results_for_one_task_the_later_counts(tmp_path):
    write_result(tmp_path / "results" / "a" / "r", "One", entry(0.7), date=2000.0)
    write_result(tmp_path / "remote" / "results" / "a" / "r", "One", entry(0.1), date=1000.0)
    assert table(build_report(tmp_path)) == {"a": {"One": "70.00", "mean": "70.00"}}


def test_failures_stay_until_a_later_run_mends_them(tmp_path):
    from datetime import UTC, datetime

    def run(hour, **fields):
        RunSummary("org/m", ["B"], started=datetime(2025, 1, 1, hour, tzinfo=UTC), **fields).write(tmp_path)

    run(1, error="no weights")
    assert [(f.task, f.error) for f in build_report(tmp_path).failures] == [("", "no weights")]
    run(2, tasks_failed=[{"task_name": "One", "error": "bad page"}, {"task_name": "Two", "error": "bad query"}])
    run(3, task_results=[{"task_name": "One", "scores": {}}])
    report = build_report(tmp_path)
    assert [(f.task, f.error) for f in report.failures] == [("Two", "bad query")]
    write_leaderboard(report, tmp_path)
    assert "- org/m, Two: bad query" in (tmp_path / "leaderboard.md").read_text()


HOSTILE = "x/<script>alert(1)</script>|`a`*b*[c](http://e.vil)\x1b[31m\nnext"


class Page(HTMLParser):
    """Collects the tags, the addresses and the visible text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.scripts, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "script" and self.scripts and self.cdata_elem:
            self.scripts[-1] += data
        else:
            self.text += data


def page_values(html):
    """What the page's script reads, and its text."""
    page = Page()
    page.feed(html)
    return json.loads(page.scripts[0]), page.scripts[0]


@pytest.fixture
def hostile(tmp_path):
    folder = tmp_path / "m" / "r"
    write_meta(folder, HOSTILE, "</th><img src=x onerror=alert(1)>")
    write_result(folder, "T", entry(0.5, "<b>sub|set</b>", ["<i>"]), entry(0.5, "y"))
    write_result(folder, "Two", entry(0.5))
    data = json.loads((folder / "T.json").read_text())
    data["task_name"] = "Task</script><script>alert(2)</script>|"
    (folder / "T.json").write_text(json.dumps(data))
    return build_report(tmp_path)


def test_hostile_names_are_harmless_in_html(hostile):
    page = Page()
    page.feed(render_html(hostile))
    assert page.tags.count("script") == 2
    assert {"img", "b", "i"} & set(page.tags) == {"i"}  # the bars
    assert page.tags.count("i") == render_html(hostile).count('<span class="bar"><i style="width:')
    assert "<script>alert(1)</script>|`a`*b*[c](http://e.vil)" in page.text
    assert "\x1b" not in page.text


def test_hostile_names_are_harmless_in_markdown(hostile, tmp_path):
    write_leaderboard(hostile, tmp_path)
    lines = (tmp_path / "leaderboard.md").read_text().splitlines()
    head, rule, row = [line for line in lines if line.startswith("|")]
    # number, model, revision, mean and two tasks: six cells, whatever the names hold
    assert [line.replace("\\|", "").count("|") for line in (head, rule, row)] == [7, 7, 7]
    assert "<" not in row
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;\|\`a\`\*b\*\[c\](http" in row
    assert "\x1b" not in row


def test_hostile_names_are_harmless_on_a_terminal(tmp_path):
    write_meta(tmp_path / "m" / "r", "org/[red]m[bold]\x1b[31m")
    write_result(tmp_path / "m" / "r", "One[red]", entry(0.5))
    stream = io.StringIO()
    print_leaderboard(build_report(tmp_path), Console(file=stream, width=100))
    assert "[red]m[bold]\N{REPLACEMENT CHARACTER}[31m" in stream.getvalue()
    assert "One[red]" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_the_page_needs_no_network(two_models):
    html = render_html(build_report(two_models))
    page = Page()
    page.feed(html)
    assert page.addresses == []
    assert "http" not in html.replace("http-equiv", "")
    assert "@import" not in html
    assert "url(" not in html


def test_the_page_shows_scores_by_language(two_models):
    html = render_html(build_report(two_models))
    assert "Scores by language (2)" in html
    assert 'title="fra-Latn">french</th>' in html
    assert '<tr><th scope="row">a</th><td>20.00</td><td>40.00</td></tr>' in html


def test_markdown_table(two_models):
    report = build_report(two_models)
    path, _ = write_leaderboard(report, two_models)
    with open(path, encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    assert "| # | Model | Revision | Mean of 2 shared | Mean of 3 | One | Three | Two |" in lines
    assert "| 1 | org/b | main | **50.00** | 50.00 (2/3) | **60.00** | – | **40.00** |" in lines
    assert "| 2 | org/a | main | 40.00 | 56.67 | 50.00 | 90.00 | 30.00 |" in lines
    assert "2025-03-04 · mteb 2.26.24" in lines


def test_a_terminal_shows_as_many_columns_as_fit(two_models):
    for width, expected, absent in ((120, ["56.67", "90.00", "50.00 2/3"], "more columns"), (50, ["50.00"], "90.00")):
        stream = io.StringIO()
        print_leaderboard(build_report(two_models), Console(file=stream, width=width))
        shown = stream.getvalue()
        assert all(text in shown for text in expected)
        assert absent not in shown
        assert max(map(len, shown.splitlines())) <= width
        assert ("more columns are in leaderboard.html" in " ".join(shown.split())) == (width == 50)


def test_models_of_one_name_are_told_apart(tmp_path):
    for model, revision in (("org__m", "r1"), ("org__m", "r2"), ("other__m", "r1"), ("other__n", "r1")):
        write_result(tmp_path / model / revision, "One", entry(0.5))
    stream = io.StringIO()
    print_leaderboard(build_report(tmp_path), Console(file=stream, width=100))
    assert {line.split("  ")[1].strip() for line in stream.getvalue().splitlines() if "50.00" in line} == {
        "org/m @ r1",
        "org/m @ r2",
        "other/m",
        "n",
    }


def test_an_empty_folder_and_no_folder(tmp_path):
    report = build_report(tmp_path)
    write_leaderboard(report, tmp_path)
    assert "There are no results yet." in (tmp_path / "leaderboard.html").read_text()
    assert "There are no results yet." in (tmp_path / "leaderboard.md").read_text()
    stream = io.StringIO()
    print_leaderboard(report, Console(file=stream))
    assert "There are no results yet." in stream.getvalue()
    with pytest.raises(UserError, match="there is no folder"):
        build_report(tmp_path / "absent")
