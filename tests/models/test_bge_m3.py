"""BGE-M3's three kinds of vectors, against the published formulas on one text at a time, over a tiny XLM-R with heads.

FlagEmbedding 1.4.2 itself, run once over such a checkpoint: token weights within 3e-7, vectors within 7e-8, scores of
single pairs within 3e-7.
"""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylib.errors import ModelError, UnsupportedOptionError, UserError
from raylib.models.bge_m3 import BgeM3Encoder, hybrid_rows, sparse_rows
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.models.sentence import SentenceEncoder
from raylib.models.untrained import seeded
from raylib.search.exact import score
from raylib.token_weights import COLUMNS, unpack
from raylib.types import Embeddings, EncodeContext, Hybrid
from tests.models.helpers import TEXTS, assert_same_directions, save_sentence
from tests.models.tiny_m3 import TOKENS, ByHand, save_m3

MODES = ("sparse", "multi-vector", "hybrid")


@pytest.fixture(scope="module")
def m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_m3(tmp_path_factory.mktemp("m3"))


@pytest.fixture
def copy(m3: Path, tmp_path: Path) -> Path:
    """One to be damaged."""
    return shutil.copytree(m3, tmp_path / "copy")


def encoder(directory: Path | str, mode: str | None = None, **options: Any) -> Any:
    return resolve(ModelSpec(str(directory), mode=mode, **options))


def encoded(found: Any, texts: list[str], prompt: str = "") -> Embeddings:
    return found.encode({"text": texts}, EncodeContext("query" if prompt else None, prompt))


def weights_of(rows: np.ndarray) -> dict[int, float]:
    ids, weights = unpack(rows)
    assert len(set(ids[weights > 0].tolist())) == (weights > 0).sum(), "every token once"
    return {int(i): float(w) for i, w in zip(ids, weights, strict=True) if w}


def assert_like(rows: np.ndarray, expected: dict[int, float]) -> None:
    found = weights_of(rows)
    assert found.keys() == expected.keys()
    assert all(abs(found[i] - expected[i]) <= 2e-6 for i in found)


# What the modes give.


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_mode_gives_the_published_formulas(tmp_path: Path, side: str) -> None:
    directory = save_m3(tmp_path, side=side)
    texts = [*TEXTS, "", "sort sort sort by key"]
    found = {mode: encoded(encoder(directory, mode), texts) for mode in MODES}
    for n, text in enumerate(texts):
        one = ByHand(directory, text)
        assert_like(found["sparse"][n], one.weights)
        assert_same_directions(found["multi-vector"][n], one.vectors, max_difference=1e-6)
        whole = found["hybrid"][n]
        assert_same_directions(whole[:1, :-COLUMNS], one.dense[None], max_difference=1e-6)
        assert_same_directions(whole[1:, :-COLUMNS], one.vectors, max_difference=1e-6)
        assert_like(whole[:, -COLUMNS:], one.weights)
    assert len(found["multi-vector"][6]) == TOKENS - 1, "a long text is cut, and its first token gives no vector"


def test_scores_are_the_published_ones(m3: Path) -> None:
    by_hand = [ByHand(m3, text) for text in TEXTS]
    table = np.array([[query.scores(document) for document in by_hand] for query in by_hand])
    sparse, late, hybrid = (encoded(encoder(m3, mode), TEXTS) for mode in MODES)
    assert np.abs(score(sparse, sparse, "sparse") - table[..., 1]).max() <= 1e-5
    assert np.abs(score(late, late, "maxsim") / late.token_counts[:, None] - table[..., 2]).max() <= 1e-6
    assert np.abs(score(hybrid, hybrid, Hybrid()) - table @ [0.4, 0.2, 0.4]).max() <= 1e-5
    assert np.abs(score(hybrid, hybrid, Hybrid(1, 0, 3)) - table @ [0.25, 0, 0.75]).max() <= 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_gives_what_single_contents_give(m3: Path, mode: str) -> None:
    found = encoder(m3, mode)
    batch = encoded(found, TEXTS)
    for n, text in enumerate(TEXTS):
        alone = encoded(found, [text])
        assert alone.values.shape == batch[n].shape and np.abs(alone.values - batch[n]).max() <= 2e-6


def test_the_dense_part_of_a_hybrid_is_the_dense_mode(m3: Path) -> None:
    hybrid = encoded(encoder(m3, "hybrid"), TEXTS)
    dense = encoded(encoder(m3), TEXTS).dense()
    assert np.array_equal(hybrid.values[hybrid.offsets[:-1], :-COLUMNS], dense)


def test_a_text_of_special_tokens_only_weighs_nothing(m3: Path) -> None:
    sparse = encoded(encoder(m3, "sparse"), ["", "<unk>", "date"])
    assert sparse.token_counts.tolist()[:2] == [1, 1] and not sparse.values[:2].any()
    assert score(sparse, sparse, "sparse")[0].tolist() == [0, 0, 0]


def test_a_prompt_is_part_of_the_text(m3: Path) -> None:
    rows = encoded(encoder(m3, "sparse"), ["date"], prompt="find the ")
    assert_like(rows[0], ByHand(m3, "find the date").weights)
    found = encoder(m3, "sparse", query_prompt="find the ")
    assert (found.context(None, "query").prompt, found.context(None, "document").prompt) == ("find the ", "")


def test_a_head_of_another_width_is_padded_in_a_hybrid_only(tmp_path: Path) -> None:
    for width in (8, 40):
        directory = save_m3(tmp_path / str(width), colbert=width)
        expected = [ByHand(directory, text) for text in TEXTS]
        late, hybrid = (encoded(encoder(directory, mode), TEXTS) for mode in ("multi-vector", "hybrid"))
        assert late.dim == width and hybrid.dim == max(width, 32) + COLUMNS
        sums = np.array([np.array(q.scores(d)) @ [1, 0, 1] / 2 for q in expected for d in expected]).reshape(8, 8)
        assert np.abs(score(hybrid, hybrid, Hybrid(1, 0, 1)) - sums).max() <= 1e-6


def test_half_precision_gives_float16(m3: Path) -> None:
    for mode in MODES:
        exact, half = (encoded(encoder(m3, mode, dtype=dtype), TEXTS[:3]) for dtype in (None, "bfloat16"))
        assert half.values.dtype == np.float16
        if mode == "multi-vector":
            assert np.abs(exact.values - half.values).max() <= 0.05
        else:  # the numbers of the tokens are whole
            assert weights_of(half[2][:, -COLUMNS:]).keys() >= {
                i for i, w in weights_of(exact[2][:, -COLUMNS:]).items() if w > 0.1
            }


def test_an_adapter_changes_what_the_heads_read(m3: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    with seeded(5):
        config = LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
        get_peft_model(AutoModel.from_pretrained(m3), config).save_pretrained(str(tmp_path / "lora"))
    for mode in MODES:
        plain = encoder(m3, mode)
        for merge in (True, False):
            adapted = encoder(m3, mode, adapter=str(tmp_path / "lora"), merge=merge)
            assert adapted.fingerprint != plain.fingerprint
            rows = encoded(adapted, [TEXTS[3]])[0]
            one = ByHand(m3, TEXTS[3], tmp_path / "lora")
            if mode == "sparse":
                assert_like(rows, one.weights)
            else:
                vectors = rows[1:, :-COLUMNS] if mode == "hybrid" else rows
                assert_same_directions(vectors, one.vectors, max_difference=2e-6)


def test_preprocess_needs_no_weights_and_pickles_without(m3: Path, copy: Path) -> None:
    for name in ("model.safetensors",):
        (copy / name).unlink()
    tensors = encoder(copy, "sparse").preprocess({"text": TEXTS}, EncodeContext(None))
    assert tensors["weighs"].shape == tensors["input_ids"].shape and tensors["weighs"].dtype == bool
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        encoder(copy, "sparse").load()
    found = encoder(m3, "hybrid")
    found.load()
    again = pickle.loads(pickle.dumps(found))
    assert "model" not in again.__dict__
    assert np.array_equal(encoded(again, TEXTS).values, encoded(found, TEXTS).values)


# Rows, by hand.

IDS = np.array([[0, 7, 9, 7, 2], [0, 9, 2, 1, 1]])
WEIGHTS = np.array([[9, 0.25, 1, 0.5, 9], [9, 0, 9, 9, 9]], np.float32)
WEIGHS = np.array([[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]], bool)
REAL = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)


def test_rows_of_token_weights() -> None:
    found = sparse_rows(IDS, WEIGHTS, WEIGHS)
    assert found.values.tolist() == [[0, 7, 0.5], [0, 9, 1], [0, 0, 0]] and found.offsets.tolist() == [0, 2, 3]


def test_rows_of_a_hybrid() -> None:
    dense = np.array([[1, 2], [3, 4]], np.float32)
    vectors = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    found = hybrid_rows(dense, vectors, IDS, WEIGHTS, WEIGHS, REAL)
    first = [[1, 2, 0, 0, 0], [2, 3, 0, 0, 0], [4, 5, 0, 9, 1], [6, 7, 0, 7, 0.5], [8, 9, 0, 0, 0]]
    assert found[0].tolist() == first
    assert found[1].tolist() == [[3, 4, 0, 0, 0], [12, 13, 0, 0, 0], [14, 15, 0, 0, 0]]


def test_a_weight_that_is_no_number_is_not_swept_aside() -> None:
    assert np.isnan(sparse_rows(IDS, np.full_like(WEIGHTS, np.nan), WEIGHS).values).any()


# Which model runs, and what tells two of them apart.


def test_a_mode_finds_its_encoder(m3: Path) -> None:
    for name in (m3, "BAAI/bge-m3"):
        plain = encoder(name)
        assert type(plain) is SentenceEncoder and type(encoder(name, "dense")) is SentenceEncoder
        assert plain.spec == encoder(name, "dense").spec, "one fingerprint, and one folder of results"
        assert [type(encoder(name, mode)) for mode in MODES] == [BgeM3Encoder] * 3
    assert encoder("BAAI/bge-m3", "sparse").spec.revision == "5617a9f61b028005a4858fdac845db406aefb181"
    assert type(encoder(m3, family="bge-m3")) is SentenceEncoder
    similarities = [encoder(m3, mode).similarity for mode in MODES]
    assert similarities == ["sparse", "maxsim", Hybrid(0.4, 0.2, 0.4)]
    assert encoder(m3, "hybrid", mode_weights="1,0.3,1").similarity == Hybrid(1, 0.3, 1)


def test_a_copy_in_the_hub_cache_has_modes_too(m3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--someone--m3"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    shutil.copytree(m3, folder / "snapshots" / commit)
    found = encoder("someone/m3", "sparse")
    assert isinstance(found, BgeM3Encoder) and found.identity["commit"] == commit
    assert np.array_equal(encoded(found, TEXTS).values, encoded(encoder(m3, "sparse"), TEXTS).values)


def test_fingerprints_tell_modes_apart_and_not_weights(m3: Path, copy: Path) -> None:
    variants = [encoder(m3), *(encoder(m3, mode) for mode in MODES), encoder(m3, "sparse", dtype="float16")]
    assert len({found.fingerprint for found in variants}) == len(variants)
    hybrid = encoder(m3, "hybrid")
    for same in ({"mode_weights": "1,1,1"}, {"attention": "eager"}, {"query_prompt": "q: "}, {"device": "cpu"}):
        assert encoder(m3, "hybrid", **same).fingerprint == hybrid.fingerprint
    assert encoder(copy, "hybrid").fingerprint == hybrid.fingerprint, "a copy elsewhere is the same model"
    shutil.copy(save_m3(copy.parent / "other", colbert=8) / "colbert_linear.pt", copy)
    assert encoder(copy, "hybrid").fingerprint != hybrid.fingerprint, "heads are weights"


def test_weights_are_among_the_options_that_name_a_result(m3: Path) -> None:
    from raylib.evaluate.meta import model_meta

    names = [
        model_meta(encoder(m3, "hybrid", mode_weights=weights)).experiment_name
        for weights in (None, "1,1,1", "1,0.3,1")
    ]
    assert len(set(names)) == 3 and "hybrid" in str(names[0])
    functions = [str(model_meta(encoder(m3, mode)).similarity_fn_name) for mode in MODES]
    assert [name.lower() for name in functions] == ["custom", "maxsim", "custom"]


# What is refused.


@pytest.mark.parametrize("weights", ["1,2", "1,2,x", "", "0,0,0", "1,-1,1", "nan,1,1", "1,2,3,4", "inf,1,1"])
def test_weights_that_are_none_are_refused(m3: Path, weights: str) -> None:
    with pytest.raises(UserError, match=f"--mode-weights is '{weights}'; expected three numbers"):
        encoder(m3, "hybrid", mode_weights=weights)


def test_options_that_a_mode_does_not_have_are_refused(m3: Path) -> None:
    with pytest.raises(UserError, match="--mode is 'hybird'; expected one of dense, sparse, multi-vector, hybrid"):
        encoder(m3, "hybird")
    for mode in ("dense", "sparse"):
        with pytest.raises(UnsupportedOptionError, match=f"--mode-weights weigh .* not of {mode}"):
            encoder(m3, mode, mode_weights="1,1,1")
    for options in ({"embedding_dim": 8}, {"pooling": "mean"}, {"max_pixels": 9}):
        with pytest.raises(UnsupportedOptionError, match=f"has no option --{next(iter(options)).split('_')[0]}"):
            encoder(m3, "sparse", **options)


def test_other_models_have_no_modes(m3: Path, tmp_path: Path) -> None:
    save_sentence(tmp_path, "gemma")
    for name in (tmp_path / "model", "openai/clip-vit-base-patch16", "Qwen/Qwen3-Embedding-0.6B"):
        for options in ({"mode": "sparse"}, {"mode": "dense"}, {"mode_weights": "1,1,1"}):
            with pytest.raises(UnsupportedOptionError, match="has no option --mode"):
                encoder(name, **options)
    with pytest.raises(UnsupportedOptionError, match="has no option --mode-weights"):
        encoder(m3, mode_weights="1,1,1")


def test_a_missing_head_is_named(copy: Path) -> None:
    (copy / "sparse_linear.pt").unlink()
    for mode in ("sparse", "hybrid"):
        with pytest.raises(UserError, match=f"has no sparse_linear.pt, which --mode {mode} needs"):
            encoder(copy, mode)
    assert len(encoded(encoder(copy, "multi-vector"), ["a"])[0]) == 2, "it needs the other head only"


@pytest.mark.parametrize(("head", "mode"), [("colbert", "multi-vector"), ("sparse", "sparse"), ("sparse", "hybrid")])
def test_a_head_of_another_model_is_named(copy: Path, head: str, mode: str) -> None:
    import torch

    torch.save(torch.nn.Linear(16, 1 if head == "sparse" else 16).state_dict(), copy / f"{head}_linear.pt")
    with pytest.raises(UserError, match=rf"{head}_linear.pt holds .*16.*; expected weight and bias .* n_hidden = 32"):
        encoder(copy, mode).load()


@pytest.mark.parametrize("content", [b"no tensors", "code"])
def test_a_head_that_is_no_file_of_tensors_is_not_opened(copy: Path, content: Any) -> None:
    import torch

    if content == "code":
        torch.save({"weight": print, "bias": Path}, copy / "sparse_linear.pt")
    else:
        (copy / "sparse_linear.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"sparse_linear\.pt cannot be read as tensors"):
        encoder(copy, "sparse").load()
