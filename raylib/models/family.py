"""What raylib knows of a model family and of its published models without loading anything.

The table itself: `raylib.models.families`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Member:
    """One published model of a family. dim: width of a vector; max_tokens: of its text side.

    revision: the commit that MTEB's published scores are of, used unless another is asked for.
    """

    dim: int
    max_tokens: int | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Family:
    """One mechanism with one set of settings.

    encoder: "module:class", imported on use; called as class(spec, family).
    architectures: the names in config.json's "architectures" (or "model_type") that select this family for a
    local directory. marks: files that only directories of this family hold; they decide before architectures.
    settings: what the encoder class needs to be told (prompts, pooling, upstream class names).
    """

    name: str
    encoder: str
    kind: Literal["dense", "late-interaction", "lexical"]
    modalities: tuple[str, ...]
    architectures: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    members: Mapping[str, Member] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
