"""`raylib serve --local` as a process: what it finds is what `raylib evaluate` found, and what was added stays."""

from __future__ import annotations

import base64
import io
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import raylib
from raylib.metrics.details import read_details
from raylib.tasks import stdlib_cards
from tests.serve.running import serving

TASK, MODEL = "StdlibCardsT2I", "raylib/page-retriever-tiny"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    store = str(folder / "store")
    assert raylib.evaluate(MODEL, tasks=[TASK], output_folder=str(folder), store=store, local=True, quiet=True).ok
    return folder


@contextmanager
def served(results: Path, corpus: str = TASK) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    flags = ("--local", "--model", MODEL, "--store", results / "store", "--corpus", corpus)
    with serving(*flags) as (process, address), httpx.Client(base_url=address, timeout=60) as client:
        yield client, process


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def two_pages() -> bytes:
    """A PDF of two cards."""
    cards, _ = stdlib_cards.build("test")
    first, second = (stdlib_cards.draw(card).convert("RGB") for card in cards[:2])
    stream = io.BytesIO()
    first.save(stream, format="PDF", save_all=True, append_images=[second])
    return stream.getvalue()


def ids(client: httpx.Client, **asked) -> list[str]:
    answer = client.post("/v1/search", json={"top_k": 5, **asked})
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["data"]]


def evaluated(results: Path, n: int) -> list[tuple[str, list[tuple[str, float]]]]:
    """(text, [(document, score)] best first) of n queries of the run."""
    (folder,) = results.rglob(f"details/{TASK}")
    details = read_details(str(folder))
    hits: dict[str, list[tuple[int, str, float]]] = {}
    for row in details.rankings.to_pylist():
        hits.setdefault(row["query_id"], []).append((row["rank"], row["document_id"], row["score"]))
    texts = {query.id: query.text for query in stdlib_cards.build("test")[1]}
    some = sorted(hits)[:: max(1, len(hits) // n)]
    return [(texts[query], [hit[1:] for hit in sorted(hits[query])]) for query in some]


@pytest.fixture(scope="module")
def running(results):
    with served(results) as found:
        yield found


def test_the_ranking_is_that_of_evaluate(results, running):
    client, _ = running
    for text, want in evaluated(results, 12):
        answer = client.post("/v1/search", json={"query": text, "top_k": 10}).json()
        found = [(hit["id"], hit["score"]) for hit in answer["data"]]
        assert [name for name, _ in found] == [name for name, _ in want[:10]]
        assert [score for _, score in found] == pytest.approx([score for _, score in want[:10]], abs=1e-5)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"pdf": "https://example.org/a.pdf"}, "addresses are not fetched"),
        ({"pdf": data_url("application/pdf", b"%PDF-1.7 broken")}, "PDF"),
        ({"pdf": data_url("application/pdf", b""), "text": "both"}, "pages of its own"),
        ({"image": data_url("image/png", b"\x89PNG\r\n\x1a\n" + bytes(40))}, "PNG"),
        ({"text": " "}, "empty"),
        ({}, "neither text nor image"),
    ],
)
def test_documents_that_cannot_be_used(running, document, told):
    answer = running[0].post("/v1/documents", json={"documents": [document]})
    assert answer.status_code == 400 and told in answer.json()["error"]["message"], answer.text


def test_sigterm_ends_it_well(running):
    client, process = running
    assert client.get("/health").json() == {"status": "ok"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_what_was_acknowledged_survives_a_kill(results):
    pdf = {"id": "two pages.pdf", "pdf": data_url("application/pdf", two_pages()), "metadata": {"kind": "pdf"}}
    with served(results, "empty:added") as (client, process):
        added = client.post("/v1/documents", json={"documents": [pdf, {"id": "gone", "text": "a page"}]})
        pages = ["two pages.pdf#page=1", "two pages.pdf#page=2"]
        assert added.json()["ids"] == [*pages, "gone"], added.text
        assert client.delete("/v1/documents/gone").json()["deleted"] == ["gone"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    with served(results, "empty:added") as (client, _):
        assert client.get("/info").json()["models"][0]["documents"] == 2
        assert set(ids(client, query="a page")) == set(pages)
        assert ids(client, query="a page", filters={"kind": "pdf", "page": {"gte": 2}}) == pages[1:]
