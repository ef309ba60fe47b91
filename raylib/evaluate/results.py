"""Result files: MTEB's own layout, a record of how each was made beside it, and one summary per model and run.

    <output>/<org__model>/<revision>/<Task>.json, model_meta.json, run_settings.jsonl    as MTEB writes them
    <output>/<org__model>/<revision>/experiments/<name>/...                              the same for options
    <output>/<org__model>/<revision>/raylib.jsonl                                        one record a task
    <output>/runs/local_<model>_<YYYYmmdd_HHMMSS>.json                                   one summary a model

MTEB itself writes the first three, into a scratch folder from which they are published whole. The record is not
called .json because MTEB takes every .json file of a revision folder, but model_meta.json, for a task's scores.
Only the driver may save: several writers would lose each other's lines.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raylib.errors import UserError
from raylib.storage import atomic_write, exists, join, read_text, write_text

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult

logger = logging.getLogger(__name__)

RECORDS_FILE = "raylib.jsonl"
LOCAL_REVISION = "local"
"""What stands for the data set's revision in a result that was not computed on the published data."""

PART_REVISION = "part"
"""The same, where only a part of the data was used (--limit)."""

NO_REVISION = "no_revision_available"  # MTEB's own word for a model without a revision
Status = Literal["success", "partial", "failed"]


@dataclass(frozen=True)
class ResultRecord:
    """How one result file was made; one line of raylib.jsonl.

    digest: what decides the scores (encoder, data, splits, search), as the evaluator computed it. fingerprint: the
    encoder's. sha256: of the result file, so that a file that something else has written since is not taken for ours.
    untrained: the model has random weights. date: ISO 8601, UTC. quality: "split/subset" → what an approximate search
    says of itself (its recall against the exact one), {} for an exact search. limited: --limit cut the data.
    """

    task_name: str
    digest: str
    official: bool
    sha256: str
    fingerprint: str = ""
    untrained: bool = False
    raylib_version: str = ""
    date: str = ""
    quality: Mapping[str, Any] = field(default_factory=dict)
    limited: bool = False


def result_folder(output: str | Path, meta: ModelMeta) -> str:
    """The folder of this model's result files, by MTEB's rules: an ablation (experiment_kwargs) has its own.

    Raises UserError where the model has no name, or a name or revision that is no folder name.
    """
    if not meta.name:
        raise UserError("a model without a name cannot have results; set the name of its ModelMeta.")
    names = [meta.model_name_as_path(), _revision(meta)]
    if meta.experiment_name:
        names += ["experiments", meta.experiment_name]
    for name in names:
        _check_file_name(name)
    return join(output, *names)


def save_task_result(
    output: str | Path,
    task_result: TaskResult,
    meta: ModelMeta,
    *,
    official: bool,
    digest: str,
    fingerprint: str = "",
    untrained: bool = False,
    partial: bool = False,
    encode_kwargs: Mapping[str, Any] | None = None,
    quality: Mapping[str, Any] | None = None,
    limited: bool = False,
) -> str:
    """Write one task's result and its record; returns the path of <Task>.json. What was there is replaced, but a
    partial result (some languages or splits) of the same encoder joins the other parts of the one that is there.

    Scores are written as MTEB writes them: rounded to 6 decimals, an undefined metric as NaN. official=False writes
    "local" (limited: "part") for the data set's revision, so that the file cannot pass for a published benchmark's.
    Raises UserError when the folder cannot be written to, or when a result on local data would replace an official one.
    """
    from mteb.cache import ResultCache

    folder = result_folder(output, meta)
    _check_file_name(task_result.task_name)
    if not official:
        task_result = task_result.model_copy(update={"dataset_revision": PART_REVISION if limited else LOCAL_REVISION})
    before = read_records(folder).get(task_result.task_name)
    if before is not None and before.official and not official:
        raise UserError(
            f"{join(folder, task_result.task_name)}.json is an official result, this one is of local data; "
            "choose another --output-folder"
        )
    if partial and before is not None and before.official == official and before.fingerprint == fingerprint:
        kept = stored_result(output, meta, task_result.task_name, before.digest)
        if kept is not None and kept.is_mergeable(task_result):
            task_result = kept.merge(task_result)
    if meta.revision != _revision(meta):
        meta = meta.model_copy(update={"revision": _revision(meta)})
    with tempfile.TemporaryDirectory() as scratch:
        cache = ResultCache(scratch)
        written = cache.get_task_result_path(task_result.task_name, meta)
        settings = written.parent / "run_settings.jsonl"
        published_settings = join(folder, settings.name)
        if exists(published_settings):  # MTEB merges the new lines into those of other tasks
            settings.parent.mkdir(parents=True)
            settings.write_text(read_text(published_settings), encoding="utf-8")
        cache.save_to_cache(task_result, meta, encode_kwargs=encode_kwargs)
        content = written.read_bytes()
        for name in ("model_meta.json", settings.name):
            if (written.parent / name).exists():
                write_text(join(folder, name), (written.parent / name).read_text(encoding="utf-8"))
    path = join(folder, f"{task_result.task_name}.json")
    with atomic_write(path) as stream:
        stream.write(content)
    record = ResultRecord(
        task_name=task_result.task_name,
        digest=digest,
        official=official,
        sha256=hashlib.sha256(content).hexdigest(),
        fingerprint=fingerprint,
        untrained=untrained,
        raylib_version=_version("raylib-cluster"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        quality=_jsonable(quality or {}),
        limited=limited,
    )
    records = {**read_records(folder), record.task_name: record}
    write_text(join(folder, RECORDS_FILE), "".join(json.dumps(asdict(r)) + "\n" for r in records.values()))
    return path


def stored_result(output: str | Path, meta: ModelMeta, task_name: str, digest: str) -> TaskResult | None:
    """The saved result of a task when it was made under this digest and is still as it was written; None otherwise."""
    from mteb.results import TaskResult

    folder = result_folder(output, meta)
    record = read_records(folder).get(task_name)
    path = join(folder, f"{task_name}.json")
    if record is None or record.digest != digest or not exists(path):
        return None
    text = read_text(path)
    if hashlib.sha256(text.encode()).hexdigest() != record.sha256:
        logger.warning("%s has changed since raylib wrote it; %s is scored again.", path, task_name)
        return None
    return TaskResult.model_validate_json(text)


def read_records(folder: str | Path) -> dict[str, ResultRecord]:
    """Task name → record of every result that raylib wrote to a revision folder; {} where there is none.

    A line that is not a record is logged and left out: its task is then scored again.
    """
    path = join(folder, RECORDS_FILE)
    if not exists(path):
        return {}
    records = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            record = ResultRecord(**json.loads(line))
        except (ValueError, TypeError) as error:
            logger.warning("%s, line %d is not a record of a result (%s); it is left out.", path, number, error)
            continue
        records[record.task_name] = record
    return records


@dataclass
class RunSummary:
    """One model in one run, as <output>/runs/local_<model>_<time>.json tells it.

    task_results: what `task_entry` gives, per finished task. tasks_failed: [{task_name, error}]. tasks_skipped:
    [{task_name, reason}], tasks of a modality that the model does not read: no failure. error: why the model as a
    whole failed. variant: MTEB's experiment name, or "". timings: seconds per stage. timeline: as
    `raylib.timeline.Timeline.as_dict` has it. contents: counts under planned, reused, encoded, failed. official:
    every result comes from the published data. search: task → "split/subset" → the measured quality of an
    approximate search. groups: of benchmarks whose tasks have groups, see `raylib.evaluate.groups.summary_groups`.
    """

    model: str
    benchmarks: list[str]
    task_results: list[dict[str, Any]] = field(default_factory=list)
    tasks_failed: list[dict[str, str]] = field(default_factory=list)
    tasks_skipped: list[dict[str, str]] = field(default_factory=list)
    error: str | None = None
    variant: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=lambda: software_versions())
    fingerprint: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    timeline: Mapping[str, Any] = field(default_factory=dict)
    contents: Mapping[str, int] = field(default_factory=dict)
    official: bool = True
    untrained: bool = False
    search: dict[str, Any] = field(default_factory=dict)
    groups: Mapping[str, Any] = field(default_factory=dict)
    repeated_requests: int = 0
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def status(self) -> Status:
        """failed: nothing was scored; partial: something was, and something was not."""
        if not (self.tasks_failed or self.error):
            return "success"
        return "partial" if self.task_results else "failed"

    def to_dict(self) -> dict[str, Any]:
        """The keys of the JSON file: JSON-able, NaN and infinities as None."""
        known = {f: v for f, v in vars(self).items() if f not in ("task_results", "started")}
        return _jsonable(
            known
            | {
                "status": self.status,
                "results": {"task_results": self.task_results},
                "timestamp": self.started.isoformat(timespec="seconds"),
            }
        )

    def write(self, output: str | Path) -> str:
        """Write the summary; returns its path. Two of one model in one second get two names."""
        name = f"local_{_file_stem(self.model)}_{self.started:%Y%m%d_%H%M%S}"
        path, copies = join(output, "runs", f"{name}.json"), 1
        while exists(path):
            copies += 1
            path = join(output, "runs", f"{name}_{copies}.json")
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        return path


def task_entry(task_result: TaskResult) -> dict[str, Any]:
    """One item of a summary's results.task_results: {task_name, scores: {split: [{...}]}, evaluation_time, ...}."""
    keep = ("task_name", "scores", "dataset_revision", "mteb_version", "evaluation_time")
    return {name: value for name, value in task_result.to_dict().items() if name in keep}


def software_versions(packages: Iterable[str] = ("mteb", "torch", "transformers", "ray")) -> dict[str, str]:
    """Versions of what the scores depend on, read without importing any of it; "not installed" where it is not."""
    found = {"raylib": _version("raylib-cluster")} | {name: _version(name) for name in packages}
    return found | {"python": platform.python_version()}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        if distribution == "raylib-cluster":  # run from a checkout that was not installed
            from raylib import __version__

            return __version__
        return "not installed"


def _revision(meta: ModelMeta) -> str:
    """A branch such as refs/pr/3 must stay one folder, or MTEB's loader does not find its results."""
    return (meta.revision or NO_REVISION).replace("/", "__")


def _check_file_name(name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UserError(f"{name!r} cannot name a file or folder of results; rename the model, revision or task.")


def _file_stem(model: str) -> str:
    """A model's name as part of a file name: '/' and whatever else is not plain becomes '_'."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in model)[-150:]


def _jsonable(value: Any) -> Any:
    """The same in plain JSON types. NaN and infinities, which JSON does not have, become None; other objects text."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [_jsonable(item) for item in items]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a numpy scalar
        return _jsonable(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
