"""The folder of vectors that `raylib encode` writes and `raylib score` reads.

embeddings.parquet | embeddings.npy or .npz with ids.txt | embeddings.h5
errors.parquet     what could not be encoded
manifest.json      what all this is; it comes last, so where it is, the vectors are complete
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raylib import storage
from raylib.errors import UserError

MANIFEST = "manifest.json"
IDS = "ids.txt"
_KIND = "raylib encode"


def write_manifest(folder: str, manifest: Mapping[str, Any]) -> None:
    storage.write_text(
        storage.join(folder, MANIFEST), json.dumps({"kind": _KIND, **manifest}, indent=1, default=str) + "\n"
    )


def read_manifest(folder: str) -> dict[str, Any] | None:
    """None where there is none, or one of something else. Raises UserError for one that cannot be read."""
    path = storage.join(folder, MANIFEST)
    if not storage.exists(path):
        return None
    try:
        found = json.loads(storage.read_text(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Run `raylib encode` again with --overwrite.") from error
    return found if isinstance(found, dict) and found.get("kind") == _KIND else None
