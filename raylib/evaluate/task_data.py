"""A task's data as the evaluator needs it: loaded once for all models, cut to a limit, planned, named by a digest."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raylib.errors import UserError
from raylib.evaluate.contents import Source
from raylib.evaluate.model import SubsetKeys
from raylib.evaluate.plan import Plan, modality_mismatch, readable_fields
from raylib.evaluate.sources import retrieval_source
from raylib.models.protocol import Encoder
from raylib.tasks.loading import loaded
from raylib.types import Role, compares_vectors

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    from raylib.models.bridge import SearchModel


@dataclass
class LoadedTask:
    """A task with its data in place. sides: its contents where it is a retrieval task, else empty: other kinds ask for
    vectors while they are scored. limited: its data was cut to a limit."""

    task: AbsTask
    official: bool
    sides: list[Side]
    limited: bool = False

    def __post_init__(self) -> None:
        self._random = copy.deepcopy((self.task.rng_state, self.task.np_rng))

    @property
    def name(self) -> str:
        return self.task.metadata.name

    @property
    def ranks(self) -> bool:
        """Whether it is a retrieval task: documents are ranked for queries."""
        from mteb.abstasks.retrieval import AbsTaskRetrieval

        return isinstance(self.task, AbsTaskRetrieval)

    def fresh(self) -> AbsTask:
        """The task as it was when its data was in place: MTEB draws from a random state of the task, and of the
        process, which are not the same after a task was scored. The data is shared."""
        from mteb._set_seed import _set_seed

        task = copy.copy(self.task)
        _set_seed(task.seed)
        task.rng_state, task.np_rng = copy.deepcopy(self._random)
        return task

    @cached_property
    def cost(self) -> float:
        """An estimate to order tasks by: documents × queries, or rows where nothing is searched."""
        if self.sides:
            n = {(side.split, side.subset, side.role): len(side.source) for side in self.sides}
            queries = [(split, subset, size) for (split, subset, role), size in n.items() if role == "query"]
            return float(sum(size * n[split, subset, "document"] for split, subset, size in queries))
        return float(_rows(self.task.dataset))

    def parcel(self, *, contents: bool, by_value: bool) -> LoadedTask:
        """What another process needs to score it. contents: False leaves only ids of queries and documents, enough for
        a model whose vectors are all stored under known keys. by_value: with the rows in it, for a machine that does
        not see these files."""
        task = copy.copy(self.task)
        if not contents and self.sides and _needs_ids_only(task):
            task.dataset = _ids_only(task.dataset)
        elif by_value:
            task.dataset = _in_memory(task.dataset)
        return replace(self, task=task, sides=[])

    def plan(self, plan: Plan) -> SubsetKeys:
        """Add every content of this task to `plan`; gives the keys that `StoreModel` looks up. Raises UserError."""
        planned: SubsetKeys = {}
        for side in self.sides:
            context = plan.encoder.context(self.task.metadata, side.role, split=side.split, subset=side.subset)
            planned[(self.name, side.split, side.subset, side.role)] = (side.source.ids, plan.add(side.source, context))
        return planned

    def refusal(self, model: Encoder | SearchModel, modalities: Sequence[str]) -> str | None:
        """Why this model cannot do this task, or None."""
        if isinstance(model, Encoder) and not self.ranks and not compares_vectors(model.similarity):
            return f"{model.spec.name} gives token weights, which only rank documents; {self.name} needs vectors"
        for side in self.sides:
            try:
                for fields in side.source.kinds():
                    if isinstance(model, Encoder):
                        readable_fields(model, side.source, fields)
                    elif not set(modalities).intersection(fields):
                        raise UserError(modality_mismatch(model.spec.name, modalities, fields))
            except UserError as error:
                return str(error)
        return None

    def digest(self, fingerprint: str, planned: SubsetKeys, experiment: Mapping[str, Any] | None = None) -> str:
        """Names all that decides this task's scores for one encoder: contents under their prompts, ids, judgements,
        search options (experiment), versions. "" for tasks without planned sides, whose results are never taken as
        known."""
        if not self.sides:
            return ""
        from importlib.metadata import version

        digest = hashlib.sha256(f"{fingerprint}|{version('mteb')}|{version('raylib-cluster')}".encode())
        if experiment:
            digest.update(json.dumps(dict(experiment), sort_keys=True).encode())
        for where, (ids, keys) in sorted(planned.items()):
            digest.update(json.dumps([*where, ids]).encode())
            digest.update(b"".join(keys))
        for split, subset, data in _subsets(self.task):
            judged = [data["relevant_docs"], data["top_ranked"]]
            digest.update(json.dumps([split, subset, judged], sort_keys=True).encode())
        return digest.hexdigest()


@dataclass
class Side:
    """One side of one subset."""

    split: str
    subset: str
    role: Role
    source: Source


def load_task(task: AbsTask, *, official: bool, limit: int | None = None) -> LoadedTask:
    """Load a task's data, cut it to `limit`, and lay out its sides. Raises UserError when the data cannot be had or
    is not laid out as the task expects."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    with loaded(task):
        if isinstance(task, AbsTaskRetrieval):
            return LoadedTask(task, official and limit is None, _sides(task, limit), limited=limit is not None)
    if limit is not None:
        kind = f"{task.metadata.name} is {task.metadata.type}"
        raise UserError(f"--limit works for retrieval tasks; {kind}. Leave it out.")
    return LoadedTask(task, official, [])


def _sides(task: AbsTaskRetrieval, limit: int | None) -> list[Side]:
    """Queries and documents of every subset."""
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    sides = []
    for split, subset, data in _subsets(task):
        if limit is not None:
            _cut(data, limit)
        roles: tuple[tuple[Role, str], ...] = (("query", "queries"), ("document", "corpus"))
        for role, column in roles:
            label = f"{task.metadata.name}/{split}/{subset} {role}"
            rows = data[column]
            keep = None
            if role == "query":  # MTEB drops queries without judgements before it asks for vectors
                judged = {q for q, docs in data["relevant_docs"].items() if len(docs)}
                keep = [i for i, q in enumerate(rows["id"]) if q in judged]
            sides.append(Side(split, subset, role, retrieval_source(rows, task.metadata, role, name=label, keep=keep)))
    return sides


def _subsets(task: Any) -> Iterator[tuple[str, str, Any]]:
    """(split, subset, data) of everything that will be scored, in MTEB's order."""
    for split in task.eval_splits:
        for subset in task.hf_subsets if task.metadata.is_multilingual else ["default"]:
            if split in task.dataset.get(subset, {}):
                yield split, subset, task.dataset[subset][split]


def _cut(data: Any, limit: int) -> None:
    """Keep the first `limit` judged queries, all that is relevant to them, and the first `limit` documents besides."""
    queries, corpus = data["queries"], data["corpus"]
    judged = [i for i, q in enumerate(queries["id"]) if data["relevant_docs"].get(q)][:limit]
    data["queries"] = queries.select(judged)
    data["relevant_docs"] = {q: data["relevant_docs"][q] for q in data["queries"]["id"]}
    relevant = {d for docs in data["relevant_docs"].values() for d, grade in docs.items() if grade > 0}
    if data["top_ranked"] is not None:
        data["top_ranked"] = {q: data["top_ranked"][q] for q in data["queries"]["id"] if q in data["top_ranked"]}
        relevant |= {d for docs in data["top_ranked"].values() for d in docs}
    data["corpus"] = corpus.select([i for i, d in enumerate(corpus["id"]) if i < limit or d in relevant])


def _rows(data: Any) -> int:
    """Rows of a task's data set, however its subsets and splits are nested."""
    if isinstance(data, Mapping):
        return sum(_rows(value) for value in data.values())
    return len(data) if hasattr(data, "__len__") else 0


def _needs_ids_only(task: Any) -> bool:
    """False for a retrieval task with scores of its own, which may look at the contents, unless it says that it does
    not."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    common = type(task).task_specific_scores is AbsTaskRetrieval.task_specific_scores
    return common or getattr(type(task), "scores_by_ids", False)


def _ids_only(subsets: Any) -> Any:
    """A retrieval task's data without contents."""
    import datasets

    def slim(data: Any) -> Any:
        ids = {side: datasets.Dataset.from_dict({"id": list(data[side]["id"])}) for side in ("queries", "corpus")}
        return {**data, **ids}

    return {subset: {split: slim(data) for split, data in splits.items()} for subset, splits in subsets.items()}


def _in_memory(data: Any) -> Any:
    """The same with every data set's rows in memory, images with their bytes, so that it pickles by value."""
    import datasets
    from datasets.table import embed_table_storage

    if isinstance(data, datasets.Dataset):
        table: Any = data.with_format("arrow")[:]  # a pyarrow.Table
        return datasets.Dataset(embed_table_storage(table), info=data.info.copy())
    if isinstance(data, Mapping):
        made = {key: _in_memory(value) for key, value in data.items()}
        return datasets.DatasetDict(made) if isinstance(data, datasets.DatasetDict) else made
    return data
