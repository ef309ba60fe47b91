"""Where bytes live: local folders and object stores behind one small set of calls.

Presence means complete: a file appears under its final name only once it is whole. On a local disk it is written
aside and renamed; object stores publish an object only when its upload ends.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from raylib import buckets
from raylib.errors import DiskFullError, UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_remote(path: str | Path) -> bool:
    """True for s3://, gs:// and other URLs; a local path is written without file://."""
    return "://" in str(path)


def as_path(given: str) -> str:
    """A path as a user gives it, without file://. Raises UserError, which does not repeat it, for a URL that holds
    credentials."""
    buckets.check_url(given)
    return given.removeprefix("file://")


def cache_folder() -> str:
    """Where raylib keeps what it builds for itself: $RAYLIB_CACHE, or ~/.cache/raylib."""
    return os.environ.get("RAYLIB_CACHE") or str(Path.home() / ".cache" / "raylib")


def join(folder: str | Path, *names: str) -> str:
    """folder/name/...; works for local paths and URLs."""
    return "/".join([str(folder).rstrip("/"), *names])


@contextmanager
def filesystem(path: str | Path) -> Iterator[tuple[Any, str]]:
    """fsspec's file system for `path`, and the path as that file system names it. It forgets what it remembers of
    the folder: another machine may have written there. Raises BucketError for a store that does not answer the block,
    or lets nobody in."""
    with buckets.speaking_of(str(path)):
        found, name = buckets.filesystem(str(path))
        found.invalidate_cache(name)
        yield found, name


def exists(path: str | Path) -> bool:
    if not is_remote(path):
        return os.path.exists(path)
    with filesystem(path) as (store, name):
        return store.exists(name)


def find_files(folder: str) -> dict[str, tuple[int, str]]:
    """Path from `folder` → (bytes, mark) of every file below a remote folder, by one listing; {} where there is none.
    Of a file by itself, the path is "".

    mark: what the store says of a file's contents or its time, as text; "" where it says nothing.
    """
    with filesystem(folder) as (store, name):
        start = len(name.rstrip("/")) + 1
        marks = ("ETag", "etag", "md5Hash", "LastModified", "updated", "mtime", "created")
        return {
            path[start:]: (int(about.get("size") or 0), next((str(about[m]) for m in marks if about.get(m)), ""))
            for path, found in store.find(name, detail=True).items()
            if (about := found or store.info(path))
        }


def find_matching(pattern: str) -> list[str]:
    """URLs of the remote files and folders that a pattern matches, sorted."""
    with filesystem(pattern) as (store, name):
        return sorted(f"{pattern.split('://')[0]}://{found.lstrip('/')}" for found in store.glob(name))


def list_files(folder: str | Path, suffix: str = "") -> list[str]:
    """Full paths of the finished files directly in `folder`, sorted; [] where there is no such folder."""
    if not is_remote(folder):
        if not os.path.isdir(folder):
            return []
        names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
        return sorted(join(folder, n) for n in names if n.endswith(suffix) and not n.startswith("."))
    scheme = str(folder).split("://")[0]
    return sorted(f"{scheme}://{n}" for n in _names_in(str(folder), "file") if n.endswith(suffix))


def list_folders(folder: str | Path) -> list[str]:
    """Names of the folders directly in `folder`, sorted, without hidden ones; [] where there is no such folder."""
    if not is_remote(folder):
        if not os.path.isdir(folder):
            return []
        return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    return sorted(n.rstrip("/").rsplit("/", 1)[-1] for n in _names_in(str(folder), "directory"))


def _names_in(folder: str, kind: str) -> list[str]:
    """What a remote folder holds of a kind. The store is not asked whether the folder exists: s3fs says no for a
    whole bucket that does not answer."""
    with filesystem(folder) as (store, name):
        try:
            return [entry["name"] for entry in store.ls(name, detail=True) if entry["type"] == kind]
        except FileNotFoundError:
            return []


def make_folder(path: str | Path) -> None:
    """Create a local folder and its parents; raises UserError, in one line, where that is not allowed."""
    if is_remote(path):
        return
    try:
        os.makedirs(path, exist_ok=True)
        probe = join(path, f".write-test-{uuid.uuid4().hex}")
        with open(probe, "wb"):
            pass
        os.unlink(probe)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}. Choose a folder that you may write to.") from error


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """Open `path` for writing; it appears, whole, when the block ends without an exception, and not otherwise.

    Raises UserError when the disk is full or the folder cannot be written to; what was there before stays.
    """
    if is_remote(path):
        with _upload(str(path), mode) as stream:
            yield stream
        return
    path = os.path.abspath(path)
    aside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{uuid.uuid4().hex}.part")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(aside, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if os.path.exists(aside):
            os.unlink(aside)


def _cannot_write(path: str, error: OSError) -> UserError:
    """In a run on many machines one of them may have a full disk: it is named."""
    told = f"cannot write {path}: {error.strerror or error}. What was stored before is intact."
    if error.errno not in _FULL:
        return UserError(told)
    node = os.uname().nodename
    return DiskFullError(
        f"{told} Free some space on the node {node}, and run the same command again: it goes on from there."
    )


def fill_once(
    folder: str | Path, fill: Callable[[Path], None], complete: Callable[[str], bool] = os.path.isdir
) -> None:
    """Have `fill` write a local folder beside, which then gets its name; nothing is done where it is complete. Several
    processes may fill at once: the first rename wins."""
    target = Path(folder)
    if complete(str(target)):
        return
    aside = target.parent / f".{target.name}.{uuid.uuid4().hex}.part"
    make_folder(target.parent)
    aside.mkdir()
    try:
        fill(aside)
        try:
            os.rename(aside, target)
        except OSError:
            if not complete(str(target)):  # nobody was faster: this is a real error
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _upload(url: str, mode: str) -> Iterator[IO]:
    """A local file that is uploaded when the block ends well. fsspec's own streams would publish what was written
    before an exception."""
    import tempfile

    try:
        with tempfile.NamedTemporaryFile(mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            with filesystem(url) as (store, name):
                store.put_file(stream.name, name)
    except OSError as error:
        raise _cannot_write(url, error) from error


def upload_folder(folder: str | Path, url: str, last: str) -> None:
    """Every file of a local folder to a remote one; the file `last` when all others are there, for its presence means
    that they are. Raises UserError where the store refuses."""
    local = Path(folder)
    names = sorted(path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file())
    try:
        with filesystem(url) as (store, remote):
            for name in sorted(names, key=lambda name: name == last):
                store.put_file(str(local / name), join(remote, name))
    except OSError as error:
        raise _cannot_write(url, error) from error


def download_file(url: str, path: str | Path) -> None:
    """A remote file to a local path, whose folder is made. Raises OSError."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with filesystem(url) as (store, name):
        store.get_file(name, str(path))


def write_text(path: str | Path, text: str) -> None:
    """Write a small text file atomically."""
    with atomic_write(path, "w") as stream:
        stream.write(text)


def read_text(path: str | Path) -> str:
    if not is_remote(path):
        return Path(path).read_text(encoding="utf-8")
    return read_bytes(path).decode("utf-8")


@contextmanager
def open_binary(path: str | Path) -> Iterator[IO[bytes]]:
    """A seekable stream of bytes, from a local disk or an object store. Raises OSError."""
    if not is_remote(path):
        with open(path, "rb") as stream:
            yield stream
        return
    with filesystem(path) as (store, name), store.open(name, "rb") as stream:
        yield stream


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """A file, or no more than its first `limit` bytes, in one request where it is remote. Raises OSError."""
    if not is_remote(path):
        with open(path, "rb") as stream:
            return stream.read(-1 if limit is None else limit)
    with filesystem(path) as (store, name):
        return store.cat_file(name, end=limit)


@contextmanager
def open_input(path: str | Path) -> Iterator[Any]:
    """A seekable binary source that pyarrow can read; memory-mapped where the file is local. Raises OSError."""
    if not is_remote(path):
        import pyarrow as pa

        with pa.memory_map(str(path)) as source:
            yield source
        return
    with filesystem(path) as (store, name), store.open(name, "rb") as source:
        yield source


def remove(path: str | Path) -> None:
    """Delete one file; nothing happens where there is none."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
        return
    with filesystem(path) as (store, name), suppress(FileNotFoundError):
        store.rm_file(name)


def remove_folder(path: str | Path) -> None:
    """Delete a folder and all in it; nothing happens where there is none."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with filesystem(path) as (store, name), suppress(FileNotFoundError):
        store.rm(name, recursive=True)
