"""Whether a worker sees the store that the job reads and writes."""

from __future__ import annotations

import os

from raylib.cluster.session import started_here
from raylib.errors import StoreError
from raylib.store.embeddings import Shelf


def store_marker(shelf: Shelf) -> str | None:
    """A file that workers look for, where it is not known that they share this disk."""
    path = os.path.join(shelf.folder, "encoder.json")
    return os.path.abspath(path) if not started_here() and os.path.exists(path) else None


def require_store(marker: str | None) -> None:
    """On a worker: raises StoreError where it does not see the file that `store_marker` named."""
    if marker is not None and not os.path.exists(marker):
        raise StoreError(
            f"a worker on {os.uname().nodename} does not see the store at {os.path.dirname(marker)}. On a cluster of "
            "several machines put --store on a file system that all of them share, or on s3:// or gs://."
        )
