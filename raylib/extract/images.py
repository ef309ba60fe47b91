"""Where the images of VQA rows lie: a folder, a folder of an object store, or a zip. Found when a run begins, by names
that cannot lead out of it.
"""

from __future__ import annotations

import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from raylib import storage
from raylib.errors import UserError
from raylib.evaluate.contents import BadContentError
from raylib.evaluate.pixel_files import IMAGE_SUFFIXES, PixelFile
from raylib.extract.places import FileImage, ImagePlace, RemoteImage, ZipImage
from raylib.store.keys import field_digest
from raylib.tasks.rows import zip_members


class Found(NamedTuple):
    """An image that is there. name: from the folder's or the zip's top. size: its bytes. mark: an integer of 64 bits
    that changes when the file does: its time of change, its CRC, or a digest of what an object store tells."""

    name: str
    size: int
    mark: int


class ImageSource(ABC):
    """Images by relative name."""

    where: str
    """The folder or the zip, as it was given: for messages."""

    _tops: Sequence[str] = ("",)
    """What may stand before a row's name, in the order in which it is tried."""

    def find(self, name: str) -> Found:
        """The image that a row names. A name without a file is tried with the usual ends (.png, .jpg, …) too.

        Raises BadContentError for a name that could lead out of the folder, where nothing of the name is there, and
        where it could mean several files.
        """
        clean = relative_name(name)
        for name in (top + clean for top in self._tops):
            found = self._exact(name) or self._without_end(name)
            if found is not None:
                return found
        raise BadContentError(f"there is no image {clean} in {self.where}")

    def _without_end(self, name: str) -> Found | None:
        folder, _, stem = name.rpartition("/")
        similar = [f"{folder}/{other}" if folder else other for other in self._named(folder).get(stem, ())]
        if len(similar) > 1:
            raise BadContentError(f"{name} could be {' or '.join(similar)} in {self.where}; name one with its end")
        return self._exact(similar[0]) if similar else None

    @abstractmethod
    def place(self, found: Found) -> ImagePlace: ...

    @abstractmethod
    def _exact(self, name: str) -> Found | None:
        """The file of exactly this name, None where there is none. Raises BadContentError where it cannot be used."""

    @abstractmethod
    def _named(self, folder: str) -> Mapping[str, Sequence[str]]:
        """Of the image files directly in `folder`: name without its end → names, sorted."""


def open_images(images_dir: str) -> ImageSource:
    """What --images-dir names: a folder or a .zip, on a local disk or in an object store. A remote folder and a zip are
    listed here, once. Raises UserError where there is neither."""
    if storage.is_remote(images_dir):
        return _ZipImages(images_dir) if images_dir.lower().endswith(".zip") else _RemoteFolder(images_dir)
    path = os.path.abspath(os.path.expanduser(images_dir))
    if os.path.isdir(path):
        return _LocalFolder(images_dir, path)
    if not os.path.exists(path):
        raise UserError(f"--images-dir {images_dir} does not exist; expected a folder of images or a .zip of them")
    return _ZipImages(images_dir, path)


def relative_name(name: str) -> str:
    """A name as rows give it → the path below the folder, without "." and doubled slashes.

    Data comes from anyone; a path in it may not reach other files of this machine. Raises BadContentError.
    """
    wanted = "expected a path relative to --images-dir"
    if "\0" in name:
        raise BadContentError(f"the image name {name!r} holds a NUL character; {wanted}")
    if "\\" in name:
        raise BadContentError(f"the image name {name!r} has a backslash; {wanted}, with / between folders")
    if name.startswith("/") or re.match(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*://", name):
        raise BadContentError(f"the image name {name!r} is an absolute path; {wanted}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadContentError(f"the image name {name!r} leads out of its folder by ..; {wanted}")
    if not parts:
        raise BadContentError(f"the image name {name!r} names no file; {wanted}")
    return "/".join(parts)


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(stem, []).append(name)
    return found


class _LocalFolder(ImageSource):
    """Only folders that rows name are looked into: a folder may hold far more than a run needs."""

    def __init__(self, where: str, path: str) -> None:
        self.where, self._root = where, os.path.realpath(path)
        self._folders: dict[str, bool] = {}
        self._names: dict[str, dict[str, list[str]]] = {}

    def place(self, found: Found) -> ImagePlace:
        return FileImage(PixelFile(self._full(found.name), found.size, found.mark))

    def _full(self, name: str) -> str:
        return os.path.join(self._root, name) if name else self._root

    def _folder_is_inside(self, folder: str) -> bool:
        if folder not in self._folders:
            self._folders[folder] = self._inside(self._full(folder))
        return self._folders[folder]

    def _inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        return os.path.commonpath([real, self._root]) == self._root

    def _exact(self, name: str) -> Found | None:
        path = self._full(name)
        try:
            about = os.lstat(path)
            led_out = not self._folder_is_inside(name.rpartition("/")[0])
            if stat.S_ISLNK(about.st_mode):
                led_out = led_out or not self._inside(path)
                about = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BadContentError(f"{name} in {self.where} cannot be read: {error.strerror or error}") from error
        if led_out:
            raise BadContentError(f"{name} leads out of {self.where} by a symbolic link; expected an image inside it")
        if not stat.S_ISREG(about.st_mode):
            raise BadContentError(f"{name} in {self.where} is no file")
        return Found(name, about.st_size, about.st_mtime_ns)

    def _named(self, folder: str) -> Mapping[str, Sequence[str]]:
        if folder not in self._names:
            self._names[folder] = self._list(folder)
        return self._names[folder]

    def _list(self, folder: str) -> dict[str, list[str]]:
        if not self._folder_is_inside(folder):
            return {}
        try:
            with os.scandir(self._full(folder)) as entries:
                return _by_stem(entry.name for entry in entries)
        except OSError:  # no such folder: there is no image in it
            return {}


class _Listed(ImageSource):
    """A source whose files were all listed. files: name → where it is."""

    def __init__(self, where: str, files: dict[str, Found]) -> None:
        self.where, self._files = where, files
        self._folders: dict[str, dict[str, list[str]]] | None = None

    def _exact(self, name: str) -> Found | None:
        return self._files.get(name)

    def _named(self, folder: str) -> Mapping[str, Sequence[str]]:
        if self._folders is None:
            inside: dict[str, list[str]] = {}
            for name in self._files:
                above, _, base = name.rpartition("/")
                inside.setdefault(above, []).append(base)
            self._folders = {above: _by_stem(names) for above, names in inside.items()}
        return self._folders.get(folder, {})


class _RemoteFolder(_Listed):
    def __init__(self, url: str) -> None:
        try:
            listed = storage.find_files(url)
        except OSError as error:
            raise UserError(f"--images-dir {url} cannot be listed: {error.strerror or error}") from error
        if not listed:
            raise UserError(f"--images-dir {url} holds no files; expected a folder of images or a .zip of them")
        super().__init__(url, {name: Found(name, size, _as_mark(mark)) for name, (size, mark) in listed.items()})

    def place(self, found: Found) -> ImagePlace:
        return RemoteImage(storage.join(self.where, found.name), found.size)


class _ZipImages(_Listed):
    """Where everything in a zip lies in one folder, names may leave that folder out: `zip -r images.zip images/`."""

    def __init__(self, where: str, path: str | None = None) -> None:
        self._archive = path or where
        try:
            members = [member for member in zip_members(self._archive) if not member.is_dir()]
        except OSError as error:
            raise UserError(f"--images-dir {where}: {error}; expected a folder of images or a .zip of them") from error
        files = {m.filename: Found(m.filename, m.file_size, m.CRC) for m in members}
        tops = {name.partition("/")[0] for name in files if "/" in name and not name.startswith("__MACOSX/")}
        if len(tops) == 1 and all("/" in name for name in files):
            self._tops = ("", f"{tops.pop()}/")
        super().__init__(where, files)

    def place(self, found: Found) -> ImagePlace:
        return ZipImage(self._archive, found.name, found.mark)


def _as_mark(text: str) -> int:
    return int.from_bytes(field_digest(text)[:8], "little", signed=True)
