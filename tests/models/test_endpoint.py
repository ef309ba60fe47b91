"""Models behind an OpenAI-compatible server: what is sent, what comes back, and what happens when it does not."""

from __future__ import annotations

import base64
import io
import json
import pickle
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raylib.errors import ModelError, RefusedContentsError, UnknownNameError, UnsupportedOptionError, UserError
from raylib.models import endpoint_client
from raylib.models.endpoint import EndpointEncoder
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.types import EncodeContext
from tests.models.embeddings_server import DIM, PROBE, Answer, coded, error, serving, vector_of
from tests.models.helpers import TEXTS, assert_same_directions, encoder_for, vectors
from tests.models.test_sentence import save_sentence

KEY = "sk-secret-0123456789"
QWEN = "Qwen/Qwen3-Embedding-0.6B"


@pytest.fixture(autouse=True)
def no_waiting_and_no_key(monkeypatch):
    monkeypatch.setattr(endpoint_client, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in endpoint_client.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def served(server, name="some-model", **options) -> EndpointEncoder:
    encoder = resolve(ModelSpec(name, endpoint=server.url, **options))
    assert isinstance(encoder, EndpointEncoder)
    return encoder


def wide(width):
    return lambda texts: np.stack([np.resize(vector_of(text), width) for text in texts])


# What is sent.


def test_one_request_asks_for_a_batch_of_texts_and_its_vectors_come_as_they_are():
    with serving() as server:
        found = vectors(served(server), text=["one", "two", "three"])
    assert np.array_equal(found, np.stack([vector_of(text) for text in ("one", "two", "three")]))
    assert server.bodies[1] == {"model": "some-model", "encoding_format": "base64", "input": ["one", "two", "three"]}
    assert server.paths == ["/v1/embeddings"] * 2 and len(server.bodies[0]["input"]) == 1
    assert "Authorization" not in server.headers[1]


def test_prompts_are_those_of_the_local_model():
    prompt = {"query": "Given a question, find the page"}
    task: Any = SimpleNamespace(name="T", type="Retrieval", prompt=prompt)
    local = resolve(ModelSpec(QWEN))
    with serving(vectors=wide(1024)) as server:
        encoder = served(server, QWEN)
        for role in ("query", "document"):
            assert encoder.context(task, role) == local.context(task, role)
            encoder.encode({"text": ["What?"]}, encoder.context(task, role))
    assert server.inputs == [["Instruct: Given a question, find the page\nQuery:What?"], ["What?"]]
    assert server.bodies[-1]["model"] == QWEN


def test_prompts_of_the_user_come_before_the_model_s():
    with serving(vectors=wide(1024)) as server:
        for name in (QWEN, "some-model"):
            encoder = served(server, name, query_prompt="Q: ", document_prompt="")
            assert encoder.context(None, "query").prompt == "Q: "
            assert encoder.context(None, "document").prompt == ""
        vectors(encoder, "query", text=["a"])
    assert server.inputs == [["Q: a"]]


@pytest.mark.parametrize(("shape", "name"), [("qwen", "qwen3-embedding"), ("gemma", "sentence-transformers")])
def test_a_served_model_gives_the_vectors_of_the_local_one(tmp_path, shape, name):
    from sentence_transformers import SentenceTransformer

    save_sentence(tmp_path, shape)
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    local = encoder_for(tmp_path / "model", name)
    with serving(vectors=lambda texts: model.encode(texts, prompt="", convert_to_numpy=True)) as server:
        remote = served(server, str(tmp_path / "model"), family=name)
        assert remote.similarity == local.similarity
        for role in ("query", "document"):
            texts = [text[:40] for text in TEXTS]  # the model here has room for 64 tokens
            assert_same_directions(vectors(remote, role, text=texts), vectors(local, role, text=texts), 1e-5)
    assert server.bodies[1]["model"] == str(tmp_path / "model")


def test_a_chat_model_reads_texts_and_pages_in_the_turns_of_its_family():
    page = Image.fromarray(np.random.default_rng(3).integers(0, 256, (9, 7, 4), dtype=np.uint8))
    name = "Cognitive-Lab/NetraEmbed"
    with serving(vectors=wide(2560)) as server:
        encoder = served(server, name)
        assert encoder.fuses and encoder.modalities == {"text", "image"} and encoder.similarity == "cosine"
        text = vectors(encoder, "query", text=["How many?"])
        image = vectors(encoder, "document", image=[page])
        both = vectors(encoder, "document", text=["page 1"], image=[page])
    turns = [body["messages"] for body in server.bodies[1:]]
    assert turns[0] == [{"role": "user", "content": [{"type": "text", "text": "Query: How many?"}]}]
    assert [part["type"] for part in turns[1][0]["content"]] == ["image_url", "text"]
    assert turns[1][0]["content"][1] == {"type": "text", "text": "Describe this image"}
    header, data = turns[1][0]["content"][0]["image_url"]["url"].split(",")
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert header == "data:image/png;base64" and sent.format == "PNG"
    assert np.array_equal(np.asarray(sent), np.asarray(page.convert("RGB")))  # what the local model sees, lossless
    parts = {json.dumps(turn): np.resize(vector_of(json.dumps(turn)), 2560) for turn in turns}
    words = json.dumps([{"role": "user", "content": [{"type": "text", "text": "Query: page 1"}]}])
    assert np.array_equal(text[0], parts[json.dumps(turns[0])])
    assert np.array_equal(image[0], parts[json.dumps(turns[1])])
    total = parts[words] + image[0]
    assert np.allclose(both[0], total / np.linalg.norm(total), atol=1e-6)


def test_clip_pages_go_alone_in_a_turn_and_texts_plainly():
    page = Image.new("RGB", (3, 2), "red")
    with serving(vectors=wide(512)) as server:
        encoder = served(server, "openai/clip-vit-base-patch16")
        assert encoder.modalities == {"text", "image"} and not encoder.fuses
        vectors(encoder, image=[page, page])
        vectors(encoder, text=["red"])
    assert [len(body["messages"][0]["content"]) for body in server.bodies[1:3]] == [1, 1]
    assert server.bodies[3]["input"] == ["red"]


# What comes back.


@pytest.mark.parametrize("behaviour", [{"shuffles": True}, {"knows_base64": False}, {"shuffles": True, "max_texts": 3}])
def test_order_and_encoding_of_replies_do_not_matter(behaviour):
    with serving(**behaviour) as server:
        assert np.array_equal(vectors(served(server), text=TEXTS), np.stack([vector_of(text) for text in TEXTS]))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": [{"index": 0, "embedding": [0.5] * DIM}] * 2}, r"sends 2 vectors, numbered \[0, 0\], for 2 contents"),
        ({"data": [{"index": 0, "embedding": [0.5] * DIM}]}, r"sends 1 vectors, numbered \[0\], for 2 contents"),
        ({"data": [{"embedding": [0.5] * DIM}, {"embedding": [0.5] * 7}]}, r"of shape \[7\], \[8\] in one reply"),
        ({"data": [{"embedding": [0.5] * 7}] * 2}, "sends vectors of 7 dimensions, after 8 before"),
        ({"data": [{"embedding": [[0.5] * 4] * 2}] * 2}, r"of shape \[2, 4\] in one reply. Expected one vector"),
        ({"data": [{"embedding": [0.5] * 7 + [float("nan")]}] * 2}, "sends NaN or infinite vectors for 2 of 2"),
        ({"data": [{"embedding": [0.5] * 7 + [None]}] * 2}, "sends NaN or infinite vectors for 2 of 2"),
        ({"data": [{"embedding": coded(np.full(DIM, np.inf))}] * 2}, "sends NaN or infinite vectors for 2 of 2"),
        ({"data": [{"embedding": "!!"}] * 2}, "sends a vector that cannot be read"),
        ({"embeddings": []}, 'sends no list "data"'),
        (b"<html>", "something other than JSON"),
    ],
)
def test_a_reply_that_is_not_what_was_asked_for_is_no_vector(body, message):
    with serving(instead=failing(Answer(200, body))) as server, pytest.raises(ModelError, match=message):
        vectors(served(server), text=["a", "b"])


def test_vectors_are_cut_by_the_server_or_not_at_all():
    with serving() as server:
        encoder = served(server, embedding_dim=3)
        assert np.array_equal(vectors(encoder, text=["a"])[0], vector_of("a")[:3])
        assert server.bodies[1]["dimensions"] == 3
    with serving(cuts=False) as server, pytest.raises(ModelError, match="have 8 dimensions; --embedding-dim 3 was"):
        served(server, embedding_dim=3).load()
    with (
        serving(instead=lambda body: error(400, "does not support Matryoshka")) as server,
        pytest.raises(ModelError, match=r"Matryoshka.*Leave --embedding-dim out"),
    ):
        served(server, embedding_dim=3).load()


def test_another_model_under_a_known_name_shows_by_its_width():
    with serving() as server, pytest.raises(ModelError, match="have 8 dimensions; the model's have 1024"):
        served(server, QWEN).load()


# What goes wrong.


def failing(*answers: Answer):
    """The first requests after the one that asks whether all is well get these answers."""
    left = list(answers)
    return lambda body: left.pop(0) if left and body["input"] != PROBE else None


def test_what_passes_is_waited_for(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    busy = error(429, "slow down", **{"Retry-After": "7"})
    with serving(instead=failing(busy, error(503, "starting"), error(500, "oops"))) as server:
        assert np.array_equal(vectors(served(server), text=["b"])[0], vector_of("b"))
    assert len(server.inputs) == 4 and waits[0] == 7


def test_a_server_that_stays_ill_is_given_up_with_its_own_words():
    message = r"some-model: http://127\S*/v1 answers 500 \(CUDA out of memory\), 8 times"
    ill = failing(*[error(500, "CUDA out of memory")] * 100)
    with serving(instead=ill) as server, pytest.raises(ModelError, match=message):
        vectors(served(server), text=["b", "c"])
    assert server.inputs == [["b", "c"]] * endpoint_client.ATTEMPTS


def test_no_server_at_all():
    with serving() as server:
        pass
    with pytest.raises(ModelError, match=r"does not answer \(NewConnectionError.*Is the server up"):
        served(server).load()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (error(401, f"bad key {KEY}"), r"answers 401 \(bad key \*\*\*\)\. Set RAYLIB_ENDPOINT_KEY or OPENAI_API_KEY"),
        (error(404, "model unknown"), r"answers 404 \(model unknown\)\. --model must be a name that it serves"),
        (Answer(404, {"detail": "Not Found"}), r"answers 404 \(Not Found\)"),
        (Answer(308, b"", {"Location": "https://other/v1"}), "answers 308, a redirection.*leads: https://other/v1"),
        (Answer(418, b"I am a teapot"), r"answers 418 \(I am a teapot\)"),
        (Answer(400, {"object": "error", "message": "no pooling model"}), "takes no request for it.*no pooling model"),
    ],
)
def test_what_does_not_pass_fails_at_once_and_says_what_to_change(monkeypatch, answer, message):
    monkeypatch.setenv("RAYLIB_ENDPOINT_KEY", KEY)
    with serving(instead=lambda body: answer) as server, pytest.raises(ModelError, match=message):
        served(server).load()
    assert len(server.bodies) == (2 if answer.status == 400 else 1)  # base64, then float


def test_one_content_that_is_too_long_is_named_and_the_rest_encoded():
    texts = ["a", "bb", "c" * 30, "dd", "e"]
    with serving(max_chars=20) as server, pytest.raises(RefusedContentsError) as caught:
        vectors(served(server), text=texts)
    assert caught.value.reasons == {2: "the server answers 400 (This model's maximum context length is 20 characters)"}
    assert caught.value.rest is not None
    assert np.array_equal(caught.value.rest.dense(), np.stack([vector_of(t) for t in texts if len(t) < 20]))
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.reasons == caught.value.reasons and len(again.rest) == 4 and str(again) == str(caught.value)


def test_a_limit_on_texts_of_a_request_is_found_once():
    with serving(max_texts=2) as server:
        encoder = served(server)
        assert np.array_equal(vectors(encoder, text=TEXTS), np.stack([vector_of(text) for text in TEXTS]))
        before = len(server.inputs)
        vectors(encoder, text=TEXTS)
    assert sorted(map(len, server.inputs[before:])) == [2, 2, 2, 2]


def test_nothing_can_be_encoded_of_a_batch_that_is_refused_whole():
    with serving(max_chars=1) as server, pytest.raises(RefusedContentsError) as caught:
        vectors(served(server), text=["aa", "bb"])
    assert sorted(caught.value.reasons) == [0, 1] and caught.value.rest is None


# Many at once.


def test_turns_of_a_batch_go_side_by_side():
    with serving(vectors=wide(512), together=4) as server:
        found = vectors(served(server, "openai/clip-vit-base-patch16"), image=[Image.new("RGB", (2, 2))] * 4)
    assert len(found) == 4 == server.at_once


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("http_proxy", server.url.replace("//", "//me:hunter2@").removesuffix("/v1"))
        vectors(resolve(ModelSpec("m", endpoint="http://far.away/v1")), text=["b"])
    assert server.paths == ["http://far.away/v1/embeddings"] * 2
    assert server.headers[0]["proxy-authorization"] == "Basic " + base64.b64encode(b"me:hunter2").decode()


# Keys, identity, names.


def test_the_key_is_sent_and_kept_nowhere(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as server:
        encoder = served(server)
        vectors(encoder, text=["a"])
        assert server.headers[1]["Authorization"] == f"Bearer {KEY}"
        assert KEY.encode() not in pickle.dumps(encoder) and KEY not in repr(encoder.__dict__)
        fingerprint = encoder.fingerprint
        monkeypatch.setenv("RAYLIB_ENDPOINT_KEY", "other")
        again = pickle.loads(pickle.dumps(encoder))
        vectors(again, text=["a"])
        assert server.headers[-1]["Authorization"] == "Bearer other" and again.fingerprint == fingerprint
        monkeypatch.setenv("RAYLIB_ENDPOINT_KEY", "")
        vectors(again, text=["a"])
        assert "Authorization" not in server.headers[-1]
        monkeypatch.setenv("RAYLIB_ENDPOINT_KEY", f"{KEY}\n{KEY}")
        with pytest.raises(UserError, match="RAYLIB_ENDPOINT_KEY holds characters that no key has") as caught:
            vectors(again, text=["a"])
        assert KEY not in str(caught.value)


def test_the_fingerprint_tells_servers_models_and_widths_apart_and_nothing_else():
    def fingerprint(name="m", endpoint="http://h:8000/v1", **options):
        return resolve(ModelSpec(name, endpoint=endpoint, **options)).fingerprint

    same = {
        fingerprint(),
        fingerprint(endpoint="http://H:8000/v1/"),
        fingerprint(endpoint="http://h:8000/v1/embeddings"),
        fingerprint(query_prompt="Q: "),  # is in the key of each content, with every prompt
        fingerprint(device="cpu"),
    }
    others = [fingerprint("n"), fingerprint(endpoint="http://h:8001/v1"), fingerprint(endpoint="https://h:8000/v1")]
    others += [fingerprint(embedding_dim=4), fingerprint(revision="abc"), fingerprint(family="qwen3-embedding")]
    assert len(same) == 1 and len({*same, *others}) == 7


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://me:hunter2@h/v1", "has a user, a query or a fragment"),
        ("http://h/v1?key=hunter2", "has a user, a query or a fragment"),
        ("http://h/v1#hunter2", "has a user, a query or a fragment"),
        ("hunter2/v1", "is no http URL with a host"),
        ("ftp://hunter2/v1", "is no http URL with a host"),
        ("http://h:port/v1", "is no URL"),
    ],
)
def test_addresses_that_cannot_be(endpoint, message):
    with pytest.raises(UserError, match=f"--endpoint.*{message}") as caught:
        resolve(ModelSpec("m", endpoint=endpoint))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["/models/mine", "nomic-embed-text:latest", "qwen:latest", "a/b/c", "text-embedding-3"]
)
def test_any_served_name_is_a_plain_text_model(name):
    encoder = resolve(ModelSpec(name, endpoint="http://h/v1"))
    assert encoder.family.name == "endpoint" and encoder.modalities == {"text"} and encoder.similarity == "cosine"
    assert encoder.context(None, "query") == EncodeContext("query", "") and not encoder.needs_device
    assert encoder.identity["model"] == name


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        ("vidore/colpali-v1.3", {}, UnsupportedOptionError, "a server cannot stand for family colpali"),
        ("raylib/hashed-ngrams", {}, UnsupportedOptionError, "a server cannot stand for family hashed-ngrams"),
        ("raylib/bm25", {}, UnsupportedOptionError, "searches by itself"),
        ("google/siglip2-base-patch16-256", {}, UnsupportedOptionError, "padded to its full length"),
        (QWEN, {"dtype": "bfloat16", "merge": False}, UnsupportedOptionError, "--dtype, --no-merge is the server's"),
        ("intfloat/multilingual-e5-large-instruct", {}, UserError, "does not tell its prompts. Give --query-prompt"),
        ("google/embeddinggemma-300m", {}, UserError, "config_sentence_transformers.json, which is neither"),
        ("m", {"family": "qwen3-embeding"}, UnknownNameError, "Did you mean qwen3-embedding"),
    ],
)
def test_what_a_server_cannot_stand_for_is_refused_when_the_encoder_is_made(name, options, kind, message):
    with pytest.raises(kind, match=message):
        resolve(ModelSpec(name, endpoint="http://h/v1", **options))


def test_prompts_that_cannot_be_known_can_be_given():
    for name in ("intfloat/multilingual-e5-large-instruct", "google/embeddinggemma-300m"):
        encoder = resolve(ModelSpec(name, endpoint="http://h/v1", query_prompt="Q: ", document_prompt=""))
        assert [encoder.context(None, role).prompt for role in ("query", "document")] == ["Q: ", ""]


def test_results_are_filed_without_slashes_and_without_a_revision_that_nobody_knows():
    from raylib.evaluate.meta import model_meta

    found = model_meta(resolve(ModelSpec(QWEN, endpoint="https://api.host.com:8000/v1")))
    assert found.name == QWEN and found.revision == "no_revision_available"
    assert found.experiment_kwargs == {"endpoint": "api.host.com-8000-v1"}
    assert found.experiment_name == "endpoint_api.host.com-8000-v1"
