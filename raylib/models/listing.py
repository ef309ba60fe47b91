"""What `raylib list models` lists: the models that are known by name, and the families that only files bring."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from raylib.models.families import FAMILIES


@dataclass(frozen=True)
class ModelRow:
    """One line of `raylib list models`: a model, or with name None a family of which no published model is known.
    dim and max_tokens are None where they are not known."""

    name: str | None
    family: str
    kind: str
    dim: int | None
    max_tokens: int | None
    modalities: tuple[str, ...]


def known_models(match: str = "") -> list[ModelRow]:
    """The table's members in order of name, its families without any, then MTEB's other names; those whose name or
    family holds `match`, whatever its case. Loads no model."""
    rows = {
        name: ModelRow(name, entry.name, entry.kind, member.dim or None, member.max_tokens, entry.modalities)
        for entry in FAMILIES
        for name, member in entry.members.items()
    }
    unnamed = [
        ModelRow(None, entry.name, entry.kind, None, None, entry.modalities) for entry in FAMILIES if not entry.members
    ]
    theirs = [row for row in _mteb_rows() if row.name not in rows]
    found = [*_by_name(rows.values()), *sorted(unnamed, key=lambda row: row.family), *_by_name(theirs)]
    wanted = match.lower()
    return [row for row in found if wanted in f"{row.name or ''}\n{row.family}".lower()]


def _by_name(rows: Iterable[ModelRow]) -> list[ModelRow]:
    return sorted(rows, key=lambda row: (row.name or "").lower())


def _mteb_rows() -> list[ModelRow]:
    from mteb.models.model_implementations import MODEL_REGISTRY

    rows = []
    for name, meta in MODEL_REGISTRY.items():
        dims: list[Any] = meta.embed_dim if isinstance(meta.embed_dim, list) else [meta.embed_dim]
        dim = max((d for d in dims if d is not None), default=None)
        tokens = int(meta.max_tokens) if meta.max_tokens and meta.max_tokens != float("inf") else None
        rows.append(ModelRow(name, "mteb", meta.model_type[0], dim, tokens, tuple(meta.modalities)))
    return rows
