"""Rows into a batch: padding by hand, for both sides and for images of several sizes."""

import numpy as np
import pytest

from raylib.extract.collate import PreparedRow, collate
from raylib.extract.spans import Span


def row(ids, **others):
    tensors = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}
    return PreparedRow(tensors | others, Span(np.array([0]), 0, len(ids) - 1))


def test_tokens_are_padded_at_either_side():
    rows = [row([5, 6, 7]), row([8])]
    right, left = collate(rows, 9, "right"), collate(rows, 9, "left")
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert left["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_masks_over_tokens_and_tiles_are_padded_along_tokens():
    masks = [np.ones((1, n, 1, 2), dtype=np.int64) for n in (1, 2)]
    rows = [row([1], cross_attention_mask=masks[0]), row([1, 2], cross_attention_mask=masks[1])]
    assert collate(rows, 0, "left")["cross_attention_mask"][:, :, 0, 0].tolist() == [[0, 1], [1, 1]]


def test_images_follow_one_another_and_missing_tiles_are_zero():
    patches = collate([row([1], pixel_values=np.ones((n, 3))) for n in (2, 5)], 0, "right")
    assert patches["pixel_values"].shape == (7, 3), "patches of all rows in one list"
    tiles = [row([1], pixel_values=np.full((1, n, 3, 2, 2), n)) for n in (1, 3)]
    padded = collate(tiles, 0, "right")["pixel_values"]
    assert padded.shape == (2, 3, 3, 2, 2)
    assert padded[:, :, 0, 0, 0].tolist() == [[1, 0, 0], [3, 3, 3]]


def test_tiles_that_are_not_there_are_attended_to_in_phi4():
    masks = [row([1], image_attention_mask=np.zeros((1, n, 2, 2))) for n in (1, 2)]
    assert collate(masks, 0, "right")["image_attention_mask"][:, :, 0, 0].tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("tensors", "tiles", "patches"),
    [
        ({"pixel_values": np.zeros((1, 3, 4, 4))}, 1, None),
        ({"pixel_values": np.zeros((5, 3, 4, 4))}, 5, None),
        ({"pixel_values": np.zeros((1, 4, 3, 4, 4))}, 4, None),
        ({"image_pixel_values": np.zeros((1, 3, 3, 4, 4))}, 3, None),
        ({"pixel_values": np.zeros((1, 1, 4, 3, 2, 2)), "aspect_ratio_mask": np.array([[[1, 1, 0, 0]]])}, 2, None),
        ({"pixel_values": np.zeros((24, 9)), "image_grid_thw": np.array([[1, 4, 6]])}, 1, 24),
    ],
)
def test_a_row_knows_how_many_tiles_or_patches_it_has(tensors, tiles, patches):
    assert (row([1], **tensors).tiles, row([1], **tensors).patches) == (tiles, patches)


def test_what_has_an_entry_for_each_token_is_padded_whatever_its_name():
    """ERNIE's moe_mm_token_type_ids; an image's tensor is not, though it has as many entries in one row."""
    rows = [row([5, 6, 7], kinds=np.array([[0, 1, 1]]), sizes=np.ones((1, 3))), row([8], kinds=np.array([[1]]))]
    rows[1].tensors["sizes"] = np.ones((1, 3))
    found = collate(rows, 9, "left")
    assert found["kinds"].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert found["sizes"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_patches_are_numbered_on_from_row_to_row():
    """Molmo 2: two crops of three patches in the first row; -1 is no patch."""
    first = row([1], pixel_values=np.zeros((2, 3, 4)), image_token_pooling=np.array([[0, 5]]))
    second = row([1], pixel_values=np.zeros((1, 3, 4)), image_token_pooling=np.array([[2, -1], [0, 1]]))
    assert collate([first, second], 0, "right")["image_token_pooling"].tolist() == [[0, 5], [8, -1], [6, 7]]


def test_tiles_may_be_joined():
    rows = [row([1], pixel_values=np.full((1, n, 3, 2, 2), n)) for n in (1, 2)]
    found = collate(rows, 0, "right", joined=True)["pixel_values"]
    assert found.shape == (1, 3, 3, 2, 2)
    assert found[0, :, 0, 0, 0].tolist() == [1, 2, 2]
