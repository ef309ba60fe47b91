"""Text files of one record a line, with errors that name the file and the line."""

from __future__ import annotations

from collections.abc import Iterator

from raylib import storage
from raylib.errors import UserError


def read_lines(path: str, kind: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of every line that is not blank.

    kind: what the file should be, for the messages. Only a newline ends a line: an id may hold other separators.
    Raises UserError where the file cannot be read, is no UTF-8 text or holds no line.
    """
    try:
        text = storage.read_text(path)
    except OSError as error:
        raise UserError(f"{kind} {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{kind} {path} is no UTF-8 text (byte {error.start} is {error.object[error.start]})"
        ) from error
    found = False
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if line.strip():
            found = True
            yield number, line.rstrip("\r")
    if not found:
        raise UserError(f"{kind} {path} is empty")
