"""Names → MTEB tasks: benchmarks, tasks, languages and splits as a person types them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from raylib.errors import UnknownNameError, UserError
from raylib.tasks import local_data
from raylib.tasks.mmeb_table import (
    IMAGE_BENCHMARK,
    VIDEO_BENCHMARKS,
    VIDEO_SUBSETS,
    VISDOC_BENCHMARK,
    VISDOC_PREFIX,
    MmebOptions,
)

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.benchmarks.benchmark import Benchmark

OWN_BENCHMARK = "StdlibPages"
_OWN = (OWN_BENCHMARK, "StdlibCards", IMAGE_BENCHMARK, VISDOC_BENCHMARK)


@dataclass(frozen=True)
class TaskRow:
    """One line of `raylib list tasks`. category as MTEB has it ("t2i"); languages are ISO 639-3 codes."""

    name: str
    type: str
    category: str
    languages: tuple[str, ...]
    main_score: str


@dataclass(frozen=True)
class BenchmarkRow:
    """One line of `raylib list benchmarks`. main_score: of its tasks, more than one where they differ."""

    name: str
    aliases: tuple[str, ...]
    types: tuple[str, ...]
    modalities: tuple[str, ...]
    languages: tuple[str, ...]
    main_score: str
    n_tasks: int


def select_tasks(
    benchmarks: Sequence[str] = (),
    tasks: Sequence[str] = (),
    languages: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    data_root: str | None = None,
    mmeb: MmebOptions | None = None,
) -> list[AbsTask]:
    """Fresh task objects of all benchmarks, then of all tasks, each task once, in order of first mention.

    languages: ISO 639-3 codes ("eng", "eng-Latn") or subset names ("english"); a task keeps the subsets that match,
    and is left out where none does. splits: a task keeps those that it has, and is left out where it has none.
    data_root: see `local_data.redirect`; the built-in benchmark, which needs no data, is not affected. mmeb: options of
    MMEB's tasks.

    Raises UnknownNameError for a name that neither MTEB nor raylib has; UserError where nothing is selected, where no
    selected task has a language or split asked for, where data_root lacks a data set, and for MMEB's videos.
    """
    if not benchmarks and not tasks:
        raise UserError("no task is selected: name some with --benchmarks or --tasks (raylib list benchmarks)")
    named = [task for name in benchmarks for task in _benchmark_tasks(name)] + [_task(name) for name in tasks]
    selected = _without_duplicates(_flatten(named))
    selected = _keep_languages(selected, languages) if languages else selected
    selected = _keep_splits(selected, splits) if splits else selected
    if not selected:
        wanted = f"languages {', '.join(languages or ())} and splits {', '.join(splits or ())}"
        raise UserError(f"no selected task has both {wanted}. Ask for fewer of them.")
    if mmeb is not None and mmeb != MmebOptions():
        from raylib.tasks.mmeb import configure

        configure(selected, mmeb)
    if data_root is not None:
        for task in selected:
            read_locally(task, data_root)
    return selected


def read_locally(task: AbsTask, data_root: str) -> None:
    """See `local_data.redirect`; the built-in benchmarks stay as they are, and MMEB's image tasks read by themselves.
    UserError where the data is not there."""
    from raylib.tasks import mmeb, stdlib_tasks

    if isinstance(task, mmeb.MmebTask):
        task.read_from(data_root)
    elif not isinstance(task, stdlib_tasks.BuiltInTask):
        local_data.redirect(task, data_root)


def list_benchmarks(match: str = "") -> list[BenchmarkRow]:
    """All benchmarks whose name or alias contains `match` (case does not count), ours first, then by name."""
    rows = [_benchmark_row(benchmark) for benchmark in _known_benchmarks().values()]
    found = [row for row in rows if any(match.lower() in name.lower() for name in (row.name, *row.aliases))]
    return sorted(found, key=lambda row: (row.name not in _OWN, row.name != OWN_BENCHMARK, row.name.lower()))


def list_tasks(benchmark: str | None = None, match: str = "") -> list[TaskRow]:
    """The tasks of one benchmark in its order, or all tasks by name, whose name contains `match`."""
    if benchmark is not None:
        metadata = [task.metadata for task in _benchmark_tasks(benchmark)]
    else:
        metadata = sorted((cls.metadata for cls in _known_tasks().values()), key=lambda entry: entry.name.lower())
    return [
        TaskRow(entry.name, entry.type, entry.category or "", tuple(entry.languages), entry.main_score)
        for entry in metadata
        if match.lower() in entry.name.lower()
    ]


def _known_benchmarks() -> dict[str, Benchmark]:
    import mteb

    from raylib.tasks import mmeb, mmeb_visdoc, stdlib_card_tasks, stdlib_tasks

    own = (stdlib_tasks.benchmark(), stdlib_card_tasks.benchmark(), mmeb.benchmark(), mmeb_visdoc.benchmark())
    return {entry.name: entry for entry in (*own, *mteb.get_benchmarks())}


def _known_tasks() -> dict[str, type[AbsTask]]:
    from importlib import import_module

    from raylib.tasks import mmeb, mmeb_visdoc, stdlib_card_tasks, stdlib_tasks

    # `mteb.get_tasks` is the function of that name; the module beside it holds the classes.
    classes = import_module("mteb.get_tasks").TASK_LIST
    own = (*stdlib_tasks.TASKS, *stdlib_card_tasks.TASKS, *mmeb.TASKS, *mmeb_visdoc.TASKS)
    return {cls.metadata.name: cls for cls in (*own, *classes)}


def _benchmark_tasks(name: str) -> list[AbsTask]:
    """Fresh copies: the tasks inside MTEB's benchmarks are shared by the whole process."""
    known = _known_benchmarks()
    aliases = {alias: entry for entry in known.values() for alias in entry.aliases or ()}
    found = known.get(name) or aliases.get(name)
    if found is None:
        if name in VIDEO_BENCHMARKS:
            _refuse_video(name)
        raise UnknownNameError("benchmark", name, [*known, *aliases], "`raylib list benchmarks` names them all.")
    return [_copy(task) for task in found.tasks]


def _task(name: str) -> AbsTask:
    known = _known_tasks()
    if name not in known:
        if name.removeprefix(VISDOC_PREFIX) in VIDEO_SUBSETS:
            _refuse_video(name)
        raise UnknownNameError("task", name, known, "`raylib list tasks` names them all.")
    return known[name]()


def _refuse_video(name: str) -> NoReturn:
    raise UserError(
        f"{name} holds videos: video is not supported yet. Of MMEB-V2 there are the images ({IMAGE_BENCHMARK}) and the "
        f"visual documents ({VISDOC_BENCHMARK})."
    )


def _copy(task: AbsTask) -> AbsTask:
    """A new object of the same class with the same subsets and splits, which a benchmark may have narrowed."""
    fresh = type(task)()
    fresh.hf_subsets = list(task.hf_subsets)
    return fresh.filter_eval_splits(list(task.eval_splits))


def _flatten(tasks: Iterable[AbsTask]) -> list[AbsTask]:
    """An aggregate task's members in its place: scores of an aggregate are means of theirs."""
    found: list[AbsTask] = []
    for task in tasks:
        members: Any = getattr(task.metadata, "tasks", None)
        found.extend(_flatten(_copy(member) for member in members) if members else [task])
    return found


def _without_duplicates(tasks: Iterable[AbsTask]) -> list[AbsTask]:
    """One object a name. Two that keep different subsets or splits of one task become one that keeps them all."""
    by_name: dict[str, AbsTask] = {}
    for task in tasks:
        first = by_name.setdefault(task.metadata.name, task)
        subsets = {*first.hf_subsets, *task.hf_subsets}
        first.hf_subsets = [subset for subset in first.metadata.hf_subsets if subset in subsets]
        first.filter_eval_splits(list(dict.fromkeys([*first.eval_splits, *task.eval_splits])))
    return list(by_name.values())


def _keep_languages(tasks: Sequence[AbsTask], languages: Sequence[str]) -> list[AbsTask]:
    kept, matched = [], set()
    for task in tasks:
        codes = {subset: task.metadata.hf_subsets_to_langscripts[subset] for subset in task.hf_subsets}
        found = {s: {w for w in languages if _is_language(w, s, scripts)} for s, scripts in codes.items()}
        matched.update(*found.values())
        task.hf_subsets = [subset for subset in task.hf_subsets if found[subset]]
        if task.hf_subsets:
            kept.append(task)
    missing = [wanted for wanted in languages if wanted not in matched]
    if missing:
        _raise_missing("language", missing, sorted({code for task in tasks for code in task.metadata.languages}))
    return kept


def _is_language(wanted: str, subset: str, scripts: Sequence[str]) -> bool:
    """Whether a subset is in a language given as "eng", "eng-Latn" or the subset's own name."""
    return wanted == subset or any(wanted in (code, code.split("-")[0]) for code in scripts)


def _keep_splits(tasks: Sequence[AbsTask], splits: Sequence[str]) -> list[AbsTask]:
    existing = sorted({split for task in tasks for split in task.eval_splits})
    missing = [split for split in splits if split not in existing]
    if missing:
        _raise_missing("split", missing, existing)
    kept = []
    for task in tasks:
        found = [split for split in task.eval_splits if split in splits]
        if found:
            kept.append(task.filter_eval_splits(found))
    return kept


def _raise_missing(kind: str, missing: Sequence[str], existing: Sequence[str]) -> NoReturn:
    shown = ", ".join(existing[:40]) + (f" and {len(existing) - 40} more" if len(existing) > 40 else "")
    raise UserError(f"no selected task has the {kind} {', '.join(missing)}; there are: {shown}")


def _benchmark_row(benchmark: Benchmark) -> BenchmarkRow:
    metadata = [task.metadata for task in benchmark.tasks]
    return BenchmarkRow(
        benchmark.name,
        tuple(benchmark.aliases or ()),
        tuple(sorted({entry.type for entry in metadata})),
        tuple(sorted({modality for entry in metadata for modality in entry.modalities})),
        tuple(sorted({language for entry in metadata for language in entry.languages})),
        ", ".join(sorted({entry.main_score for entry in metadata})),
        len(metadata),
    )
