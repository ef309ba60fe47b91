"""The table of model families: which encoder runs a model, and what raylib knows of it without loading it.

A new model of a known mechanism is one entry here and one parity test. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Member:
    """One published model of a family. dim: width of a vector; max_tokens: of its text side."""

    dim: int
    max_tokens: int | None = None


@dataclass(frozen=True)
class Family:
    """One mechanism with one set of settings.

    encoder: "module:class", imported on use; called as class(spec, family).
    architectures: the names in config.json's "architectures" (or "model_type") that select this family for a
    local directory. settings: what the encoder class needs to be told (prompts, pooling, upstream class names).
    """

    name: str
    encoder: str
    kind: Literal["dense", "late-interaction", "lexical"]
    modalities: tuple[str, ...]
    architectures: tuple[str, ...] = ()
    members: Mapping[str, Member] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


FAMILIES: tuple[Family, ...] = ()


def family(name: str) -> Family:
    """The family of that name; KeyError if the table has none."""
    return {entry.name: entry for entry in FAMILIES}[name]
