"""Names for folders that change when their files do."""

from __future__ import annotations

import hashlib
import os
import uuid

from raylib import storage
from raylib.errors import UserError


def files_digest(folder: str) -> str:
    """16 hex digits over the folder's real path and the name, size and time of change of every file in it."""
    digest = hashlib.sha256(os.path.realpath(folder).encode())
    for base, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(base, name)
            stat = os.stat(path)
            digest.update(f"\0{os.path.relpath(path, folder)}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def versioned_view(folder: str) -> str:
    """A link to `folder` whose name changes whenever a file in it does.

    The `datasets` library names the Arrow copy of a local folder after the folder's own name and the configs of its
    README, not after its files: two folders of one name, or one that was edited, would share one stale copy. Reading
    through a link with the digest in its name gives each state a copy of its own.
    """
    link = os.path.join(storage.cache_folder(), "local-data", f"{os.path.basename(folder)}-{files_digest(folder)}")
    storage.make_folder(os.path.dirname(link))
    if not os.path.islink(link) or os.readlink(link) != os.path.realpath(folder):
        aside = f"{link}.{uuid.uuid4().hex}"
        try:
            os.symlink(os.path.realpath(folder), aside)
            os.replace(aside, link)
        except OSError as error:
            raise UserError(
                f"cannot link {link} to {folder}: {error.strerror or error}. "
                "Set RAYLIB_CACHE to a folder on a file system that has symbolic links."
            ) from error
    return link
