"""Where the images of training data lie: files below one folder or in one zip, and items of local copies of data sets.

Training data names an image by a path, or by `owner/name/split/doc_N.png`: item N of a split of a data set of the hub.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raylib.copies import local_copy as copy_of
from raylib.errors import UserError
from raylib.evaluate.contents import BadContentError
from raylib.evaluate.pixel_files import IMAGE_SUFFIXES
from raylib.storage import is_remote
from raylib.tasks.cache import versioned_view
from raylib.tasks.local_data import find_copy
from raylib.tasks.mmeb_images import Images, find_images

if TYPE_CHECKING:
    import datasets

_HUB_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
_HUB_ITEM = re.compile(r"([\w.-]+)/([\w.-]+)/([\w.-]+)/doc_(\d+)\.png", re.ASCII)
_LONGEST_SUFFIX = max(map(len, IMAGE_SUFFIXES))


@dataclass(frozen=True)
class TableItem:
    """An image inside of a table. table: its number in `Places.tables`; row: in that table."""

    table: int
    row: int


Place = str | TableItem
"""Of an image: a path that `raylib.tasks.rows.read_bytes` opens, or an item of a table."""


@dataclass
class Places:
    """root: the folder, or the zip, that paths are looked up in. data_root: the folder with local copies of data sets,
    as owner/name or name. tables: the image columns that were opened, each a data set of one column `image`, not
    decoded."""

    root: str
    data_root: str
    tables: list[datasets.Dataset] = field(default_factory=list)
    _images: Images | None = field(default=None, repr=False)
    _splits: dict[tuple[str, str], int] = field(default_factory=dict, repr=False)
    _found: dict[str, Place] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, root: str, data_root: str | None) -> Places:
        """data_root: `root` where None. Data sets below it are copied to this node where it is in a bucket; images are
        read there, one by one. Raises UserError for a root that is not there."""
        if data_root is not None and is_remote(data_root):
            data_root = copy_of(data_root)
        if is_remote(root):
            return cls(root.rstrip("/"), data_root or "", _images=Images.in_bucket(root.rstrip("/")))
        root = os.path.abspath(os.path.expanduser(root))
        if not os.path.isdir(root) and not root.lower().endswith(".zip"):
            raise UserError(
                f"--root {root} is no folder; expected the folder, or the .zip, that image paths start from"
            )
        folder = root if data_root is None else os.path.abspath(os.path.expanduser(data_root))
        images = Images(root) if os.path.isdir(root) else find_images(root, root)
        return cls(root, folder, _images=images)

    def find(self, name: str) -> Place:
        """An image by its name in the data. An existing file wins over an item of a data set.

        Raises BadContentError where there is none, or where the name leads out of the root, and UserError where a
        local copy of a data set cannot be read.
        """
        if name not in self._found:
            self._found[name] = self._file(name) or self._hub_item(name)
        return self._found[name]

    def known(self, name: str) -> Place | None:
        """An image that `find` has found before."""
        return self._found.get(name)

    def is_image(self, text: str, *, may_be_text: bool) -> bool:
        """Whether a bare string of the data names an image: it ends as one. may_be_text: of a string with blanks in
        it, for which there is no such file, it is assumed that it is a text."""
        if not ends_as_image(text) or "\n" in text:
            return False
        if not may_be_text or not any(map(str.isspace, text)):
            return True
        try:
            return self._file(text) is not None
        except BadContentError:
            return False

    def add_table(self, images: datasets.Dataset) -> int:
        """The number of a table of images; its only column is named `image`."""
        self.tables.append(images)
        return len(self.tables) - 1

    def _file(self, name: str) -> str | None:
        assert self._images is not None
        inside = os.path.relpath(name, self.root) if os.path.isabs(name) else os.path.normpath(name)
        try:
            path = self._images.path(inside.replace(os.sep, "/"), "")
        except UserError:
            raise BadContentError(
                f"the image path {name!r} leads out of --root {self.root}; give a folder above it as --root"
            ) from None
        return path if self._images.holds(path) else None

    def _hub_item(self, name: str) -> TableItem:
        match = _HUB_ITEM.fullmatch(name)
        if match is None:
            raise BadContentError(f"there is no image {name} in --root {self.root}")
        owner, repo, split, item = match.groups()
        table = self._split(f"{owner}/{repo}", split, name)
        if int(item) >= len(self.tables[table]):
            raise BadContentError(
                f"there is no item {int(item)} in the split {split} of {owner}/{repo}; it has {len(self.tables[table])}"
            )
        return TableItem(table, int(item))

    def _local_copy(self, hub_name: str, name: str) -> str:
        try:
            return local_copy(hub_name, self.data_root)
        except UserError as error:
            raise UserError(f"there is no image {name} in --root {self.root}, and {error}") from None

    def _split(self, hub_name: str, split: str, name: str) -> int:
        """name: of an image in it, for messages."""
        if (hub_name, split) not in self._splits:
            data = open_split(self._local_copy(hub_name, name), split)
            columns = image_columns(data)
            if not columns:
                raise UserError(f"the split {split} of {hub_name} has no images; its columns are {data.column_names}")
            column = "image" if "image" in columns else columns[0]
            self._splits[hub_name, split] = self.add_table(undecoded(data, column))
        return self._splits[hub_name, split]


def ends_as_image(text: str) -> bool:
    return text[-_LONGEST_SUFFIX:].lower().endswith(IMAGE_SUFFIXES)


def local_copy(hub_name: str, data_root: str) -> str:
    """The folder of a data set below `data_root`. Raises UserError for what is no name of the hub, and where there is
    no such folder: nothing is fetched."""
    if not _HUB_NAME.fullmatch(hub_name):
        raise UserError(
            f"{hub_name!r} is no name of a data set of the hub; expected owner/name. A folder or a file goes by --data"
        )
    folder, tried = find_copy(hub_name, data_root)
    if folder is not None:
        return folder
    raise UserError(
        f"no local copy of the data set {hub_name}: there is no {' and no '.join(dict.fromkeys(tried))}. Copy it "
        f"(hf download {hub_name} --repo-type dataset --local-dir {tried[0]}), or say where it is with --data-root."
    )


def open_splits(folder: str, config: str | None = None) -> dict[str, datasets.Dataset]:
    """Split → rows of a data set in a folder: as on the hub, or as `save_to_disk` writes it (where one without splits
    is "train"). config: which of several; None for the only one. Raises UserError where it cannot be read."""
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        saved = [name for name in ("dataset_dict.json", "state.json") if os.path.exists(os.path.join(folder, name))]
        opened: Any = (
            datasets.load_from_disk(folder) if saved else datasets.load_dataset(versioned_view(folder), config)
        )
    except (ValueError, OSError, DatasetsError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{folder} cannot be read as a data set: {why}") from error
    return {"train": opened} if isinstance(opened, datasets.Dataset) else {str(k): v for k, v in opened.items()}


def open_split(folder: str, split: str | None, config: str | None = None) -> datasets.Dataset:
    """One split; None for the only one. Raises UserError, naming the splits, where it is not clear or not there."""
    splits = open_splits(folder, config)
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        asked = "several splits; choose one with --split" if split is None else f"no split {split}"
        raise UserError(f"{folder} has {asked}. It has {', '.join(splits)}")
    return splits[split]


def image_columns(data: datasets.Dataset) -> list[str]:
    """The columns that hold images: as `datasets` marks them, or bytes, or structs of bytes and path."""
    from raylib.store.arrow_text import kind_of

    schema = data.features.arrow_schema
    return [name for name in schema.names if kind_of(schema.field(name).type) == "image"]


def undecoded(data: datasets.Dataset, column: str) -> datasets.Dataset:
    """One column of images as a data set of the column `image`. Raises UserError for bytes beside structs that
    `datasets` cannot read as images."""
    import datasets

    images = data.select_columns([column])
    images = images if column == "image" else images.rename_column(column, "image")
    return images.cast_column("image", datasets.Image(decode=False))
