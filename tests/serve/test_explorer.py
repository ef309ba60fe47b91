"""The explorer's routes, without a browser. Documents and vectors are those of tests/inspect/made.py: pages of 2 rows
of 3 plain cells, whose similarity to the word red is their redness, so every value is worked out by hand."""

import base64
import io

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import raylib
from raylib.serve import explorer
from raylib.serve.explorer import ASSETS
from raylib.serve.pictures import Pictures
from raylib.serve.protocol import Content, Document, Served
from tests.inspect.made import PAGES, TASK, colours, gridless, page_of, png, write_data
from tests.serve import page_server
from tests.serve.page_server import DENSE, RETRIEVER, LocalEmbedder, MemoryCorpus, application

COLOURS, GRIDLESS = "tests.inspect.made:colours", "tests.inspect.made:gridless"
PATHS = ["../index.html", "..%2Findex.html", "app.js%00", "/etc/passwd", "app.py", "index.html", ""]


@pytest.fixture(scope="module", autouse=True)
def served(private_caches):
    return page_server.card_models([RETRIEVER, DENSE], 4)


@pytest.fixture(scope="module")
def client():
    pages = [Document(name, Content(image=png(page_of(cells))), {"n": int(name)}) for name, cells in PAGES.items()]
    documents = [*pages, Document("a/../text", Content(text="red green"))]
    served = {}
    for name, encoder in ((COLOURS, colours()), (GRIDLESS, gridless())):
        embedder = LocalEmbedder(encoder)
        served[name] = Served(name, embedder, MemoryCorpus(embedder, documents))
    served["none"] = Served("none", LocalEmbedder(colours()), None)
    with TestClient(application(served)) as found:
        yield found


def explained(client, **body):
    answer = client.post("/v1/explain", json={"model": COLOURS, "query": "red green", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def levels(answer):
    """The film's levels [frames, rows, columns], 0 to 63."""
    image = Image.open(io.BytesIO(base64.b64decode(answer["film"])))
    return np.asarray(image).reshape(1 + len(answer["words"]), answer["rows"], answer["columns"])


def test_what_each_word_matched(client):
    """Page 3 is black but for a green cell above and one of redness 0.8 below."""
    found = explained(client, document_id="3")
    assert (found["kind"], found["rows"], found["columns"]) == ("patches", 2, 3)
    assert found["similarities"] == [[[0, 0, 0], [0.8, 0, 0]], [[0, 1, 0], [0, 0, 0]]]
    assert [(w["text"], w["score"], w["cells"], w["special"]) for w in found["words"]] == [
        ("red", 0.8, [[1, 0]], False),
        ("green", 1.0, [[0, 1]], False),
    ]
    assert found["total"] == pytest.approx(1.8)


def test_a_vector_outside_the_patches_may_count_most(client):
    """On page 2 the reddest cell has 0.4, and the vector of the prompt 0.5."""
    red, green = explained(client, document_id="2")["words"]
    assert (red["score"], red["cells"]) == (0.5, [])
    assert green["score"] == 0


def test_the_colours_of_one_page_and_of_several(client):
    """Alone, the reddest cell of page 3 (0.8) is the top of the scale; beside page 1, whose is 1, it is 0.8 of it."""
    assert levels(explained(client, document_id="3"))[1].tolist() == [[0, 0, 0], [63, 0, 0]]
    beside = levels(explained(client, document_id="3", beside=["1", "gone"]))
    assert beside[1].tolist() == [[0, 0, 0], [round(0.8 * 63), 0, 0]]
    assert beside[0].tolist() == [[0, 63, 0], [50, 0, 0]]


@pytest.mark.parametrize(
    ("body", "note"),
    [
        ({"model": GRIDLESS, "document_id": "1"}, "this model does not say where its vectors are on a page"),
        ({"document_id": "a/../text"}, "the document is a text, which has no patches"),
    ],
)
def test_where_there_is_no_heat_map_the_answer_says_why(client, body, note):
    found = explained(client, **body)
    assert (found["kind"], found["note"], found["film"]) == ("whole", f"No heat map: {note}.", "")
    assert found["total"] == pytest.approx(2.0)


def test_heat_maps_are_those_of_the_vectors_that_are_searched(client, served):
    """The shipped retriever: every word's score and map against numpy, and their sum against the search's score."""
    (name, model), *_ = served.items()
    with TestClient(application(served)) as http:
        question = "convert command line strings"
        hit = http.post("/v1/search", json={"model": name, "query": question, "top_k": 1}).json()["data"][0]
        found = http.post("/v1/explain", json={"model": name, "query": question, "document_id": hit["id"]}).json()
    query = model.embedder.now([Content(text=question)], "query")[0].astype(np.float64)
    place = list(model.corpus._documents).index(hit["id"])
    page = model.corpus._vectors[place].astype(np.float64)
    similarities = query @ page.T
    assert found["total"] == pytest.approx(hit["score"], abs=1e-4)
    assert sum(word["score"] for word in found["words"]) == pytest.approx(found["total"], abs=1e-2)
    own = [word["text"] for word in found["words"] if not word["special"]]
    assert own == ["convert", "command", "line", "strings"]
    start = 0
    for word, shown in zip(found["words"], found["similarities"], strict=True):
        rows = similarities[start : start + word["tokens"]]
        start += word["tokens"]
        assert word["score"] == pytest.approx(rows.max(axis=1).sum(), abs=2e-4)
        # The 64 patches of this model come first, row by row.
        np.testing.assert_allclose(np.array(shown).ravel(), rows[:, :64].sum(axis=0), atol=2e-4)
    assert start == len(query)


def test_a_dense_model_says_that_it_has_one_vector(served):
    with TestClient(application({DENSE: served[DENSE]})) as http:
        entry = http.get("/v1/documents?count=1").json()["data"][0]["id"]
        found = http.post("/v1/explain", json={"query": "read", "document_id": entry}).json()
        hits = http.post("/v1/search", json={"model": DENSE, "query": "read", "top_k": 50}).json()["data"]
    assert found["kind"] == "whole" and "one vector for a whole page" in found["note"]
    assert found["total"] == pytest.approx({hit["id"]: hit["score"] for hit in hits}[entry], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"document_id": "9"}, 404),
        ({"document_id": "1", "model": "nobody"}, 404),
        ({"document_id": "1", "model": "none"}, 404),
        ({"document_id": "1", "query": ""}, 400),
        ({"document_id": "1", "beside": ["1"] * 51}, 400),
        ({"document_id": "1", "more": 1}, 400),
    ],
)
def test_what_cannot_be_explained(client, body, status):
    assert client.post("/v1/explain", json={"query": "red", **body}).status_code == status


def test_browsing_the_corpus(client):
    found = client.get("/v1/documents", params={"start": 1, "count": 2}).json()
    assert (found["count"], found["start"], [d["id"] for d in found["data"]]) == (5, 1, ["2", "3"])
    assert found["data"][0] == {"id": "2", "text": None, "width": 60, "height": 40, "metadata": {"n": 2}}


def test_documents_by_their_ids(client):
    found = client.get("/v1/documents", params={"id": ["4", "gone", "a/../text"]}).json()["data"]
    assert [(d["id"], d["text"], d["width"]) for d in found] == [("4", None, 60), ("a/../text", "red green", None)]


@pytest.mark.parametrize("query", ["start=-1", "count=0", "count=101", "model=nobody", "start=x"])
def test_what_cannot_be_browsed(client, query):
    assert client.get(f"/v1/documents?{query}").status_code in (404, 400)


def test_page_images(client):
    answer = client.get("/v1/documents/image", params={"id": "1", "width": 160})
    assert answer.headers["content-type"] == "image/webp" and "private" in answer.headers["cache-control"]
    pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
    assert pixels.shape == (40, 60, 3), "no larger than it is"
    np.testing.assert_allclose(pixels[10, 10], (255, 0, 0), atol=12)
    again = client.get(
        "/v1/documents/image", params={"id": "1", "width": 160}, headers={"If-None-Match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("params", "status"),
    [({"id": "1", "width": 161}, 400), ({"id": "9"}, 404), ({"id": "a/../text"}, 404), ({"id": ""}, 400), ({}, 400)],
)
def test_images_that_are_not_there(client, params, status):
    assert client.get("/v1/documents/image", params=params).status_code == status


def test_kept_pictures_have_a_limit(monkeypatch):
    made = []
    real = explorer.Pictures.get.__globals__["picture"]
    monkeypatch.setitem(Pictures.get.__globals__, "picture", lambda *a: made.append(a) or real(*a))
    red, blue = (png(Image.new("RGB", (300, 300), colour)) for colour in ("red", "blue"))
    pictures = Pictures()
    assert pictures.get(red, 160) == pictures.get(red, 160) and len(made) == 1
    assert pictures.get(red, 320) != pictures.get(blue, 160) and len(made) == 3
    full = Pictures(most_bytes=len(pictures.get(red, 160).content) + 1)
    for image in (red, blue, red):
        full.get(image, 160)
    assert len(made) == 6, "the first had to go for the second"
    assert pictures.get(b"no image", 160) == "the image cannot be read"


def test_the_page_and_its_files(client):
    answer = client.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    assert client.get("/", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    for name, kind in ASSETS.items():
        file = client.get(f"/assets/{name}")
        assert (file.status_code, file.headers["content-type"]) == (200, kind)
        assert file.headers["content-security-policy"] == policy
        assert "http://" not in file.text.replace("http://www.w3.org/2000/svg", "") and "https://" not in file.text
    assert "style=" not in answer.text and "<script>" not in answer.text, "the policy would forbid them"


@pytest.mark.parametrize("path", PATHS)
def test_no_other_file(client, path):
    assert client.get(f"/assets/{path}").status_code in (404, 405)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The output folder of an evaluate run, and the data it read."""
    folder = tmp_path_factory.mktemp("run")
    write_data(str(folder / "data"))
    done = raylib.evaluate(
        [COLOURS],
        tasks=[TASK],
        data_root=str(folder / "data"),
        output_folder=str(folder / "results"),
        local=True,
        quiet=True,
    )
    assert done.ok
    return folder / "results"


def test_the_worst_queries_of_a_run(results):
    """As in tests/inspect/test_run.py: the ranking of "red green" is 4, 1, 3, 2, and 3 and 2 are relevant."""
    with TestClient(application({}, str(results))) as http:
        listed = http.get("/v1/runs").json()
        (run,) = listed["data"]
        found = http.get("/v1/runs/worst", params={"run": run["run"], "task": TASK, "count": 2}).json()
        rest = http.get("/v1/runs/worst", params={"measure": "recall_at_1", "start": 2}).json()
    assert listed["available"] and run["tasks"] == [TASK] and run["title"] == "local/tests.inspect.made.colours"
    assert (found["measure"], found["count"], len(found["data"])) == ("ndcg_at_5", 3, 2)
    assert found["mean"] == pytest.approx((0.5438 + 0.6309 + 0.6509) / 3, abs=1e-4) and sum(found["bins"]) == 3
    worst = found["data"][0]
    assert worst["text"] == "red green" and worst["value"] == pytest.approx(0.5438, abs=1e-4)
    ids = [(c["id"].rpartition("-")[2], c["rank"], c["relevance"]) for c in worst["found"]]
    assert ids == [("4", 1, None), ("1", 2, None), ("3", 3, 2)]
    assert [(c["id"].rpartition("-")[2], c["rank"]) for c in worst["expected"]] == [("2", 4)]
    shown = {card["page"] for query in found["data"] for card in (*query["found"], *query["expected"])}
    assert shown == set(found["pages"]) and all(p.startswith("data:image/webp") for p in found["pages"].values())
    assert rest["measure"] == "recall_at_1" and len(rest["data"]) == 1


def test_without_the_data_a_run_is_shown_by_ids(results):
    """The folder moved, its data is gone: what it kept is shown, and nothing of where it was."""
    with TestClient(application({}, str(results))) as http, pytest.MonkeyPatch.context() as patch:
        data = results.parent / "data"
        data.rename(results.parent / "elsewhere")
        patch.setenv("HF_HUB_OFFLINE", "1")
        try:
            found = http.get("/v1/runs/worst").json()
        finally:
            (results.parent / "elsewhere").rename(data)
    assert found["data"][0]["text"] is None and len(found["data"][0]["found"]) == 3
    (note,) = found["notes"]
    assert "cannot be read" in note and str(results.parent) not in note


@pytest.mark.parametrize(
    ("query", "status"),
    [("run=../..", 404), ("task=../../etc", 404), ("measure=split", 404), ("count=51", 400), ("split=x", 404)],
)
def test_runs_that_are_not_there(results, query, status):
    with TestClient(application({}, str(results))) as http:
        answer = http.get(f"/v1/runs/worst?{query}")
    assert answer.status_code == status, answer.text
    assert str(results.parent) not in answer.text


def test_without_runs(tmp_path):
    for folder in (None, str(tmp_path), str(tmp_path / "gone")):
        with TestClient(application({}, folder)) as http:
            listed = http.get("/v1/runs").json()
        assert not listed["available"] and listed["note"] and str(tmp_path) not in listed["note"]
    with TestClient(application({})) as http:
        assert http.get("/v1/runs/worst").status_code == 404
    with TestClient(application({}, str(tmp_path / "gone"))) as http:
        answer = http.get("/v1/runs/worst")
    assert answer.status_code == 404 and str(tmp_path) not in answer.text


def test_a_model_that_is_replaced_is_explained_by_the_new_one(client):
    """A mapping that changes is followed, as where a model is updated."""
    page = Document("1", Content(image=png(page_of(PAGES["1"]))))

    def made(encoder):
        embedder = LocalEmbedder(encoder)
        return Served(COLOURS, embedder, MemoryCorpus(embedder, [page]))

    served = {COLOURS: made(colours())}
    with TestClient(application(served)) as http:
        assert explained(http, document_id="1")["kind"] == "patches"
        served[COLOURS] = made(gridless())
        assert explained(http, document_id="1")["kind"] == "whole"
