"""What the jobs of mining share: training data → the teacher's vectors → something beside which a summary lies.

The output appears whole, its summary after it: an output whose summary names the same data, teacher and settings is
complete, and one without is never taken for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from raylib import storage
from raylib.errors import BadContent, UserError
from raylib.evaluate.errors_file import listed, write_errors_to
from raylib.evaluate.progress import Reporter
from raylib.examples.batch_plan import ids_digest
from raylib.examples.examples import Examples, read_examples
from raylib.mine.config import MineConfig
from raylib.mine.neighbours import SearchFacts
from raylib.mine.place import MinePlace
from raylib.mine.teacher import Teacher
from raylib.store.manifests import versions

Config = TypeVar("Config", bound=MineConfig)

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

    def __init__(self, config: Config, place: MinePlace, reporter: Reporter) -> None:
        self.config, self.place, self.reporter = config, place, reporter
        self.timings: dict[str, float] = {}

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
        examples = self._examples()
        self.check(examples)
        for note in examples.notes:
            self.reporter.warn(note)
        storage.make_folder(os.path.dirname(config.output_file) or ".")
        if not config.model:
            return self._finish(examples, None, [])
        storage.make_folder(config.store_folder)
        with self._timed("plan"):
            teacher = Teacher.of(config, self.place, examples)
        known = self._known(self._digest(examples, teacher))
        if known is not None:
            return known
        with self._timed("encode"):
            bad = teacher.encode(self.reporter)
        self._tell_bad(bad)
        if len(bad) > config.allow_errors:
            return Outcome({"examples": len(examples), **teacher.counts}, bad=bad)
        return self._finish(examples, teacher, bad)

    @abstractmethod
    def check(self, examples: Examples) -> None:
        """Raises UserError for settings that these examples cannot have."""

    @abstractmethod
    def mine(self, examples: Examples, teacher: Teacher | None) -> tuple[dict[str, str], dict[str, Any]]:
        """Writes the output; (files by kind, what the summary says besides)."""

    def _examples(self) -> Examples:
        config = self.config
        with self._timed("read"):
            return read_examples(
                config.data,
                root=config.root,
                data_root=config.data_root,
                hub_name=config.hub_name,
                split=config.split,
                group_by=config.group_by,
                limit=config.limit,
            )

    def _finish(self, examples: Examples, teacher: Teacher | None, bad: list[BadContent]) -> Outcome:
        digest = self._digest(examples, teacher)
        if teacher is None:
            known = self._known(digest)
            if known is not None:
                return known
        n = len(examples)
        if bad:
            assert teacher is not None
            teacher, chosen = teacher.without_bad()
            examples = teacher.examples
            self.reporter.warn(f"{n - len(chosen)} of {n} examples are left out: they need a content that failed")
            self.check(examples)
        storage.remove(self.config.beside(".json"))
        files, told = self.mine(examples, teacher)
        counts = {"examples": len(examples), "left_out": n - len(examples), **(teacher.counts if teacher else {})}
        summary = {
            "kind": self.kind,
            "data": self.config.data or [self.config.hub_name],
            "teacher": None if teacher is None else {"model": teacher.name, "fingerprint": teacher.fingerprint},
            "counts": counts,
            **told,
            "files": {name: os.path.basename(path) for name, path in files.items()},
            "digest": digest,
            "settings": self.config.as_dict(),
            "versions": versions(_VERSIONS),
            "seconds": {name: round(seconds, 3) for name, seconds in self.timings.items()},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        storage.write_text(self.config.beside(".json"), json.dumps(summary, indent=1, default=str) + "\n")
        return Outcome(counts, {**files, "summary": self.config.beside(".json")}, bad, summary)

    def _digest(self, examples: Examples, teacher: Teacher | None) -> str:
        """Names what the output holds: the examples by id and content, the teacher, and the settings."""
        idle = {"overwrite", "quiet", "dry_run", "store", "workers", "min_workers", "gpus_per_worker", "address"}
        idle |= {"cpus_per_worker", "local", "encode_batch_size", "max_batch_tokens", "allow_errors"}
        settings = {name: value for name, value in self.config.as_dict().items() if name not in idle}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        digest.update(ids_digest(examples.ids).encode())
        for side in (examples.queries, examples.documents):
            digest.update(len(side).to_bytes(8, "little"))
        if teacher is not None:
            digest.update(teacher.fingerprint.encode())
            for keys in teacher.keys:
                digest.update(b"".join(keys))
        digest.update(np.concatenate([examples.query, examples.positive, examples.negatives]).tobytes())
        return digest.hexdigest()

    def _known(self, digest: str) -> Outcome | None:
        """The outcome of a run that did all this before; None where it is to be done. Raises UserError where an output
        would be lost."""
        config = self.config
        if config.overwrite or not storage.exists(config.output_file):
            return None
        path = config.beside(".json")
        try:
            summary = json.loads(storage.read_text(path)) if storage.exists(path) else {}
        except ValueError:
            summary = {}
        if not isinstance(summary, dict) or summary.get("digest") != digest:
            raise UserError(
                f"{config.output_file} is there, of other data, another teacher or other settings. Give another "
                "--output, or replace it with --overwrite"
            )
        if summary["counts"].get("failed"):
            return None  # what failed may be mended: it is tried again
        self.reporter.say(f"{config.output_file} is complete: the same data, teacher and settings as before")
        folder = os.path.dirname(config.output_file)
        files = {name: os.path.join(folder, file) for name, file in summary["files"].items()}
        counts = {**summary["counts"], "encoded": 0}
        return Outcome(counts, {**files, "summary": path}, summary=summary, complete=True)

    def _tell_bad(self, bad: list[BadContent]) -> None:
        path = self.config.beside(".errors.parquet")
        write_errors_to(path, bad)
        if bad:
            told = f"{len(bad)} contents could not be encoded, see {path}\n{listed(bad)}"
            if len(bad) > self.config.allow_errors:
                told += f"\nNothing was mined. Mend them, or leave them out with --allow-errors {len(bad)}."
            self.reporter.warn(told)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start


def facts_for_summary(facts: SearchFacts) -> dict[str, Any]:
    """How neighbours were found, without what does not apply."""
    return {name: value for name, value in vars(facts).items() if value or name == "recall"}
