"""What a tower gave, told apart by rows: means by hand."""

import numpy as np
import pytest
import torch

from raylib.extract.capture import tower_means
from raylib.extract.collate import PreparedRow
from raylib.extract.spans import Span

SPAN = Span(np.array([0]), 0, 0)


def means(*given):
    found = tower_means(*given)
    assert found is not None
    return found


def tiled(*counts):
    return [PreparedRow({"pixel_values": np.zeros((n, 3, 2, 2))}, SPAN) for n in counts]


def test_each_row_has_the_mean_over_its_own_tiles():
    hidden = torch.tensor([[[1.0], [3.0]], [[10.0], [20.0]], [[30.0], [40.0]]])  # 3 tiles of 2 patches
    assert means(hidden, None, tiled(1, 2)).tolist() == [[2.0], [25.0]]


def test_patches_that_are_masked_do_not_count():
    hidden = torch.tensor([[[1.0], [3.0]], [[10.0], [20.0]], [[30.0], [40.0]]])
    mask = torch.tensor([[[1, 0]], [[1, 1]], [[0, 1]]])
    found = means(hidden, mask, tiled(1, 2))
    assert found.flatten().tolist() == pytest.approx([1.0, (10 + 20 + 40) / 3])


def test_padded_tiles_do_not_count():
    """Two rows of one and of three tiles, padded to three, by row or in one list."""
    values = torch.arange(6.0).reshape(6, 1, 1)
    for hidden in (values, values.reshape(2, 1, 3, 1, 1)):
        assert means(hidden, None, tiled(1, 3)).flatten().tolist() == [0.0, 4.0]


@pytest.mark.parametrize("shape", [(7, 1), (1, 7, 1)])
def test_patches_of_all_rows_in_one_list(shape):
    grids = [np.array([[1, 1, 2]]), np.array([[1, 5, 1]])]
    rows = [PreparedRow({"image_grid_thw": grid}, SPAN) for grid in grids]
    hidden = torch.tensor([1.0, 3.0, 10, 20, 30, 40, 50]).reshape(shape)
    assert means(hidden, None, rows).flatten().tolist() == [2.0, 30.0]


@pytest.mark.parametrize("hidden", [torch.zeros(6, 2, 1), torch.zeros(5, 1)])
def test_what_does_not_fit_the_rows_is_not_guessed(hidden):
    assert tower_means(hidden, None, tiled(1, 2)) is None


@pytest.mark.parametrize("tokens", [(1, 2), (2, 4)])
def test_without_a_grid_each_image_token_stands_for_a_square_of_patches(tokens):
    """Three tokens for 12 states: four each; six tokens for 6 states: one each; six for 12 would be two."""
    rows = [PreparedRow({"pixel_values": np.zeros((1, 9, 4))}, Span(np.arange(n), 0, 9)) for n in tokens]
    states = torch.arange(12.0 if sum(tokens) == 3 else 6.0).reshape(-1, 1)
    assert means(states, None, rows).flatten().tolist() == ([1.5, 7.5] if sum(tokens) == 3 else [0.5, 3.5])
    assert tower_means(torch.zeros(2 * sum(tokens), 1), None, rows) is None


def test_a_tower_may_have_merged_squares_of_the_grid_or_read_patches_of_an_area():
    grids = [np.array([[1, 2, 2]]), np.array([[1, 2, 4]])]
    merged = torch.tensor([1.0, 10, 20]).reshape(-1, 1)
    rows = [PreparedRow({"image_grid_thw": grid}, SPAN) for grid in grids]
    assert means(merged, None, rows).flatten().tolist() == [1.0, 15.0]
    assert tower_means(torch.zeros(6, 1), None, rows) is None, "pairs of patches are no squares"
    sized = [PreparedRow({"image_sizes": np.array([size])}, SPAN) for size in ([7, 7], [7, 14])]
    assert means(merged, None, sized).flatten().tolist() == [1.0, 15.0]


def test_of_four_axes_the_width_is_not_guessed():
    """Maps [images, width, rows, columns] are told by the table; without it they were read as tiles."""
    assert tower_means(torch.zeros(2, 3, 4, 4), None, tiled(1, 1)) is None
