"""Which tokens of a document can be the best one of a query token: similarities in few bits, with a proven error.

A filter holds the tokens of many queries in its own numbers, multiplies a tile of them with the tokens of a document,
and knows for each query token below which similarity no token can be the best. What passes is computed exactly by
`raylib.search.maxsim`, so that a filter decides how fast a score is found and never what it is.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from raylib.search.rounding import UNIT_32, relative_error

if TYPE_CHECKING:
    import torch


class DocumentTokens(Protocol):
    """What a filter keeps of a document while every tile of queries meets it."""

    similarities: Callable[[slice], np.ndarray]
    """Query tokens of a tile → [tokens of the tile, document tokens], in the filter's units; overwritten next time."""

    def approximate(self, tile: slice, similarities: np.ndarray) -> np.ndarray:
        """float32 values of similarities, [tokens of the tile] or more."""
        ...

    def least(self, tile: slice, best: np.ndarray) -> np.ndarray:
        """[tokens of the tile]: a token whose true similarity is at least `best` has at least this one here."""
        ...


class Float32Filter:
    """Plain matrix products. Works everywhere."""

    def __init__(self, tokens_TD: np.ndarray) -> None:
        import torch

        self.tokens = torch.from_numpy(tokens_TD)
        self.norms = np.linalg.norm(tokens_TD, axis=1)

    def take(self, rows: np.ndarray) -> Float32Filter:
        other = object.__new__(Float32Filter)
        other.tokens, other.norms = self.tokens[rows], self.norms[rows]
        return other

    def document(self, tokens_TD: np.ndarray, norm: float) -> _Float32Document:
        return _Float32Document(self, tokens_TD, norm)


class _Float32Document:
    def __init__(self, side: Float32Filter, tokens_TD: np.ndarray, norm: float) -> None:
        import torch

        self._side, self._error = side, 2.1 * relative_error(tokens_TD.shape[1], UNIT_32) * norm
        self._tokens_DT = torch.from_numpy(tokens_TD).T
        self._space: torch.Tensor | None = None

    def similarities(self, tile: slice) -> np.ndarray:
        import torch

        tokens = self._side.tokens[tile]
        if self._space is None or len(self._space) < len(tokens):
            self._space = torch.empty(len(tokens), self._tokens_DT.shape[1])
        return torch.mm(tokens, self._tokens_DT, out=self._space[: len(tokens)]).numpy()

    def approximate(self, tile: slice, similarities: np.ndarray) -> np.ndarray:
        del tile
        return similarities

    def least(self, tile: slice, best: np.ndarray) -> np.ndarray:
        return np.nextafter((best - self._error * self._side.norms[tile]).astype(np.float32), np.float32(-np.inf))


class Int8Filter:
    """Eight bits a number: four times the rate of float32 on CPUs with VNNI.

    Every query token and every document has a scale of its own. The error is bounded by Cauchy and Schwarz from what
    rounding left over of each token: |q·d - q'·d'| <= |q| |d - d'| + |q - q'| |d'|.
    """

    def __init__(self, tokens_TD: np.ndarray) -> None:
        import torch

        scale = np.abs(tokens_TD).max(axis=1, keepdims=True).astype(np.float64) / 127
        self.scales = np.where(scale > 0, scale, 1.0)
        rounded = np.rint(tokens_TD / self.scales)
        self.tokens: torch.Tensor = torch.from_numpy(rounded.astype(np.int8))
        self.lost = np.linalg.norm(tokens_TD - rounded * self.scales, axis=1)
        self.scales = self.scales[:, 0]
        self.norms = np.linalg.norm(tokens_TD.astype(np.float64), axis=1)

    def take(self, rows: np.ndarray) -> Int8Filter:
        other = object.__new__(Int8Filter)
        other.tokens, other.scales = self.tokens[rows], self.scales[rows]
        other.lost, other.norms = self.lost[rows], self.norms[rows]
        return other

    def document(self, tokens_TD: np.ndarray, norm: float) -> _Int8Document:
        return _Int8Document(self, tokens_TD, norm)


class _Int8Document:
    def __init__(self, side: Int8Filter, tokens_TD: np.ndarray, norm: float) -> None:
        import torch

        self._side = side
        largest = float(np.abs(tokens_TD).max())
        self._scale = largest / 127 if largest > 0 else 1.0
        rounded = np.rint(tokens_TD * np.float32(1 / self._scale))
        self._tokens_DT = torch.from_numpy(rounded.astype(np.int8)).T
        rounded *= np.float32(-self._scale)
        rounded += tokens_TD
        # The residual itself was computed in float32: its own error is below a millionth of a token's norm.
        self._lost = float(np.sqrt(np.einsum("td,td->t", rounded, rounded).max())) * 1.001 + 2e-6 * norm
        self._norm = norm + self._lost
        self._space: torch.Tensor | None = None

    def similarities(self, tile: slice) -> np.ndarray:
        import torch

        tokens = self._side.tokens[tile]
        if self._space is None or len(self._space) < len(tokens):
            self._space = torch.empty(len(tokens), self._tokens_DT.shape[1], dtype=torch.int32)
        return torch._int_mm(tokens, self._tokens_DT, out=self._space[: len(tokens)]).numpy()

    def approximate(self, tile: slice, similarities: np.ndarray) -> np.ndarray:
        scales = (self._side.scales[tile] * self._scale).astype(np.float32)
        return similarities * scales.reshape(-1, *[1] * (similarities.ndim - 1))

    def least(self, tile: slice, best: np.ndarray) -> np.ndarray:
        side = self._side
        error = side.norms[tile] * self._lost + side.lost[tile] * self._norm
        steps = (best - 1.0001 * error) / (side.scales[tile] * self._scale)
        return np.clip(np.floor(steps), -(2**31), 2**31 - 1).astype(np.int32)


Filter = Float32Filter | Int8Filter


@functools.lru_cache(maxsize=1)
def fastest_filter() -> type[Filter]:
    """The filter that is faster on this CPU, measured once in a few milliseconds. It changes no score."""
    import torch

    if not torch.backends.mkldnn.is_available() or not _int8_is_right():
        return Float32Filter
    generator = np.random.default_rng(0)
    queries, document = (generator.standard_normal((n, 128)).astype(np.float32) for n in (256, 512))
    return min((Float32Filter, Int8Filter), key=lambda kind: _seconds(kind(queries).document(document, 20.0)))


def _seconds(document: _Float32Document | _Int8Document) -> float:
    def once() -> float:
        start = time.perf_counter()
        document.similarities(slice(0, 256))
        return time.perf_counter() - start

    once()
    return min(once() for _ in range(5))


def _int8_is_right() -> bool:
    """Some CPUs saturate sums of two int8 products at 16 bits: then the products cannot be trusted."""
    import torch

    extreme = torch.full((32, 128), 127, dtype=torch.int8)
    largest = 127 * 127 * 128
    try:
        same, opposite = torch._int_mm(extreme, extreme.T), torch._int_mm(-extreme, extreme.T)
    except RuntimeError:
        return False
    return bool((same == largest).all()) and bool((opposite == -largest).all())
