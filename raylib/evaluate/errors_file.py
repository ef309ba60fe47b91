"""errors.parquet: the contents that could not be encoded, beside what was made without them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from raylib import storage
from raylib.errors import BadContent

ERRORS_FILE = "errors.parquet"
_COLUMNS = ("key", "source", "item_id", "reason")


def write_errors(folder: str, bad: Sequence[BadContent]) -> None:
    """Write the file of a folder; without bad contents, one of an earlier run that no longer holds goes."""
    write_errors_to(storage.join(folder, ERRORS_FILE), bad)


def write_errors_to(path: str, bad: Sequence[BadContent]) -> None:
    """The same under a name of its own."""
    if not bad:
        storage.remove(path)
        return
    with storage.atomic_write(path) as stream:
        pq.write_table(pa.table({name: [getattr(b, name) for b in bad] for name in _COLUMNS}), stream)


def listed(bad: Sequence[BadContent], limit: int = 10) -> str:
    """A line for each of the first bad contents."""
    shown = [f"  {content.item_id}: {content.reason}" for content in bad[:limit]]
    return "\n".join(shown + ([f"  and {len(bad) - limit} more"] if len(bad) > limit else []))
