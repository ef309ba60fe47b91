"""The errors a user can meet. Each message says what was got, what was expected and what to change."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raylib.types import Embeddings


class RaylibError(Exception):
    """Base of everything raylib raises on purpose; the command line prints it as one line, without a trace."""


class UserError(RaylibError, ValueError):
    """Something the user gave cannot be used: a flag, a file, a folder, a table."""


class DiskFullError(UserError):
    """A file found no room on the disk of this machine."""


class UnknownNameError(UserError):
    """A name that is not known; the message lists the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name = kind, name
        self.nearest = nearest_names(name, known)
        guess = f" Did you mean {' or '.join(self.nearest)}?" if self.nearest else ""
        super().__init__(f"unknown {kind} {name!r}.{guess}{' ' + hint if hint else ''}")

    def __reduce__(
        self,
    ):  # an exception with its own arguments does not pickle by default; Ray sends it between processes
        return (_rebuild_unknown_name, (self.kind, self.name, self.nearest, str(self)))


def _rebuild_unknown_name(kind: str, name: str, nearest: list[str], message: str) -> UnknownNameError:
    error = UnknownNameError.__new__(UnknownNameError)
    ValueError.__init__(error, message)
    error.kind, error.name, error.nearest = kind, name, nearest
    return error


class UnsupportedOptionError(UserError):
    """An option that this model does not have (pooling for CLIP, an adapter for BM25)."""


class ModelError(RaylibError):
    """A model cannot be loaded, or gave no embedding: NaN, a wrong shape, too much memory for one content."""


class RefusedContentsError(RaylibError):
    """A model gives no vectors for some contents of a batch, each for a reason of its own.

    reasons: row in the batch → why. rest: the Embeddings of the other rows in order, None where there are none.
    """

    def __init__(self, model: str, reasons: Mapping[int, str], rest: Embeddings | None) -> None:
        self.model, self.reasons, self.rest = model, dict(reasons), rest
        row, reason = next(iter(self.reasons.items()))
        super().__init__(f"{model} gives no vectors for {len(self.reasons)} contents; for number {row + 1}: {reason}")

    def __reduce__(self):
        return (RefusedContentsError, (self.model, self.reasons, self.rest))


class StoreError(RaylibError):
    """The embedding store holds something that cannot be read, or cannot be written to."""


class BucketError(RaylibError):
    """An object store that does not answer, or lets nobody in. It says nothing of the files that it holds."""


class OverloadedError(RaylibError):
    """A server has more to do than it can bear; the same request may be sent again a little later."""

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[type, tuple[str, float]]:
        return type(self), (str(self), self.retry_after_seconds)


class DeadlineError(RaylibError):
    """The time that a request had was over before it was answered."""


@dataclass(frozen=True)
class BadContent:
    """One content that could not be encoded. key: the store's key as hex; source: where it came from, for a person."""

    key: str
    source: str
    item_id: str
    reason: str


class BadContentsError(RaylibError):
    """Contents that a task needs could not be encoded."""

    def __init__(self, bad: Sequence[BadContent]) -> None:
        self.bad = list(bad)
        shown = "; ".join(f"{b.source} {b.item_id}: {b.reason}" for b in self.bad[:5])
        more = f"; and {len(self.bad) - 5} more" if len(self.bad) > 5 else ""
        super().__init__(
            f"{len(self.bad)} contents could not be encoded ({shown}{more}). "
            "Mend them, or pass --allow-errors N to score without them."
        )

    def __reduce__(self):
        return (BadContentsError, (self.bad,))


def nearest_names(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Up to `limit` known names that look like `name`, best first; case does not count."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=0.6)
    inside = [c for c in by_lower if name.lower() in c and c not in close]
    return [by_lower[c] for c in (close + sorted(inside, key=len))[:limit]]
