"""`raylib.encode` of texts and images in memory."""

import io

import numpy as np
import pytest
from PIL import Image

import raylib
from raylib.encode import arrays
from raylib.errors import UserError
from tests.encode.made import COLOURS, png
from tests.evaluate.made import by_hand

LETTERS = "tests.evaluate.made:letters"


@pytest.fixture(autouse=True)
def no_model_yet():
    arrays._last.clear()


def test_texts_are_an_array_in_their_order(models):
    found = raylib.encode(LETTERS, texts=["aab", "c" * 50, "aab"], batch_size=2)
    assert found.dtype == np.float32 and found.tolist() == [by_hand("aab"), by_hand("c" * 50), by_hand("aab")]
    assert models[LETTERS].encoded == 2


def test_images_may_be_pil_images_bytes_or_paths(tmp_path, models):
    (tmp_path / "blue.png").write_bytes(png("blue"))
    images = [Image.open(io.BytesIO(png("red"))), png("lime"), str(tmp_path / "blue.png"), tmp_path / "blue.png"]
    assert raylib.encode(LETTERS, images=images).tolist() == [COLOURS[c] for c in ("red", "lime", "blue", "blue")]


def test_texts_and_images_together_are_fused(models):
    assert raylib.encode("tests.encode.made:fuser", texts=["aa"], images=[png("red")]).tolist() == [[3, 0, 0, 1]]
    with pytest.raises(UserError, match="reads one of them at a time"):
        raylib.encode(LETTERS, texts=["aa"], images=[png("red")])


def test_late_interaction_is_a_list_of_matrices(models):
    found = raylib.encode("tests.evaluate.made:words", texts=["a b", "abc"])
    assert [matrix.tolist() for matrix in found] == [[[1, 0, 0], [0, 1, 0]], [[1, 1, 1]]]


def test_a_model_that_mtebs_code_runs_is_given_a_task(models):
    found = raylib.encode("tests.models.factories:Prompted", texts=["ab"], role="query")
    assert found.tolist() == [[2, 2, 2]], "the task's name, RaylibEncode, is put in front: an a, a b and a c more"


def test_the_model_of_the_last_call_is_used_again(monkeypatch):
    from raylib.models.hashed import HashedEncoder

    first = raylib.encode("raylib/hashed-ngrams", texts=["a word"])
    encoder = arrays._last[0][1]
    assert isinstance(encoder, HashedEncoder)
    assert np.array_equal(raylib.encode("raylib/hashed-ngrams", texts=["a word"]), first)
    assert arrays._last[0][1] is encoder


def test_a_store_keeps_vectors_between_calls(tmp_path, models):
    for _ in range(2):
        raylib.encode(LETTERS, texts=["a", "b"], store=str(tmp_path))
    assert models[LETTERS].encoded == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"texts": "one"}, "texts is one str; expected a list"),
        ({"texts": []}, "nothing to encode; give texts"),
        ({"texts": ["a", 3]}, r"texts\[1\] is int, expected text"),
        ({"texts": ["a"], "images": []}, "1 texts and 0 images"),
        ({"images": [3]}, r"images\[0\] is int; expected a PIL image"),
        ({"images": ["nowhere.png"]}, r"images\[0\]: nowhere.png cannot be read: No such file"),
        ({"images": [b"x"]}, "1 of 1 contents cannot be encoded\n  0: unreadable image"),
        ({"texts": ["a", " "]}, "1 of 2 contents cannot be encoded\n  1: it has no text and no image"),
        ({"texts": ["a"], "output": "x"}, "in memory do not go with output"),
        ({"texts": ["a"], "local": False}, "in memory do not go with local"),
        ({"texts": ["a"], "batch_size": "auto"}, "batch_size='auto' needs --input"),
    ],
    ids=str,
)
def test_what_cannot_be_encoded_is_said(given, message, models):
    with pytest.raises(UserError, match=message):
        raylib.encode(LETTERS, **given)


def test_the_package_and_the_function_bear_one_name():
    import raylib.encode.config
    from raylib.api import encode

    assert callable(raylib.encode) and raylib.encode.__call__ is not encode
    with pytest.raises(UserError, match="nothing to encode; give texts"):
        raylib.encode(LETTERS, texts=[])
