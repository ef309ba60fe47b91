"""What MTEB would hand to a model, as sources: the same columns and texts, images left encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raylib.evaluate.contents import Source, encoded_image
from raylib.tasks.rows import HOLDS, fields_of

if TYPE_CHECKING:
    import datasets
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType
    from torch.utils.data import DataLoader


def retrieval_source(
    data: datasets.Dataset, metadata: TaskMetadata, role: str, *, name: str, keep: Sequence[int] | None = None
) -> Source:
    """The corpus (role "document") or the queries of one subset.

    MTEB prepares the text columns (title joined, instruction added, columns of other modalities dropped); images go
    round that step, which would copy them. Rows that say what they hold (see `raylib.tasks.rows`) are taken as they
    are. keep: the rows to keep.
    """
    from mteb.types import PromptType

    if keep is not None and len(keep) < len(data):
        data = data.select(keep)
    if HOLDS in data.column_names:
        return _told_source(data, role, name)
    prompt_type = PromptType(role)
    wanted = metadata.get_modalities(prompt_type)
    images = _undecoded(data.select_columns(["image"])) if "image" in wanted and "image" in data.column_names else None
    texts: Any = None
    if "text" in wanted and "text" in data.column_names:
        plain = data.remove_columns([c for c in ("image", "audio", "video") if c in data.column_names])
        texts = _prepared(plain, metadata, prompt_type)
    ids = [str(i) for i in data["id"]]
    return Source(name, ids, texts, images, required="text" if role == "query" else None)


def _told_source(data: datasets.Dataset, role: str, name: str) -> Source:
    present = [fields_of(cell) for cell in data[HOLDS]]
    held = {field for fields in present for field in fields}
    texts = data.select_columns(["text"]) if "text" in held else None
    images = _undecoded(data.select_columns(["image"])) if "image" in held else None
    alike = all(len(fields) == len(held) for fields in present)
    required = "text" if role == "query" else None
    return Source(name, [str(i) for i in data["id"]], texts, images, required, None if alike else present)


def _prepared(data: datasets.Dataset, metadata: TaskMetadata, prompt_type: PromptType) -> Any:
    """The text columns as MTEB prepares them. It cannot take None nor an empty table: missing texts go round it as ""
    and are put back, so that they are reported under their ids."""
    from mteb._create_dataloaders import create_dataloader

    if not len(data):
        return data
    names = [c for c in ("text", "title") if c in data.column_names and _is_string(data, c)]
    missing = {c: {i for i, value in enumerate(data[c]) if value is None} for c in names}
    if any(missing.values()):
        data = data.map(lambda row: {c: "" if row[c] is None else row[c] for c in names})
    prepared: Any = create_dataloader(data, task_metadata=metadata, prompt_type=prompt_type).dataset
    without = missing.get("text")
    if without:
        prepared = prepared.map(lambda row, i: {"text": None if i in without else row["text"]}, with_indices=True)
    return prepared


def _is_string(data: datasets.Dataset, column: str) -> bool:
    """False for a conversation, which is a list of turns."""
    return getattr(data.features[column], "dtype", None) in ("string", "large_string")


def loader_source(loader: DataLoader, *, name: str, required: str | None = None) -> Source:
    """The inputs of one `encode` call. Reads the loader's data set undecoded where it is a Hugging Face one."""
    import datasets

    data: Any = loader.dataset
    if isinstance(data, datasets.Dataset):
        images = _undecoded(data.select_columns(["image"])) if "image" in data.column_names else None
        kept = [c for c in data.column_names if c != "image"]
        ids = [str(i) for i in data["id"]] if "id" in kept else [f"row {i}" for i in range(len(data))]
        return Source(name, ids, data.select_columns(kept) if kept else None, images, required)
    rows: dict[str, list[Any]] = {}
    for batch in loader:  # MTEB's own image lists: already decoded, one by one
        for column, values in batch.items():
            rows.setdefault(column, []).extend([encoded_image(v) for v in values] if column == "image" else values)
    n = len(next(iter(rows.values()))) if rows else 0
    images = datasets.Dataset.from_dict({"image": rows.pop("image")}) if "image" in rows else None
    texts = datasets.Dataset.from_dict(rows) if rows else None
    return Source(name, [f"row {i}" for i in range(n)], texts, images, required)


def _undecoded(data: datasets.Dataset) -> datasets.Dataset:
    """The image column as stored: {"bytes", "path"}."""
    import datasets

    if isinstance(data.features["image"], datasets.Image):
        return data.cast_column("image", datasets.Image(decode=False))
    return data
