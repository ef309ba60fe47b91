"""A corpus that begins with what the jobs encoded: its rankings are theirs."""

import asyncio
import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import raylib
from raylib.cli import main
from raylib.errors import UnknownNameError, UserError
from raylib.evaluate.encode import encode_locally
from raylib.metrics.details import read_details
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.serve.corpus import open_corpus
from raylib.serve.protocol import Content, Document
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings
from tests.evaluate.colours import PAGES, V1, V2, page, write_v1, write_v2
from tests.tasks.local_vidore import write_local_vidore

LETTERS, DENSE, LATE = "tests.evaluate.made:letters", "tests.toys:dense", "tests.toys:late"


def evaluated(tmp_path, model, task, **settings):
    settings = {"data_root": str(tmp_path / "data"), "output_folder": str(tmp_path / "out"), **settings}
    outcome = raylib.evaluate([model], tasks=[task], local=True, keep_rankings=1000, **settings)
    assert outcome.ok
    (folder,) = (tmp_path / "out").rglob(f"details/{task}")
    return read_details(str(folder))


def opened(tmp_path, model, name, **settings):
    settings = {"data_root": str(tmp_path / "data"), **settings}
    return open_corpus(name, str(tmp_path / "out" / "store"), resolve(ModelSpec(model)), **settings)


def ask(corpus, vectors, k=10, filters=None):
    return asyncio.run(corpus.search(vectors, k, filters))


def kept(details, split, subset):
    """Query → [(document, score)], best first."""
    found = {}
    for row in details.rankings.to_pylist():
        if (row["split"], row["subset"]) == (split, subset):
            found.setdefault(row["query_id"], []).append((row["rank"], row["document_id"], row["score"]))
    return {query: [hit[1:] for hit in sorted(hits)] for query, hits in found.items()}


def query_vectors(details, split, subset):
    """(ids, vectors) of the queries, out of the store."""
    about = {k.decode(): v.decode() for k, v in details.contents.schema.metadata.items()}
    rows = [r for r in details.contents.to_pylist() if (r["split"], r["subset"], r["role"]) == (split, subset, "query")]
    return [r["id"] for r in rows], Shelf(about["store"], about["fingerprint"]).get([r["key"] for r in rows])


@pytest.mark.parametrize("model", [DENSE, LATE])
@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_rankings_are_those_of_evaluate(tmp_path, model, layout):
    """Every score of every query has the same bits. The pages of v2 are shared by four languages."""
    (task,) = write_local_vidore(str(tmp_path / "data"), [layout], pages=40, queries=12)
    details = evaluated(tmp_path, model, task)
    corpus = opened(tmp_path, model, task)
    places = {(row["split"], row["subset"]) for row in details.queries.to_pylist()}
    assert len(places) == {"v1": 1, "v2": 4}[layout]
    for split, subset in places:
        ids, vectors = query_vectors(details, split, subset)
        found = ask(corpus, vectors, 40)
        want = kept(details, split, subset)
        assert {i: [(hit.id, hit.score) for hit in hits] for i, hits in zip(ids, found, strict=True)} == want
        assert all(len(hits) == 40 for hits in found)
    corpus.close()


def test_pages_that_are_equal_tie_and_go_by_id(tmp_path):
    """Two documents of one content have one score; evaluate puts the greater id first."""
    write_v1(tmp_path / "data", pages=[PAGES[0], PAGES[1], PAGES[0], PAGES[0]])
    details = evaluated(tmp_path, LETTERS, V1)
    corpus = opened(tmp_path, LETTERS, V1)
    ids, vectors = query_vectors(details, "test", "default")
    red = ask(corpus, vectors, 3)[ids.index("query-test-0")]
    assert [hit.id for hit in red] == ["corpus-test-3", "corpus-test-2", "corpus-test-0"]
    asyncio.run(corpus.delete(["corpus-test-3"]))
    red = ask(corpus, vectors, 2)[ids.index("query-test-0")]
    assert [hit.id for hit in red] == ["corpus-test-2", "corpus-test-0"], "the other two still have the content"
    corpus.close()


def test_documents_show_their_pages_and_vectors(tmp_path):
    write_v1(tmp_path / "data")
    evaluated(tmp_path, LETTERS, V1)
    corpus = opened(tmp_path, LETTERS, V1)
    assert asyncio.run(corpus.count()) == 4
    names = asyncio.run(corpus.ids(1, 2))
    assert names == ["corpus-test-1", "corpus-test-2"]
    first, absent, _ = asyncio.run(corpus.documents(["corpus-test-0", "no such", "corpus-test-0"]))
    assert absent is None and first.content == Content(None, PAGES[0])
    # Blue, and the one that Letters puts at the end.
    assert asyncio.run(corpus.vectors(["corpus-test-2"])).values.tolist() == [[0, 0, 1, 1]]
    with pytest.raises(UserError, match="no document 'no such'"):
        asyncio.run(corpus.vectors(["corpus-test-2", "no such"]))
    corpus.close()


def test_images_that_no_browser_shows_become_png(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), "#ff0000").save(stream, "TIFF")
    write_v1(tmp_path / "data", pages=[stream.getvalue(), *PAGES[1:], page("#010203")])
    evaluated(tmp_path, LETTERS, V1)
    corpus = opened(tmp_path, LETTERS, V1)
    (document,) = asyncio.run(corpus.documents(["corpus-test-0"]))
    image = Image.open(io.BytesIO(document.content.image))
    assert image.format == "PNG" and image.size == (8, 6) and image.getpixel((7, 5)) == (255, 0, 0)
    corpus.close()


def test_a_base_document_is_replaced_taken_out_and_stays_so(tmp_path):
    write_v1(tmp_path / "data")
    evaluated(tmp_path, LETTERS, V1)
    corpus = opened(tmp_path, LETTERS, V1)
    blue = Embeddings.from_dense(np.array([[0, 0, 1, 1]], np.float32))
    red = Document("corpus-test-2", Content("now red"), {"kind": "text"})
    asyncio.run(corpus.add([red], Embeddings.from_dense(np.array([[1, 0, 0, 1]], np.float32))))
    assert asyncio.run(corpus.delete(["corpus-test-1", "unknown"])) == ["corpus-test-1"]
    for _ in range(2):
        assert asyncio.run(corpus.ids()) == ["corpus-test-0", "corpus-test-2", "corpus-test-3"]
        # cosine to blue (0 0 1 1): white (1 1 1 1) 2 / √8; red, twice, 1 / 2
        (hits,) = ask(corpus, blue, 9)
        assert [hit.id for hit in hits] == ["corpus-test-3", "corpus-test-2", "corpus-test-0"]
        assert [hit.score for hit in hits] == pytest.approx([2 / 8**0.5, 0.5, 0.5])
        assert asyncio.run(corpus.documents(["corpus-test-2"])) == [red]
        assert asyncio.run(corpus.vectors(["corpus-test-2"])).values.tolist() == [[1, 0, 0, 1]]
        corpus.close()
        corpus = opened(tmp_path, LETTERS, V1)
    corpus.close()


def test_what_the_store_lacks_is_said_with_the_command_or_encoded(tmp_path):
    write_v1(tmp_path / "data")
    command = rf"raylib evaluate --model {LETTERS} --tasks {V1} --data-root .*/data --store .*/out/store"
    with pytest.raises(UserError, match=f"4 of 4 documents have no vectors.*{command}"):
        opened(tmp_path, LETTERS, V1)

    def encode(plan, shelf):
        encode_locally(plan.encoder, plan.batches(8), plan.sources, shelf)

    corpus = opened(tmp_path, LETTERS, V1, encode_missing=encode)
    assert asyncio.run(corpus.vectors(["corpus-test-0"])).values.tolist() == [[1, 0, 0, 1]]
    corpus.close()


def test_documents_without_vectors_are_left_out_where_that_is_allowed(tmp_path):
    write_v1(tmp_path / "data", pages=[b"no image", *PAGES])
    evaluated(tmp_path, LETTERS, V1, allow_errors=1)
    with pytest.raises(UserError, match="1 of 5 documents"):
        opened(tmp_path, LETTERS, V1)
    corpus = opened(tmp_path, LETTERS, V1, allow_errors=1)
    assert asyncio.run(corpus.count()) == 4
    (found,) = asyncio.run(corpus.documents(["corpus-test-1"]))
    assert found.content.image == PAGES[0], "rows after the bad one are still theirs"
    corpus.close()


def test_of_a_benchmark_with_two_forms_of_the_pages_the_stored_one_is_taken(tmp_path, monkeypatch):
    from raylib.tasks import docstrings
    from tests.tasks.test_stdlib_pages import FEW

    modules = docstrings.collect(names=FEW)
    monkeypatch.setattr(docstrings, "collect", lambda: modules)
    monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / "cache"))
    details = evaluated(tmp_path, DENSE, "StdlibPagesT2T", data_root=None)
    corpus = opened(tmp_path, DENSE, "StdlibPages", data_root=None)
    ids, vectors = query_vectors(details, "test", "default")
    found = dict(zip(ids, ask(corpus, vectors, 10_000), strict=True))
    assert {i: [hit.id for hit in hits] for i, hits in found.items()} == {
        i: [name for name, _ in hits] for i, hits in kept(details, "test", "default").items()
    }
    name = found[ids[0]][0].id
    (document,) = asyncio.run(corpus.documents([name]))
    assert document.content.image is None and len(document.content.text) > 20
    corpus.close()


def test_the_prompts_of_the_task_go_with_the_corpus(tmp_path):
    write_v2(tmp_path / "data")
    model = "tests.serve.made:prompted"
    evaluated(tmp_path, model, V2)
    corpus = opened(tmp_path, model, V2, languages=["eng"])
    assert corpus.contexts["query"].prompt == "query of Vidore2ESGReportsRetrieval in english: "
    corpus.close()
    with pytest.raises(UserError, match=r"different query prompts.*--query-prompt"):
        opened(tmp_path, model, V2)


def test_the_folder_of_encode_is_a_corpus(tmp_path):
    """Its vectors, and its files where they still are; a PDF's pages are drawn anew."""
    from tests.encode.made import write_pdf

    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "red.png").write_bytes(PAGES[0])
    (inputs / "lines.txt").write_text("aab\n\nccc\n")
    write_pdf(inputs / "two.pdf", ["red", "blue"], size=(36, 72))
    arguments = ["--model", LETTERS, "--input", str(inputs), "--output", str(tmp_path / "vectors"), "--local"]
    assert main(["encode", *arguments, "--quiet"]) == 0
    store = str(tmp_path / "served")
    corpus = open_corpus(str(tmp_path / "vectors"), store, resolve(ModelSpec(LETTERS)))
    ids = ["lines.txt#line=1", "lines.txt#line=3", "red.png", "two.pdf#page=1", "two.pdf#page=2"]
    assert asyncio.run(corpus.ids()) == ids
    shown = dict(zip(ids, asyncio.run(corpus.documents(ids)), strict=True))
    assert shown["lines.txt#line=3"].content == Content("ccc")
    assert shown["red.png"].content == Content(None, PAGES[0])
    assert Image.open(io.BytesIO(shown["two.pdf#page=2"].content.image)).size == (72, 144)  # at 144 dpi
    assert asyncio.run(corpus.vectors(ids[1::-1])).values.tolist() == [[0, 0, 3, 1], [2, 1, 0, 1]]
    assert ask(corpus, Embeddings.from_dense(np.array([[0, 0, 3, 1]], np.float32)))[0][0].id == "lines.txt#line=3"
    corpus.close()

    (inputs / "red.png").unlink()
    corpus = open_corpus(str(tmp_path / "vectors"), store, resolve(ModelSpec(LETTERS)))
    (document,) = asyncio.run(corpus.documents(["red.png"]))
    assert document.content == Content(), "searched still, and not shown"
    corpus.close()
    with pytest.raises(UserError, match=r"not of tests\.toys:dense as it is here"):
        open_corpus(str(tmp_path / "vectors"), store, resolve(ModelSpec(DENSE)))


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("StdlibPage", UnknownNameError, "unknown corpus 'StdlibPage'. Did you mean StdlibPages"),
        ("Banking77Classification", UserError, "is Classification; expected a retrieval task"),
    ],
)
def test_names_that_are_no_corpus(tmp_path, name, error, match):
    with pytest.raises(error, match=match):
        opened(tmp_path, LETTERS, name, data_root=None)


def test_a_store_is_not_changed_for_the_jobs(tmp_path):
    """The changes lie in a folder of their own, which the embedding store does not read."""
    write_v1(tmp_path / "data")
    evaluated(tmp_path, LETTERS, V1)
    corpus = opened(tmp_path, LETTERS, V1)
    asyncio.run(corpus.add([Document("x", Content("a"))], Embeddings.from_dense(np.ones((1, 4), np.float32))))
    corpus.close()
    (part,) = (tmp_path / "out" / "store").rglob("corpora/*/part-*.parquet")
    assert pq.read_table(part).column("id").to_pylist() == ["x"]
    shelf = Shelf(str(tmp_path / "out" / "store"), resolve(ModelSpec(LETTERS)).fingerprint)
    shelf.refresh()
    assert len(shelf) == 3 + 4
