"""MMEB-V2's 24 subsets of visual documents, as MTEB tasks: those that MTEB has, and three read in the hub's layout.

They differ from MTEB's in their prompts and their main score, so they have names of their own. MMEB-V2 takes the mean
over all queries of a multilingual subset, MTEB the mean over languages; each language has equally many.

This module imports mteb at its top, because its classes derive from mteb's: import it inside functions only.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.benchmarks.benchmark import Benchmark

from raylib.metrics.measures import means, per_query
from raylib.tasks.mmeb_table import METADATA, VISDOC, VISDOC_BENCHMARK, visdoc_task_name

if TYPE_CHECKING:
    from datasets import Dataset

_PAPER = "https://arxiv.org/abs/2507.04590"
_PROMPT = {
    "query": "Find a document image that matches the given query:",
    "document": "Understand the content of the provided document image.",
}
GAINS = tuple(f"ndcg_{gain}_at_{k}" for gain in ("linear", "exponential") for k in (1, 5, 10))
"""nDCG with the grade itself as gain, which MTEB's ndcg_at_k is too, and with 2^grade − 1. Equal for grades 0 and 1."""


class _Gains(AbsTaskRetrieval):
    """Adds GAINS to a retrieval task's scores."""

    scores_by_ids = True

    def task_specific_scores(self, scores: Any, qrels: Any, results: Any, hf_split: str, hf_subset: str) -> Any:
        found = super().task_specific_scores(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)
        return {**found, **means(per_query(results, qrels, GAINS))}


class _HubPages(AbsTaskRetrieval):
    """Pages in the layout that ViDoRe has too: queries(query-id, query), corpus(corpus-id, image), qrels."""

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Load every split. `num_proc` is not needed: images stay encoded."""
        if not self.data_loaded:
            self.dataset = {"default": {split: self._load(split) for split in self.eval_splits}}
            self.data_loaded = True

    def _load(self, split: str) -> RetrievalSplitData:
        queries = self._config("queries", split)
        queries = queries.rename_columns({"query-id": "id", "query": "text"}).select_columns(["id", "text"])
        corpus = self._config("corpus", split).rename_column("corpus-id", "id").select_columns(["id", "image"])
        relevant: dict[str, dict[str, int]] = {}
        for row in self._config("qrels", split).to_list():
            relevant.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
        return RetrievalSplitData(
            queries=_text_ids(queries), corpus=_text_ids(corpus), relevant_docs=relevant, top_ranked=None
        )

    def _config(self, config: str, split: str) -> Dataset:
        from datasets import load_dataset

        where = self.metadata.dataset
        return load_dataset(where["path"], config, split=split, revision=where["revision"])


def _text_ids(data: Dataset) -> Dataset:
    """Ids as text; some data sets number their rows."""
    from datasets import Value

    return data.cast_column("id", Value("string"))


def _own_metadata(subset: str, path: str) -> TaskMetadata:
    return TaskMetadata(
        name=visdoc_task_name(subset),
        description=f"{subset}, one of the visual document subsets of MMEB-V2: find the page that answers a question.",
        reference=_PAPER,
        dataset={"path": path, "revision": "main"},
        type="DocumentUnderstanding",
        category="t2i",
        eval_splits=["test"],
        main_score="ndcg_linear_at_5",
        date=("2024-01-01", "2025-07-01"),
        domains=["Academic"],
        prompt=_PROMPT,  # pyright: ignore[reportArgumentType]
        **METADATA,
    )


def _task_class(subset: str, source: str, known: dict[str, type]) -> type[AbsTaskRetrieval]:
    """A class under a name of this module, so that its tasks can be pickled."""
    name = "Mmeb2" + re.sub(r"\W", "_", subset)
    if "/" in source:
        base, metadata = _HubPages, _own_metadata(subset, source)
    else:
        base = known[source]
        changes = {"name": visdoc_task_name(subset), "main_score": "ndcg_linear_at_5", "prompt": _PROMPT}
        metadata = base.metadata.model_copy(update=changes)  # pyright: ignore[reportAttributeAccessIssue]
    made = type(name, (_Gains, base), {"metadata": metadata, "__module__": __name__})
    globals()[name] = made
    return made


def _task_classes() -> tuple[type[AbsTaskRetrieval], ...]:
    # `mteb.get_tasks` is the function of that name; the module beside it holds the classes.
    known = {cls.metadata.name: cls for cls in import_module("mteb.get_tasks").TASK_LIST}
    return tuple(_task_class(subset, source, known) for group in VISDOC.values() for subset, source in group.items())


TASKS: tuple[type[AbsTaskRetrieval], ...] = _task_classes()


def benchmark() -> Benchmark:
    """The benchmark "MMEB-V2(visdoc)", with fresh tasks."""
    return Benchmark(
        name=VISDOC_BENCHMARK,
        tasks=[task() for task in TASKS],
        description="The 24 visual document subsets of MMEB-V2: ViDoRe V1 and V2, VisRAG, ViDoSeek, MMLongBench. "
        "nDCG@5 with linear gain.",
        reference=_PAPER,
    )
