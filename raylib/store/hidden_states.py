"""Hidden states on disk: parts of rows, written one at a time and read as one table.

{prefix}_part_001.h5, {prefix}_part_002.h5, ...     or .parquet; each whole or not there
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np

from raylib import storage
from raylib.errors import UnknownNameError, UserError
from raylib.store.hidden_states_hdf5 import COLUMNS, Hdf5Part, opened, write_hdf5
from raylib.store.hidden_states_old import OldPart
from raylib.store.hidden_states_parquet import ParquetPart, write_parquet
from raylib.store.representations import Representation
from raylib.store.state_table import Part, StateRow, StateTable, clean

__all__ = ["HiddenStates", "StateRow", "StateTable", "open_states", "part_name", "write_part"]

Form = Literal["hdf5", "parquet"]
_SUFFIXES: dict[Form, str] = {"hdf5": ".h5", "parquet": ".parquet"}
_PART = re.compile(r"(?P<prefix>.+)_part_(?P<number>\d+)(?P<suffix>\.h5|\.hdf5|\.parquet)")
_HDF5 = (".h5", ".hdf5")


def part_name(prefix: str, number: int, form: Form) -> str:
    """{prefix}_part_{NNN}.h5 or .parquet; numbers count from 1."""
    return f"{prefix}_part_{number:03d}{_SUFFIXES[form]}"


def write_part(table: StateTable, path: str, form: Form, compression: Literal["lzf"] | None = None) -> None:
    """Write one part, local or remote; it appears whole, or not at all. One writer a path. Raises UserError for a
    disk that is full, an id with NUL or half a surrogate pair, and for lzf, a compression of HDF5, with Parquet."""
    if form == "parquet" and compression is not None:
        raise UserError(f"{compression} is a compression of HDF5 files; leave it out, or ask for HDF5")
    for question_id in table.question_ids:
        if clean(question_id) != question_id:
            raise UserError(f"question_id {question_id!r} has characters that no file can hold; give the row another")
    with storage.atomic_write(path) as stream:
        if form == "parquet":
            write_parquet(table, stream)
        else:  # HDF5 reads while it writes: it opens the file that is about to be renamed
            write_hdf5(table, stream.name, compression)


class HiddenStates:
    """The rows of one or more parts as one table. It holds no open file, so it can be sent between processes."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Raises UserError where parts are of different models or layers, or two have the same row."""
        self.parts = list(parts)
        self.question_ids = [question_id for part in self.parts for question_id in part.question_ids]
        self.failed = [failure for part in self.parts for failure in part.failed]
        self.about: dict[str, Any] = _common(self.parts)
        self.representations: list[Representation] = _agreed_representations(self.parts)
        self._refuse_repeated_rows()

    def __len__(self) -> int:
        return len(self.question_ids)

    @property
    def text_names(self) -> list[str]:
        """What `texts` can be asked for, in the order of the file."""
        return list(dict.fromkeys(name for part in self.parts for name in part.text_names))

    def texts(self, name: str) -> list[str]:
        """[n] of image_id, question, ground_truth_answer, answer or a column that was carried along; "" where a row
        has none. Raises UserError for a name that no part has."""
        if name not in self.text_names:
            raise UnknownNameError("column", name, self.text_names, hint=f"There are: {', '.join(self.text_names)}.")
        found: list[str] = []
        for part in self.parts:
            found += part.texts(name) if name in part.text_names else [""] * len(part.question_ids)
        return found

    def positions(self) -> dict[str, np.ndarray]:
        """image_span int64 [n, 2], the first image token and one past the last; vision_position, query_position and
        image_tokens int64 [n]. {} where a part does not tell: the old scripts kept none."""
        found = [part.positions() for part in self.parts]
        if not all(found):
            return {}
        return {name: np.concatenate([positions[name] for positions in found]) for name in found[0]}

    def matrix(self, representation: Representation, missing: Literal["error", "nan"] = "error") -> np.ndarray:
        """float32 [n, D] over all parts, in the order of question_ids.

        Files of the old scripts may have rows without it. missing: "error" raises UserError naming them; "nan" gives
        them NaN, to be left out with a word to the user. Raises UserError also for a representation that is not there,
        or rows of different widths.
        """
        self._known(representation)
        parts = [part for part in self.parts if representation in part.representations]
        width = parts[0].width(representation)
        out = np.empty((len(self), width), np.float32)
        absent: list[str] = []
        first = 0
        for part in self.parts:
            rows = out[first : first + len(part.question_ids)]
            first += len(rows)
            if len(rows) == 0:
                continue
            if representation not in part.representations:
                lacking = list(range(len(rows)))
            elif part.width(representation) != width:
                raise UserError(
                    f"{representation.path} has {width} dimensions in {parts[0].path} and {part.width(representation)} "
                    f"in {part.path}; these are not of one model. Name one file, or move the others away."
                )
            else:
                lacking = part.read_into(representation, rows)
            rows[lacking] = np.nan
            absent += [part.question_ids[at] for at in lacking]
        if absent and missing == "error":
            raise UserError(
                f"{len(absent)} of {len(self)} rows have no {representation.path}: {_some(absent)}. "
                "Leave these rows out, or extract them again."
            )
        return out

    def vectors(self, representation: Representation) -> Iterator[tuple[str, np.ndarray | None]]:
        """(question_id, its vector) one after the other, whatever shape and dtype it has; None where there is none.
        For those who look for what is wrong."""
        self._known(representation)
        for part in self.parts:
            if representation not in part.representations:
                yield from ((question_id, None) for question_id in part.question_ids)
            else:
                yield from zip(part.question_ids, part.vectors(representation), strict=True)

    def row(self, question_id: str) -> StateRow:
        """Everything of one row. Raises UserError for an id that is not there."""
        for part in self.parts:
            if question_id in part.question_ids:
                return part.row(question_id)
        for failed_id, reason in self.failed:
            if failed_id == question_id:
                raise UserError(f"row {question_id!r} has no hidden states: {reason}")
        raise UnknownNameError("row", question_id, self.question_ids)

    def _known(self, representation: Representation) -> None:
        if representation not in self.representations:
            paths = [one.path for one in self.representations]
            raise UnknownNameError("representation", representation.path, paths, hint=f"There are: {', '.join(paths)}.")

    def _refuse_repeated_rows(self) -> None:
        if len(set(self.question_ids)) == len(self.question_ids):
            return
        seen: dict[str, str] = {}
        for part in self.parts:
            for question_id in part.question_ids:
                if question_id in seen:
                    raise UserError(
                        f"row {question_id!r} is in {seen[question_id]} and in {part.path}; expected each row once. "
                        "Name one file, or move away what is of another run."
                    )
                seen[question_id] = part.path


def open_states(path: str) -> HiddenStates:
    """Open a part file; a folder of parts of one run; or folder/prefix, where parts of several lie in a folder.

    A part is HDF5 or Parquet of raylib, or HDF5 of the old scripts. Parts go by their number. Raises UserError for what
    is not there, is damaged, or does not belong together.
    """
    path = str(path).rstrip("/")
    if PurePosixPath(path).suffix in (*_HDF5, ".parquet"):
        if not storage.exists(path):
            raise UserError(f"{path} does not exist; expected a file of hidden states, or a folder of them")
        return HiddenStates([_open_part(path)])
    files = _parts_of(storage.list_files(path))
    if not files:
        folder, _, prefix = path.rpartition("/")
        files = {key: found for key, found in _parts_of(storage.list_files(folder or ".")).items() if key[0] == prefix}
    if not files:
        raise UserError(
            f"{path} holds no hidden states; expected files named like gemma3_12b_embeddings_part_001.h5 "
            "(or .parquet). Name the --output-dir of a `raylib extract`."
        )
    if len(files) > 1:
        if len({prefix for prefix, _ in files}) == 1:
            raise UserError(f"{path} holds one run in several forms: {_suffixes(files)}. Move all but one form away.")
        shown = ", ".join(f"{prefix} ({suffix.lstrip('.')})" for prefix, suffix in sorted(files))
        raise UserError(f"{path} holds the hidden states of several runs: {shown}. Name one file, or {path}/PREFIX.")
    return HiddenStates([_open_part(file) for file in next(iter(files.values()))])


def _suffixes(files: Iterable[tuple[str, str]]) -> str:
    return ", ".join(sorted(suffix for _, suffix in files))


def _parts_of(paths: list[str]) -> dict[tuple[str, str], list[str]]:
    """(prefix, suffix) → the files, by number. A lone .h5 file with another name is a run of its own; other Parquet
    files, such as errors.parquet, are something else."""
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for path in paths:
        name = path.rpartition("/")[2]
        match = _PART.fullmatch(name)
        if match and not name.startswith("."):
            found.setdefault((match["prefix"], match["suffix"]), []).append((int(match["number"]), path))
        elif name.endswith(_HDF5) and not name.startswith("."):
            stem, _, suffix = name.rpartition(".")
            found.setdefault((stem, f".{suffix}"), []).append((0, path))
    return {key: [path for _, path in sorted(numbered)] for key, numbered in found.items()}


def _open_part(path: str) -> Part:
    if path.endswith(".parquet"):
        return ParquetPart(path)
    with opened(path) as file:
        ours = "layout" in file[COLUMNS].attrs if COLUMNS in file else False
    return Hdf5Part(path) if ours else OldPart(path)


def _common(parts: Sequence[Part]) -> dict[str, Any]:
    """What all parts say of themselves: the first part's word, with the rows of all. Raises UserError where two parts
    name different models, layers or boundaries."""
    about = dict(parts[0].about)
    for part in parts[1:]:
        for name in ("model_name", "fingerprint", "layers", "boundary"):
            if name in part.about and name in about and part.about[name] != about[name]:
                raise UserError(
                    f"{name} is {about[name]!r} in {parts[0].path} and {part.about[name]!r} in {part.path}; expected "
                    "the parts of one run. Name one file, or move the others away."
                )
    if "num_samples" in about and len(parts) > 1:
        about["num_samples"] = sum(len(part.question_ids) for part in parts)
    return about


def _agreed_representations(parts: Sequence[Part]) -> list[Representation]:
    """Those of the parts that have rows. Raises UserError where two parts differ."""
    filled = [part for part in parts if part.question_ids]
    for part in filled[1:]:
        differ = set(part.representations) ^ set(filled[0].representations)
        if differ:
            raise UserError(
                f"{filled[0].path} and {part.path} hold different representations: only one of them has "
                f"{_some([one.path for one in sorted(differ)])}. Name one file, or move the others away."
            )
    return filled[0].representations if filled else []


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
