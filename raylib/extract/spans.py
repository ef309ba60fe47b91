"""Where a prompt's image tokens are, and which token stands for the image: found, or guessed as HALP's scripts did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from raylib.errors import ModelError
from raylib.types import Tensors


@dataclass(frozen=True)
class Span:
    """Positions in one prompt, counted without padding.

    image [n] int64: of the image's tokens. vision: whose hidden state is the vision token's. query: of the last token
    of the prompt. With cross-attention there is one image token, which stands where the image was put: it and all
    tokens after it attend to the image.
    """

    image: np.ndarray
    vision: int
    query: int

    @property
    def bounds(self) -> tuple[int, int]:
        """The first image token, and one past the last; tokens between tiles of the image lie within."""
        return int(self.image[0]), int(self.image[-1]) + 1


LegacyPosition = Callable[[int, np.ndarray, Tensors], int]
"""(tokens of the prompt, positions of the image's tokens, the row's tensors) → the position that a script took."""


def find_image(input_ids: np.ndarray, image_token: int, model: str) -> np.ndarray:
    """int64: where the image's tokens are in the expanded input_ids [1, tokens] of one row. Raises ModelError where
    there are none."""
    ids = input_ids[0]
    positions = np.flatnonzero(ids == image_token).astype(np.int64)
    if not len(positions):
        raise ModelError(
            f"{model}: no token {image_token}, its image token, in a prompt of {len(ids)} tokens with an image; its "
            "processor and its config do not fit each other"
        )
    return positions


def span_of(image: np.ndarray, tokens: int, tensors: Tensors, legacy: LegacyPosition | None = None) -> Span:
    """The span of a prompt of `tokens` tokens, whose image's tokens are at `image`."""
    vision = int(image[-1]) if legacy is None else min(max(legacy(tokens, image, tensors), 0), tokens - 1)
    return Span(image, vision, tokens - 1)


# HALP's scripts, one guess per model (https://github.com/alliedbrother/HALP_EACL, Extraction_Script).


def _gemma3(tokens: int, image: np.ndarray, tensors: Tensors) -> int:
    """As if the image had 256 tokens and nothing stood before it."""
    del image, tensors
    return min(255, tokens // 2)


def _qwen(tokens: int, image: np.ndarray, tensors: Tensors) -> int:
    """Patches before they are merged, four to a token."""
    del image
    grid = tensors.get("image_grid_thw")
    return tokens // 3 if grid is None else min(int(np.prod(grid[0])), tokens // 2)


def _smolvlm(tokens: int, image: np.ndarray, tensors: Tensors) -> int:
    """A quarter of the prompt, between 200 and 800."""
    del image, tensors
    return max(1, min(max(200, tokens // 4), 800, tokens - 10))


def _llava(tokens: int, image: np.ndarray, tensors: Tensors) -> int:
    """A third of the prompt, between 400 and 1500."""
    del image, tensors
    return max(1, min(max(400, tokens // 3), 1500, tokens - 10))


def _molmo(tokens: int, image: np.ndarray, tensors: Tensors) -> int:
    """One past the last."""
    del tokens, tensors
    return int(image[-1]) + 1


def _fastvlm(tokens: int, image: np.ndarray, tensors: Tensors) -> int:
    """The image's place before it was expanded: its first token."""
    del tokens, tensors
    return int(image[0])


def _found(tokens: int, image: np.ndarray, tensors: Tensors) -> int:
    """The last image token, as it is found."""
    del tokens, tensors
    return int(image[-1])


LEGACY_POSITIONS: Mapping[str, LegacyPosition] = {
    "gemma3": _gemma3,
    "qwen2_5_vl": _qwen,
    "smolvlm": _smolvlm,
    "llava_next": _llava,
    "molmo": _molmo,
    "llava_qwen2": _fastvlm,
    "fast_vlm": _fastvlm,
    "mllama": _found,
    "phi4_multimodal": _found,
}
"""model_type of the config → what the script for that model did."""
