"""Where MMEB's images lie: a folder of them, or the zip file that the hub has, which is read without unpacking."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath

from raylib import storage
from raylib.errors import UserError
from raylib.tasks.rows import in_zip, zip_members

_BESIDE = ("images", "eval_images", "images.zip", "eval_images.zip")
"""Where they are looked for in the data set's folder: what the hub has, and what its instructions unpack it to."""

_INSIDE = ("", "images/", "eval_images/")
"""What may stand before the data's paths in the folder or the zip."""


@dataclass(frozen=True)
class Images:
    """root: a folder, or a zip file, local or in a bucket. members: the names inside the zip, or of the folder in a
    bucket; None for a local folder."""

    root: str
    members: frozenset[str] | None = field(default=None, repr=False)
    zipped: bool = False

    @classmethod
    def in_bucket(cls, url: str) -> Images:
        """Of a folder or a zip, listed here once. Raises UserError where there is neither."""
        if url.lower().endswith(".zip"):
            return _opened(url)
        names = frozenset(storage.find_files(url))
        if not names:
            raise UserError(f"{url} holds no files; expected a folder of images or a .zip of them")
        return cls(url, names)

    def path(self, name: str, row: str) -> str:
        """The path of one image, that `raylib.tasks.rows.read_bytes` and `datasets` open. row: for messages.

        A file that is not there keeps its path, and is reported by it when it is read. Raises UserError for a name that
        leads out of the folder.
        """
        _check_inside(name, row)
        for before in _INSIDE:
            if self._has(before + name):
                return self._full(before + name)
        return self._full(name)

    def holds(self, path: str) -> bool:
        """Whether the image is there, of which `path` gave the path."""
        if self.members is None:
            return os.path.isfile(path)
        inside = path.removeprefix("zip://").partition("::")[0] if self.zipped else path.removeprefix(f"{self.root}/")
        return inside in self.members

    def _has(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self.root, name)) if self.members is None else name in self.members

    def _full(self, name: str) -> str:
        return in_zip(self.root, name) if self.zipped else os.path.join(self.root, name)


def find_images(data_folder: str, image_dir: str | None = None) -> Images | None:
    """The images of a data set: `image_dir` (a folder or a .zip) where given, else what lies in its own folder; None
    where nothing does. Raises UserError for an image_dir that is neither."""
    if image_dir is None:
        found = [os.path.join(data_folder, name) for name in _BESIDE]
        return next((_opened(path) for path in found if os.path.exists(path)), None)
    if storage.is_remote(image_dir):
        return Images.in_bucket(image_dir.rstrip("/"))
    path = os.path.abspath(os.path.expanduser(image_dir))
    if not os.path.exists(path):
        raise UserError(f"--image-dir {image_dir} does not exist; expected a folder of images or a .zip of them")
    return _opened(path)


def where_expected(data_folder: str) -> str:
    """For the message that they were not found."""
    return ", ".join(os.path.join(data_folder, name) for name in _BESIDE)


def _opened(path: str) -> Images:
    if os.path.isdir(path):
        return Images(path)
    try:
        return Images(path, frozenset(member.filename for member in zip_members(path)), zipped=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); expected a folder of images or a .zip of them") from error


def _check_inside(name: str, row: str) -> None:
    """Data comes from anyone; a path in it may not reach other files of this machine."""
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    if name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in parts or "\0" in name or "::" in name:
        raise UserError(f"{row}: the image path {name!r} leads out of the image folder; expected one relative to it")
