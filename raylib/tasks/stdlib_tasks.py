"""StdlibPages as MTEB tasks: a question against page images, page texts, or both.

This module imports mteb at its top, because its classes derive from mteb's: import it inside functions only.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.benchmarks.benchmark import Benchmark

from raylib import storage
from raylib.tasks import stdlib_pages

if TYPE_CHECKING:
    from datasets import Dataset

_ABOUT = (
    "Find the page of the Python standard library's documentation that answers a question. Pages are laid out from "
    "docstrings; questions are their summary lines without the name of what they describe."
)
_PROMPT = "Find the page of the documentation that answers the question."


def built_in_metadata(
    name: str, category: str, description: str, prompt: str, revision: str, benchmark: str
) -> TaskMetadata:
    """Of a retrieval task of a built-in benchmark. category: "t2t", "t2i" or "t2it"."""
    return TaskMetadata(
        name=name,
        description=description,
        reference=None,
        dataset={"path": f"raylib/{benchmark}", "revision": revision},
        type="Retrieval" if category == "t2t" else "DocumentUnderstanding",
        category=category,  # pyright: ignore[reportArgumentType]
        modalities=["text"] if category == "t2t" else ["text", "image"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_5",
        date=("1991-02-20", "2026-12-31"),
        domains=["Programming", "Written"],
        task_subtypes=["Question answering"] if category == "t2t" else ["Image Text Retrieval"],
        license="https://docs.python.org/3/license.html",
        annotations_creators="derived",
        dialect=[],
        sample_creation="rendered",
        bibtex_citation="",
        prompt={"query": prompt},  # pyright: ignore[reportArgumentType]
    )


def _metadata(name: str, category: str, what: str) -> TaskMetadata:
    return built_in_metadata(name, category, f"{_ABOUT} {what}", _PROMPT, stdlib_pages.revision(), "StdlibPages")


class BuiltInTask(AbsTaskRetrieval):
    """What the tasks of built-in benchmarks share. Those of one benchmark differ in the columns of the corpus alone."""

    corpus_columns: tuple[str, ...]

    @abstractmethod
    def folder(self, split: str) -> str:
        """Where the data of one split lies, in the hub's layout; made unless it is there."""

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Build the data if they are not on disk, and read them. `num_proc` is not needed for so few rows."""
        if self.data_loaded:
            return
        self.dataset = {"default": {split: self._load(split) for split in self.eval_splits}}
        self.data_loaded = True

    def _load(self, split: str) -> RetrievalSplitData:
        folder = self.folder(split)
        queries = _read(folder, "queries", split).rename_columns({"query-id": "id", "query": "text"})
        corpus = _read(folder, "corpus", split).rename_column("corpus-id", "id")
        relevant: dict[str, dict[str, int]] = {}
        for row in _read(folder, "qrels", split).to_list():
            relevant.setdefault(row["query-id"], {})[row["corpus-id"]] = row["score"]
        return RetrievalSplitData(
            corpus=corpus.select_columns(["id", *self.corpus_columns]),
            queries=queries.select_columns(["id", "text"]),
            relevant_docs=relevant,
            top_ranked=None,
        )


def _read(folder: str, config: str, split: str) -> Dataset:
    """One config as a data set whose rows stay on disk. The Arrow copy lies inside the folder: in a shared cache
    `datasets` would take the copy of another Python version, whose folder has the same name, for this one's."""
    from datasets import load_dataset

    return load_dataset(folder, config, split=split, cache_dir=storage.join(folder, ".arrow"))


class _StdlibPages(BuiltInTask):
    abstask_prompt = _PROMPT

    def folder(self, split: str) -> str:
        return stdlib_pages.ensure_built("train" if split == "train" else "test")


class StdlibPagesT2I(_StdlibPages):
    """Question → page image."""

    corpus_columns = ("image",)
    metadata = _metadata("StdlibPagesT2I", "t2i", "The pages are images.")


class StdlibPagesT2T(_StdlibPages):
    """Question → page text."""

    corpus_columns = ("text",)
    metadata = _metadata("StdlibPagesT2T", "t2t", "The pages are plain text.")


class StdlibPagesT2IT(_StdlibPages):
    """Question → page image and text."""

    corpus_columns = ("image", "text")
    metadata = _metadata("StdlibPagesT2IT", "t2it", "The pages are images with their text.")


TASKS: tuple[type[AbsTaskRetrieval], ...] = (StdlibPagesT2I, StdlibPagesT2T, StdlibPagesT2IT)


def benchmark() -> Benchmark:
    """The benchmark `StdlibPages`, with fresh tasks."""
    return Benchmark(
        name="StdlibPages",
        tasks=[task() for task in TASKS],
        description=f"{_ABOUT} Built on first use from the Python that runs it.",
    )
