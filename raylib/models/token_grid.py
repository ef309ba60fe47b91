"""Where on a page the vectors of a late-interaction model are, and what the tokens of its texts say.

Read off what a processor gives, without weights: image tokens are the ones whose id is the image token's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from raylib.models.protocol import TokenGrid

_TILE = re.compile(r"<row_(\d+)_col_(\d+)>")
"""How Idefics3's processor names a tile, before the tile's image tokens."""


def page_grids(processor: Any, inputs: Mapping[str, Any], first: np.ndarray) -> list[TokenGrid | None]:
    """The grid of every page of a processed batch; None for one whose image tokens make no rectangle.

    inputs: input_ids and attention_mask [n, tokens], and image_grid_thw [n, 3] where the processor gives one.
    first [n]: how many vectors the content has before its page's.
    """
    grids: list[TokenGrid | None] = []
    for row, mask in enumerate(np.asarray(inputs["attention_mask"]).astype(bool)):
        ids = np.asarray(inputs["input_ids"][row])[mask]
        places = np.flatnonzero(np.isin(ids, processor.image_token_ids))
        if "image_grid_thw" in inputs:
            cells = _merged(places, inputs["image_grid_thw"][row], processor.image_processor.merge_size)
        elif hasattr(processor, "image_seq_len"):
            cells = _tiled(places, processor.image_seq_len, processor.tokenizer.convert_ids_to_tokens(ids.tolist()))
        else:
            cells = _square(places)
        grids.append(None if cells is None else TokenGrid(cells + int(first[row])))
    return grids


def _square(places: np.ndarray) -> np.ndarray | None:
    """ColPali, ColGemma3: every page is scaled to a square, whose patches come row by row."""
    side = math.isqrt(len(places))
    return places.reshape(side, side) if side and side * side == len(places) else None


def _merged(places: np.ndarray, grid_thw: Any, merge: int) -> np.ndarray | None:
    """Qwen: grid_thw counts patches before `merge` × `merge` of them become one token; tokens come row by row."""
    rows, columns = int(grid_thw[1]) // merge, int(grid_thw[2]) // merge
    return places.reshape(rows, columns) if len(places) == rows * columns > 0 else None


def _tiled(places: np.ndarray, per_tile: int, tokens: list[str]) -> np.ndarray | None:
    """Idefics3: tiles row by row, each with its square of tokens, then the whole page once more in one tile, which is
    left out. A small page is that last tile alone."""
    side = math.isqrt(per_tile)
    named = [match for token in tokens if (match := _TILE.fullmatch(token))]
    rows, columns = (max(int(match[part]) for match in named) for part in (1, 2)) if named else (0, 0)
    if side * side != per_tile or len(places) != (rows * columns + 1) * per_tile:
        return None
    if not named:
        return places.reshape(side, side)
    return _joined(places[: rows * columns * per_tile], rows, columns, side)


def page_of_tiles(first: int, rows: int, columns: int, side: int) -> np.ndarray:
    """[rows · side, columns · side] int64: the vectors of a page of rows × columns tiles with side × side tokens each,
    that come tile by tile from vector `first` on."""
    return _joined(np.arange(first, first + rows * columns * side * side), rows, columns, side)


def _joined(places: np.ndarray, rows: int, columns: int, side: int) -> np.ndarray:
    """Tokens of tiles, row by row within each tile → row by row of the page."""
    return places.reshape(rows, columns, side, side).transpose(0, 2, 1, 3).reshape(rows * side, columns * side)


def words_of_tokens(tokenizer: Any, inputs: Mapping[str, Any]) -> list[list[str]]:
    """The text of every real token; one that starts a word keeps the space before it. Special tokens keep their name,
    and the parts of a letter of several bytes are one "�" each."""
    texts = []
    for ids, mask in zip(inputs["input_ids"], np.asarray(inputs["attention_mask"]).astype(bool), strict=True):
        texts.append([_word(tokenizer, token) for token in tokenizer.convert_ids_to_tokens(np.asarray(ids)[mask])])
    return texts


def _word(tokenizer: Any, token: str) -> str:
    if token in tokenizer.all_special_tokens:
        return token
    text = tokenizer.convert_tokens_to_string([token])
    starts_word = token.startswith(("▁", "Ġ")) and not text.startswith(" ")
    return " " + text if starts_word else text
