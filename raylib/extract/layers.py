"""Which decoder layers are kept: "0,1/4,1/2,3/4,-1", "all", "3,7"."""

from __future__ import annotations

from fractions import Fraction

from raylib.errors import UserError

DEFAULT_LAYERS = "0,1/4,1/2,3/4,-1"
"""The first, the last, and the blocks a quarter, a half and three quarters of the way."""


def parse_layers(asked: str, depth: int) -> tuple[int, ...]:
    """The asked layers of a decoder of `depth` blocks, each once, from the first to the last.

    A whole number is a block, from 0, or from -1 at the end; a fraction is that share of the depth, rounded down
    (1/4 of 42 blocks is block 10). Raises UserError for a layer that the decoder does not have.
    """
    check_layers(asked)
    if asked.strip() == "all":
        return tuple(range(depth))
    found = []
    for word in _words(asked):
        layer = int(Fraction(word) * depth) if "/" in word else int(word)
        layer += depth if layer < 0 else 0
        if not 0 <= layer < depth:
            raise UserError(f"--layers asks for {word}; the decoder has {depth} layers, 0 to {depth - 1} (or -1)")
        found.append(layer)
    return tuple(sorted(set(found)))


def check_layers(asked: str) -> None:
    """Raises UserError for what is no list of layers, whatever the model."""
    words = _words(asked)
    for word in words if asked.strip() != "all" else []:
        try:
            share = Fraction(word)
        except (ValueError, ZeroDivisionError):
            share = None
        if share is None or "." in word or ("/" in word and not 0 <= share < 1):
            raise UserError(
                f"--layers has {word!r}; expected whole numbers, fractions below 1 or all, e.g. {DEFAULT_LAYERS}"
            )
    if not words:
        raise UserError(f"--layers is empty; expected all, or e.g. {DEFAULT_LAYERS}")


def layer_fractions(layers: tuple[int, ...], depth: int) -> list[float]:
    """[len(layers)] how deep each lies: 0 for the first block, 1 for the last."""
    return [layer / max(1, depth - 1) for layer in layers]


def _words(asked: str) -> list[str]:
    return [word.strip() for word in asked.split(",") if word.strip()]
