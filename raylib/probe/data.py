"""Rows that have both hidden states and a label, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylib.errors import UserError
from raylib.probe.labels import Labels
from raylib.store.hidden_states import HiddenStates
from raylib.store.representations import Representation

IMAGE_COLUMNS = ("image_id", "image_name")

BREAKDOWNS: dict[str, tuple[str, ...]] = {
    "category": ("category",),
    "source": ("source", "dataset"),
    "hallucination_type": ("hallucination_type", "basic_hallucination_type"),
    "domain": ("domain", "domain_type"),
    "answer_type": ("answer_type",),
}
"""What scores are broken down by → the columns it may be, first one first."""

NO_LABEL = "have hidden states, but no label"
NO_STATES = "have a label, but no hidden states"

_OWN_IMAGE = "\0row "
"""Begins the group of a row without an image: no file's text holds NUL."""

_SHOWN_IDS = 5


@dataclass(frozen=True)
class ProbeData:
    """The labelled rows, in the order of the hidden states."""

    ids: list[str]
    """[n]."""
    y: np.ndarray
    """int8 [n], 0 or 1."""
    images: list[str]
    """[n]: rows of one text are of one image."""
    image_column: str | None
    """Where `images` is from; None where each row is taken for an image of its own."""
    columns: dict[str, list[str]]
    """Of BREAKDOWNS, those that are there: name → [n]."""
    rows: np.ndarray
    """int64 [n]: the position of each row among the hidden states."""
    dropped: dict[str, int]
    """NO_LABEL, NO_STATES → how many rows; only what there is."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sources(self) -> list[str] | None:
        """[n], or None where no column tells."""
        return self.columns.get("source")

    def matrix(self, states: HiddenStates, representation: Representation) -> np.ndarray:
        """float32 [n, D]; a row of NaN where the file, of the old scripts, has no such vector: leave it out.

        Raises UserError naming the representation and rows where a vector that is there holds NaN or infinity.
        """
        x = states.matrix(representation, missing="nan")[self.rows]
        broken = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if len(broken) == 0:
            return x
        empty = broken[np.isnan(x[broken]).all(axis=1)]
        if len(empty):  # nothing there, or NaN throughout: only the vectors one by one tell
            wanted = {self.ids[at] for at in empty}
            absent = {id for id, vector in states.vectors(representation) if vector is None and id in wanted}
            broken = np.array([at for at in broken if self.ids[at] not in absent], np.int64)
        if len(broken):
            shown = ", ".join(self.ids[at] for at in broken[:_SHOWN_IDS])
            more = f" and {len(broken) - _SHOWN_IDS:,} more" if len(broken) > _SHOWN_IDS else ""
            raise UserError(
                f"{representation.path} holds NaN or infinity in {len(broken):,} of {len(x):,} rows: {shown}{more}. "
                "Extract these rows again, in float32 or bfloat16, or take them out of the labels."
            )
        return x


def join(states: HiddenStates, labels: Labels) -> ProbeData:
    """The rows that have both, by question_id, in the order of the hidden states.

    Images, category, source and so on are the columns of the labels, and where these have none, texts of the hidden
    states. Raises UserError where no row has both.
    """
    at_label = {question_id: at for at, question_id in enumerate(labels.ids)}
    rows = np.array([at for at, id in enumerate(states.question_ids) if id in at_label], np.int64)
    if len(rows) == 0:
        raise UserError(
            f"no question_id of {labels.path} is among the hidden states: {_sample(labels.ids)} there, "
            f"{_sample(states.question_ids)} here. Name the labels of these rows."
        )
    ids = [states.question_ids[at] for at in rows]
    picked = [at_label[id] for id in ids]

    def found(names: Sequence[str]) -> tuple[str, list[str]] | None:
        """(the name that is there, [n])"""
        for name in names:
            if name in labels.columns:
                return name, [labels.columns[name][at] for at in picked]
        for name in names:
            if name in states.text_names:
                texts = states.texts(name)
                return name, [texts[at] for at in rows]
        return None

    image_column, images = found(IMAGE_COLUMNS) or (None, [""] * len(ids))
    if not any(images):
        image_column = None
    columns = {ours: there[1] for ours, names in BREAKDOWNS.items() if (there := found(names)) is not None}
    dropped = {NO_LABEL: len(states.question_ids) - len(rows), NO_STATES: len(labels.ids) - len(rows)}
    return ProbeData(
        ids=ids,
        y=labels.y[picked],
        images=[image or _OWN_IMAGE + id for id, image in zip(ids, images, strict=True)],
        image_column=image_column,
        columns=columns,
        rows=rows,
        dropped={why: count for why, count in dropped.items() if count},
    )


def _sample(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + ("…" if len(ids) > 3 else "")
