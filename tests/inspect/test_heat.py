"""Heat maps: every value below is worked out by hand."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from raylib.inspect.heat import film, match, shared_scale

QUERY = np.array([[1.0, 0.0], [0.25, 0.5]], dtype=np.float32)
PAGE = np.array([[2.0, 8.0], [3.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 2.0]], dtype=np.float32)
GRID = np.array([[1, 2], [4, 3]])  # vector 0 is no patch; the lower row is stored from right to left


def test_similarities_of_patches():
    found = match(QUERY, PAGE, GRID)
    np.testing.assert_array_equal(found.maps[0], [[3.0, 0.0], [-1.0, 1.0]])
    np.testing.assert_array_equal(found.maps[1], [[0.75, 0.5], [0.75, 0.75]])
    np.testing.assert_array_equal(found.total, [[3.75, 0.5], [-0.25, 1.75]])


def test_what_counted_may_be_no_patch():
    found = match(QUERY, PAGE, GRID)
    assert found.best.tolist() == [3.0, 4.5]  # 0.25 · 2 + 0.5 · 8
    assert found.cells == [(0, 0), None]
    assert found.score == 7.5


def test_values_are_those_of_float64():
    rng = np.random.default_rng(3)
    query, page = (rng.normal(size=(n, 16)).astype(np.float16) for n in (5, 12))
    found = match(query, page, np.arange(12).reshape(3, 4))
    for token in range(5):
        for patch in range(12):
            by_hand = math.fsum(float(a) * float(b) for a, b in zip(query[token], page[patch], strict=True))
            assert found.maps[token][divmod(patch, 4)] == pytest.approx(by_hand, rel=1e-5, abs=1e-5)


def test_a_grid_of_another_page_is_refused():
    with pytest.raises(ValueError, match="names vector 5 of 5"):
        match(QUERY, PAGE, np.array([[0, 5]]))


def test_one_scale_for_all_pages_of_a_query():
    one = np.array([[[0.0, 1.0]], [[5.0, 6.0]]])
    other = np.array([[[-1.0, 0.5], [0.0, 0.0]], [[5.5, 9.0], [7.0, 7.0]]])
    low, high = shared_scale([one, other])
    assert low.tolist() == [-1.0, 5.0] and high.tolist() == [1.0, 9.0]


def test_a_film_has_a_frame_per_token_below_each_other():
    frames = np.array([[[0.0, 1.0, 0.5]], [[10.0, 20.0, 40.0]], [[7.0, 7.0, 7.0]]])
    image = Image.open(io.BytesIO(film(frames, np.array([0.0, 0.0, 7.0]), np.array([1.0, 40.0, 7.0]))))
    levels = np.asarray(image)
    assert image.mode == "P" and levels.tolist() == [[0, 63, 32], [16, 32, 63], [0, 0, 0]]  # 63 · share, rounded
    colours = np.asarray(image.convert("RGBA"))
    assert colours[0, 0, 3] == 0, "the least similar patch shows the page"
    assert 150 < colours[0, 1, 3] < 255, "the page shows through the most similar one"
    red, green, _, _ = colours[0, 1].tolist()
    assert red > 3 * green, "the most similar one is red"


def test_values_outside_the_scale_take_its_ends():
    levels = Image.open(io.BytesIO(film(np.array([[[-3.0, 9.0]]]), np.zeros(1), np.ones(1))))
    assert np.asarray(levels).tolist() == [[0, 63]]
