"""MMEB's 36 image subsets as MTEB tasks: a query against the candidates of its row, or of the whole subset.

This module imports mteb at its top, because its classes derive from mteb's: import it inside functions only.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.benchmarks.benchmark import Benchmark
from mteb.models import EncoderProtocol, SearchProtocol

from raylib.errors import UserError
from raylib.metrics.hits import Hit, expected_hit
from raylib.tasks import mmeb_data
from raylib.tasks.local_data import mark_local
from raylib.tasks.mmeb_model import RowKinds
from raylib.tasks.mmeb_table import (
    HUB_PATH,
    IMAGE_BENCHMARK,
    META_TASKS,
    METADATA,
    SUBSETS,
    MmebOptions,
    category,
    target_prefix,
    task_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

SPLIT = "test"
_ABOUT = "One of the 36 image subsets of the Massive Multimodal Embedding Benchmark"
_PAPER = "https://arxiv.org/abs/2410.05160"


def _metadata(subset: str) -> TaskMetadata:
    (meta_task,) = [name for name, subsets in META_TASKS.items() if subset in subsets]
    kind = category(subset)
    return TaskMetadata(
        name=task_name(subset),
        description=f"{_ABOUT}, of its meta-task {meta_task}: which of a row's candidates answers the query.",
        reference=_PAPER,
        dataset={"path": HUB_PATH, "revision": "main"},
        type="Any2AnyRetrieval",
        category=kind,  # pyright: ignore[reportArgumentType]
        eval_splits=[SPLIT],
        main_score="hit_at_1",
        date=("2009-01-01", "2024-10-07"),
        domains=["Web"],
        prompt={"query": "", "document": ""},  # pyright: ignore[reportArgumentType]  # instructions are in the texts
        **METADATA,
    )


class MmebTask(AbsTaskRetrieval):
    """What the 36 tasks share. `configure` and `read_from` before the data is loaded.

    Scores: hit_at_1, the expected hit with ties in random order; tied_at_1, the share of queries whose best score is
    shared; and MTEB's retrieval scores, which break ties by id.
    """

    abstask_prompt = ""
    subset: str
    scores_by_ids = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.options = MmebOptions()
        self.data_root: str | None = None
        self.raw: dict[str, tuple[str, str]] = {}
        self._files: dict[str, str] = {}

    def configure(self, options: MmebOptions) -> None:
        """Set the target prefix, the pool of candidates and where images are."""
        self.options = options

    def read_from(self, data_root: str) -> None:
        """Read a local copy from now on. Raises UserError where it lacks this subset."""
        mark_local(self, mmeb_data.local_folder(data_root, self.subset))
        self.data_root = data_root

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Read the subset. Raises UserError for data that is not in MMEB-eval's layout. `num_proc` is not needed."""
        if self.data_loaded:
            return
        if self.data_root is not None:
            folder, commit = mmeb_data.local_folder(self.data_root, self.subset), None
        else:
            folder, commit = mmeb_data.hub_folder(self.subset, images=self.options.image_dir is None)
        prefix = target_prefix(self.subset) if self.options.target_prefix else ""
        data = mmeb_data.read_subset(folder, self.subset, prefix=prefix, image_dir=self.options.image_dir)
        own = self.options.candidate_pool == "row"
        self.dataset = {
            "default": {
                SPLIT: RetrievalSplitData(
                    queries=data.queries,
                    corpus=data.corpus,
                    relevant_docs={query: {listed[0]: 1} for query, listed in data.candidates.items()},
                    top_ranked=data.candidates if own else None,
                )
            }
        }
        self.raw = data.raw
        self._top_k = max(*self.k_values, *(len(listed) if own else 0 for listed in data.candidates.values()))
        revision = {"revision": commit} if commit else {}
        update = {"category": data.category, "dataset": {**self.metadata.dataset, **revision}}
        self.metadata = self.metadata.model_copy(update=update)
        self.data_loaded = True

    def _evaluate_subset(self, model: Any, data_split: RetrievalSplitData, **kwargs: Any) -> Any:
        if isinstance(model, EncoderProtocol) and not isinstance(model, SearchProtocol):
            model = RowKinds(model, {"query": data_split["queries"], "document": data_split["corpus"]})
        return super()._evaluate_subset(model, data_split, **kwargs)

    def task_specific_scores(
        self,
        scores: Any,
        qrels: Any,
        results: Mapping[str, Mapping[str, float]],
        hf_split: str,
        hf_subset: str,
    ) -> dict[str, float]:
        """hit_at_1 and tied_at_1. Raises UserError for a score that is NaN, naming the row."""
        hits: dict[str, Hit] = {}
        for query, relevant in qrels.items():
            (truth,) = relevant
            hits[query] = expected_hit(results.get(query, {}), truth, query=query, top_k=self._top_k)
        listed = self.dataset[hf_subset][hf_split]["top_ranked"]
        self._files = self._old_files(hits, listed)
        return {
            "hit_at_1": sum(hit.value for hit in hits.values()) / len(hits),
            "tied_at_1": sum(len(hit.best) > 1 for hit in hits.values()) / len(hits),
        }

    def result_files(self) -> dict[str, str]:
        """Name → text of the files that VLM2Vec's and B3's scripts write, once the task was scored."""
        return self._files

    def result_file_names(self) -> tuple[str, ...]:
        """The names of `result_files`, whether or not the task was scored."""
        return f"{self.subset}_score.json", f"{self.subset}_pred.txt"

    def _old_files(self, hits: Mapping[str, Hit], listed: Mapping[str, list[str]] | None) -> dict[str, str]:
        """num_correct is a whole number unless scores tie. A tie's prediction is the first of the best, in the row or,
        where a query has no candidates of its own (listed is None), in the subset."""
        correct = sum(hit.value for hit in hits.values())
        score = {
            "acc": correct / len(hits),
            "num_correct": int(correct) if correct == int(correct) else correct,
            "num_pred": len(hits),
            "num_data": len(hits),
        }
        place = {candidate: number for number, candidate in enumerate(self.raw)}
        lines = []
        for query, hit in hits.items():
            key = place.__getitem__ if listed is None else listed[query].index
            lines.append(f"{self.raw[min(hit.best, key=key)] if hit.best else ('', '')}\n")
        return dict(zip(self.result_file_names(), (json.dumps(score, indent=4), "".join(lines)), strict=True))


def _task_class(subset: str) -> type[MmebTask]:
    """A class under a name of this module, so that its tasks can be pickled."""
    name = "Mmeb" + re.sub(r"\W", "_", subset)
    made = type(name, (MmebTask,), {"subset": subset, "metadata": _metadata(subset), "__module__": __name__})
    globals()[name] = made
    return made


TASKS: tuple[type[MmebTask], ...] = tuple(_task_class(subset) for subset in SUBSETS)


def benchmark() -> Benchmark:
    """The benchmark "MMEB(eval)", with fresh tasks."""
    return Benchmark(
        name=IMAGE_BENCHMARK,
        aliases=["MMEB", "MMEB-V2(image)"],
        tasks=[task() for task in TASKS],
        description="The 36 image subsets of MMEB: classification, visual question answering, retrieval, grounding. "
        "hit@1 among the candidates of each row.",
        reference=_PAPER,
    )


def configure(tasks: list[Any], options: MmebOptions) -> None:
    """Give the options to every MMEB task among `tasks`. Raises UserError where options are set and there is none."""
    mine = [task for task in tasks if isinstance(task, MmebTask)]
    if options != MmebOptions() and not mine:
        flags = ", ".join(options.flags())
        raise UserError(f"{flags} goes with tasks of {IMAGE_BENCHMARK}, and none is selected; leave it out")
    for task in mine:
        task.configure(options)
