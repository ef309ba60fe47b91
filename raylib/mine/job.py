"""What the jobs of mining share: training data → the teacher's vectors → something beside which a summary lies.

The output appears whole, its summary after it: an output whose summary names the same data, teacher and settings is
complete, and one without is never taken for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

from raylib import storage
from raylib.buckets import Repeats
from raylib.errors import BadContent, UserError
from raylib.evaluate.errors_file import listed, write_errors_to
from raylib.evaluate.progress import Reporter
from raylib.examples.examples import Examples, examples_of
from raylib.mine.common_config import MineConfig
from raylib.mine.neighbours import SearchFacts
from raylib.mine.place import MinePlace
from raylib.mine.teacher import Teacher
from raylib.store.manifests import versions
from raylib.timeline import Stage, Timeline

Config = TypeVar("Config", bound=MineConfig)

_KINDS = "raylib mine "
_VERSIONS = ("raylib-cluster", "torch", "transformers", "numpy", "faiss-gpu", "faiss-cpu", "pymetis")


@dataclass
class Outcome:
    """What a job did. counts: examples, contents, distinct, stored, encoded, failed. files: what was written by kind,
    empty where too many contents failed. bad: what could not be encoded. summary: that of the file; complete: whether
    an earlier run had done all this."""

    counts: dict[str, int]
    files: dict[str, str] = field(default_factory=dict)
    bad: list[BadContent] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    complete: bool = False

    @property
    def ok(self) -> bool:
        """The output is complete, but for as many contents as --allow-errors lets go."""
        return bool(self.files)


class MineJob(ABC, Generic[Config]):
    """`run` or `dry_run`, once."""

    kind: ClassVar[str]

    def __init__(self, config: Config, place: MinePlace, reporter: Reporter, timeline: Timeline | None = None) -> None:
        self.config, self.place, self.reporter = config, place, reporter
        self.timeline = (timeline or Timeline()).of(", ".join(config.model))
        self.timings: dict[str, float] = {}
        self._repeats = Repeats()

    def dry_run(self) -> dict[str, Any]:
        """What `run` would encode. Writes nothing."""
        examples = self._examples()
        if not self.config.model:
            return {"model": None, "examples": len(examples)}
        teacher = Teacher.of(self.config, self.place, examples)
        return {"model": teacher.name, "examples": len(examples), **teacher.counts}

    def run(self) -> Outcome:
        """Encode what is missing, mine, and write.

        Raises UserError for what cannot be right from the start, ModelError and StoreError for what fails later; what
        was encoded until then is kept. Too many bad contents are no exception: the outcome is not `ok`.
        """
        config = self.config
        self._check_output()
        examples = self._examples()
        for note in examples.notes:
            self.reporter.warn(note)
        storage.make_folder(os.path.dirname(config.output_file) or ".")
        teacher, bad = None, []
        if config.model:
            storage.make_folder(config.store_folder)
            with self._timed("plan"):
                teacher = Teacher.of(config, self.place, examples)
        digest = self._digest(examples, teacher)
        known = self._known(digest)
        if known is not None:
            return known
        if teacher is not None:
            self.timeline.reused("encode", teacher.counts["stored"])
            with self._timed("encode") as stage:
                bad = teacher.encode(self.reporter)
                stage.take(teacher.report)
            self._tell_bad(bad)
            if len(bad) > config.allow_errors:
                return Outcome({"examples": len(examples), **teacher.counts}, bad=bad)
            if bad:
                teacher = self._without_bad(teacher)
        return self._write(examples, teacher, bad, digest)

    @abstractmethod
    def check(self, examples: Examples) -> None:
        """Raises UserError for settings that these examples cannot have."""

    @abstractmethod
    def needed(self, examples: Examples) -> Examples:
        """The same examples with no more contents than are looked at."""

    @abstractmethod
    def deciding(self, examples: Examples) -> dict[str, Any]:
        """The settings that decide the output besides the examples and the teacher's vectors."""

    @abstractmethod
    def mine(self, examples: Examples, teacher: Teacher | None) -> tuple[dict[str, str], dict[str, Any]]:
        """Writes the output; (files by kind, what the summary says besides)."""

    def _examples(self) -> Examples:
        config = self.config
        with self._timed("read"):
            found = examples_of(config)
        self.check(found)
        return self.needed(found)

    def _without_bad(self, teacher: Teacher) -> Teacher:
        n = len(teacher.examples)
        teacher = teacher.without_bad()
        left_out = n - len(teacher.examples)
        self.reporter.warn(f"{left_out} of {n} examples are left out: their query or positive could not be encoded")
        self.check(teacher.examples)
        return teacher

    def _write(self, examples: Examples, teacher: Teacher | None, bad: list[BadContent], digest: str) -> Outcome:
        """Mine, write, and say so in the summary, which comes last."""
        n = len(examples)
        if teacher is not None:
            examples = teacher.examples
        storage.remove(self._summary_path)
        files, told = self.mine(examples, teacher)
        if bad:
            files["errors"] = self._errors_path
        counts = {"examples": len(examples), "left_out": n - len(examples), **(teacher.counts if teacher else {})}
        summary = {
            "kind": self.kind,
            "output": os.path.basename(self.config.output_file),
            "data": self.config.data or [self.config.hub_name],
            "teacher": None if teacher is None else {"model": teacher.name, "fingerprint": teacher.fingerprint},
            "counts": counts,
            **told,
            "files": {name: os.path.basename(path) for name, path in files.items()},
            "digest": digest,
            "settings": self.config.as_dict(),
            "versions": versions(_VERSIONS),
            "seconds": {name: round(seconds, 3) for name, seconds in self.timings.items()},
            "timeline": self.timeline.as_dict(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        for note in self._repeats.told():
            self.reporter.warn(note)
        storage.write_text(self._summary_path, json.dumps(_as_json(summary), indent=1, default=str) + "\n")
        if spent := self.timeline.line():
            self.reporter.say(spent)
        return Outcome(counts, {**files, "summary": self._summary_path}, bad, summary)

    def _digest(self, examples: Examples, teacher: Teacher | None) -> str:
        """Names what the output holds: the examples by id, name and content, the teacher, and the settings."""
        fingerprint = None if teacher is None else teacher.fingerprint
        about = [self.kind, self.deciding(examples), fingerprint]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        digest.update(examples.digest())
        for keys in () if teacher is None else (teacher.query_keys, teacher.document_keys):
            digest.update(b"".join(keys))
        return digest.hexdigest()

    @property
    def _summary_path(self) -> str:
        return self.config.beside(".json")

    @property
    def _errors_path(self) -> str:
        return self.config.beside(".errors.parquet")

    def _check_output(self) -> None:
        """Before anything is read. Raises UserError where something would be lost that is no output of this command."""
        config, path = self.config, self._summary_path
        for data in config.data:
            if any(_within(file, data) for file in (config.output_file, path)):
                raise UserError(
                    f"--output {config.output_file} would replace what --data {data} names, or be read with it the "
                    "next time; give another --output"
                )
        summary = self._summary()
        if summary is None:
            if storage.exists(path):
                raise UserError(
                    f"the summary goes to {path}, and what is there is none; give another --output, so that it is not "
                    "lost"
                )
            if storage.exists(config.output_file) and not config.overwrite:
                raise UserError(
                    f"{config.output_file} is there without a summary in {path}: another program's, or of a run that "
                    "was killed as it ended. Give another --output, or replace it with --overwrite"
                )
        elif summary.get("output") != os.path.basename(config.output_file):
            raise UserError(
                f"{path} is the summary of {summary.get('output')}, and would be that of this --output as well; give "
                "another name"
            )

    def _summary(self) -> dict[str, Any] | None:
        """The one that lies beside the output, if there is one."""
        if not storage.exists(self._summary_path):
            return None
        try:
            found = json.loads(storage.read_text(self._summary_path))
        except ValueError:
            return None
        return found if isinstance(found, dict) and str(found.get("kind")).startswith(_KINDS) else None

    def _known(self, digest: str) -> Outcome | None:
        """The outcome of a run that did all this before; None where it is to be done. Raises UserError where an output
        would be lost."""
        config, summary = self.config, self._summary()
        if config.overwrite or summary is None or not storage.exists(config.output_file):
            return None
        if summary["digest"] != digest:
            raise UserError(
                f"{config.output_file} is there, of other data, another teacher or other settings. Give another "
                "--output, or replace it with --overwrite"
            )
        folder = os.path.dirname(config.output_file)
        files = {name: storage.join(folder, file) if folder else file for name, file in summary["files"].items()}
        if summary["counts"].get("failed") or not all(map(storage.exists, files.values())):
            return None  # what failed may be mended: it is tried again
        self.reporter.say(f"{config.output_file} is complete: the same data, teacher and settings as before")
        counts = {**summary["counts"], "encoded": 0}
        return Outcome(counts, {**files, "summary": self._summary_path}, summary=summary, complete=True)

    def _tell_bad(self, bad: list[BadContent]) -> None:
        path = self._errors_path
        write_errors_to(path, bad)
        if bad:
            told = f"{len(bad)} contents could not be encoded, see {path}\n{listed(bad)}"
            if len(bad) > self.config.allow_errors:
                told += f"\nNothing was mined. Mend them, or leave them out with --allow-errors {len(bad)}."
            self.reporter.warn(told)

    @contextmanager
    def _timed(self, name: str) -> Iterator[Stage]:
        with self.timeline.stage(name) as stage:
            yield stage
        self.timings[name] = self.timings.get(name, 0.0) + stage.seconds


def facts_for_summary(facts: SearchFacts) -> dict[str, Any]:
    """How neighbours were found, without what does not apply."""
    return {name: value for name, value in vars(facts).items() if value or name == "recall"}


def _within(file: str, data: str) -> bool:
    """Whether a file is, or lies in, what --data names."""
    if storage.is_remote(file) or storage.is_remote(data):
        return file == data or file.startswith(data.rstrip("/") + "/")
    file, data = os.path.realpath(file), os.path.realpath(data)
    return file == data or file.startswith(data.rstrip(os.sep) + os.sep)


def _as_json(value: Any) -> Any:
    """The same without numbers that JSON does not have: what cannot be said, as a mean of nothing, is null."""
    if isinstance(value, dict):
        return {name: _as_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
