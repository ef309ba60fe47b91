"""Texts of an exact number of tokens, for tokenizers whose counts can be followed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from raylib.bench.inputs import PHOTO_SIZES, exact_texts, limit_of, longest_texts, photos, token_counter
from raylib.errors import UserError
from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve


def thirds(text: str) -> int:
    """A token for every three letters of a word, and two special ones."""
    return 2 + sum(-(-len(word) // 3) for word in text.split())


def test_texts_have_exactly_so_many_tokens_and_are_all_different():
    for tokens in (3, 16, 128):
        texts = exact_texts(thirds, tokens, 20)
        assert {thirds(text) for text in texts} == {tokens}
        assert len(set(texts)) > 15
    assert len({word for text in texts for word in text.split()}) > 50


def test_texts_are_the_same_in_every_run():
    assert exact_texts(thirds, 16, 3) == exact_texts(thirds, 16, 5)[:3]
    assert exact_texts(thirds, 16, 3) != exact_texts(thirds, 16, 3, seed=1)


def test_a_length_that_no_text_has_is_named():
    with pytest.raises(UserError, match="no text of exactly 1 tokens"):
        exact_texts(thirds, 1, 1)
    with pytest.raises(UserError, match="no text of exactly 15 tokens"):
        exact_texts(lambda text: 2 * len(text.split()), 15, 1)


def test_texts_of_about_a_length_are_as_long_as_fits():
    counts = [thirds(text) for text in longest_texts(thirds, [9, 60])]
    assert all(n - 4 <= have <= n for have, n in zip(counts, (9, 60), strict=True))


@pytest.fixture(scope="module")
def encoder(tiny):
    return resolve(ModelSpec(str(tiny("sentence-transformers"))))


def test_the_models_own_tokenizer_counts(encoder):
    texts = exact_texts(token_counter(encoder), 24, 4)
    tokens = encoder.preprocess({"text": texts}, encoder.context(None, None))
    assert tokens["attention_mask"].sum(axis=1).tolist() == [24] * 4
    assert tokens["input_ids"].shape == (4, 24)


def test_what_a_model_does_not_read_is_noticed(encoder):
    count = token_counter(encoder)  # the model reads 64 tokens
    assert limit_of(encoder, exact_texts(count, 64, 1)[0], 64) is None
    assert limit_of(encoder, exact_texts(count, 65, 1)[0], 65) == 64


def test_photos_are_the_same_in_every_run_and_of_several_sizes():
    found = photos(5)
    assert [photo.size for photo in found] == [*PHOTO_SIZES, PHOTO_SIZES[0]]
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(found, photos(5), strict=True))
    assert (np.asarray(found[0]) != np.asarray(found[4])).any()
    assert all(np.asarray(photo).std() > 10 for photo in found)
