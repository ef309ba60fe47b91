"""--layers: numbers, shares of the depth, all."""

import pytest

from raylib.errors import UserError
from raylib.extract.layers import DEFAULT_LAYERS, check_layers, layer_fractions, parse_layers


@pytest.mark.parametrize(
    ("asked", "depth", "layers"),
    [
        (DEFAULT_LAYERS, 48, (0, 12, 24, 36, 47)),  # Gemma 3 12B, as HALP has them
        (DEFAULT_LAYERS, 28, (0, 7, 14, 21, 27)),  # Qwen2.5-VL 7B
        (DEFAULT_LAYERS, 42, (0, 10, 21, 31, 41)),  # 10.5 and 31.5 are rounded down
        (DEFAULT_LAYERS, 2, (0, 1)),  # the same layer twice is one
        ("all", 4, (0, 1, 2, 3)),
        ("3,7", 8, (3, 7)),
        ("7, 3,7", 8, (3, 7)),
        ("-1,-8", 8, (0, 7)),
        ("2/3", 9, (6,)),
    ],
)
def test_layers_are_counted_from_the_first_block(asked, depth, layers):
    assert parse_layers(asked, depth) == layers


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("8", r"--layers asks for 8; the decoder has 8 layers, 0 to 7 \(or -1\)"),
        ("-9", "asks for -9"),
        ("1/2,half", "--layers has 'half'; expected whole numbers, fractions below 1 or all"),
        ("0.5", "--layers has '0.5'"),
        ("3/2", "--layers has '3/2'"),
        ("1/0", "--layers has '1/0'"),
        (" , ", "--layers is empty"),
    ],
)
def test_what_is_no_layer_is_refused(asked, message):
    with pytest.raises(UserError, match=message):
        parse_layers(asked, 8)


def test_all_is_a_word_of_its_own():
    check_layers("all")
    with pytest.raises(UserError, match="--layers has 'all'"):
        check_layers("all,3")


def test_fractions_run_from_the_first_to_the_last_block():
    assert layer_fractions((0, 12, 47), 48) == [0.0, 12 / 47, 1.0]
    assert layer_fractions((0,), 1) == [0.0]
