"""Hidden states as the scripts that raylib replaces wrote them (HALP, EACL): HDF5 with one group a row and no more.

    /{question_id}/image_id, question, ground_truth_answer, answer      text, or bytes
    /{question_id}/vision_only_representation                           [D]
    /{question_id}/vision_token_representation/layer_{k}                [D], query_token_representation likewise

Some have no attributes at the top, a row may lack what could not be computed, and an id with "/" nests groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.store.hidden_states_hdf5 import opened
from raylib.store.representations import OLD_SUFFIX, Representation
from raylib.store.state_table import StateRow, from_attributes

_TEXTS = ("image_id", "question", "ground_truth_answer", "answer")


class OldPart:
    """A part of an old script; see `Part`. Every row is opened for what it holds: slower than a file of raylib."""

    form = "HDF5 of the old scripts"

    def __init__(self, path: str) -> None:
        self.path = path
        self.failed: list[tuple[str, str]] = []
        self._holds: dict[str, set[Representation]] = {}
        texts: dict[str, None] = {}
        with opened(path) as file:
            self.about = from_attributes(dict(file.attrs))
            for question_id, group in _rows(file):
                self._holds[question_id] = set(_representations(group))
                texts.update(dict.fromkeys(name for name in group if not name.endswith(OLD_SUFFIX)))
        self.question_ids = list(self._holds)
        self.text_names = sorted(texts, key=lambda name: (_TEXTS.index(name) if name in _TEXTS else len(_TEXTS), name))
        self.representations = sorted(set().union(*self._holds.values()))

    def texts(self, name: str) -> list[str]:
        with opened(self.path) as file:
            return [_text(file[question_id], name) for question_id in self.question_ids]

    def positions(self) -> dict[str, np.ndarray]:
        return {}

    def width(self, representation: Representation) -> int:
        for question_id, held in self._holds.items():
            if representation in held:
                with opened(self.path) as file:
                    return int(file[question_id][representation.old_path].shape[-1])
        raise KeyError(representation)

    def vectors(self, representation: Representation) -> Iterator[np.ndarray | None]:
        below = representation.old_path
        with opened(self.path) as file:
            for question_id, held in self._holds.items():
                yield file[f"{question_id}/{below}"][()] if representation in held else None

    def read_into(self, representation: Representation, out: np.ndarray) -> list[int]:
        missing = []
        for at, vector in enumerate(self.vectors(representation)):
            if vector is None:
                missing.append(at)
            elif vector.shape != out.shape[1:]:
                raise UserError(
                    f"{self.path}: {representation.path} of {self.question_ids[at]!r} has shape {vector.shape}, and "
                    f"of the first row {out.shape[1:]}. Vectors of one width are needed: leave this one out."
                )
            else:
                out[at] = vector
        return missing

    def row(self, question_id: str) -> StateRow:
        held = self._holds[question_id]
        with opened(self.path) as file:
            group = file[question_id]
            texts = {name: _text(group, name) for name in self.text_names if name in group}
            states = {one: group[one.old_path][()] for one in sorted(held)}
        return StateRow(self.path, question_id, texts, {}, states)


def _rows(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every group that holds a row, under its id. One that holds nothing but groups is the first half of an id that
    has "/"."""
    import h5py

    for name, item in group.items():
        if not isinstance(item, h5py.Group):
            continue
        inside = list(item)
        if any(n.endswith(OLD_SUFFIX) for n in inside) or any(isinstance(item[n], h5py.Dataset) for n in inside):
            yield above + name, item
        else:
            yield from _rows(item, f"{above}{name}/")


def _representations(group: Any) -> Iterator[Representation]:
    import h5py

    for name in group:
        if not name.endswith(OLD_SUFFIX):
            continue
        item, kind = group[name], name.removesuffix(OLD_SUFFIX)
        for path in [kind] if isinstance(item, h5py.Dataset) else [f"{kind}/{layer}" for layer in item]:
            try:
                yield Representation.parse(path)
            except ValueError:  # something of somebody else's
                continue


def _text(group: Any, name: str) -> str:
    """Some scripts wrote bytes, some text; "" where there is none."""
    value = group[name][()] if name in group else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
