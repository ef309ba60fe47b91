"""manifest.json: what a finished folder is, and who made it. It comes last: where it is, the folder is complete."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from raylib import storage
from raylib.errors import UserError

MANIFEST = "manifest.json"


def write_manifest(folder: str, job: str, manifest: Mapping[str, Any]) -> None:
    """job: the command that made the folder, e.g. "raylib encode"."""
    text = json.dumps({"kind": job, **manifest}, indent=1, default=str) + "\n"
    storage.write_text(storage.join(folder, MANIFEST), text)


def read_manifest(folder: str, job: str) -> dict[str, Any] | None:
    """None where there is none, or one of another job. Raises UserError for one that cannot be read."""
    path = storage.join(folder, MANIFEST)
    if not storage.exists(path):
        return None
    try:
        found = json.loads(storage.read_text(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Run `{job}` again with --overwrite.") from error
    return found if isinstance(found, dict) and found.get("kind") == job else None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
