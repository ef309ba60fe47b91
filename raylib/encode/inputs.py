"""What --input names: files, folders and patterns → the files to read, in a fixed order, and those that are left."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from raylib.copies import local_copy
from raylib.errors import UserError
from raylib.evaluate.pixel_files import IMAGE_SUFFIXES
from raylib.storage import find_matching, is_remote, join

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
    """path: where it lies. name: what ids of its contents begin with. kind: a value of KINDS. origin: its URL, where
    path is a copy."""

    path: str
    name: str
    kind: str
    origin: str | None = None

    @property
    def source(self) -> str:
        """The path, or the URL, as text that every file can hold."""
        return printable(self.origin or self.path)


@dataclass
class Inputs:
    """files: to be read, in order. skipped: paths in folders whose kind is not read."""

    files: list[InputFile] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def find_inputs(asked: Sequence[str], leave_out: Sequence[str] = ()) -> Inputs:
    """The files behind --input. Files of a folder come in the order of their paths from it, which are their names; a
    file that is given by itself goes by its base name. Hidden files are left out, and so are the folders `leave_out`.
    What lies in a bucket is copied to this node first.

    Raises UserError for what is not there, for a file of a kind that is not read, and where no file is left.
    """
    found = Inputs()
    seen: set[str] = set()
    hidden = {os.path.realpath(folder) for folder in leave_out if not is_remote(folder)}
    for text in asked:
        for path, url in _expanded(text, leave_out):
            inside = _walk(path, hidden) if os.path.isdir(path) else [(path, os.path.basename(path))]
            for full, name in inside:
                if (absolute := os.path.abspath(full)) in seen:
                    continue
                seen.add(absolute)
                kind = KINDS.get(os.path.splitext(name)[1].lower())
                origin = None if url is None else join(url, name) if os.path.isdir(path) else url
                if kind is not None:
                    found.files.append(InputFile(full, printable(name), kind, origin))
                elif os.path.isdir(path):
                    found.skipped.append(printable(origin or full))
                else:
                    raise UserError(
                        f"--input {origin or full}: this kind of file is not read; expected {', '.join(KINDS)}"
                    )
    if not found.files:
        also = f"; {len(found.skipped)} files of other kinds are there" if found.skipped else ""
        raise UserError(f"no file to read in --input {', '.join(asked)}: expected {', '.join(KINDS)}{also}")
    return found


def printable(path: str) -> str:
    """A path, with bytes that are no UTF-8 replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def _expanded(text: str, leave_out: Sequence[str]) -> list[tuple[str, str | None]]:
    """A path that is there, or what a pattern matches; with the URL of what it is a copy of."""
    if is_remote(text):
        urls = find_matching(text) if glob.has_magic(text) else [text.rstrip("/")]
        if not urls:
            raise UserError(f"--input {text} matches nothing")
        return [(local_copy(url, [folder for folder in leave_out if is_remote(folder)]), url) for url in urls]
    path = os.path.expanduser(text)
    if os.path.exists(path):
        return [(path, None)]
    matches = sorted(glob.glob(path, recursive=True))
    if not matches:
        raise UserError(f"--input {text} does not exist" + (", and matches nothing" if glob.has_magic(text) else ""))
    return [(match, None) for match in matches]


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
