"""A vector that cannot be compared is named by its id rather than by its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raylib.errors import UserError
from raylib.search.blocks import BadVectorError


class Side(Protocol):
    """Whose contents are searched. ids [n]: what they are called, empty where that is not known; owners [n]: the
    content of each; path: the file they come from, "" where there is none."""

    @property
    def path(self) -> str: ...
    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def owners(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Names:
    """A `Side` that comes from no file."""

    ids: Sequence[str]
    owners: np.ndarray
    path: str = ""


@contextmanager
def named_by_id(queries: Side, documents: Side) -> Iterator[None]:
    """Raises UserError, which says the file and the first id of the content, in place of BadVectorError."""
    try:
        yield
    except BadVectorError as error:
        side = queries if error.side == "query" else documents
        if not len(side.ids):
            raise
        name = side.ids[int(np.flatnonzero(side.owners == error.position)[0])]
        where = f"{side.path}: " if side.path else ""
        # No BadVectorError: that one forgets the name on its way to another process.
        raise UserError(f"{where}{error.side} {name} {error.reason}") from error
