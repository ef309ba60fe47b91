"""What InternVL's backbone reads: tokens of texts, and pages cut into tiles. Over a tokenizer and an image processor of
transformers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from raylib.types import Tensors

MAX_TOKENS = 256
"""Of a text; longer ones are cut, as in training."""


def text_tokens(tokenizer: Any, texts: list[str]) -> Tensors:
    """input_ids int64 and attention_mask bool, [n, tokens]. Padded on the right, whatever the tokenizer prefers: a
    causal model then gives a text the same vectors beside a longer one, without any rounding."""
    found = tokenizer(
        texts, padding=True, padding_side="right", truncation=True, max_length=MAX_TOKENS, return_tensors="np"
    )
    return {
        "input_ids": found["input_ids"].astype(np.int64),
        "attention_mask": found["attention_mask"].astype(bool),
    }


def page_tiles(images: Any, pages: list[Any]) -> Tensors:
    """pixel_values [n, tiles, 3, height, width], padded with tiles of zeros, and tiles int64 [n], how many are real, of
    pages in RGB."""
    found = images(images=pages, crop_to_patches=True, do_convert_rgb=False, return_tensors="pt")
    counts = np.asarray(found["num_patches"], dtype=np.int64)
    flat = found["pixel_values"].numpy()
    padded = np.zeros((len(pages), counts.max(), *flat.shape[1:]), dtype=flat.dtype)
    padded[real_tiles(padded, counts)] = flat
    return {"pixel_values": padded, "tiles": counts}


def real_tiles(padded: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """bool [n, tiles]: which of the padded tiles are a page's own."""
    return np.arange(padded.shape[1]) < counts[:, None]


def limit_pixels(images: Any, max_pixels: int) -> None:
    """Let an image processor cut a page into no more tiles than have `max_pixels` together, but one at least."""
    images.max_patches = max(1, max_pixels // math.prod(_tile_size(images)))
    images.min_patches = min(images.min_patches, images.max_patches)


def tile_layout(images: Any, page: Any) -> tuple[int, int]:
    """Rows and columns of the tiles of a page, as its processor chooses them."""
    from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

    size = (page.height, page.width)
    columns, rows = get_optimal_tiled_canvas(size, _tile_size(images), images.min_patches, images.max_patches)
    return rows, columns


def _tile_size(images: Any) -> tuple[int, int]:
    """Height and width."""
    return images.size["height"], images.size["width"]
