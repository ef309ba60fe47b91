"""The page of a real run over four pages of plain colours; what stands on it is worked out by hand (see made.py)."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import raylib
from raylib.cli import main
from raylib.errors import UnknownNameError, UserError
from raylib.inspect.config import InspectConfig
from raylib.inspect.run import inspect_run
from tests.inspect.made import PAGES, TASK, parsed, write_data

COLOURS, GRIDLESS = "local/tests.inspect.made.colours", "local/tests.inspect.made.gridless"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The output folder of an evaluate run of two models, and the data it read."""
    folder = tmp_path_factory.mktemp("run")
    write_data(str(folder / "data"))
    outcome = raylib.evaluate(
        ["tests.inspect.made:colours", "tests.inspect.made:gridless"],
        tasks=[TASK],
        data_root=str(folder / "data"),
        output_folder=str(folder / "results"),
        local=True,
        quiet=True,
    )
    assert outcome.ok
    return folder / "results"


@pytest.fixture
def written(results, tmp_path):
    """Settings → (what was written, the parsed page)."""

    def write(**settings):
        settings = {"model": COLOURS, "output": str(tmp_path / "page.html"), **settings}
        done = inspect_run(InspectConfig(str(settings.pop("results", results)), **settings))
        html = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert done.n_bytes == len(html.encode())
        return done, parsed(html)

    return write


def ids_of(cards):
    return [card.one(".id").text.rpartition("-")[2] for card in cards]


def film_of(card):
    """The levels [frames, rows, columns] of a card's heat map."""
    url = card.one(".heat").attributes["src"]
    image = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    frames = len(json.loads(card.one("button").attributes["data-best"]))
    return np.asarray(image).reshape(frames, -1, image.width)


def test_queries_worst_first_with_their_documents(written):
    _, page = written(top_k=2)
    queries = page.all(".query")
    assert [q.one(".value").text for q in queries] == ["54.38 nDCG@5", "63.09 nDCG@5", "65.09 nDCG@5"]
    first = queries[0]
    assert first.one("h2").text == "red green"
    assert first.one(".who").text == "1 of 3 query-test-1 2 relevant"
    shown, missed = first.all(".cards")
    assert ids_of(shown.all(".card")) == ["4", "1"]
    labels = [card.one(".label").text for card in (*shown.all(".card"), *missed.all(".card"))]
    assert labels == [
        "1. unjudged 2.000",
        "2. unjudged 2.000",
        "3. ✓ relevant · grade 2 1.800",
        "4. ✓ relevant 0.5000",
    ]
    assert ids_of(missed.all(".card")) == ["3", "2"]


def test_best_first_and_fewer(written):
    done, page = written(order="best", queries=2)
    assert next(q.one("h2").text for q in page.all(".query")) == "blue" and done.queries == 2


def test_the_summary(written):
    _, page = written(measure="mrr_at_10")
    facts = {node.one("dt").text: node.one("dd").text for node in page.one(".facts").all("div")}
    assert facts == {"Mean MRR@10": "44.44", "Median": "50.00", "Queries": "3", "At 0": "0 0 %", "At 100": "0 0 %"}
    assert [bin.text for bin in page.one(".bins").all("li")] == ["", "", "", "1", "", "2", "", "", "", ""]


def test_heat_maps_show_the_redness_and_greenness_of_cells(written):
    """Query "red green": cells of pages 4, 1, 3, 2. Scales: red, green 0 to 1; their sum 0 to 2 (white)."""
    _, page = written()
    query = page.all(".query")[0]
    assert [button.text for button in query.one(".tokens").all("button")] == ["All tokens", "red", "green"]
    films = dict(zip(ids_of(query.all(".card")), [film_of(card) for card in query.all(".card")], strict=True))
    full, half = 63, 32  # of 64 levels; 31.5 rounds to even
    assert films["4"].tolist() == [[[full] * 3] * 2] * 3
    assert films["1"][0].tolist() == [[half, half, 0], [0, 0, 0]]
    assert films["1"][1].tolist() == [[full, 0, 0], [0, 0, 0]]
    assert films["1"][2].tolist() == [[0, full, 0], [0, 0, 0]]
    assert films["2"][1].tolist() == [[0, 0, 0], [0, 0, round(0.4 * 63)]]
    assert films["3"][1].tolist() == [[0, 0, 0], [round(0.8 * 63), 0, 0]]


def test_what_counted_is_told_per_token(written):
    """[MaxSim], then [similarity, row, column] per token; page 2 is less red than the prompt, so no cell counted."""
    _, page = written()
    cards = page.all(".query")[0].all(".card")
    best = {
        i: json.loads(card.one("button").attributes["data-best"]) for i, card in zip(ids_of(cards), cards, strict=True)
    }
    assert best == {
        "4": [[2.0], [1.0, 0, 0], [1.0, 0, 0]],
        "1": [[2.0], [1.0, 0, 0], [1.0, 0, 1]],
        "3": [[1.8], [0.8, 1, 0], [1.0, 0, 1]],
        "2": [[0.5], [0.5], [0.0]],
    }
    sheet = cards[0].one("button").attributes
    assert (sheet["data-rows"], sheet["data-columns"]) == ("2", "3") and "--frames:3" in sheet["style"]


def test_a_query_cannot_run_anything(written):
    _, page = written()
    scripts = page.all("script")
    assert len(scripts) == 1 and "alert" not in scripts[0].text
    titles = [q.one("h2").text for q in page.all(".query")]
    assert "<script>alert('red')</script><img src=x onerror=alert(1)>" in titles
    urls = [
        image.attributes.get("src") or image.attributes.get("href") for image in (*page.all("img"), *page.all("image"))
    ]
    assert urls and all(url.startswith("data:image/") for url in urls)
    elements = [page]
    while elements:
        element = elements.pop()
        assert not [name for name in element.attributes if name.startswith("on")]
        elements += [child for child in element.children if not isinstance(child, str)]
    policy = next(m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes)
    assert "default-src 'none'" in policy and "img-src data:" in policy


def test_every_page_is_held_once_and_only_where_it_is_shown(written):
    _, page = written(queries=1, top_k=1)
    symbols = {symbol.attributes["id"] for symbol in page.all("symbol")}
    uses = {use.attributes["href"].removeprefix("#") for use in page.all("use")}
    assert symbols == uses and len(symbols) == 2, "page 4 is first, page 3 the first relevant one"
    _, page = written()
    assert len(page.all("symbol")) == len(PAGES) and len(page.all("use")) == 3 * len(PAGES)


def test_more_missed_documents_than_there_is_room_for_are_named(written):
    _, page = written(top_k=1, queries=1)
    assert page.one(".unseen").text == "And corpus-test-2 (rank 4)"


def test_a_relevant_document_that_was_not_kept(results, written, tmp_path):
    """The rankings cut to two documents a query."""
    import pyarrow.compute as pc

    from raylib.metrics.details import read_details, write_details

    copy = shutil.copytree(results, tmp_path / "copy")
    (folder,) = copy.glob("*colours/*/details/*")
    details = read_details(str(folder))
    details.rankings = details.rankings.filter(pc.field("rank") <= 2)
    write_details(str(folder), details, keep=2)
    _, page = written(results=copy)
    _, missed = page.all(".query")[0].all(".cards")
    labels = [card.one(".label").text for card in missed.all(".card")]
    assert labels == ["not in the first 2 ✓ relevant · grade 2", "not in the first 2 ✓ relevant"]
    assert missed.all(".heat"), "its vectors are stored, so it is seen why it was missed"


def test_compared_with_another_model(results, written, tmp_path):
    """The other model is the same but for one query, whose measure is set by hand."""
    import pyarrow as pa

    from raylib.metrics.details import read_details, write_details

    copy = shutil.copytree(results, tmp_path / "copy")
    (folder,) = copy.glob("*gridless/*/details/*")
    details = read_details(str(folder))
    at = details.queries.column_names.index("ndcg_at_5")
    values = details.queries.column("ndcg_at_5").to_pylist()
    details.queries = details.queries.set_column(at, "ndcg_at_5", pa.array([values[0], 0.25, values[2]]))
    write_details(str(folder), details, keep=100)

    _, page = written(results=copy, compare_with=GRIDLESS, order="changed")
    first = page.all(".query")[0]
    assert first.one("h2").text == "blue"
    assert first.one(".value").text == "65.09 nDCG@5 other 25.00 +40.09"
    assert first.one("details").one("summary").text == f"The ranking of {GRIDLESS}"
    assert ids_of(first.one("details").all(".card")) == ["4", "1", "3", "2"]
    facts = {node.one("dt").text: node.one("dd").text for node in page.one(".facts").all("div")}
    assert facts["Better · equal · worse"] == "1 · 2 · 0"
    assert facts["Mean nDCG@5"] == f"60.85 against {100 * (values[0] + 0.25 + values[2]) / 3:.2f}"


def notes_of(page):
    return " ".join(note.text for note in page.all(".notes"))


def test_a_store_that_was_deleted(results, written, tmp_path):
    copy = shutil.copytree(results, tmp_path / "copy")
    store = copy / "store"
    import pyarrow.parquet as pq

    (contents,) = copy.glob("*colours/*/details/*/contents.parquet")
    table = pq.read_table(contents)
    moved = {**table.schema.metadata, b"store": str(tmp_path / "gone").encode()}
    pq.write_table(table.replace_schema_metadata(moved), contents)
    _, page = written(results=copy)
    assert page.all(".heat"), "a folder that moved takes its store along"

    shutil.rmtree(store)
    done, page = written(results=copy)
    assert not page.all(".heat") and not page.all(".tokens")
    assert "No heat maps: the embedding store is gone" in notes_of(page) and "gone" in done.notes[0]
    assert len(page.all(".query")) == 3


def test_a_store_that_lost_some_vectors(results, written, tmp_path):
    copy = shutil.copytree(results, tmp_path / "copy")
    (contents,) = copy.glob("*colours/*/details/*/contents.parquet")
    import pyarrow.parquet as pq

    table = pq.read_table(contents)
    pq.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"store": str(copy / "store").encode()}), contents
    )
    for part in (copy / "store").glob("*/part-*"):
        part.write_bytes(part.read_bytes()[:-100])
    _, page = written(results=copy)
    assert not page.all(".heat") and "cannot be read" in notes_of(page)


def test_details_without_contents(results, written, tmp_path):
    copy = shutil.copytree(results, tmp_path / "copy")
    (contents,) = copy.glob("*colours/*/details/*/contents.parquet")
    contents.unlink()
    _, page = written(results=copy)
    assert "no contents.parquet" in notes_of(page) and len(page.all(".card")) == 12


def test_a_model_without_patches(written):
    _, page = written(model=GRIDLESS)
    assert not page.all(".heat") and "does not say where its vectors are on a page" in notes_of(page)


def test_a_model_that_has_changed_since(written, monkeypatch):
    from raylib.models import mteb_source

    monkeypatch.setattr(mteb_source, "_made", {})
    monkeypatch.setattr("tests.inspect.made.Colours.identity", {"made": "anew"})
    _, page = written()
    assert "its weights or options have changed" in notes_of(page) and not page.all(".heat")


def test_heat_maps_can_be_left_out(written):
    done, page = written(heat_map=False)
    assert not page.all(".heat") and not page.all(".notes") and done.notes == []


def test_the_page_stays_within_its_bytes(written, monkeypatch):
    """Three queries of the same four pages, each of 20,000 characters: about 120 kB in all, of which half are HTML."""
    from raylib.inspect import draw
    from raylib.inspect.thumbnails import Thumbnail

    def large(image):
        return Thumbnail(str(hash(image)), 60, 40, "data:image/webp;base64," + "A" * 20_000)

    monkeypatch.setattr(draw, "thumbnail", large)
    done, page = written(max_bytes=160_000)
    assert done.queries == 3 and done.notes == [] and len(page.all(".heat")) == 12
    assert 80_000 < done.n_bytes < 160_000, "a page counts once"

    done, page = written(max_bytes=done.n_bytes)
    assert done.queries < 3 and done.n_bytes < 160_000 and "more queries are left out: --max-bytes is" in notes_of(page)
    done, page = written(max_bytes=1)
    assert done.queries == 1 and not page.all(".heat") and len(page.all("symbol")) == 4
    assert done.notes == [
        "Heat maps are left out from query 1 on: --max-bytes is 1.",
        "2 more queries are left out: --max-bytes is 1.",
    ]


def test_a_page_that_cannot_be_read_is_told_on_its_card(results, written, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.copytree(results.parent / "data", tmp_path / "data")
    (corpus,) = (tmp_path / "data").glob("**/corpus/test.parquet")
    table = pq.read_table(corpus)
    cells = table.column("image").to_pylist()
    cells[3]["bytes"] = b"no picture"
    column = pa.array(cells, type=table.schema.field("image").type)
    pq.write_table(table.set_column(table.column_names.index("image"), table.schema.field("image"), column), corpus)
    _, page = written(data_root=str(tmp_path / "data"), queries=1)
    assert [problem.text for problem in page.all(".problem")] == ["the image cannot be read"]


def test_data_that_is_not_there(written, tmp_path):
    with pytest.raises(UserError, match=r"no local copy of mteb/arxivqa_test.*--data-root"):
        written(data_root=str(tmp_path))


def test_names_that_are_not_there(written):
    with pytest.raises(UnknownNameError, match=r"Did you mean local/tests.inspect.made.colours"):
        written(model="local/tests.inspect.made.colors")
    with pytest.raises(UnknownNameError, match=r"Did you mean VidoreArxivQARetrieval.*Only retrieval tasks"):
        written(task="VidoreArxivQA")
    with pytest.raises(UserError, match="several models have details; add --model with one of"):
        written(model="")
    with pytest.raises(UnknownNameError, match="unknown model 'none'"):
        written(compare_with="none")


def test_a_folder_without_details(written, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        written(results=tmp_path / "nothing")
    with pytest.raises(UserError, match=r"has no details of any task.*--keep-rankings"):
        written(results=tmp_path)


def test_settings_that_cannot_be():
    for name in ("top_k", "queries", "max_bytes"):
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is 0; expected at least 1"):
            InspectConfig("results", **{name: 0})
    with pytest.raises(UserError, match="add --compare-with"):
        InspectConfig("results", order="changed")


def test_the_command(results, capsys):
    """With the model as it was given to evaluate, and the task left out: there is one."""
    arguments = ["inspect-run", str(results), "--model", "tests.inspect.made:colours", "--top-k", "3"]
    assert main(arguments) == 0
    path = results / "inspect" / "local_tests.inspect.made.colours_VidoreArxivQARetrieval.html"
    assert f"wrote {path}: 3 queries, 0.0 MB" in capsys.readouterr().out
    assert len(parsed(path.read_text(encoding="utf-8")).all(".query")) == 3
    assert main([*arguments, "--measure", "ndcg@5"]) == 2
    assert "Did you mean ndcg_at_5" in capsys.readouterr().err
