"""Names of what is kept of a row's forward, shared by those who write hidden states and those who read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["vision_only", "vision_token", "query_token", "multimodal", "image_mean", "text_mean"]

KINDS: tuple[Kind, ...] = ("vision_only", "vision_token", "query_token", "multimodal", "image_mean", "text_mean")
"""vision_only: mean over the vision tower's last hidden state, of no decoder layer. At a decoder layer: vision_token
and query_token, the hidden states at the last image token and at the last token of the prompt; multimodal, the mean
over all tokens of the prompt; image_mean and text_mean, the means over its image tokens and over the others."""


OLD_SUFFIX = "_representation"
"""How HALP's scripts end the name of a kind, in their HDF5 files and in the results of their probes."""


@dataclass(frozen=True, order=True)
class Representation:
    """One vector per row. layer: the decoder block whose output it is, from 0; None for vision_only."""

    kind: Kind
    layer: int | None = None

    @property
    def path(self) -> str:
        """Its name below /columns in a file, and to a person: vision_only, or e.g. query_token/layer_24."""
        return self.kind if self.layer is None else f"{self.kind}/{self.layer_name}"

    @property
    def old_kind(self) -> str:
        """As HALP's scripts call it: query_token_representation."""
        return self.kind + OLD_SUFFIX

    @property
    def layer_name(self) -> str | None:
        """layer_24; None for vision_only."""
        return None if self.layer is None else f"layer_{self.layer}"

    @property
    def old_path(self) -> str:
        """Where a row's group holds it: vision_only_representation, or e.g. query_token_representation/layer_24."""
        return self.old_kind if self.layer is None else f"{self.old_kind}/{self.layer_name}"

    @classmethod
    def from_old(cls, old_kind: str | None, layer_name: str | None) -> Representation:
        """What `old_kind` and `layer_name` gave. Raises ValueError for anything else."""
        kind = (old_kind or "").removesuffix(OLD_SUFFIX)
        return cls.parse(f"{kind}/{layer_name}" if layer_name else kind)

    @classmethod
    def parse(cls, path: str) -> Representation:
        """What `path` gave. Raises ValueError for anything else."""
        kind, _, rest = path.partition("/")
        if kind not in KINDS or (kind == "vision_only") != (rest == "") or (rest and not rest.startswith("layer_")):
            raise ValueError(f"{path!r} names no representation; expected vision_only or e.g. query_token/layer_24")
        return cls(kind, int(rest.removeprefix("layer_")) if rest else None)
