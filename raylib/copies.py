"""Copies of remote files and folders on this node: fetched once, whoever asks, and again where they have changed.

$RAYLIB_CACHE/copies/<digest of the URL>/bucket/folder/...     the files, under the names that they have there
$RAYLIB_CACHE/copies/<digest of the URL>.json                  what the store said of each when it was fetched
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from raylib import storage
from raylib.errors import UserError

_AT_ONCE = 8

Listing = Mapping[str, tuple[int, str]]
"""Path from the folder → (bytes, mark), as `storage.find_files` gives it; "" for a file by itself."""


def local_copy(url: str, leave_out: Sequence[str] = ()) -> str:
    """The path of the local copy of a remote file or folder.

    Processes of a node wait for the one that fetches, and what has not changed is not fetched again. leave_out: URLs of
    folders below it that are not part of it. Raises UserError where there is nothing, and for a full disk; BucketError
    for a store that does not answer.
    """
    from filelock import FileLock

    url = url.rstrip("/")
    root = Path(storage.cache_folder(), "copies", hashlib.sha256(url.encode()).hexdigest()[:16])
    target = root / url.partition("://")[2]
    storage.make_folder(root.parent)
    with FileLock(f"{root}.lock"):
        there = _listed(url, leave_out)
        if not there:
            raise UserError(f"{url} does not exist, or holds no files")
        try:
            _bring_up_to_date(url, target, Path(f"{root}.json"), there)
        except OSError as error:
            raise UserError(
                f"cannot copy {url} to {root} on {os.uname().nodename}: {error.strerror or error}. Let RAYLIB_CACHE "
                "name a folder with room on every node"
            ) from error
    return str(target)


def _listed(url: str, leave_out: Sequence[str]) -> Listing:
    others = [other.rstrip("/") + "/" for other in leave_out]
    found = {}
    for name, about in storage.find_files(url).items():
        if name.startswith("/") or ".." in name.split("/"):
            raise UserError(f"{url} holds a file named {name!r}, which would lead out of its folder; rename it")
        if not name.endswith("/") and not any(storage.join(url, name).startswith(other) for other in others):
            found[name] = about
    return found


def _bring_up_to_date(url: str, target: Path, index: Path, there: Listing) -> None:
    known = _known(index)
    fetch = [name for name, about in there.items() if known.get(name) != about or not (target / name).is_file()]
    kept = {name: about for name, about in known.items() if there.get(name) == about}
    for name in known.keys() - there.keys():
        (target / name).unlink(missing_ok=True)
    if not fetch and kept == dict(known):
        return
    _write_index(index, {name: about for name, about in kept.items() if name not in fetch})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: _fetch(url, target, name), fetch))
    _write_index(index, there)


def _known(index: Path) -> dict[str, tuple[int, str]]:
    try:
        return {name: (int(size), str(mark)) for name, (size, mark) in json.loads(index.read_text()).items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def _write_index(index: Path, listing: Listing) -> None:
    storage.write_text(index, json.dumps(listing))


def _fetch(url: str, target: Path, name: str) -> None:
    path = target / name
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        storage.download_file(storage.join(url, name) if name else url, aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
