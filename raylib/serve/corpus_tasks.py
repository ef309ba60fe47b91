"""The documents of a task, or of the tasks of a benchmark, as `raylib evaluate` put them into the store."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylib.errors import UnknownNameError, UserError
from raylib.evaluate.contents import Source
from raylib.evaluate.plan import Plan
from raylib.evaluate.task_data import LoadedTask, load_task
from raylib.models.protocol import Encoder, option_flag
from raylib.serve.corpus_base import Base, EncodeMissing, TaskChoice
from raylib.serve.shown import Rows
from raylib.store.embeddings import Shelf
from raylib.types import EncodeContext, Role


def task_base(choice: TaskChoice, encoder: Encoder, shelf: Shelf, encode_missing: EncodeMissing | None) -> Base:
    """Raises UnknownNameError for a name that is none, UserError where the model cannot read the documents, where tasks
    need different prompts or have different documents of one id, and for documents that the store lacks."""
    loaded, is_benchmark = _loaded(choice)
    readable, refused = [], []
    for task in loaded:
        why = task.refusal(encoder, sorted(encoder.modalities))
        (refused.append(why) if why else readable.append(task))
    if not readable:
        raise UserError(f"--corpus {choice.name}: {refused[0]}. Serve a model that reads them")
    plan = Plan(encoder)
    sides = [_Side.of(task, plan) for task in readable]
    shelf.refresh()
    chosen, notes = _one_form_each(sides, shelf)
    contexts = _contexts(choice, chosen)
    if encode_missing is not None and not shelf.contains([key for side in chosen for key in side.keys]).all():
        missing = Plan(encoder)
        for side in chosen:
            for source, context in zip(side.sources, side.contexts["document"], strict=True):
                missing.add(source, context)
        encode_missing(missing, shelf)
        shelf.refresh()
    return _base(choice, chosen, shelf, contexts, notes, _command(choice, encoder, shelf, is_benchmark))


@dataclass
class _Side:
    """The documents of one task. keys, places: of every document of every subset; ids as in `sources`."""

    task: str
    sources: list[Source]
    ids: list[str]
    keys: list[bytes]
    places: list[tuple[int, int]]
    contexts: dict[Role, list[EncodeContext]]

    @classmethod
    def of(cls, task: LoadedTask, plan: Plan) -> _Side:
        side = cls(task.name, [], [], [], [], {"query": [], "document": []})
        for part in task.sides:
            context = plan.encoder.context(task.task.metadata, part.role, split=part.split, subset=part.subset)
            side.contexts[part.role].append(context)
            if part.role == "document":
                source = part.source
                side.places += [(len(side.sources), row) for row in range(len(source))]
                side.sources.append(source)
                side.ids += source.ids
                side.keys += plan.add(source, context)
        return side


def _loaded(choice: TaskChoice) -> tuple[list[LoadedTask], bool]:
    """The retrieval tasks behind a name, and whether it is that of a benchmark."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    from raylib.tasks.local_data import is_official
    from raylib.tasks.selection import select_tasks

    asked: dict[str, Any] = {"languages": choice.languages, "splits": choice.splits, "data_root": choice.data_root}
    is_benchmark = True
    try:
        tasks = select_tasks(benchmarks=[choice.name], **asked)
    except UnknownNameError as benchmark:
        is_benchmark = False
        try:
            tasks = select_tasks(tasks=[choice.name], **asked)
        except UnknownNameError as task:
            hint = "Expected a benchmark or task (raylib list benchmarks) or the --output folder of `raylib encode`."
            raise UnknownNameError("corpus", choice.name, [*task.nearest, *benchmark.nearest], hint) from None
    retrieval = [task for task in tasks if isinstance(task, AbsTaskRetrieval)]
    if not retrieval:
        raise UserError(f"--corpus {choice.name} is {tasks[0].metadata.type}; expected a retrieval task")
    return [load_task(task, official=is_official(task)) for task in retrieval], is_benchmark


def _one_form_each(sides: Sequence[_Side], shelf: Shelf) -> tuple[list[_Side], list[str]]:
    """Of tasks with the same ids, such as pages as images and the same pages as texts, one: the first that is all in
    the store, else the first."""
    forms: dict[frozenset[str], list[_Side]] = {}
    for side in sides:
        forms.setdefault(frozenset(side.ids), []).append(side)
    chosen, notes = [], []
    for alike in forms.values():
        if all(set(side.keys) == set(alike[0].keys) for side in alike):
            chosen += alike
            continue
        one = next((side for side in alike if shelf.contains(side.keys).all()), alike[0])
        chosen.append(one)
        others = ", ".join(side.task for side in alike if side is not one)
        notes.append(f"{one.task} is served; {others} has the same documents in another form")
    return chosen, notes


def _contexts(choice: TaskChoice, sides: Sequence[_Side]) -> dict[Role, EncodeContext]:
    found: dict[Role, EncodeContext] = {}
    for role in ("query", "document"):
        contexts = [(side.task, context) for side in sides for context in side.contexts[role]]
        found[role] = contexts[0][1]
        other = next((task for task, context in contexts if context != found[role]), None)
        if other is not None:
            raise UserError(
                f"--corpus {choice.name}: {contexts[0][0]} and {other} ask for different {role} prompts, and a corpus "
                f"has one. Name one of the tasks, or give both --{role}-prompt TEXT"
            )
    return found


def _base(
    choice: TaskChoice,
    sides: Sequence[_Side],
    shelf: Shelf,
    contexts: dict[Role, EncodeContext],
    notes: list[str],
    command: str,
) -> Base:
    keys: dict[str, bytes] = {}
    places: list[tuple[int, int]] = []
    owner: dict[str, str] = {}
    sources: list[Source] = []
    for side in sides:
        for name, key, (at, row) in zip(side.ids, side.keys, side.places, strict=True):
            if keys.setdefault(name, key) != key:
                raise UserError(
                    f"--corpus {choice.name}: {owner[name]} and {side.task} have different documents {name!r}. Name "
                    "one of the tasks"
                )
            if name not in owner:
                owner[name] = side.task
                places.append((len(sources) + at, row))
        sources += side.sources
    stored = shelf.contains(list(keys.values()))
    absent = int((~stored).sum())
    if absent > choice.allow_errors or absent == len(keys):
        raise UserError(
            f"--corpus {choice.name}: {absent} of {len(keys)} documents have no vectors of this model in {shelf.root}. "
            f"Encode them: {command}"
        )
    if absent:
        notes = [*notes, f"{absent} of {len(keys)} documents have no vectors and are left out"]
        places = [place for place, there in zip(places, stored, strict=True) if there]
        keys = {name: key for (name, key), there in zip(keys.items(), stored, strict=True) if there}
    distinct = list(dict.fromkeys(keys.values()))
    at = {key: i for i, key in enumerate(distinct)}
    return Base(
        list(keys),
        np.array([at[key] for key in keys.values()], dtype=np.int64),
        len(distinct),
        pieces=lambda: shelf.scan(distinct),
        read=lambda contents: shelf.get([distinct[i] for i in contents]),
        show=Rows(sources, places).show,
        contexts=contexts,
        notes=notes,
    )


def _command(choice: TaskChoice, encoder: Encoder, shelf: Shelf, is_benchmark: bool) -> str:
    spec = encoder.spec
    words = ["raylib", "evaluate", "--model", spec.name, "--benchmarks" if is_benchmark else "--tasks", choice.name]
    for name, value in spec.given().items():
        words += [option_flag(name)] if isinstance(value, bool) else [option_flag(name), str(value)]
    for name in ("languages", "splits"):
        if getattr(choice, name):
            words += [f"--{name}", ",".join(getattr(choice, name))]
    if choice.data_root:
        words += ["--data-root", choice.data_root]
    return shlex.join([*words, "--store", shelf.root])
