"""The application over a fake model: OpenAI's shapes, search, documents, and what is refused and how."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from raylib.serve.auth import read_tokens
from raylib.serve.limits import Limits
from tests.serve.fakes import vector_of
from tests.serve.running import ask, counting, post

URL = "/v1/embeddings"


def error_of(response):
    """The error, whose shape is OpenAI's in every answer that is no success."""
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return response.json()["error"]


def png(width=4, height=4) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(stream, "PNG")
    return stream.getvalue()


def data_url(data: bytes, kind="image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def bomb(width=60_000, height=60_000) -> bytes:
    """A PNG of a few bytes that says it has 3.6 thousand million pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


# Embeddings.


def test_an_answer_has_openais_shape_and_the_vectors_of_the_inputs_in_order():
    found = post(URL, {"input": ["one", "two"], "model": "counting", "user": "someone"}).json()
    assert set(found) == {"object", "data", "model", "usage"} and found["object"] == "list"
    assert found["model"] == "counting" and found["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert [(one["object"], one["index"]) for one in found["data"]] == [("embedding", 0), ("embedding", 1)]
    np.testing.assert_array_equal(
        np.array([one["embedding"] for one in found["data"]], dtype=np.float32), [vector_of("one"), vector_of("two")]
    )


def test_base64_is_little_endian_float32():
    value = post(URL, {"input": "one", "encoding_format": "base64"}).json()["data"][0]["embedding"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(value), dtype="<f4"), vector_of("one"))


@pytest.mark.parametrize(("side", "prompt"), [("query", "q: "), ("document", "d: ")])
def test_a_side_has_the_models_prompt(side, prompt):
    value = post(URL, {"input": "one", "prompt_type": side}).json()["data"][0]["embedding"]
    np.testing.assert_array_equal(np.float32(value), vector_of(f"{prompt}one"))


def test_fewer_dimensions_are_the_first_ones_at_unit_length_again():
    value = post(URL, {"input": "one", "dimensions": 3}).json()["data"][0]["embedding"]
    first = vector_of("one")[:3].astype(np.float64)
    np.testing.assert_allclose(value, first / np.sqrt((first**2).sum()), atol=1e-7)
    assert "8" in error_of(post(URL, {"input": "one", "dimensions": 9}))["message"]


def test_parts_of_a_chat_are_a_content():
    parts = [{"type": "text", "text": "one"}]
    for given in ({"content": parts}, parts[0], {"text": "one"}):
        value = post(URL, {"input": [given]}).json()["data"][0]["embedding"]
        np.testing.assert_array_equal(np.float32(value), vector_of("one"))


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"input": [1, 2, 3]}, "input", "token ids"),
        ({"input": [[1, 2], [3]]}, "input", "token ids"),
        ({"input": []}, "input", "empty"),
        ({"input": ""}, "input", "empty"),
        ({"input": ["a", ""]}, "input[1]", "empty"),
        ({"input": ["a", None]}, "input[1]", "null"),
        ({"input": 7}, "input", "number"),
        ({"input": ["a" * 101]}, "input[0]", "at most 100"),
        ({"input": ["a"] * 6}, "input", "at most 5"),
        ({"input": {"txt": "a"}}, "input", "txt"),
        ({"input": {}}, "input", "neither text nor image"),
        ({"input": {"content": [{"type": "video"}]}}, "input", "part"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "base64"),
        ({"input": "a", "dimensions": 0}, "dimensions", "1"),
        ({"input": "a", "typo": 1}, "typo", "not permitted"),
        ({}, "input", "required"),
        ({"input": "unreadable"}, "input[0]", "cannot read"),
        ({"input": {"image": data_url(png())}}, "input[0]", "reads text only"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(body, param, words):
    response = post(URL, body, limits=Limits(inputs=5, text_characters=100))
    found = error_of(response)
    assert (response.status_code, found["type"], found["param"]) == (400, "invalid_request_error", param)
    assert words in found["message"] and "secret" not in found["message"]


@pytest.mark.parametrize(
    ("image", "code", "words"),
    [
        ("http://169.254.169.254/latest/meta-data", "invalid_image", "not fetched"),
        ("https://localhost/x.png", "invalid_image", "not fetched"),
        ("file:///etc/passwd", "invalid_image", "not fetched"),
        ("/etc/passwd", "invalid_image", "data:image"),
        ("data:image/png,abc", "invalid_image", "data:image"),
        ("data:image/png;base64,@@@@", "invalid_image", "base64"),
        ("data:image/png;base64,", "invalid_image", "no PNG"),
        (data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"), "invalid_image", "no PNG"),
        (data_url(png()[:20]), "invalid_image", "no PNG"),
        (data_url(bomb()), "image_too_large", "more than 1000 pixels"),
        (data_url(png(40, 40)), "image_too_large", "scale it down"),
    ],
)
def test_images_that_are_no_images_here_are_refused_before_they_are_decoded(image, code, words):
    response = post(URL, {"input": {"image": image}}, limits=Limits(image_pixels=1000))
    found = error_of(response)
    assert (response.status_code, found["code"]) == (400, code) and words in found["message"]
    assert "passwd" not in found["message"]


def test_the_pixels_of_a_request_are_bounded_together():
    body = {"input": [{"image": data_url(png(20, 20))}] * 3}
    response = post(URL, body, limits=Limits(image_pixels=1000, request_pixels=1000))
    assert response.status_code == 400 and "1000 pixels together" in error_of(response)["message"]


def test_a_model_that_is_not_served_is_not_found():
    response = post(URL, {"input": "a", "model": "other"})
    assert response.status_code == 404 and error_of(response)["code"] == "model_not_found"


def test_a_content_that_the_model_fails_on_is_named_and_nothing_of_the_inside():
    response = post(URL, {"input": ["good", "poison"]})
    assert response.status_code == 400 and error_of(response)["param"] == "input[1]"
    assert error_of(response)["message"] == "input[1]: the model fails on this content"
    assert "secret" not in response.text and "Error" not in response.text


def test_a_model_that_fails_on_whatever_it_is_given_is_unavailable():
    response = post(URL, {"input": ["good", "breaks"]})
    assert response.status_code == 503 and int(response.headers["retry-after"]) > 0
    assert error_of(response)["message"] == "the model is not available right now; try again later"


# Search and documents.


def test_documents_are_found_replaced_and_deleted():
    served = counting()
    documents = [{"id": f"../{i}", "text": f"text {i}", "metadata": {"even": i % 2 == 0}} for i in range(4)]
    assert post("/v1/documents", {"documents": documents}, served).json()["ids"] == ["../0", "../1", "../2", "../3"]
    corpus = served["counting"].corpus
    assert corpus is not None

    def search(**more):
        return post("/v1/search", {"query": "text", **more}, served).json()["data"]

    query = vector_of("q: text")
    scores = {f"../{i}": float(query @ vector_of(f"d: text {i}")) for i in range(4)}
    best = sorted(scores, key=lambda name: -scores[name])
    assert [hit["id"] for hit in search()] == best
    assert search(top_k=1)[0]["score"] == pytest.approx(scores[best[0]], abs=1e-6)
    assert {hit["id"] for hit in search(filters={"even": True})} == {"../0", "../2"}
    assert search(top_k=1)[0]["metadata"] == {"even": int(best[0][-1]) % 2 == 0}
    gone = ask(served, ("DELETE", "/v1/documents/..%2F0", {}))[0]
    assert gone.json() == {"object": "list", "deleted": ["../0"]}
    deleted = post("/v1/documents/delete", {"ids": ["../1", "none"]}, served)
    assert deleted.json()["deleted"] == ["../1"] and len(corpus.held) == 2  # pyright: ignore
    assert post("/v1/documents/delete", {"ids": ["../1"]}, served).status_code == 404


def test_a_document_without_an_id_sent_twice_is_one():
    served = counting()
    names = [post("/v1/documents", {"documents": [{"text": "one"}]}, served).json()["ids"][0] for _ in range(2)]
    assert names[0] == names[1]
    assert ask(served, ("GET", "/info", {}))[0].json()["models"][0]["documents"] == 1


@pytest.mark.parametrize(
    ("url", "body", "param"),
    [
        ("/v1/search", {}, "query"),
        ("/v1/search", {"query": "a", "top_k": 0}, "top_k"),
        ("/v1/search", {"query": "a", "top_k": 10**9}, "top_k"),
        ("/v1/search", {"query": "a", "filters": {"x": {}}}, None),
        ("/v1/documents", {"documents": []}, "documents"),
        ("/v1/documents", {"documents": [{"id": "a"}]}, "documents[0]"),
        ("/v1/documents", {"documents": [{"id": "", "text": "a"}]}, "documents.0.id"),
        ("/v1/documents", {"documents": [{"id": "a", "text": "a"}, {"id": "a", "text": "b"}]}, "documents[1]"),
        ("/v1/documents", {"documents": [{"text": "fine"}, {"text": "unreadable"}]}, "documents[1]"),
        ("/v1/documents", {"documents": [{"text": "a", "metadata": {"x": [1]}}]}, None),
    ],
)
def test_what_cannot_be_searched_or_added_is_refused(url, body, param):
    served = counting()
    response = post(url, body, served)
    found = error_of(response)
    assert response.status_code == 400 and (param is None or found["param"] == param)
    assert not served["counting"].corpus.held  # pyright: ignore


def test_without_a_corpus_there_is_nothing_to_search():
    response = post("/v1/search", {"query": "a"}, counting(corpus=False))
    assert response.status_code == 404 and error_of(response)["code"] == "corpus_not_found"


# What comes before the application.


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b'{"input": "\xff"}', "application/json"),
        (b"[]", "application/json"),
        (b'{"input": "a"}', "text/plain"),
        (b"[" * 200_000, "application/json"),
        (b'{"input": "\\ud800"}', "application/json"),
        (b'{"input": "a", "dimensions": 1e400}', "application/json"),
        (b'{"input": "a", "dimensions": ' + b"9" * 6000 + b"}", "application/json"),
        (b"", "application/json"),
    ],
)
def test_a_body_that_is_no_request_is_refused(content, kind):
    (response,) = ask(counting(), ("POST", URL, {"content": content, "headers": {"Content-Type": kind}}))
    assert response.status_code == 400
    error_of(response)


def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not():
    async def unannounced():
        for _ in range(100):
            yield bytes(10_000)

    long = ask(
        counting(),
        ("POST", URL, {"content": bytes(100_001)}),
        ("POST", URL, {"content": unannounced()}),
        limits=Limits(body_bytes=100_000),
    )
    assert [response.status_code for response in long] == [413, 413]
    assert error_of(long[0])["code"] == "request_too_large"


def test_bodies_that_fill_the_memory_together_are_put_off():
    served = counting()
    body = b'{"input": "' + b"a" * 9_000 + b'"}'
    kind = {"Content-Type": "application/json"}
    requests = [("POST", URL, {"content": body, "headers": kind}) for _ in range(40)]
    found = ask(served, *requests, limits=Limits(body_bytes=10_000))
    statuses = [response.status_code for response in found]
    assert set(statuses) == {200, 429} and statuses.count(200) >= 16
    assert ask(served, requests[0], limits=Limits(body_bytes=10_000))[0].status_code == 200


def test_only_those_with_a_token_come_in_and_health_says_nothing():
    tokens = ["a-token-of-some-length", "another-token-of-some"]
    good = [{"Authorization": f"Bearer {token}"} for token in tokens]
    bad = [{}, {"Authorization": "Bearer a-token-of-some-lengt"}, {"Authorization": f"Basic {tokens[0]}"}]
    bad += [{"Authorization": "Bearer "}, {"Authorization": "Bearer \xfc".encode("latin-1")}]
    urls = [("GET", "/info"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("POST", URL), ("GET", "/none")]
    for method, url in urls:
        body = {"json": {"input": "a"}} if method == "POST" else {}
        found = ask(counting(), *[(method, url, {"headers": h, **body}) for h in good + bad], tokens=tokens)
        assert [r.status_code for r in found] == [404 if url == "/none" else 200] * 2 + [401] * 5, url
        assert found[-1].headers["www-authenticate"] == "Bearer" and error_of(found[-1])["code"] == "invalid_api_key"
    assert ask(counting(), ("GET", "/health", {}), tokens=tokens)[0].json() == {"status": "ok"}


def test_without_tokens_only_the_names_of_this_machine_are_answered():
    hosts = {"localhost", "127.0.0.1", "[::1]"}
    names = ["localhost:8000", "127.0.0.1", "[::1]:8000", "evil.example:8000", "localhost.evil.example", ""]
    requests = [("GET", "/info", {"headers": {"Host": name}}) for name in names]
    assert [r.status_code for r in ask(counting(), *requests, hosts=hosts)] == [200, 200, 200, 421, 421, 421]


def test_a_file_of_tokens_that_could_be_guessed_is_refused(tmp_path):
    from raylib.errors import UserError

    path = tmp_path / "tokens"
    path.write_text("a-token-of-some-length\n\n another-token-of-some \n")
    assert read_tokens(str(path)) == ["a-token-of-some-length", "another-token-of-some"]
    for text, words in (("", "empty"), ("short\n", "token 1 has 5"), ("with a space in between\n", "without spaces")):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_tokens(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        read_tokens(str(tmp_path / "none"))


def test_a_full_queue_is_answered_with_429_and_when_to_come_back():
    served = counting(max_queue=4)
    found = ask(served, *[("POST", URL, {"json": {"input": ["a", "b", "c"]}}) for _ in range(30)])
    refused = [response for response in found if response.status_code != 200]
    assert {response.status_code for response in refused} == {429} and len(refused) < 30
    assert int(refused[0].headers["retry-after"]) >= 1 and error_of(refused[0])["type"] == "rate_limit_error"


def test_time_that_is_over_is_answered_with_504():
    import threading

    served = counting()
    gate = served["counting"].embedder.encoder.gate = threading.Event()  # pyright: ignore
    threading.Timer(0.5, gate.set).start()
    response = post(URL, {"input": "a"}, served, limits=Limits(seconds=0.1))
    assert response.status_code == 504 and error_of(response)["code"] == "timeout"


def test_metrics_count_routes_and_not_the_ids_of_clients():
    served = counting()
    found = ask(
        served,
        ("POST", URL, {"json": {"input": "a"}}),
        ("DELETE", "/v1/documents/secret-id", {}),
        ("GET", "/nothing", {}),
    )
    assert [response.status_code for response in found] == [200, 404, 404]
    text = ask(served, ("POST", URL, {"json": {"input": "b"}}), ("GET", "/metrics", {}))[1].text
    assert 'raylib_model_batches_total{model="counting"}' in text and "secret-id" not in text


def test_no_page_loads_what_lies_elsewhere():
    for url in ("/docs", "/redoc"):
        assert ask(counting(), ("GET", url, {}))[0].status_code == 404
    document = ask(counting(), ("GET", "/openapi.json", {}))[0].json()
    assert {"/v1/embeddings", "/v1/search", "/v1/documents"} <= set(document["paths"])
