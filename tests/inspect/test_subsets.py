"""A task in several languages over one corpus."""

import pytest

import raylib
from raylib.errors import UnknownNameError
from raylib.inspect.config import InspectConfig
from raylib.inspect.run import inspect_run
from raylib.tasks.synthetic import write_example
from tests.inspect.made import parsed


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three queries in English and in French; the words of a language do not change what the toy model sees."""
    folder = tmp_path_factory.mktemp("languages")
    task = write_example("v2", str(folder / "data"), pages=4, queries=3, size=(60, 40))
    outcome = raylib.evaluate(
        "tests.inspect.made:colours",
        tasks=[task],
        languages=["eng", "fra"],
        data_root=str(folder / "data"),
        output_folder=str(folder / "results"),
        local=True,
        quiet=True,
    )
    assert outcome.ok
    return str(folder / "results")


def page_of(results, tmp_path, **settings):
    written = inspect_run(InspectConfig(results, output=str(tmp_path / "page.html"), **settings))
    assert written.notes == []
    return parsed((tmp_path / "page.html").read_text(encoding="utf-8"))


def test_all_languages_together_say_which_is_which(results, tmp_path):
    page = page_of(results, tmp_path)
    who = [query.one(".who").text for query in page.all(".query")]
    assert len(who) == 6 and sum("test / french" in w for w in who) == sum("test / english" in w for w in who) == 3
    assert len(page.all("symbol")) == 4, "the languages share their pages"
    assert len(page.all(".heat")) == 6 * 4


def test_one_language_alone(results, tmp_path):
    page = page_of(results, tmp_path, subset="french")
    queries = page.all(".query")
    assert len(queries) == 3 and all("Sur quelle page lit-on" in query.one("h2").text for query in queries)
    assert page.one(".about").text.endswith("· french") and "french" not in queries[0].one(".who").text
    with pytest.raises(UnknownNameError, match=r"unknown subset 'german'.*There are: english, french"):
        page_of(results, tmp_path, subset="german")
