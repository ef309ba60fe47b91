"""`raylib serve` on a Ray of its own with two replicas: one is killed under load, and it is told to stop."""

import itertools
import shutil
import signal
import tempfile
import threading
import time

import httpx
import numpy as np
import psutil
import pytest

import raylib
from raylib.models.untrained import build_clip
from tests.serve.running import serving

pytestmark = pytest.mark.cluster


def replicas(process) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.cmdline() and child.cmdline()[0].startswith("ray::ServeReplica"):
                found.append(child)
        except psutil.Error:
            continue
    return found


class Load:
    """Clients that ask all the time. answers: (status, text's number, vector)."""

    def __init__(self, address: str, clients: int) -> None:
        self.answers: list[tuple[int, int, list[float]]] = []
        self._numbers, self._over = itertools.count(), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(address,)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, address: str) -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while not self._over.is_set():
                number = next(self._numbers)
                body = {"input": f"text number {number}", "prompt_type": "query"}
                answer = client.post("/v1/embeddings", json=body)
                ok = answer.status_code == 200
                self.answers.append((answer.status_code, number, answer.json()["data"][0]["embedding"] if ok else []))

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def until(what, seconds: float) -> float:
    """Seconds until `what` holds."""
    start = time.monotonic()
    while not what():
        assert time.monotonic() - start < seconds
        time.sleep(0.1)
    return time.monotonic() - start


@pytest.fixture
def temporary():
    """A short one, for Ray puts sockets in it."""
    folder = tempfile.mkdtemp(prefix="rs", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_killed_replica_costs_no_answer_and_comes_back_and_stopping_finishes_what_was_begun(tmp_path, temporary):
    model = tmp_path / "clip"
    build_clip(model)
    with serving("--model", model, "--replicas", "2", "--timeout", 40, RAY_TMPDIR=temporary) as (process, address):
        before = replicas(process)
        assert len(before) == 2
        load = Load(address, clients=8)
        try:
            until(lambda: len(load.answers) > 50, 30)
            before[0].kill()
            until(lambda: len([one for one in replicas(process) if one.pid != before[0].pid]) == 2, 30)
            seen = len(load.answers)
            until(lambda: len(load.answers) > seen + 50, 30)
        finally:
            load.stop()
        assert {status for status, _, _ in load.answers} == {200}  # what it held was tried again
        numbers = [number for _, number, _ in load.answers]
        expected = raylib.encode(str(model), texts=[f"text number {number}" for number in numbers], role="query")
        np.testing.assert_allclose([vector for _, _, vector in load.answers], expected, atol=1e-5)

        found = []
        body = {"input": [f"text {i}" for i in range(2000)]}
        url = f"{address}/v1/embeddings"
        asking = threading.Thread(target=lambda: found.append(httpx.post(url, json=body, timeout=60)))
        asking.start()
        until(lambda: "raylib_requests_under_way 2.0" in httpx.get(f"{address}/metrics").text, 30)
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert found[0].status_code == 200 and len(found[0].json()["data"]) == 2000
        processes = psutil.Process(process.pid).children(recursive=True)
        assert process.wait(60) == 0
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


@pytest.mark.slow
def test_a_replica_whose_model_is_broken_is_replaced(temporary):
    """What broke it is unavailable, for it may be anybody's fault; nobody else has to do without."""
    toy = "tests.cluster.watched_toys:breakable"
    with serving("--model", toy, "--replicas", "1", "--timeout", 40, RAY_TMPDIR=temporary) as (process, address):

        def ask(text: str) -> int:
            return httpx.post(f"{address}/v1/embeddings", json={"input": text}, timeout=60).status_code

        assert ask("good") == 200
        (before,) = replicas(process)
        assert ask("this breaks it") == 503
        until(lambda: ask("good") == 200, 30)
        (after,) = replicas(process)
        assert after.pid != before.pid


@pytest.mark.slow
def test_a_corpus_goes_over_to_the_new_model(tmp_path, temporary):
    build_clip(tmp_path / "first", seed=1)
    build_clip(tmp_path / "second", seed=2)
    link = tmp_path / "current"
    link.symlink_to("first")
    flags = ["--model", link, "--store", tmp_path / "store", "--corpus", "empty:notes", "--timeout", 5]
    documents = [{"id": f"d{i}", "text": f"a note of number {i}"} for i in range(70)]
    new = raylib.encode(str(tmp_path / "second"), texts=["a page"])[0]

    def has_new(client: httpx.Client) -> bool:
        answer = client.post("/v1/embeddings", json={"input": "a page", "prompt_type": "document"})
        return np.allclose(answer.json()["data"][0]["embedding"], new, atol=1e-5)

    with (
        serving(*flags, RAY_TMPDIR=temporary) as (process, address),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        assert client.post("/v1/documents", json={"documents": documents}).status_code == 200
        assert client.delete("/v1/documents/d3").status_code == 200
        link.unlink()
        link.symlink_to("second")
        process.send_signal(signal.SIGHUP)
        until(lambda: has_new(client), 90)
        answer = client.post("/v1/search", json={"query": documents[5]["text"], "top_k": 100}).json()["data"]
    assert {hit["id"] for hit in answer} == {one["id"] for one in documents} - {"d3"}
    query = raylib.encode(str(tmp_path / "second"), texts=[documents[5]["text"]], role="query")[0]
    vector = raylib.encode(str(tmp_path / "second"), texts=[documents[9]["text"]], role="document")[0]
    cosine = float(query @ vector / np.linalg.norm(query) / np.linalg.norm(vector))
    assert next(hit["score"] for hit in answer if hit["id"] == "d9") == pytest.approx(cosine, abs=1e-5)
