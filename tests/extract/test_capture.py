"""What a tower gave, told apart by rows: means by hand."""

import numpy as np
import pytest
import torch

from raylib.extract.capture import tower_means
from raylib.extract.collate import PreparedRow
from raylib.extract.spans import Span

SPAN = Span(np.array([0]), 0, 0)


def tiled(*counts):
    return [PreparedRow({"pixel_values": np.zeros((n, 3, 2, 2))}, SPAN) for n in counts]


def test_each_row_has_the_mean_over_its_own_tiles():
    hidden = torch.tensor([[[1.0], [3.0]], [[10.0], [20.0]], [[30.0], [40.0]]])  # 3 tiles of 2 patches
    assert tower_means(hidden, None, tiled(1, 2)).tolist() == [[2.0], [25.0]]


def test_patches_that_are_masked_do_not_count():
    hidden = torch.tensor([[[1.0], [3.0]], [[10.0], [20.0]], [[30.0], [40.0]]])
    mask = torch.tensor([[[1, 0]], [[1, 1]], [[0, 1]]])
    means = tower_means(hidden, mask, tiled(1, 2))
    assert means.flatten().tolist() == pytest.approx([1.0, (10 + 20 + 40) / 3])


def test_padded_tiles_do_not_count():
    """Two rows of one and of three tiles, padded to three, by row or in one list."""
    values = torch.arange(6.0).reshape(6, 1, 1)
    for hidden in (values, values.reshape(2, 1, 3, 1, 1)):
        assert tower_means(hidden, None, tiled(1, 3)).flatten().tolist() == [0.0, 4.0]


@pytest.mark.parametrize("shape", [(7, 1), (1, 7, 1)])
def test_patches_of_all_rows_in_one_list(shape):
    grids = [np.array([[1, 1, 2]]), np.array([[1, 5, 1]])]
    rows = [PreparedRow({"image_grid_thw": grid}, SPAN) for grid in grids]
    hidden = torch.tensor([1.0, 3.0, 10, 20, 30, 40, 50]).reshape(shape)
    assert tower_means(hidden, None, rows).flatten().tolist() == [2.0, 30.0]


@pytest.mark.parametrize("hidden", [torch.zeros(6, 2, 1), torch.zeros(5, 1)])
def test_what_does_not_fit_the_rows_is_not_guessed(hidden):
    assert tower_means(hidden, None, tiled(1, 2)) is None
