"""Rows after their CPU half, and how they become one batch: each row was processed alone, so nothing of a neighbour is
in it but padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raylib.extract.spans import Span
from raylib.types import Tensors

Side = Literal["left", "right"]

_PATCH_NUMBERS = "image_token_pooling"
"""Molmo 2's patches of each image token, by their number."""

_FILL = {"image_attention_mask": 1, _PATCH_NUMBERS: -1, "images": -1, "image_masks": -1, "image_input_idx": -1}
"""What stands in tiles that are not there, where it is not zero. Phi-4 has attention to them: without any, its tower
would divide by zero. Molmo and Molmo 2 know them by -1."""


@dataclass(frozen=True)
class PreparedRow:
    """A row as its processor gave it, alone. tensors: with a leading axis of 1 where they are per token."""

    tensors: Tensors
    span: Span

    @property
    def tokens(self) -> int:
        return self.span.query + 1

    @property
    def tiles(self) -> int:
        """Images that go through the vision tower: parts of the row's image, and the whole."""
        if "image_input_idx" in self.tensors:  # Molmo's crops are lists of patches
            return self.tensors["image_input_idx"].shape[1]
        if "aspect_ratio_mask" in self.tensors:  # Llama 3.2 pads to a fixed number of tiles by itself
            return int(self.tensors["aspect_ratio_mask"].sum())
        pixels = next((array for name, array in self.tensors.items() if "pixel_values" in name), None)
        if pixels is None or pixels.ndim < 3:
            return 1
        return len(pixels) if pixels.ndim == 3 else math.prod(pixels.shape[:-3])  # of three axes: patches are flat

    @property
    def patches(self) -> int | None:
        """Patches of the row's image, for models that keep them all in one list; None for others."""
        grid = self.tensors.get("image_grid_thw")
        return None if grid is None else int(grid.prod(axis=1).sum())

    @property
    def area(self) -> int | None:
        """Pixels of the row's image, where its processor tells; None for others."""
        sizes = self.tensors.get("image_sizes")
        return None if sizes is None else int(sizes.prod(axis=1).sum())


def collate(rows: Sequence[PreparedRow], pad_token: int, side: Side, *, joined: bool = False) -> Tensors:
    """One batch of `rows`: tensors per token are padded at `side` to the longest row, those of images are put one after
    the other, with zeros (or as _FILL says) where one is larger than another.

    joined: tiles [1, tiles, …] of all rows become [1, tiles of all, …], for models that know no tile that is missing.

    Per token is what has an entry for each token in every row: [1, tokens, …]. Where all rows are equally long, nothing
    has to be known.
    """
    longest = max(row.tokens for row in rows)
    batch = {}
    for name in rows[0].tensors:
        arrays = [row.tensors[name] for row in rows]
        if all(array.shape[:2] == (1, row.tokens) for array, row in zip(arrays, rows, strict=True)):
            arrays = [_pad_tokens(array, longest, pad_token if name == "input_ids" else 0, side) for array in arrays]
        if name == _PATCH_NUMBERS:
            arrays = _counted_on(arrays, [math.prod(row.tensors["pixel_values"].shape[:2]) for row in rows])
        if joined and name == "pixel_values":
            batch[name] = np.concatenate(arrays, axis=1)
            continue
        batch[name] = np.concatenate(_same_shape(arrays, _FILL.get(name, 0)))
    return batch


def _counted_on(arrays: list[np.ndarray], patches: list[int]) -> list[np.ndarray]:
    """Numbers of patches, counted from a row's first, as of the batch's first; those below 0 are none."""
    before = np.cumsum([0, *patches[:-1]])
    return [np.where(array < 0, array, array + first) for array, first in zip(arrays, before, strict=True)]


def _pad_tokens(array: np.ndarray, longest: int, value: int, side: Side) -> np.ndarray:
    missing = longest - array.shape[1]
    widths = [(0, 0)] * array.ndim
    widths[1] = (missing, 0) if side == "left" else (0, missing)
    return np.pad(array, widths, constant_values=value) if missing else array


def _same_shape(arrays: list[np.ndarray], fill: int) -> list[np.ndarray]:
    """`fill` added at the end of every axis but the first."""
    most = np.max([array.shape[1:] for array in arrays], axis=0, initial=0) if arrays[0].ndim > 1 else ()
    if all(array.shape[1:] == tuple(most) for array in arrays):
        return arrays
    grown = ([(0, 0), *((0, int(m) - n) for m, n in zip(most, array.shape[1:], strict=True))] for array in arrays)
    return [np.pad(array, widths, constant_values=fill) for array, widths in zip(arrays, grown, strict=True)]
