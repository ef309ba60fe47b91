"""Heat maps of late interaction: which patches of a page a token of the query is like.

MaxSim takes for every token of the query the most similar vector of the page (Khattab and Zaharia, ColBERT, 2020).
What is drawn is that similarity for all patches; what counted is the best one, which may also be a token of the
page's prompt, outside every patch.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

_LEVELS = 64
"""Shades of a heat map: fewer than the eye tells apart over a page, and half the bytes of 256."""

_COLD, _WARM, _HOT = (255, 214, 92), (255, 122, 36), (201, 16, 58)


@dataclass(frozen=True)
class Match:
    """One query against one page.

    maps [query tokens, rows, columns] float32: similarities. best [query tokens] float32: the largest similarity to
    any vector of the page, whose sum is MaxSim. cells: per token, where that vector's patch is (row, column), or None
    for a vector that is no patch.
    """

    maps: np.ndarray
    best: np.ndarray
    cells: list[tuple[int, int] | None]

    @property
    def total(self) -> np.ndarray:
        """[rows, columns]: the sum of the maps of all tokens."""
        return self.maps.sum(axis=0)

    @property
    def score(self) -> float:
        return float(self.best.astype(np.float64).sum())


def match(query_TD: np.ndarray, page_TD: np.ndarray, tokens: np.ndarray) -> Match:
    """query [query tokens, dim], page [page tokens, dim]; tokens [rows, columns]: which of the page's vectors is the
    patch there. Raises ValueError where the grid names a vector that the page does not have."""
    if tokens.size and int(tokens.max()) >= len(page_TD):
        raise ValueError(f"the grid names vector {int(tokens.max())} of {len(page_TD)}")
    similarities = query_TD.astype(np.float32) @ page_TD.astype(np.float32).T
    winners = similarities.argmax(axis=1)
    places = {int(token): (row, column) for (row, column), token in np.ndenumerate(tokens)}
    return Match(similarities[:, tokens], similarities.max(axis=1), [places.get(int(w)) for w in winners])


def shared_scale(maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(low [frames], high [frames]) over all pages of a query, so that equal colours are equal similarities.

    maps: per page [frames, rows, columns], the frames the same for all.
    """
    low = np.min([frames.min(axis=(1, 2)) for frames in maps], axis=0)
    high = np.max([frames.max(axis=(1, 2)) for frames in maps], axis=0)
    return low, high


def film(frames: np.ndarray, low: np.ndarray, high: np.ndarray) -> bytes:
    """PNG [frames × rows, columns] of heat maps one below the other: clear at `low`, red at `high`.

    frames [frames, rows, columns]; low, high [frames]: each frame's scale. A frame without spread is clear.
    """
    from PIL import Image

    spread = np.where(high > low, high - low, 1).reshape(-1, 1, 1)
    shares = np.clip((frames - low.reshape(-1, 1, 1)) / spread, 0, 1)
    levels = np.rint(shares * (_LEVELS - 1)).astype(np.uint8)
    image = Image.frombytes("P", (frames.shape[2], frames.shape[0] * frames.shape[1]), levels.tobytes())
    colours, opacities = _ramp()
    image.putpalette(colours)
    stream = io.BytesIO()
    image.save(stream, format="PNG", transparency=opacities, bits=8, optimize=True)
    return stream.getvalue()


def _ramp() -> tuple[bytes, bytes]:
    """(RGB of every level, its opacity): clear yellow to red, three quarters opaque, so that the page shows through;
    the lower half is faint, or a page without a clear match would be covered."""
    shares = np.linspace(0, 1, _LEVELS)
    stops = np.array([_COLD, _WARM, _HOT])
    colours = np.stack([np.interp(shares, (0, 0.5, 1), stops[:, channel]) for channel in range(3)], axis=1)
    return colours.round().astype(np.uint8).tobytes(), (255 * 0.78 * shares**1.6).round().astype(np.uint8).tobytes()
