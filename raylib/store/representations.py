"""Names of what is kept of a row's forward, shared by those who write hidden states and those who read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["vision_only", "vision_token", "query_token", "multimodal", "image_mean", "text_mean"]

KINDS: tuple[Kind, ...] = ("vision_only", "vision_token", "query_token", "multimodal", "image_mean", "text_mean")
"""vision_only: mean over the vision tower's last hidden state, of no decoder layer. At a decoder layer: vision_token
and query_token, the hidden states at the last image token and at the last token of the prompt; multimodal, the mean
over all tokens of the prompt; image_mean and text_mean, the means over its image tokens and over the others."""


@dataclass(frozen=True, order=True)
class Representation:
    """One vector per row. layer: the decoder block whose output it is, from 0; None for vision_only."""

    kind: Kind
    layer: int | None = None

    @property
    def path(self) -> str:
        """Its name below /columns in a file, and to a person: vision_only, or e.g. query_token/layer_24."""
        return self.kind if self.layer is None else f"{self.kind}/layer_{self.layer}"

    @classmethod
    def parse(cls, path: str) -> Representation:
        """What `path` gave. Raises ValueError for anything else."""
        kind, _, rest = path.partition("/")
        if kind not in KINDS or (kind == "vision_only") != (rest == "") or (rest and not rest.startswith("layer_")):
            raise ValueError(f"{path!r} names no representation; expected vision_only or e.g. query_token/layer_24")
        return cls(kind, int(rest.removeprefix("layer_")) if rest else None)
