"""What is kept of a forward, taken by hooks while it runs: nothing of a layer outlives it but a few vectors a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import ModelError
from raylib.extract.anatomy import Anatomy
from raylib.extract.collate import PreparedRow, Side
from raylib.store.representations import Representation

if TYPE_CHECKING:
    import torch


_MASKS = ("patch_attention_mask", "pixel_attention_mask", "attention_mask")
"""What towers are told of patches that are padding."""


class _LastLayerReachedError(Exception):
    """No asked layer is left: the rest of the forward would be thrown away."""


@dataclass
class Positions:
    """Where each row of a batch has what, on the model's device. image, text: bool [rows, tokens], of image tokens and
    of all others but padding; vision, query: int64 [rows]."""

    image: torch.Tensor
    text: torch.Tensor
    vision: torch.Tensor
    query: torch.Tensor

    @classmethod
    def of(cls, rows: Sequence[PreparedRow], side: Side, device: str) -> Positions:
        import torch

        longest = max(row.tokens for row in rows)
        image = np.zeros((len(rows), longest), dtype=bool)
        text = np.zeros((len(rows), longest), dtype=bool)
        places = np.zeros((len(rows), 2), dtype=np.int64)
        for i, row in enumerate(rows):
            first = longest - row.tokens if side == "left" else 0
            image[i, first + row.span.image] = True
            text[i, first : first + row.tokens] = True
            places[i] = first + row.span.vision, first + row.span.query
        moved = [
            torch.from_numpy(a).to(device) for a in (image, text & ~image, places[:, 0].copy(), places[:, 1].copy())
        ]
        return cls(*moved)


@dataclass
class Capture:
    """States of one batch, on the model's device: `take` runs the forward and gives what was kept of it.

    maps: the tower gives [images, width, rows, columns]. all_layers: it gives the states of all its layers.
    """

    anatomy: Anatomy
    layers: Sequence[int]
    model: str
    maps: bool = False
    all_layers: bool = False
    _kept: dict[Representation, torch.Tensor] = field(default_factory=dict)
    _tower: list[tuple[Any, Any]] = field(default_factory=list)

    def take(
        self, forward: Callable[[], Any], rows: Sequence[PreparedRow], at: Positions
    ) -> dict[Representation, np.ndarray]:
        """Representation → float32 [rows, width]. Raises ModelError where the tower gives something unexpected."""
        last = max(self.layers)
        stop_at = last if last < len(self.anatomy.blocks) - 1 else None
        with ExitStack() as hooks:
            hook = self.anatomy.tower.register_forward_hook(self._keep_tower, with_kwargs=True)
            hooks.callback(hook.remove)
            for layer in self.layers:
                hook = self.anatomy.blocks[layer].register_forward_hook(self._keep_layer(layer, at, layer == stop_at))
                hooks.callback(hook.remove)
            with suppress(_LastLayerReachedError):
                forward()
        found = {Representation("vision_only"): self._vision_only(rows), **self._kept}
        return {name: states.float().cpu().numpy() for name, states in found.items()}

    def _keep_tower(self, module: Any, inputs: Any, options: dict[str, Any], output: Any) -> None:
        del module, inputs
        if self.all_layers:
            output = output[-1]
        elif isinstance(output, tuple | list) and len({getattr(part, "shape", None) for part in output}) < len(output):
            raise ModelError(
                f"{self.model}: its vision tower gave a {type(output).__name__} of {len(output)}, some of the same "
                "shape; which are its last states is not known"
            )
        hidden = _hidden(output)
        if self.maps:
            hidden = hidden.flatten(2).transpose(1, 2)
        given = (options.get(name) for name in _MASKS)
        self._tower.append((hidden, next((mask for mask in given if mask is not None), None)))

    def _keep_layer(self, layer: int, at: Positions, stop: bool) -> Callable[..., None]:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            del module, inputs
            hidden = _hidden(output)
            if hidden.shape[:-1] != at.image.shape:
                raise ModelError(
                    f"{self.model}: decoder block {layer} gave {list(hidden.shape)}, expected a state for each of "
                    f"{list(at.image.shape)} tokens of the batch; its decoder reads something else than the prompt"
                )
            for kind, states in _reduced(hidden, at).items():
                self._kept[Representation(kind, layer)] = states
            if stop:
                raise _LastLayerReachedError

        return keep

    def _vision_only(self, rows: Sequence[PreparedRow]) -> torch.Tensor:
        if not self._tower:
            raise ModelError(f"{self.model}: its vision tower was not run; do its inputs hold an image?")
        means = [tower_means(hidden, mask, rows) for hidden, mask in self._tower]
        if len(means) != 1 or means[0] is None:
            shapes = ", ".join(str(tuple(hidden.shape)) for hidden, _ in self._tower)
            raise ModelError(
                f"{self.model}: its vision tower gave {shapes}, which cannot be told apart by rows: expected one entry "
                f"for each of {[row.tiles for row in rows]} tiles, or for each patch"
            )
        return means[0]


def _hidden(output: Any) -> torch.Tensor:
    """The hidden states in what a module gave: itself, its last_hidden_state, or the first of several."""
    if hasattr(output, "last_hidden_state"):
        return output.last_hidden_state.detach()
    return (output[0] if isinstance(output, tuple | list) else output).detach()


def _reduced(hidden: torch.Tensor, at: Positions) -> dict[Any, torch.Tensor]:
    """hidden [rows, tokens, width] → by kind, [rows, width]; means in float32."""
    import torch

    rows = torch.arange(len(hidden), device=hidden.device)
    at = Positions(*(tensor.to(hidden.device) for tensor in (at.image, at.text, at.vision, at.query)))
    # What stands in padding may be NaN, and 0 x NaN is NaN.
    real = hidden.float().masked_fill(~(at.image | at.text).unsqueeze(-1), 0.0)
    masks = torch.stack([at.image, at.text], dim=1).float()
    image, text = torch.bmm(masks, real).unbind(dim=1)
    counts = masks.sum(dim=2, keepdim=True)
    return {
        "vision_token": hidden[rows, at.vision],
        "query_token": hidden[rows, at.query],
        "multimodal": (image + text) / counts.sum(dim=1),
        "image_mean": image / counts[:, 0],
        "text_mean": text / counts[:, 1],
    }


def tower_means(hidden: torch.Tensor, mask: torch.Tensor | None, rows: Sequence[PreparedRow]) -> torch.Tensor | None:
    """float32 [rows, width]: means over the real tiles and patches of each row; None where they cannot be told apart.

    hidden: [tiles of all rows, patches, width]; or with padded tiles [rows × most tiles, patches, width] or
    [rows, images, tiles, patches, width]; or [patches of all rows, width]. mask: the patches of each tile that are
    real, in any shape that has as many.
    """
    import torch

    hidden = hidden.float()
    tiles = [row.tiles for row in rows]
    if hidden.ndim == 3 and hidden.shape[0] == 1 and sum(tiles) > 1 and mask is None:
        hidden = hidden[0]
    if hidden.ndim == 2:
        lengths = _lengths(len(hidden), rows) if mask is None else None
        return None if lengths is None else torch.stack([part.mean(dim=0) for part in hidden.split(lengths)])
    if hidden.ndim not in (3, 5):  # with four axes, which of them is the width?
        return None
    padded_to = max(tiles) if hidden.ndim == 3 else hidden[0].flatten(0, -3).shape[0]
    hidden = hidden.flatten(0, -3)
    real = torch.ones(hidden.shape[:2], device=hidden.device) if mask is None else mask.flatten(1).float()
    if real.shape != hidden.shape[:2]:
        return None
    starts = np.cumsum([0, *tiles[:-1]])
    if len(hidden) != sum(tiles):  # padded: as many tiles for every row
        if len(hidden) != len(rows) * padded_to or padded_to < max(tiles):
            return None
        starts = np.arange(len(rows)) * padded_to
    sums = torch.bmm(real.unsqueeze(1), hidden).squeeze(1)
    counts = real.sum(dim=1)
    parts = [slice(int(start), int(start) + n) for start, n in zip(starts, tiles, strict=True)]
    return torch.stack([sums[part].sum(dim=0) / counts[part].sum() for part in parts])


def _lengths(total: int, rows: Sequence[PreparedRow]) -> list[int] | None:
    """How many of `total` states, of all rows one after the other, are each row's.

    By its grid of patches, of which the tower may have merged squares; else by its image's area, which is whole
    patches; else as many, or as many squares, for each image token. None where none of these fits to the last state.
    """
    patches, areas = [row.patches for row in rows], [row.area for row in rows]
    for sizes in (patches, areas):
        if None not in sizes:
            known = [n or 0 for n in sizes]
            unit = sum(known) // total
            if unit and all(n % unit == 0 for n in known) and sum(known) == unit * total and _is_square(unit):
                return [n // unit for n in known]
    if None not in patches:
        return None
    tokens = [len(row.span.image) for row in rows]
    unit, left = divmod(total, sum(tokens))
    return [n * unit for n in tokens] if not left and _is_square(unit) else None


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number
