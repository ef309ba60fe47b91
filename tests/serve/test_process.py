"""`raylib serve --local` as a process, asked by the clients that people use: OpenAI's, httpx and curl."""

import asyncio
import base64
import io
import json
import signal
import subprocess
import threading
import time

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

import raylib
from raylib.models.untrained import build_clip, build_colpali
from tests.serve.running import serving

TEXTS = ["a page", "a much longer text about the energy budget of 2024", "what does the table show?", "é ü 漢字"]
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    build_clip(root / "clip")
    build_colpali(root / "colpali")
    return root


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(TOKEN)
    flags = ["--model", models / "clip", "--model", models / "colpali", "--token-file", tokens]
    with serving("--local", *flags, "--max-body-bytes", 10**6) as (process, address):
        yield address
        assert process.poll() is None


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        yield client


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key=TOKEN, max_retries=0) as found:
        yield found


def page(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def as_input(image: bytes) -> dict:
    return {"image": f"data:image/png;base64,{base64.b64encode(image).decode()}"}


@pytest.mark.parametrize("encoding", ["float", "base64", None])
@pytest.mark.parametrize("role", ["query", "document"])
def test_openais_client_gets_the_vectors_of_raylib_encode(client, models, encoding, role):
    more = {} if encoding is None else {"encoding_format": encoding}
    found = client.embeddings.create(model="clip", input=TEXTS, extra_body={"prompt_type": role}, **more)
    value = [one.embedding for one in found.data]
    if encoding == "base64":
        value = [np.frombuffer(base64.b64decode(one), "<f4") for one in value]
    expected = raylib.encode(str(models / "clip"), texts=TEXTS, role=role)
    np.testing.assert_allclose(np.array(value), expected, atol=1e-5)
    assert found.usage.prompt_tokens > len(TEXTS)


def test_images_have_the_vectors_of_raylib_encode(http, models):
    images = [page(i) for i in range(3)]
    body = {"model": "clip", "input": [as_input(one) for one in images], "prompt_type": "document"}
    found = http.post("/v1/embeddings", json=body).json()["data"]
    expected = raylib.encode(str(models / "clip"), images=images, role="document")
    np.testing.assert_allclose([one["embedding"] for one in found], expected, atol=1e-5)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_late_interaction_gives_a_vector_a_token(http, models, encoding):
    images = [page(7), page(8)]
    expected = raylib.encode(str(models / "colpali"), images=images, role="document")
    expected += raylib.encode(str(models / "colpali"), texts=TEXTS, role="document")
    body = {"model": "colpali", "input": [*map(as_input, images), *TEXTS], "prompt_type": "document"}
    found = http.post("/v1/embeddings", json=body | {"encoding_format": encoding}).json()["data"]
    for one, vectors in zip(found, expected, strict=True):
        value = one["multi_vector"]
        if encoding == "base64":
            value = np.frombuffer(base64.b64decode(value), "<f4").reshape(one["shape"])
        np.testing.assert_allclose(np.array(value), vectors, atol=1e-5)
        assert one["object"] == "multi_vector" and one["shape"] == list(vectors.shape)


def test_curl_gets_a_vector(server):
    url = f"{server}/v1/embeddings"
    command = ["curl", "-sS", url, "-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {TOKEN}"]
    found = subprocess.run([*command, "-d", '{"input": "a page"}'], capture_output=True, check=True, timeout=60)
    assert len(json.loads(found.stdout)["data"][0]["embedding"]) > 8


def test_openais_client_is_told_what_is_wrong_in_its_own_words(client, server):
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.embeddings.create(model="clip", input="")
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.embeddings.create(model="gpt", input="a")
    other = openai.OpenAI(base_url=f"{server}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        other.embeddings.create(model="clip", input="a")
    assert [one.id for one in client.models.list()] == ["clip", "colpali"]


def test_a_body_of_100_megabytes_is_refused_and_the_server_lives(server, tmp_path):
    big = tmp_path / "big"
    with open(big, "wb") as stream:
        stream.truncate(100 * 2**20)
    for more in ([], ["-H", "Transfer-Encoding: chunked"]):
        command = ["curl", "-s", "-o", "-", "-w", "%{http_code}", f"{server}/v1/embeddings", "--data-binary", f"@{big}"]
        command += ["-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {TOKEN}", *more]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert found.stdout.endswith("413"), found
    assert httpx.get(f"{server}/health").status_code == 200


def test_the_server_names_no_folder_of_the_machine(http, models):
    for url in ("/info", "/v1/models", "/metrics", "/openapi.json"):
        assert str(models) not in http.get(url).text


def test_more_connections_than_can_wait_are_answered_all_the_same(models):
    """Half of them ask, the other half begin to and say no more."""
    body = b'{"input": "a page"}'
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def one(port: int, whole: bool, all_open: asyncio.Barrier) -> int | None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await all_open.wait()
        writer.write(request if whole else request[:40])
        status = int((await asyncio.wait_for(reader.readline(), 60)).split()[1]) if whole else None
        writer.close()
        return status

    async def many(port: int, n: int) -> list[int | None]:
        barrier = asyncio.Barrier(n)
        return await asyncio.gather(*(one(port, place % 2 == 0, barrier) for place in range(n)))

    flags = ["--model", models / "clip", "--max-queue", 100, "--max-inputs", 100]
    with serving("--local", *flags) as (_, address):
        statuses = asyncio.run(many(int(address.rpartition(":")[2]), 800))
        assert set(statuses) == {None, 200, 429} and statuses.count(200) >= 100
        assert httpx.get(f"{address}/health").status_code == 200


def test_stopping_finishes_what_was_begun_and_takes_nothing_new(models):
    with serving("--local", "--model", models / "clip") as (process, address):
        found = []
        body = {"input": [f"text {i}" for i in range(1500)]}
        asking = threading.Thread(target=lambda: found.append(httpx.post(f"{address}/v1/embeddings", json=body)))
        asking.start()
        deadline = time.monotonic() + 30
        while "raylib_requests_under_way 2.0" not in httpx.get(f"{address}/metrics").text:  # that one, and this
            assert time.monotonic() < deadline and not found
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert found[0].status_code == 200 and len(found[0].json()["data"]) == 1500
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")


def test_a_model_whose_files_changed_is_served_anew_without_a_pause(tmp_path):
    build_clip(tmp_path / "first", seed=1)
    build_clip(tmp_path / "second", seed=2)
    link = tmp_path / "current"
    link.symlink_to("first")
    expected = {name: raylib.encode(str(tmp_path / name), texts=["a page"])[0] for name in ("first", "second")}
    body = {"input": "a page", "prompt_type": "document"}
    with serving("--local", "--model", link, "--timeout", 1) as (process, address), httpx.Client() as client:

        def vector():
            answer = client.post(f"{address}/v1/embeddings", json=body)
            assert answer.status_code == 200
            return np.array(answer.json()["data"][0]["embedding"])

        np.testing.assert_allclose(vector(), expected["first"], atol=1e-5)
        link.unlink()
        link.symlink_to("second")
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while not np.allclose(found := vector(), expected["second"], atol=1e-5):
            np.testing.assert_allclose(found, expected["first"], atol=1e-5)
            assert time.monotonic() < deadline
        link.unlink()
        process.send_signal(signal.SIGHUP)  # nothing is there: what was served is served on
        time.sleep(0.5)
        np.testing.assert_allclose(vector(), expected["second"], atol=1e-5)


def test_a_corpus_goes_over_to_the_new_model_with_all_that_clients_did(tmp_path):
    """Also with what they do meanwhile: no document that was acknowledged is lost, and none is in the old vectors."""
    build_clip(tmp_path / "first", seed=1)
    build_clip(tmp_path / "second", seed=2)
    link = tmp_path / "current"
    link.symlink_to("first")
    flags = ["--model", link, "--store", tmp_path / "store", "--corpus", "empty:notes", "--timeout", 10]
    texts = {f"early {i}": f"a note of number {i}" for i in range(150)}
    probe = {"input": "a page", "prompt_type": "document"}
    new = raylib.encode(str(tmp_path / "second"), texts=["a page"])[0]
    with serving("--local", *flags) as (process, address), httpx.Client(base_url=address, timeout=60) as client:

        def add(names):
            documents = [{"id": name, "text": texts[name]} for name in names]
            assert client.post("/v1/documents", json={"documents": documents}).status_code == 200

        add(list(texts))
        assert client.delete("/v1/documents/early 7").status_code == 200
        del texts["early 7"]
        link.unlink()
        link.symlink_to("second")
        process.send_signal(signal.SIGHUP)
        deadline, found = time.monotonic() + 60, np.zeros_like(new)
        while not np.allclose(found, new, atol=1e-5):
            name = f"late {len(texts)}"
            texts[name] = f"a late note, {len(texts)}"
            add([name])
            found = np.array(client.post("/v1/embeddings", json=probe).json()["data"][0]["embedding"])
            assert time.monotonic() < deadline
        assert len(texts) > 150
        hits = client.post("/v1/search", json={"query": "a note", "top_k": 1000}).json()["data"]
    query = raylib.encode(str(tmp_path / "second"), texts=["a note"], role="query")[0]
    vectors = raylib.encode(str(tmp_path / "second"), texts=list(texts.values()), role="document")
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    expected = dict(zip(texts, cosines.tolist(), strict=True))
    assert {hit["id"]: hit["score"] for hit in hits} == pytest.approx(expected, abs=1e-5)
