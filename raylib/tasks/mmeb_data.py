"""Reads one subset in MMEB-eval's layout: Parquet with qry_text, qry_img_path, tgt_text[] and tgt_img_path[].

Every row is a query with its own candidates, of which the first is the right one. A candidate that several rows list is
one document here. Two that look the same to a model (same image, same text once placeholders are gone) are one, too:
a candidate equal to the right one is the right one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raylib import storage
from raylib.copies import local_copy
from raylib.errors import UserError
from raylib.tasks.mmeb_images import Images, find_images, where_expected
from raylib.tasks.mmeb_table import HUB_PATH
from raylib.tasks.rows import HOLDS, holds

if TYPE_CHECKING:
    import datasets

COLUMNS = ("qry_text", "qry_img_path", "tgt_text", "tgt_img_path")
_PLACEHOLDER = re.compile(r"[ \t]*<\|image_\d+\|>[ \t]*")


@dataclass(frozen=True)
class Content:
    """text: as a model reads it. image: the path in the data; "" for none."""

    text: str
    image: str


@dataclass
class SubsetData:
    """One subset as retrieval. queries, corpus: id, text, image where there is any, and what each row holds.

    candidates: query id → ids of its candidates in the row's order, each once, the right one first. raw: candidate id →
    (text, image path) as the data has them.
    """

    queries: datasets.Dataset
    corpus: datasets.Dataset
    candidates: dict[str, list[str]]
    raw: dict[str, tuple[str, str]]

    @property
    def category(self) -> str:
        """What both sides hold, as MTEB spells it."""
        return f"{_modalities(self.queries)}2{_modalities(self.corpus)}"


def local_folder(data_root: str, subset: str) -> str:
    """The folder of MMEB-eval under `data_root`, or `data_root` itself; of one in a bucket a copy. Raises UserError
    where it lacks the subset."""
    remote = storage.is_remote(data_root)
    root = data_root.rstrip("/") if remote else os.path.abspath(os.path.expanduser(data_root))
    tried = [os.path.join(root, HUB_PATH), os.path.join(root, HUB_PATH.rpartition("/")[2]), root]
    for folder in tried:
        if remote and storage.list_files(storage.join(folder, subset), ".parquet"):
            return local_copy(folder)
        if _parquet_files(os.path.join(folder, subset)):
            return folder
    places = " nor in ".join(os.path.join(folder, subset) for folder in tried)
    raise UserError(
        f"no Parquet file of MMEB's {subset} in {places}. Copy the data set there "
        f"(hf download {HUB_PATH} --repo-type dataset --local-dir {tried[0]}), or leave --data-root out."
    )


def hub_folder(subset: str, *, images: bool) -> tuple[str, str]:
    """(the hub cache's folder of MMEB-eval with this subset, its commit); fetched unless it is there. images: with the
    zip of images, too."""
    from huggingface_hub import snapshot_download

    wanted = [f"{subset}/*", *(["images.zip"] if images else [])]
    folder = snapshot_download(HUB_PATH, repo_type="dataset", allow_patterns=wanted)
    return folder, os.path.basename(folder)


def read_subset(folder: str, subset: str, *, prefix: str = "", image_dir: str | None = None) -> SubsetData:
    """Read `folder`/<subset>/*.parquet. prefix: put before every target's text. image_dir: see `find_images`.

    Raises UserError, naming the row, for columns or rows that are not in the layout, and where there are no images.
    """
    rows = _rows(os.path.join(folder, subset), subset)
    images = find_images(folder, image_dir)
    ids: dict[Content, str] = {}
    raw: dict[str, tuple[str, str]] = {}
    candidates: dict[str, list[str]] = {}
    queries: dict[str, Content] = {}
    for number, row in enumerate(rows):
        query = Content(clean_text(row["qry_text"] or ""), row["qry_img_path"] or "")
        query_id = _named(f"row {number}", query)
        queries[query_id] = query
        listed = []
        for text, image in _targets(row, f"{subset}, row {number}"):
            content = Content(prefix + clean_text(text), image)
            content_id = ids.setdefault(content, _named(f"target {len(ids)}", content))
            raw.setdefault(content_id, (text, image))
            listed.append(content_id)
        candidates[query_id] = list(dict.fromkeys(listed))
    documents = {content_id: content for content, content_id in ids.items()}
    if images is None and any(content.image for content in (*queries.values(), *documents.values())):
        raise UserError(
            f"no images of MMEB's {subset}: there is none of {where_expected(folder)}. "
            "Put them there, or say where they are with --image-dir (a folder or a .zip)."
        )
    return SubsetData(_dataset(queries, images, subset), _dataset(documents, images, subset), candidates, raw)


def clean_text(text: str) -> str:
    """Without the placeholder of an image: every model family puts its own mark where it wants it. White space around
    the placeholder goes with it, all other stays: a model that pools its last token reads a trailing line break."""
    parts = _PLACEHOLDER.split(text)
    cleaned = parts[0]
    for part in parts[1:]:
        if not cleaned.strip():
            cleaned = part.lstrip()
        else:
            apart = not part or part.startswith("\n") or cleaned.endswith("\n")
            cleaned += part if apart else f" {part}"
    return cleaned if cleaned.strip() else ""


def _named(what: str, content: Content) -> str:
    """An id that tells a person which image it is."""
    return f"{what}: {content.image}" if content.image else what


def _parquet_files(folder: str) -> list[str]:
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    test = [name for name in names if name.startswith("test")]
    return [os.path.join(folder, name) for name in test or names if name.endswith(".parquet")]


def _rows(folder: str, subset: str) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = _parquet_files(folder)
    if not files:
        raise UserError(f"{folder} holds no Parquet file of MMEB's {subset}")
    rows: list[dict[str, Any]] = []
    for path in files:
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise UserError(f"{path} has no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
        rows += table.select(list(COLUMNS)).to_pylist()
    if not rows:
        raise UserError(f"MMEB's {subset} has no rows in {folder}")
    return rows


def _targets(row: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    texts, images = row["tgt_text"], row["tgt_img_path"]
    if not isinstance(texts, list) or not isinstance(images, list) or len(texts) != len(images) or not texts:
        sizes = " and ".join(
            str(len(side)) if isinstance(side, list) else type(side).__name__ for side in (texts, images)
        )
        raise UserError(f"{where}: tgt_text and tgt_img_path are {sizes}; expected two lists of one length, 1 or more")
    return [(text or "", image or "") for text, image in zip(texts, images, strict=True)]


def _dataset(contents: Mapping[str, Content], images: Images | None, subset: str) -> datasets.Dataset:
    import datasets

    rows: Sequence[Content] = list(contents.values())
    columns: dict[str, list[Any]] = {"id": list(contents), "text": [content.text for content in rows]}
    features: dict[str, Any] = {"id": datasets.Value("string"), "text": datasets.Value("string")}
    if images is not None and any(content.image for content in rows):
        places = {i: images.path(c.image, f"{subset}, {i}") for i, c in contents.items() if c.image}
        columns["image"] = [{"bytes": None, "path": places[i]} if i in places else None for i in contents]
        features["image"] = datasets.Image()
    # A content with neither is a text that is empty: it is reported when it is encoded.
    columns[HOLDS] = [holds(text=bool(c.text) or not c.image, image=bool(c.image)) for c in rows]
    features[HOLDS] = datasets.Value("string")
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _modalities(data: datasets.Dataset) -> str:
    held = " ".join(data[HOLDS])
    return ("i" if "image" in held else "") + ("t" if "text" in held else "")
