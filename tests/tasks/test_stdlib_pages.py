"""The built-in benchmark: its pages, its questions, and how it is kept on disk."""

import os
from collections import Counter

import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.tasks import docstrings, page_queries, stdlib_pages

FEW = ["statistics", "heapq", "json", "bisect", "textwrap", "string", "shelve", "queue", "csv", "glob"]


@pytest.fixture(scope="module")
def everything():
    """Both parts, laid out but not drawn."""
    modules = docstrings.collect()
    return {split: stdlib_pages.build(split, modules) for split in ("test", "train")}


@pytest.fixture
def few_modules(monkeypatch):
    """Ten modules instead of three hundred, so that drawing takes a second."""
    modules = docstrings.collect(names=FEW)
    monkeypatch.setattr(docstrings, "collect", lambda: modules)
    return modules


def files_of(folder):
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(base, name), "rb") as stream:
                found[os.path.relpath(os.path.join(base, name), folder)] = stream.read()
    return found


def test_sizes(everything):
    pages, queries = everything["test"]
    assert 300 <= len(pages) <= 500 and 300 <= len(queries) <= 600
    pages, queries = everything["train"]
    assert len(pages) >= 200 and len(queries) >= 600


def test_no_module_is_in_both_parts(everything):
    tops = [{page.split(".")[0].rsplit("-", 1)[0] for page in everything[split][0]} for split in ("test", "train")]
    assert tops[0] and tops[1] and not tops[0] & tops[1]


def test_every_question_is_answered_by_the_page_it_points_to(everything):
    for pages, queries in everything.values():
        for query in queries:
            page = pages[query.page_id]
            assert query.source and query.source in page.text
            assert query.entry.startswith(query.page_id.rsplit("-", 1)[0])
            heading = query.entry.removeprefix(query.page_id.rsplit("-", 1)[0] + ".")
            assert heading in page.text.replace("\n", ""), "the thing itself is described on this page"


def test_no_question_holds_the_name_it_asks_for_or_code(everything):
    for _, queries in everything.values():
        for query in queries:
            name = query.entry.rsplit(".", 1)[1]
            assert name.lower() not in query.text.lower().replace("?", "").split()
            assert not page_queries.holds_name(query.text, name)
            assert not set(query.text) & set("[]{}=<>_\\|()"), query
            assert len(query.text.split()) >= 5


def test_no_question_is_asked_twice(everything):
    for _, queries in everything.values():
        assert max(Counter(query.text.lower() for query in queries).values()) == 1
        assert [query.id for query in queries] == [str(n) for n in range(len(queries))]


def test_a_question_that_two_pages_answer_is_dropped(tmp_path):
    filler = "Filler text that makes the module long enough. " * 10
    for name in ("csv", "queue"):
        body = f'"""{filler}"""\ndef go_{name}():\n    """Drive the little red car home."""\n'
        only = f'def one_{name}():\n    """Tell what only {name} can tell us."""\n'
        (tmp_path / f"{name}.py").write_text(body + only)
    modules = docstrings.collect(tmp_path, ["csv", "queue"])
    split = stdlib_pages.split_of("csv")
    assert stdlib_pages.split_of("queue") == split, "two modules of one part, for this test"

    _, queries = stdlib_pages.build(split, modules)

    assert [query.text for query in queries] == [
        "Tell what only csv can tell us",
        "Tell what only queue can tell us",
    ]


def test_two_builds_are_the_same_bytes(few_modules, tmp_path):
    for name in ("a", "b"):
        stdlib_pages.write(str(tmp_path / name), *stdlib_pages.build("test"), "test")

    first, second = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert sorted(first) == ["README.md", "corpus/test.parquet", "qrels/test.parquet", "queries/test.parquet"]
    assert first == second


def test_what_is_on_disk_is_what_was_built(few_modules, tmp_path):
    pages, queries = stdlib_pages.build("test")
    stdlib_pages.write(str(tmp_path), pages, queries, "test")

    corpus, qrels, asked = (
        pq.read_table(tmp_path / config / "test.parquet").to_pydict() for config in ("corpus", "qrels", "queries")
    )
    assert corpus["corpus-id"] == list(pages) and corpus["text"] == [page.text for page in pages.values()]
    assert all(image["bytes"].startswith(b"\x89PNG") for image in corpus["image"])
    assert len({image["bytes"] for image in corpus["image"]}) == len(pages), "no two pages look alike"
    assert asked["query"] == [query.text for query in queries]
    assert dict(zip(qrels["query-id"], qrels["corpus-id"], strict=True)) == {q.id: q.page_id for q in queries}
    assert set(qrels["score"]) == {1} and set(qrels["corpus-id"]) <= set(pages)


def test_built_once_and_kept(few_modules, monkeypatch):
    folder = stdlib_pages.ensure_built("test")
    before = files_of(folder)
    monkeypatch.setattr(stdlib_pages, "build", lambda split: pytest.fail("built again"))

    assert stdlib_pages.ensure_built("test") == folder
    assert files_of(folder) == before
    assert os.listdir(os.path.dirname(folder)) == ["test"], "nothing is left aside"
    assert stdlib_pages.revision() in folder and folder.startswith(os.environ["RAYLIB_CACHE"])


def test_an_interrupted_build_leaves_nothing_behind(few_modules, monkeypatch):
    def stop(image):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stdlib_pages.page_layout, "to_png", stop)
        with pytest.raises(KeyboardInterrupt):
            stdlib_pages.ensure_built("test")
    assert os.listdir(os.path.join(os.environ["RAYLIB_CACHE"], f"StdlibPages-{stdlib_pages.revision()}")) == []

    assert os.path.exists(os.path.join(stdlib_pages.ensure_built("test"), "README.md"))


def test_the_loser_of_a_race_takes_the_winners_folder(few_modules, monkeypatch):
    real_write, winner = stdlib_pages.write, {}

    def write_and_be_overtaken(folder, *args):
        real_write(folder, *args)
        if not winner:
            winner["files"] = None
            winner["files"] = files_of(stdlib_pages.ensure_built("test"))

    monkeypatch.setattr(stdlib_pages, "write", write_and_be_overtaken)
    folder = stdlib_pages.ensure_built("test")

    assert files_of(folder) == winner["files"] and os.listdir(os.path.dirname(folder)) == ["test"]


def test_a_cache_that_cannot_be_written_to_is_a_clear_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write to .*file"):
        stdlib_pages.ensure_built("test")


def test_a_python_without_sources_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(docstrings, "collect", list)
    with pytest.raises(UserError, match="no source files of its standard library"):
        stdlib_pages.ensure_built("test")
