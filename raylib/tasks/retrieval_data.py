"""The queries, documents and judgements of a retrieval task, read by id: what a person looks at, not a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raylib.errors import UserError
from raylib.tasks.loading import loaded
from raylib.tasks.rows import read_bytes

if TYPE_CHECKING:
    import datasets
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.task_metadata import TaskMetadata

    from raylib.types import Role


@dataclass(frozen=True)
class Item:
    """A query or document. text: as a model is given it (title and instruction joined), or None; image: the encoded
    bytes as stored, or None."""

    text: str | None
    image: bytes | None


@dataclass
class RetrievalSubset:
    """One split of one subset. relevant: query id → document id → grade."""

    metadata: TaskMetadata
    queries: datasets.Dataset
    corpus: datasets.Dataset
    relevant: Mapping[str, Mapping[str, int]]

    @cached_property
    def _rows(self) -> dict[Role, dict[str, int]]:
        sides: dict[Role, Any] = {"query": self.queries, "document": self.corpus}
        return {role: {str(i): row for row, i in enumerate(side["id"])} for role, side in sides.items()}

    def items(self, role: Role, ids: Iterable[str]) -> dict[str, Item]:
        """The items of these ids, in their order; an id that the data set does not have is left out. Images are not
        decoded."""
        data = self.queries if role == "query" else self.corpus
        known = {i: self._rows[role][i] for i in ids if i in self._rows[role]}
        if not known:
            return {}
        from mteb.types import PromptType

        chosen, wanted = data.select(list(known.values())), self.metadata.get_modalities(PromptType(role))
        images: list[Any] = [None] * len(known)
        texts: list[Any] = [None] * len(known)
        if "image" in wanted and "image" in data.column_names:
            images = [_image_bytes(cell) for cell in _undecoded(chosen)]
        if "text" in wanted and "text" in data.column_names:
            texts = _texts(chosen, self.metadata, role)
        return {i: Item(text, image) for i, text, image in zip(known, texts, images, strict=True)}


def load_retrieval(task: AbsTask) -> dict[tuple[str, str], RetrievalSubset]:
    """(split, subset) → its data. Raises UserError where the task is no retrieval or its data cannot be had."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    name = task.metadata.name
    if not isinstance(task, AbsTaskRetrieval):
        raise UserError(f"{name} is {task.metadata.type}; expected a retrieval task")
    with loaded(task):
        task.convert_v1_dataset_format_to_v2(num_proc=None)
    return {
        (split, subset): RetrievalSubset(task.metadata, data["queries"], data["corpus"], data["relevant_docs"])
        for subset, splits in task.dataset.items()
        for split, data in splits.items()
    }


def _undecoded(data: datasets.Dataset) -> Sequence[Any]:
    import datasets

    column = data.select_columns(["image"])
    if isinstance(column.features["image"], datasets.Image):
        column = column.cast_column("image", datasets.Image(decode=False))
    return column[:]["image"]


def _image_bytes(cell: Any) -> bytes | None:
    """The bytes of an image cell; None where it holds nothing that can be read."""
    if isinstance(cell, Mapping):
        if cell.get("bytes") is not None or not cell.get("path"):
            return cell.get("bytes")
        try:
            return read_bytes(cell["path"])
        except OSError:
            return None
    return cell if isinstance(cell, bytes) else None


def _texts(data: datasets.Dataset, metadata: TaskMetadata, role: Role) -> list[str]:
    """As MTEB prepares them: titles and instructions joined, a conversation as one text; a missing one is ""."""
    from mteb._create_dataloaders import create_dataloader
    from mteb.types import PromptType

    plain = data.remove_columns([c for c in ("image", "audio", "video") if c in data.column_names])
    if getattr(plain.features["text"], "dtype", None) in ("string", "large_string"):
        plain = plain.map(lambda row: {"text": row["text"] or ""})
    prepared: Any = create_dataloader(plain, task_metadata=metadata, prompt_type=PromptType(role)).dataset
    return [str(text) for text in prepared["text"]]
