"""`raylib evaluate --local --endpoint URL`: the scores of the model behind the server, and what it refuses by name."""

import json
import threading

import pytest

from raylib.cli import main
from raylib.errors import UnsupportedOptionError
from raylib.evaluate.exact_models import exact_source
from raylib.models import endpoint_client
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.types import EncodeContext
from tests.models.embeddings_server import Answer, serving
from tests.tasks.local_vidore import private_datasets_cache

KEY = "sk-secret-0123456789"


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    """The built-in pages, built once for all tests here and outside the home directory."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch, private_datasets_cache(str(folder / "datasets")):
        patch.setenv("RAYLIB_CACHE", str(folder / "raylib"))
        yield


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setattr(endpoint_client, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("RAYLIB_ENDPOINT_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def hashed(texts):
    """What a server of raylib/hashed-ngrams would say."""
    with _one_at_a_time:
        return _encoder.encode({"text": texts}, EncodeContext(None)).dense()


_encoder, _one_at_a_time = resolve(ModelSpec("raylib/hashed-ngrams")), threading.Lock()


def evaluate(out, model, *arguments):
    told = f"--local --quiet --tasks StdlibPagesT2T --limit 40 --batch-size 8 --output-folder {out} --model {model}"
    return main(["evaluate", *told.split(), *arguments])


def scores(out):
    """Main score and folder of each result."""
    found = {path.parent: json.loads(path.read_text()) for path in out.rglob("StdlibPagesT2T.json")}
    return {str(path.relative_to(out)): one["scores"]["test"][0]["main_score"] for path, one in found.items()}


def everything_written(out):
    return b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())


def test_scores_are_those_of_the_model_behind_the_server(tmp_path):
    assert evaluate(tmp_path / "here", "raylib/hashed-ngrams") == 0
    with serving(vectors=hashed, shuffles=True) as server:
        assert evaluate(tmp_path / "there", "words", "--endpoint", server.url) == 0
        asked = len(server.bodies)
        assert evaluate(tmp_path / "there", "words", "--endpoint", server.url, "--overwrite") == 0
        assert len(server.bodies) == asked, "all vectors are in the store"
    ((_, here),) = scores(tmp_path / "here").items()
    ((folder, there),) = scores(tmp_path / "there").items()
    assert here == there > 0.5
    assert "endpoint_127.0.0.1-" in folder and server.headers[-1]["Authorization"] == f"Bearer {KEY}"
    assert KEY.encode() not in everything_written(tmp_path)


def test_several_batches_are_under_way_at_once(tmp_path):
    with serving(vectors=hashed, together=3) as server:
        assert evaluate(tmp_path, "words", "--endpoint", server.url) == 0
    assert server.at_once >= 3


def test_a_text_that_is_too_long_is_named_and_does_not_cost_the_others(tmp_path, capsys):
    lengths: list[int] = []

    def measured(texts):
        lengths.extend(len(text) for text in texts)
        return hashed(texts)

    with serving(vectors=measured, max_chars=10**7) as server:
        assert evaluate(tmp_path / "all", "words", "--endpoint", server.url) == 0
    longest = sorted(lengths)[-2:]
    assert longest[0] < longest[1]
    with serving(vectors=hashed, max_chars=longest[0]) as server:
        assert evaluate(tmp_path / "most", "words", "--endpoint", server.url) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "1 contents could not be encoded (StdlibPagesT2T" in said and "maximum context length" in said
        assert evaluate(tmp_path / "most", "words", "--endpoint", server.url, "--allow-errors", "1") == 0
    assert len(scores(tmp_path / "most")) == 1


def test_a_server_that_fails_half_way_costs_what_was_not_encoded_alone(tmp_path, capsys):
    answered: set[tuple[str, ...]] = set()

    def dies_after_five(body):
        with _one_at_a_time:
            if len(answered) < 6:  # one that only asks whether all is well
                answered.add(tuple(body["input"]))
        return None if tuple(body["input"]) in answered else Answer(500, {"message": "dead"})

    with serving(vectors=hashed, instead=dies_after_five) as server:
        assert evaluate(tmp_path, "words", "--endpoint", server.url) == 1
        assert "answers 500 (dead), 8 times over" in " ".join(capsys.readouterr().err.split())
        failed = {text for body in server.bodies for text in body["input"]} - {t for texts in answered for t in texts}
        server.instead = lambda body: None
        server.bodies.clear()
        assert evaluate(tmp_path, "words", "--endpoint", server.url) == 0
    again = [text for texts in server.inputs for text in texts]
    assert failed and failed <= set(again) and not {t for texts in answered for t in texts} & set(again)


def test_mteb_s_own_model_is_not_run_in_place_of_the_served_one():
    with pytest.raises(UnsupportedOptionError, match=r"at no --endpoint\. Leave out one of the two"):
        exact_source(ModelSpec("intfloat/multilingual-e5-small", endpoint="http://h/v1"))
