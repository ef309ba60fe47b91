"""What --input names: files, folders and patterns → the files to read, in a fixed order, and those that are left."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from raylib.errors import UserError
from raylib.evaluate.pixel_files import IMAGE_SUFFIXES
from raylib.storage import is_remote

KINDS = {
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
    ".pdf": "pdf",
    ".txt": "lines",
    ".md": "whole",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
}
"""How a file is read, by the end of its name; case does not count."""


@dataclass(frozen=True)
class InputFile:
    """path: where it lies. name: what ids of its contents begin with. kind: a value of KINDS."""

    path: str
    name: str
    kind: str

    @property
    def source(self) -> str:
        """The path as text that every file can hold."""
        return printable(self.path)


@dataclass
class Inputs:
    """files: to be read, in order. skipped: paths in folders whose kind is not read."""

    files: list[InputFile] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def find_inputs(asked: Sequence[str], leave_out: Sequence[str] = ()) -> Inputs:
    """The files behind --input. Files of a folder come in the order of their paths from it, which are their names; a
    file that is given by itself goes by its base name. Hidden files are left out, and so are the folders `leave_out`.

    Raises UserError for what is not there, for a file of a kind that is not read, and where no file is left.
    """
    found = Inputs()
    seen: set[str] = set()
    hidden = {os.path.realpath(folder) for folder in leave_out}
    for text in asked:
        for path in _expanded(text):
            inside = _walk(path, hidden) if os.path.isdir(path) else [(path, os.path.basename(path))]
            for full, name in inside:
                if (absolute := os.path.abspath(full)) in seen:
                    continue
                seen.add(absolute)
                kind = KINDS.get(os.path.splitext(name)[1].lower())
                if kind is not None:
                    found.files.append(InputFile(full, printable(name), kind))
                elif os.path.isdir(path):
                    found.skipped.append(printable(full))
                else:
                    raise UserError(f"--input {full}: this kind of file is not read; expected {', '.join(KINDS)}")
    if not found.files:
        also = f"; {len(found.skipped)} files of other kinds are there" if found.skipped else ""
        raise UserError(f"no file to read in --input {', '.join(asked)}: expected {', '.join(KINDS)}{also}")
    return found


def printable(path: str) -> str:
    """A path, with bytes that are no UTF-8 replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def _expanded(text: str) -> list[str]:
    """A path that is there, or what a pattern matches."""
    if is_remote(text):
        raise UserError(f"--input {text}: inputs are read from local disks; copy or mount it")
    path = os.path.expanduser(text)
    if os.path.exists(path):
        return [path]
    matches = sorted(glob.glob(path, recursive=True))
    if not matches:
        raise UserError(f"--input {text} does not exist" + (", and matches nothing" if glob.has_magic(text) else ""))
    return matches


def _walk(folder: str, leave_out: set[str]) -> Iterator[tuple[str, str]]:
    """(path, path from `folder`) of every file below it, each folder once even where links lead in circles."""
    found, visited = [], set(leave_out)
    for base, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith("."):
                path = os.path.join(base, name)
                found.append((path, os.path.relpath(path, folder).replace(os.sep, "/")))
    return iter(sorted(found, key=lambda pair: pair[1]))
