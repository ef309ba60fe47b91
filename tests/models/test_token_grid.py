"""Where a page's patches are among its vectors: a patch that changes must change its own vector most."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raylib.models.protocol import ModelSpec
from raylib.models.registry import resolve
from raylib.models.token_grid import page_grids

from . import tiny_vlm
from .colpali_helpers import DOCUMENT, FAMILY, QUERY, encode, ours

SHAPES = {
    # upstream → page size, grid (rows, columns) by hand
    "ColPali": ((90, 130), (2, 2)),  # 28 pixels a side, patches of 14
    "ColQwen2": ((112, 56), (2, 4)),  # tokens of 28 × 28 pixels
    "ColQwen2_5": ((56, 112), (4, 2)),
    "ColQwen3": ((128, 64), (2, 4)),  # tokens of 32 × 32 pixels
    "ColQwen3_5": ((64, 128), (4, 2)),
    "ColIdefics3": ((100, 60), (2, 2)),  # longest edge to 56: tiles of 28 pixels, one token each
    "ColModernVBert": ((60, 100), (2, 2)),
    "ColGemma3": ((120, 120), (2, 2)),  # 4 tokens a page
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda upstream: tiny_vlm.build(upstream, tmp_path_factory.mktemp(upstream)))


def with_dark_cell(size: tuple[int, int], shape: tuple[int, int], cell: tuple[int, int]) -> Image.Image:
    """A grey page whose one cell of the grid is striped."""
    width, height = size
    pixels = np.full((height, width, 3), 200, dtype=np.uint8)
    (row, column), (rows, columns) = cell, shape
    part = pixels[
        row * height // rows : (row + 1) * height // rows, column * width // columns : (column + 1) * width // columns
    ]
    part[::2], part[1::2] = (255, 0, 0), (0, 0, 90)
    return Image.fromarray(pixels)


def connect_vision(model: torch.nn.Module) -> None:
    """An untrained Gemma 3 multiplies what it sees by zero."""
    for name, weight in model.named_parameters():
        if name.endswith("mm_input_projection_weight"):
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))


def test_every_late_family_is_covered() -> None:
    assert {name for name, family in FAMILY.items() if family.kind == "late-interaction"} == set(SHAPES)


@pytest.mark.parametrize("upstream", SHAPES)
def test_the_changed_cell_is_where_the_grid_says(upstream: str, checkpoint: Callable[[str], Path]) -> None:
    encoder, (size, shape) = ours(upstream, checkpoint(upstream)), SHAPES[upstream]
    connect_vision(encoder.model)
    plain = Image.new("RGB", size, (200, 200, 200))
    vectors = encode(encoder, {"image": [plain]}, DOCUMENT)[0]
    (grid,) = encoder.token_grid({"image": [plain]})
    assert grid is not None and grid.tokens.shape == shape
    assert len(set(grid.tokens.ravel().tolist())) == grid.tokens.size and grid.tokens.max() < len(vectors)

    for cell in np.ndindex(shape):
        changed = encode(encoder, {"image": [with_dark_cell(size, shape, cell)]}, DOCUMENT)[0]
        moved = np.linalg.norm(changed - vectors, axis=1)[grid.tokens]
        assert np.unravel_index(moved.argmax(), shape) == cell


@pytest.mark.parametrize("upstream", ["ColQwen2_5", "ColIdefics3", "ColPali"])
def test_neighbours_and_padding_do_not_show(upstream: str, checkpoint: Callable[[str], Path]) -> None:
    encoder, pages = ours(upstream, checkpoint(upstream)), tiny_vlm.mixed_pages()
    together = encoder.token_grid({"image": pages})
    for page, grid in zip(pages, together, strict=True):
        (alone,) = encoder.token_grid({"image": [page]})
        assert grid is not None and alone is not None
        np.testing.assert_array_equal(grid.tokens, alone.tokens)


def test_a_content_with_text_has_its_page_after_the_text(checkpoint: Callable[[str], Path]) -> None:
    encoder = ours("ColQwen2", checkpoint("ColQwen2"))
    pages = tiny_vlm.mixed_pages()
    alone = encoder.token_grid({"image": pages})
    both = encoder.token_grid({"text": tiny_vlm.QUERIES, "image": pages})
    counts = encode(encoder, {"text": tiny_vlm.QUERIES}, DOCUMENT).token_counts
    for i, (with_text, without) in enumerate(zip(both, alone, strict=True)):
        assert with_text is not None and without is not None
        np.testing.assert_array_equal(with_text.tokens, without.tokens + counts[i])


def test_a_small_page_of_idefics_is_one_tile(checkpoint: Callable[[str], Path], monkeypatch) -> None:
    """Tiles of four tokens by hand: <row_1_col_1> a b c d, <row_1_col_2> e f g h, <global> i j k l."""
    processor = ours("ColIdefics3", checkpoint("ColIdefics3")).processor
    monkeypatch.setattr(processor, "image_seq_len", 4)
    tile = [processor.image_token_id] * 4
    left, right = (processor.tokenizer.convert_tokens_to_ids(f"<row_1_col_{column}>") for column in (1, 2))
    ids = np.array([[left, *tile, right, *tile, processor.global_image_token_id, *tile]])
    small = np.array([[processor.tokenizer.eos_token_id, *tile]])

    def tokens(ids: np.ndarray):
        (grid,) = page_grids(processor, {"input_ids": ids, "attention_mask": np.ones_like(ids)}, np.zeros(1, np.int64))
        assert grid is not None
        return grid.tokens.tolist()

    assert tokens(ids) == [[1, 2, 6, 7], [3, 4, 8, 9]]
    assert tokens(small) == [[1, 2], [3, 4]]


def test_what_is_no_rectangle_has_no_grid(checkpoint: Callable[[str], Path]) -> None:
    processor = ours("ColPali", checkpoint("ColPali")).processor
    ids = np.full((1, 3), processor.image_token_id)
    assert page_grids(processor, {"input_ids": ids, "attention_mask": np.ones_like(ids)}, np.zeros(1)) == [None]


def test_contents_without_patches_have_no_grid(checkpoint: Callable[[str], Path]) -> None:
    late, dense = ours("ColPali", checkpoint("ColPali")), ours("BiQwen2", checkpoint("BiQwen2"))
    assert late.token_grid({"text": ["a", "b"]}) == [None, None]
    assert dense.token_grid({"image": [tiny_vlm.page(60, 60)]}) == [None]
    assert dense.token_texts({"text": ["a"]}) == [None]
    assert resolve(ModelSpec("raylib/hashed-ngrams")).token_grid({"text": ["a", "b"]}) == [None, None]


@pytest.mark.parametrize("upstream", SHAPES)
def test_one_text_for_every_vector_of_a_query(upstream: str, checkpoint: Callable[[str], Path]) -> None:
    encoder = ours(upstream, checkpoint(upstream))
    texts = encoder.token_texts({"text": tiny_vlm.QUERIES})
    counts = encode(encoder, {"text": tiny_vlm.QUERIES}, QUERY).token_counts
    assert [len(words or []) for words in texts] == counts.tolist()
    assert "socket" in "".join(texts[2] or [])


def test_the_words_of_a_query(checkpoint: Callable[[str], Path]) -> None:
    """<bos>, the prefix, the words, ten augmentation tokens, which ColPali calls <pad>."""
    (words,) = ours("ColPali", checkpoint("ColPali")).token_texts({"text": ["it is"]})
    assert words is not None and words[0] == "<bos>" and words[-10:] == ["<pad>"] * 10
    assert "".join(words[1:-10]) == "Query: it is"
