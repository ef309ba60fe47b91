"""MTEB models as encoders: what they are told, what they give back, and what their vectors are taken to depend on."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from raylib.errors import ModelError, UnsupportedOptionError, UserError
from raylib.models.bridge import BridgeEncoder, SearchModel, as_embeddings
from raylib.models.hashed import HashedEncoder
from raylib.models.mteb_source import told_names
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from tests.models import factories

HERE = "tests.models.factories"
TEXTS = ["abba", "c", "a cab"]


def bridge(name: str, **options: Any) -> BridgeEncoder:
    found = resolve(ModelSpec(f"{HERE}:{name}", **options))
    assert isinstance(found, BridgeEncoder)
    return found


def task(name: str) -> Any:
    return SimpleNamespace(name=name)


def test_a_dense_model_gives_its_own_vectors() -> None:
    encoder = bridge("Plain")
    found = encoder.encode({"text": TEXTS, "title": ["", "", ""]}, encoder.context(task("T"), "query"))
    assert found.dense().tolist() == [[2, 2, 1], [0, 0, 2], [2, 1, 2]]
    assert (encoder.similarity, encoder.modalities, encoder.fields) == ("cosine", {"text"}, None)


def test_a_padded_late_interaction_model_becomes_ragged() -> None:
    encoder = bridge("PaddedLate")
    found = encoder.encode({"text": TEXTS}, encoder.context(task("T"), "document"))
    assert found.token_counts.tolist() == [1, 1, 2]
    assert found[2].tolist() == [[1, 0, 1], [1, 1, 2]]
    assert encoder.similarity == "maxsim"


def test_a_model_is_told_task_split_subset_and_role() -> None:
    prompted = bridge("Prompted")
    query = prompted.encode({"text": ["b"]}, prompted.context(task("aaa"), "query", split="test", subset="en"))
    document = prompted.encode({"text": ["b"]}, prompted.context(task("aaa"), "document"))
    assert (query.dense().tolist(), document.dense().tolist()) == ([[3, 1, 1]], [[0, 1, 1]])
    by_subset = bridge("BySubset")
    assert by_subset.encode({"text": ["b"]}, by_subset.context(task("T"), None, subset="ca")).dense().tolist() == [
        [1, 1, 2]
    ]


def test_the_prompt_names_what_a_vector_may_depend_on() -> None:
    def prompt(name: str, **where: str) -> str:
        return bridge(name).context(task("T"), "query", **where).prompt

    assert prompt("Plain", split="test", subset="en") == ""
    assert prompt("Prompted", split="test", subset="en") == prompt("Prompted", split="dev", subset="fr")
    assert prompt("Prompted") == '{"prompt_type": "query", "task_metadata": "T"}'
    assert prompt("BySubset", subset="en") != prompt("BySubset", subset="fr")
    assert prompt("BySubset", split="test") == prompt("BySubset", split="dev")


def test_what_an_encode_reads_is_found_in_its_source() -> None:
    class Quiet:
        def encode(self, inputs, **kwargs):
            return inputs

    class HandsOnAll:
        def encode(self, inputs, **kwargs):
            return self.inner(inputs, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

    class LooksUp:
        def encode(self, inputs, **kwargs):
            return kwargs["hf_split"]

    def loader():
        class Inside:
            def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None):
                return prompt_type

        return Inside()

    assert told_names(Quiet) == set()
    assert told_names(HandsOnAll) == {"task_metadata", "prompt_type"}
    assert told_names(LooksUp) == {"task_metadata", "prompt_type", "hf_split"}
    assert told_names(loader) == {"prompt_type"}
    without_source = type("Compiled", (), {"encode": len})
    assert told_names(without_source) == {"task_metadata", "prompt_type", "hf_split", "hf_subset"}


def test_outputs_of_every_shape() -> None:
    dense = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    expected = [[1, 0], [0, 2]]
    assert as_embeddings(dense, "m").dense().tolist() == expected
    assert as_embeddings(dense.to_sparse(), "m").dense().tolist() == expected
    assert as_embeddings(list(dense.numpy().astype(np.float64)), "m").dense().tolist() == expected
    half, brain = as_embeddings(dense.half(), "m"), as_embeddings(dense.bfloat16(), "m")
    assert (half.values.dtype, brain.values.dtype) == (np.float16, np.float32)
    padded = np.array([[[1.0, 0], [0, 0]], [[0, 0], [0, 0]]])
    assert as_embeddings(padded, "m").token_counts.tolist() == [1, 1]
    ragged = as_embeddings([np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32)], "m")
    assert ragged.token_counts.tolist() == [2, 1]
    with pytest.raises(ModelError, match=r"m gave an array of shape \[3\]; expected \[n, dim\]"):
        as_embeddings(np.zeros(3), "m")


def test_the_rows_reach_the_model_as_mteb_sends_them() -> None:
    """Images stay a list of PIL images, and the data set behind the loader names its columns."""
    from PIL import Image

    seen: dict[str, Any] = {}

    class Spy(factories.Plain):
        def encode(self, inputs: Any, **kwargs: Any) -> Any:
            seen.update(features=list(inputs.dataset.features), batches=list(inputs), told=kwargs)
            return np.ones((2, 3))

    encoder = bridge("Plain")
    encoder.__dict__["model"] = Spy()
    pictures = [Image.new("L", (2, 3)), Image.new("RGB", (4, 1))]
    context = encoder.context(task("T"), "document", split="test", subset="en")
    encoder.encode({"image": pictures, "text": ["x", "y"]}, context)
    assert seen["features"] == ["image", "text"]
    assert seen["batches"] == [{"image": pictures, "text": ["x", "y"]}]
    told = seen["told"]
    assert (told["task_metadata"].name, told["hf_split"], told["hf_subset"]) == ("T", "test", "en")
    assert (told["prompt_type"].value, told["batch_size"]) == ("document", 2)


def test_the_factory_is_called_once_and_not_pickled() -> None:
    factories.calls.clear()
    encoder = bridge("plain")
    before = encoder.encode({"text": TEXTS}, encoder.context(task("T"), None)).values
    again = pickle.loads(pickle.dumps(encoder))
    assert np.array_equal(again.encode({"text": TEXTS}, again.context(task("T"), None)).values, before)
    assert factories.calls == ["Plain"]
    assert again.fingerprint == encoder.fingerprint != bridge("Plain").fingerprint


def test_the_fingerprint_follows_the_metas_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bridge("Plain").fingerprint
    made = bridge("Plain").source.load()
    monkeypatch.setattr(made, "mteb_model_meta", made.mteb_model_meta.model_copy(update={"revision": "8"}))
    assert bridge("Plain").fingerprint != before


@pytest.mark.parametrize("name", ["Searcher", "OwnSimilarity"])
def test_models_that_rank_in_their_own_way_are_run_whole(name: str) -> None:
    found = resolve(ModelSpec(f"{HERE}:{name}"))
    assert isinstance(found, SearchModel)
    assert isinstance(found.load(), getattr(factories, name))
    assert len(found.fingerprint) == 64
    with pytest.raises(UnsupportedOptionError, match="has no option --dtype"):
        resolve(ModelSpec(f"{HERE}:{name}", dtype="float16"))


def test_a_factory_may_give_a_raylib_encoder() -> None:
    found = resolve(ModelSpec(f"{HERE}:own_encoder"))
    assert isinstance(found, HashedEncoder)
    assert resolve(ModelSpec(f"{HERE}:own_encoder")) is found, "made once"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (f"{HERE}:failing", ModelError, "its factory failed: RuntimeError: no weights today"),
        (f"{HERE}:missing", UserError, "has no callable 'missing'; expected module:factory"),
        (f"{HERE}:number", UserError, "has no callable 'number'"),
        ("no_such_module_here:make", UserError, "cannot import no_such_module_here: ModuleNotFoundError"),
    ],
)
def test_a_factory_that_does_not_work_says_why(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(ModelSpec(name))


def test_options_that_it_does_not_have_are_refused() -> None:
    with pytest.raises(UnsupportedOptionError, match="has no option --pooling; it has: --embedding-dim"):
        bridge("Plain", pooling="mean")
    with pytest.raises(UnsupportedOptionError, match="has no --embedding-dim 2; it has: none to choose"):
        bridge("Plain", embedding_dim=2)


def test_a_registered_mteb_model_is_found_without_loading_it() -> None:
    found = resolve(ModelSpec("mteb/baseline-random-encoder"))
    assert isinstance(found, BridgeEncoder)
    meta = found.model_meta()
    assert meta is not None and meta.name == "mteb/baseline-random-encoder"
    again: BridgeEncoder = pickle.loads(pickle.dumps(found))
    assert again.fingerprint == found.fingerprint
    assert isinstance(resolve(ModelSpec("mteb/baseline-random-cross-encoder")), SearchModel)
