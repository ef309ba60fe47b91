"""The files of a run: which are there from before, what one holds, and when it may be kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylib import storage
from raylib.errors import UserError
from raylib.extract.batches import BatchStates
from raylib.extract.config import StateFormat
from raylib.extract.plan import Part
from raylib.store.hidden_states import HiddenStates, StateTable, open_states, part_name, write_part
from raylib.store.representations import Representation

_SUFFIXES = (".h5", ".parquet")


@dataclass(frozen=True)
class PartFiles:
    """The parts of one run in one folder. settings: what decides a part besides its rows; every part carries them, and
    a digest of its rows."""

    folder: str
    prefix: str
    form: StateFormat
    settings: Mapping[str, Any]

    def path(self, part: Part) -> str:
        return storage.join(self.folder, part_name(self.prefix, part.number, self.form))

    def known(self, parts: Sequence[Part], *, overwrite: bool) -> set[int]:
        """The numbers of the parts that are there and need not be made again.

        A part whose rows are the same but for their images or answers, which were mended, is made again. Raises
        UserError for files of other rows, another model or other options, unless they may be overwritten: then they go.
        """
        found: set[int] = set()
        expected = {self.path(part): part for part in parts}
        for path in self._existing():
            part = expected.get(path)
            there = open_states(path)
            why = "it holds rows that are not in the data set" if part is None else self._difference(there, part)
            if why is None and part is not None:
                if there.about["rows_digest"] == part.digest:
                    found.add(part.number)
                continue
            if not overwrite:
                raise UserError(
                    f"{path} is of another run: {why}. Give another --output-dir, or replace it with --overwrite"
                )
            storage.remove(path)
        return found

    def _existing(self) -> list[str]:
        """Every part of this model in the folder, in either form."""
        paths = [path for suffix in _SUFFIXES for path in storage.list_files(self.folder, suffix)]
        return [path for path in paths if path.rpartition("/")[2].startswith(f"{self.prefix}_part_")]

    def _difference(self, there: HiddenStates, part: Part) -> str | None:
        """How a file differs from what this run would write as `part`; None where it does not, but for its images."""
        theirs = there.about.get("settings")
        if not isinstance(theirs, dict):
            return "it was not written by raylib extract"
        ours = json.loads(json.dumps(dict(self.settings), default=str))
        changed = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
        if changed:
            return "; ".join(f"its {key} is {theirs.get(key)}, this run's is {ours.get(key)}" for key in changed[:3])
        rows = {*there.question_ids, *(name for name, _ in there.failed)}
        if not rows <= {*part.ids}:
            return f"it holds {len(rows - {*part.ids})} rows that are not rows of this part in the data set"
        return None

    def write(self, part: Part, table: StateTable, compression: str) -> None:
        about = {**table.about, "settings": dict(self.settings), "rows_digest": part.digest}
        compressed = "lzf" if compression == "lzf" else None
        write_part(StateTable(**{**vars(table), "about": about}), self.path(part), self.form, compressed)

    def failed(self, parts: Sequence[Part]) -> list[tuple[str, str]]:
        """(question id, reason) of the rows without states, of all parts in order."""
        return [row for part in parts for row in open_states(self.path(part)).failed]


def assemble(part: Part, batches: Sequence[BatchStates], about: Mapping[str, Any]) -> StateTable:
    """The rows of a part in input order, from its batches in any order."""
    at = {number: (batch, i) for batch in batches for i, number in enumerate(batch.numbers)}
    rows = [row for row in part.rows if row.number in at]
    place = {row.number: i for i, row in enumerate(rows)}
    names = sorted({name for batch in batches for name in batch.values})
    states: dict[Representation, np.ndarray] = {}
    for name in names:
        width = next(batch.values[name].shape[1] for batch in batches if name in batch.values)
        states[name] = np.empty((len(rows), width), dtype=np.float32)
    spans = np.zeros((len(rows), 5), dtype=np.int64)
    for batch in batches:
        where = [place[number] for number in batch.numbers]
        spans[where] = batch.spans
        for name, values in batch.values.items():
            states[name][where] = values
    texts = {
        "image_id": [row.image_id for row in rows],
        "question": [row.question for row in rows],
        "ground_truth_answer": [row.answer for row in rows],
        "answer": [at[row.number][0].answers[at[row.number][1]] for row in rows],
    }
    carried = [name for name in (rows[0].carried if rows else {}) if name not in texts]
    failed = {number: why for batch in batches for number, why in batch.failed.items()}
    return StateTable(
        question_ids=[row.question_id for row in rows],
        texts=texts | {name: [row.carried[name] for row in rows] for name in carried},
        states=states,
        image_spans=spans[:, :2],
        vision_positions=spans[:, 2],
        query_positions=spans[:, 3],
        image_tokens=spans[:, 4],
        about={**about, "device": ", ".join(sorted({batch.device for batch in batches})), "num_samples": len(rows)},
        failed=[(row.question_id, failed[row.number]) for row in part.rows if row.number in failed],
    )
