"""Data of the built-in benchmarks on disk: made on first use, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable

from raylib import storage
from raylib.errors import UserError
from raylib.tasks import hub_layout


def built_once(name: str, revision: str, part: str, write: Callable[[str], None]) -> str:
    """The folder of one part of a benchmark in the cache; `write(folder)` makes it unless it is there.

    Two processes may build at once: see `storage.fill_once`. Raises UserError where the cache cannot be written to.
    """
    folder = storage.join(storage.cache_folder(), f"{name}-{revision}", part)
    try:
        storage.fill_once(folder, lambda aside: write(str(aside)), hub_layout.is_complete)
    except OSError as error:
        raise UserError(
            f"cannot build {name} in {folder}: {error.strerror or error}. "
            "Set RAYLIB_CACHE to a folder that you may write to."
        ) from error
    return folder


def no_sources(name: str) -> UserError:
    """Of a Python that came without the files that a benchmark is made from."""
    return UserError(
        f"this Python has no source files of its standard library, from which {name} is made. "
        "Use a Python that ships them (python.org, uv, conda, or your system's full package)."
    )
