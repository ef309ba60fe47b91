"""`--exact-mteb` gives MTEB's own numbers, every one of them: the reference is always MTEB with the plain model.

The calls are cut as for two or three workers and run in this process; tests/cluster has the same on real Ray.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raylib.errors import ModelError, UnknownNameError, UnsupportedOptionError, UserError
from raylib.evaluate.encode import encode_locally
from raylib.evaluate.exact_calls import same_bits
from raylib.evaluate.exact_models import EncoderModel, exact_source
from raylib.evaluate.exact_mteb import ExactModel, LocalRunner, local_exact_model
from raylib.evaluate.model import StoreModel
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.store.embeddings import Shelf
from tests import exact_toys
from tests.evaluate.compare import scores_of
from tests.evaluate.made import by_hand
from tests.evaluate.mock_tasks import IMAGE_MOCKS, TEXT_MOCKS, grown_task
from tests.exact_toys import unequal

BATCH_SIZE = 16


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of more threads may round differently from run to run."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def plain_scores(model: str, task: str) -> dict[str, Any]:
    return scores_of(getattr(exact_toys, model)(), grown_task(task), BATCH_SIZE)


def exact(name: str, workers: int, **options: Any) -> ExactModel:
    return ExactModel(name, LocalRunner(exact_source(ModelSpec(name, **options)), workers))


@pytest.mark.parametrize("task", TEXT_MOCKS + IMAGE_MOCKS)
def test_every_metric_of_a_dense_model_is_that_of_mteb(task):
    """Its vectors depend on their batch, so a border in the wrong place shows."""
    model = exact("tests.exact_toys:batch_mean", workers=3)

    got = scores_of(model, grown_task(task), BATCH_SIZE)

    assert unequal(got, plain_scores("batch_mean", task)) == []
    assert set(model.ways.values()) == {"aligned"}


@pytest.mark.parametrize("task", exact_toys.LATE_MOCKS)
def test_every_metric_of_a_zero_padding_model_is_that_of_mteb(task):
    model = exact("tests.exact_toys:padded", workers=2)

    got = scores_of(model, grown_task(task), BATCH_SIZE)

    assert unequal(got, plain_scores("padded", task)) == []
    fused = {kind for kind in model.ways if {"text", "image"} <= set(kind)}
    assert all(way == ("whole" if kind in fused else "aligned") for kind, way in model.ways.items())


def test_padding_decides_these_scores(tmp_path):
    """Of the toy: texts differ in length, maxima are negative, and MaxSim over real tokens alone ranks otherwise."""
    task = grown_task("MockRetrievalTask")
    encoder: Any = resolve(ModelSpec("tests.exact_toys:padded"))
    masked = StoreModel(encoder, Shelf(str(tmp_path), encoder.fingerprint), encode_locally, limits=BATCH_SIZE)

    got = scores_of(masked, grown_task("MockRetrievalTask"), BATCH_SIZE)

    expected = plain_scores("padded", "MockRetrievalTask")
    assert got["test/0/main_score"] != expected["test/0/main_score"]
    data: Any = task.dataset["default"]["test"]
    model = exact_toys.padded()
    sides = {"query": list(data["queries"]["text"]), "document": list(data["corpus"]["text"])}
    queries, documents = (tokens(model, texts, role) for role, texts in sides.items())
    assert len({len(tokens) for tokens in documents}) > 3
    best = np.array([[(q @ d.T).max(axis=1).min() for d in documents] for q in queries])
    assert (best < 0).mean() > 0.5, "most queries hold a token whose best real match is negative"


def tokens(model: Any, texts: list[str], role: str) -> list[np.ndarray]:
    found = model.encode(
        [{"text": texts}], task_metadata=None, hf_split="", hf_subset="", prompt_type=SimpleNamespace(value=role)
    ).numpy()
    return [matrix[np.any(matrix != 0, axis=1)] for matrix in found]


def test_a_model_that_cannot_be_cut_runs_whole(caplog):
    model = exact("tests.exact_toys:call_mean", workers=3)

    got = scores_of(model, grown_task("MockMultilingualRetrievalTask"), BATCH_SIZE)

    assert unequal(got, plain_scores("call_mean", "MockMultilingualRetrievalTask")) == []
    assert set(model.ways.values()) == {"whole"}
    assert sum("depend on the whole call" in record.message for record in caplog.records) == 1


# One call of `encode`.

TEXTS = ["sort by key", "a", "Which page shows the annual energy budget of 2024 by country?", "naïve café 漢字"]


def ragged_texts(n: int = 200) -> list[str]:
    """Texts of 1 to 40 words; many share a length, so that the order among equals matters."""
    rng = np.random.default_rng(5)
    words = ["return", "the", "number", "of", "items", "a", "file", "and", "read", "lines", "key", "date", "größe"]
    return [" ".join(rng.choice(words, int(rng.integers(1, 41)))) for _ in range(n)]


def call(model: Any, texts: list[str], *, role: str | None = None, start: int = 0, **kwargs: Any) -> Any:
    """One encode call as MTEB makes it."""
    import datasets
    from mteb._create_dataloaders import create_dataloader
    from mteb.types import PromptType

    metadata = grown_task("MockRetrievalTask").metadata
    rows = datasets.Dataset.from_dict({"id": [f"t{start + i}" for i in range(len(texts))], "text": texts})
    prompt_type = PromptType(role) if role else None
    where: dict[str, Any] = {"task_metadata": metadata, "prompt_type": prompt_type}
    loader = create_dataloader(rows, batch_size=BATCH_SIZE, **where)
    settings = {"batch_size": BATCH_SIZE, "show_progress_bar": False, **kwargs}
    return model.encode(loader, hf_split="test", hf_subset="default", **where, **settings)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    from raylib.models.untrained import build_clip
    from tests.models.test_sentence import save_sentence
    from tests.models.tiny_vlm import build

    root = tmp_path_factory.mktemp("checkpoints")
    for shape in ("gemma", "qwen"):
        save_sentence(root / shape, shape)
    build_clip(root / "clip")
    build("ColPali", root / "colpali")
    return {"gemma": root / "gemma/model", "qwen": root / "qwen/model", "clip": root / "clip", "late": root / "colpali"}


@pytest.mark.parametrize("role", [None, "query", "document"])
@pytest.mark.parametrize("shape", ["gemma", "qwen"])
def test_sentence_transformers_are_sorted_over_the_whole_call(checkpoints, shape, role):
    from sentence_transformers import SentenceTransformer

    texts = ragged_texts()
    library = SentenceTransformer(str(checkpoints[shape]), device="cpu")
    prompts = {"query": "task: search | query: ", "document": "title: none | text: "}
    expected = library.encode(texts, prompt=prompts.get(role or ""), batch_size=BATCH_SIZE)

    for workers in (2, 3):
        model = exact(str(checkpoints[shape]), workers, device="cpu")
        assert same_bits(call(model, texts, role=role), expected)
        assert list(model.ways.values()) == ["sorted"]
    real = model.runner.model
    naive = np.concatenate([call(real, texts[:96], role=role), call(real, texts[96:], role=role)])
    assert (naive != expected).any(axis=1).mean() > 0, "cut by rows alone, other texts share a batch and bits change"


def test_texts_of_one_length_show_no_order(checkpoints):
    """What they leave open is asked again at the next call."""
    model = exact(str(checkpoints["qwen"]), 2, device="cpu")
    same_length = [f"{i:04d} items" for i in range(60)]

    assert same_bits(call(model, same_length), call(model.runner.model, same_length))
    assert model.ways == {}
    assert same_bits(call(model, ragged_texts(60)), call(model.runner.model, ragged_texts(60)))
    assert list(model.ways.values()) == ["sorted"]


@pytest.mark.parametrize("task", ["MockSTSTask", "MockRetrievalTask"])
def test_sentence_transformers_scores_are_those_of_mteb(checkpoints, task):
    """Their similarity function comes without the weights."""
    model = exact(str(checkpoints["gemma"]), 2, device="cpu")

    got = scores_of(model, grown_task(task), BATCH_SIZE)

    plain = local_exact_model(ModelSpec(str(checkpoints["gemma"]), device="cpu"))
    assert type(plain).__name__ == "SentenceTransformerEncoderWrapper"
    assert unequal(got, scores_of(plain, grown_task(task), BATCH_SIZE)) == []
    assert set(model.traits.similarities) == {"similarity", "similarity_pairwise"}


@pytest.mark.parametrize(
    ("kind", "wrapper", "task"),
    [
        ("clip", "CLIPModel", "MockAny2AnyRetrievalT2ITask"),
        ("clip", "CLIPModel", "MockImageTextPairClassificationTask"),
        ("late", "ColPaliWrapper", "MockAny2AnyRetrievalT2ITask"),
    ],
)
def test_image_models_run_through_mtebs_own_loader(checkpoints, kind, wrapper, task):
    model = exact(str(checkpoints[kind]), 3, device="cpu")

    got = scores_of(model, grown_task(task), BATCH_SIZE)

    plain = local_exact_model(ModelSpec(str(checkpoints[kind]), device="cpu"))
    assert type(plain).__name__ == wrapper
    assert unequal(got, scores_of(plain, grown_task(task), BATCH_SIZE)) == []
    assert model.mteb_model_meta.name == f"local/{checkpoints[kind].name}"
    assert set(model.ways.values()) == {"aligned"}


def test_texts_and_images_of_one_content_are_padded_apart(checkpoints):
    """MTEB's ColPali wrappers put all texts of a call, padded, before all images, padded."""
    model = exact(str(checkpoints["late"]), 2, device="cpu")

    got = scores_of(model, grown_task("MockMultiChoiceTask"), BATCH_SIZE)

    plain = local_exact_model(ModelSpec(str(checkpoints["late"]), device="cpu"))
    assert unequal(got, scores_of(plain, grown_task("MockMultiChoiceTask"), BATCH_SIZE)) == []
    assert "apart" in model.ways.values() and "whole" not in model.ways.values()


def test_quantised_vectors_take_the_range_of_the_whole_call(checkpoints):
    model = exact(str(checkpoints["gemma"]), 2, device="cpu")
    texts = ragged_texts(120)

    got = call(model, texts, precision="int8")

    assert got.dtype == np.int8
    assert same_bits(got, call(model.runner.model, texts, precision="int8"))


# What runs.


def test_a_name_of_mtebs_registry_is_loaded_by_mteb():
    source = exact_source(ModelSpec("openai/clip-vit-base-patch32"))

    assert type(source.source).__name__ == "RegistrySource"
    assert source.source.meta.loader.__name__ == "CLIPModel"
    assert source.searches is False


def test_models_that_search_are_left_to_mteb():
    assert exact_source(ModelSpec("raylib/bm25")).searches
    assert exact_source(ModelSpec("tests.models.factories:Searcher")).searches
    with pytest.raises(ModelError, match="has no encode"):
        _ = exact("tests.models.factories:Searcher", 1).mteb_model_meta


def test_a_similarity_of_the_models_own_is_asked_where_the_model_is():
    model = exact("tests.models.factories:OwnSimilarity", 2)

    near = model.similarity(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0], [4.0, 6.0]]))

    assert near.tolist() == [[0.0, -5.0]]
    assert set(model.traits.similarities) == {"similarity_pairwise"}


def test_an_encoder_that_mteb_lacks_gets_mtebs_batches():
    model = exact("tests.evaluate.made:letters", 2)
    texts = ["ab" * i + "c" for i in range(40)]

    got = call(model, texts)

    assert isinstance(model.runner.model, EncoderModel)
    assert got.dtype == np.float32 and got.tolist() == [by_hand(text) for text in texts]
    assert set(model.runner.model.encoder.texts) >= set(texts)


def test_an_encoder_of_late_interaction_is_padded_to_the_longest_of_the_call():
    import torch

    model = exact("tests.evaluate.made:words", 2)
    texts = [" ".join(["ab", "c"][i % 2] for i in range(1 + n % 5)) for n in range(63)] + ["a b c a b c a"]

    got = call(model, texts)

    assert isinstance(got, torch.Tensor) and got.shape == (64, 7, 3) and got.dtype == torch.float32
    assert got[1].tolist() == [[1, 1, 0], [0, 0, 1], *[[0, 0, 0]] * 5]
    assert model.mteb_model_meta.similarity_fn_name == "MaxSim"


def test_an_untrained_model_runs_on_pages():
    model = exact("raylib/untrained-clip", 2, device="cpu")

    got = scores_of(model, grown_task("MockAny2AnyRetrievalT2ITask"), BATCH_SIZE)

    plain = local_exact_model(ModelSpec("raylib/untrained-clip", device="cpu"))
    assert unequal(got, scores_of(plain, grown_task("MockAny2AnyRetrievalT2ITask"), BATCH_SIZE)) == []
    assert set(model.ways.values()) == {"aligned"}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"name": "openai/clip-vit-base-patch32", "dtype": "float16"}, UnsupportedOptionError, "without --dtype"),
        ({"name": "openai/clip-vit-base-patch32", "embedding_dim": 3}, UnsupportedOptionError, "--embedding-dim 3"),
        ({"name": "openai/clip-vit-base-patch33"}, UnknownNameError, "openai/clip-vit-base-patch32"),
        ({"name": "./nowhere"}, UserError, "does not exist"),
        ({"name": "tests.models.factories:missing"}, UserError, "no callable 'missing'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_loads(options, error, words):
    with pytest.raises(error, match=words):
        exact_source(ModelSpec(**options))


def test_vectors_of_unlike_widths_are_not_compared():
    import torch

    plain = local_exact_model(ModelSpec("raylib/untrained-clip", fusion="concat", device="cpu"))
    texts, pages = torch.ones(2, 64), torch.ones(3, 128)
    for model in (plain, exact("raylib/untrained-clip", 2, device="cpu")):
        with pytest.raises(UserError, match=r"queries have 64 dimensions, documents 128; .*take sum or mean"):
            model.similarity(texts, pages)
        assert model.similarity(pages, pages).shape == (3, 3)
