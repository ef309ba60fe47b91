"""The small page retriever: untrained, trained, and written down and read again."""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from raylib.models.colpali import ColPaliEngineEncoder
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.models.weights import SHIPPED, weights_digest
from raylib.tasks import stdlib_cards

from .colpali_helpers import DOCUMENT, QUERY, encode

UNTRAINED, TRAINED = "raylib/untrained-page-retriever", "raylib/page-retriever-tiny"
PROMPT = "<bos><bos>Describe the image.\n"


def encoder_of(name: str, dtype: str = "float32") -> ColPaliEngineEncoder:
    found = resolve(ModelSpec(name, device="cpu", dtype=dtype))
    assert isinstance(found, ColPaliEngineEncoder) and found.family.name == "colpali"
    return found


@cache
def few_cards() -> tuple[list[stdlib_cards.Card], list[stdlib_cards.Query]]:
    """The first 40 cards that the model was not trained on, and their questions."""
    cards, queries = stdlib_cards.build("test")
    entries = {card.entry for card in cards[:40]}
    return cards[:40], [query for query in queries if query.entry in entries]


def ndcg_at_5(encoder: ColPaliEngineEncoder) -> float:
    """On the 40 cards, with MaxSim as it is defined (arXiv 2004.12832): of ties, the worst order."""
    cards, queries = few_cards()
    pages = list(encode(encoder, {"image": [stdlib_cards.draw(card) for card in cards]}, DOCUMENT))
    asked = list(encode(encoder, {"text": [query.text for query in queries]}, QUERY))
    gains = []
    for query, words in zip(queries, asked, strict=True):
        scores = np.array([(words @ page.T).max(axis=1).sum() for page in pages])
        own = scores[[card.entry for card in cards].index(query.entry)]
        rank = int((scores >= own).sum()) - 1
        gains.append(1 / np.log2(rank + 2) if rank < 5 else 0.0)
    return float(np.mean(gains))


def test_the_untrained_one_is_the_same_wherever_it_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for folder in ("one", "two"):
        monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path / folder))
        encoder = encoder_of(UNTRAINED)
        found.append(encoder.fingerprint)
    assert found[0] == found[1]
    got = encode(encoder, {"image": [stdlib_cards.draw(card) for card in few_cards()[0][:2]]}, DOCUMENT)
    assert got.token_counts.tolist() == [64 + len(encoder.processor.tokenizer.tokenize(PROMPT))] * 2
    assert got.dim == 128 and np.abs(got[0] - got[1]).max() > 1e-3


def test_the_trained_one_comes_with_the_package() -> None:
    encoder = encoder_of(TRAINED)

    assert encoder.identity["weights"] == weights_digest(SHIPPED[TRAINED])
    fingerprint = encoder.fingerprint
    vectors = encode(encoder, {"text": ["open file"]}, QUERY)
    again = pickle.loads(pickle.dumps(encoder))
    assert again.fingerprint == fingerprint == encoder_of(TRAINED).fingerprint
    np.testing.assert_array_equal(encode(again, {"text": ["open file"]}, QUERY).values, vectors.values)


def test_what_is_shipped_is_small() -> None:
    folder = SHIPPED[TRAINED]
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert "RECIPE.md" in files and sum(files.values()) < 5e6
    with safe_open(folder / "model.safetensors", "np") as weights:
        names = list(weights.keys())
        assert {weights.get_slice(name).get_dtype() for name in names} == {"F16"}
    assert not [name for name in names if "lm_head" in name or "vision_tower.head" in name]


def test_the_trained_one_reads_cards_that_it_has_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLIB_CACHE", str(tmp_path))
    trained, untrained = ndcg_at_5(encoder_of(TRAINED)), ndcg_at_5(encoder_of(UNTRAINED))
    assert trained > 0.7 and trained > 5 * untrained


def test_a_trained_copy_is_written_and_read_again(tmp_path: Path) -> None:
    """In half the bytes where it is in half precision: how the shipped one was written."""
    import torch

    encoder = encoder_of(TRAINED, dtype="float16")
    with torch.no_grad():
        encoder.model.custom_text_proj.bias.add_(0.5)
    encoder.save(str(tmp_path / "copy"))

    again = encoder_of(str(tmp_path / "copy"), dtype="float16")

    batch = {"text": ["How do I open a file?", "close"]}
    np.testing.assert_array_equal(encode(again, batch, QUERY).values, encode(encoder, batch, QUERY).values)
    assert again.fingerprint != encoder.fingerprint
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "copy", SHIPPED[TRAINED])]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
