"""The extract job: rows → parts → batches → states in one file per part, in input order.

Where batches are run is the place's affair. Every batch is kept as soon as it is done; a part appears, whole, when all
its batches are there; the manifest comes last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from raylib import storage
from raylib.buckets import Repeats
from raylib.errors import BadContent, ModelError, UserError
from raylib.evaluate.errors_file import ERRORS_FILE, listed, write_errors
from raylib.evaluate.progress import Reporter
from raylib.extract.architectures import file_prefix
from raylib.extract.batches import RowBatch
from raylib.extract.config import ExtractConfig
from raylib.extract.extractor import Extractor, digest_of
from raylib.extract.images import open_images
from raylib.extract.layers import layer_fractions
from raylib.extract.local import Place
from raylib.extract.parts import PartFiles, assemble
from raylib.extract.plan import Part, cut_batches, estimate_lengths, split_parts
from raylib.extract.rows import VqaTable, read_rows, sample
from raylib.extract.spool import Spool
from raylib.store.manifests import MANIFEST, read_manifest, versions, write_manifest
from raylib.timeline import Stage, Timeline

EXTRACT_JOB = "raylib extract"
DEFAULT_BATCH = 16
_VERSIONS = ("raylib-cluster", "torch", "transformers", "numpy", "pillow", "h5py")


@dataclass
class Outcome:
    """What a job did. counts: rows of the data set, bad ones among them, extracted in this run, parts, parts that were
    there before. files: the parts' paths in order. bad: rows without states."""

    folder: str
    counts: dict[str, int]
    files: list[str] = field(default_factory=list)
    bad: list[BadContent] = field(default_factory=list)
    allowed: int = 0

    @property
    def ok(self) -> bool:
        """Every row has its states, but for as many as --allow-errors lets go."""
        return len(self.bad) <= self.allowed


class ExtractJob:
    """See the module. `run`, once."""

    def __init__(
        self, config: ExtractConfig, place: Place, reporter: Reporter, timeline: Timeline | None = None
    ) -> None:
        self.config, self.place, self.reporter = config, place, reporter
        self.timeline = (timeline or Timeline()).of(config.model)
        self.extractor = Extractor.of(config)
        self.timings: dict[str, float] = {}
        self._repeats = Repeats()
        self.spool = Spool(config.folder)

    def run(self) -> Outcome:
        """Extract what is missing and write the parts.

        Raises UserError for what cannot be right from the start, and ModelError for what fails later; what was done
        until then is kept. Rows that cannot be used are no exception: the outcome is then not `ok`.
        """
        config = self.config
        with self._timed("plan"):
            table = self._table()
            parts = split_parts(table.rows, config.checkpoint_interval)
            _ = self.extractor.layers  # before hours are spent: that there is such a model, and such layers
            files = PartFiles(config.folder, file_prefix(config.model), config.format, self._settings())
            storage.make_folder(config.folder)
            there = files.known(parts, overwrite=config.overwrite)
        missing = [part for part in parts if part.number not in there]
        if not missing and read_manifest(config.folder, EXTRACT_JOB) is not None:
            self.reporter.say(f"{config.folder} is complete: the same rows, model and options as before")
        else:
            storage.remove(storage.join(config.folder, MANIFEST))
            self._extract(missing, files)
        return self._finish(table, parts, files, len(there))

    @contextmanager
    def _timed(self, name: str) -> Iterator[Stage]:
        with self.timeline.stage(name) as stage:
            yield stage
        self.timings[name] = stage.seconds

    def _table(self) -> VqaTable:
        config = self.config
        images = open_images(config.images_dir) if config.images_dir else None
        table = read_rows(config.vqa_dataset, images, config.image_column)
        if not table.rows:
            first = f"; the first: {table.bad[0].item_id}: {table.bad[0].reason}" if table.bad else ""
            raise UserError(f"no row of {config.vqa_dataset} can be used ({len(table.bad)} are bad{first})")
        if table.bad:
            self.reporter.warn(f"{len(table.bad)} rows of {config.vqa_dataset} cannot be used, see {ERRORS_FILE}")
        return replace(table, rows=sample(table.rows)) if config.test else table

    def _settings(self) -> dict[str, Any]:
        """What decides a part besides its rows."""
        config = self.config
        return {
            "model": config.model,
            **self.extractor.identity,
            "checkpoint_interval": config.checkpoint_interval,
            "format": config.format,
            "compression": config.compression,
        }

    def _extract(self, parts: Sequence[Part], files: PartFiles) -> None:
        """Run what the spool lacks of these parts, and write each part when its last batch is there."""
        if not parts:
            return
        rows = [row for part in parts for row in part.rows]
        with self._timed("measure"):
            lengths = estimate_lengths(self.extractor, rows)
            settings = digest_of(files.settings)
            size = self._batch_size(lengths.longest, len(rows), settings)
            batches = {part.number: list(cut_batches(part, lengths, size, settings)) for part in parts}
            missing: dict[int, dict[str, RowBatch]] = {}
            for part in parts:
                done = self.spool.finished(part.number)
                missing[part.number] = {b.name: b for b in batches[part.number] if b.name not in done}
        todo = [batch for left in missing.values() for batch in left.values()]
        name = self.config.model
        kept = len(rows) - sum(len(batch.rows) for batch in todo)
        note = f"; {kept} were done before" if kept else ""
        self.reporter.say(f"{name}: {len(rows)} rows in {len(parts)} files, batches of {size}{note}")
        self.timeline.reused("extract", kept)
        by_number = {part.number: part for part in parts}
        with (
            self._timed("extract") as stage,
            self.reporter.stage(f"extract {name}", sum(len(batch.rows) for batch in todo)) as progress,
            _Writer(lambda number: self._write(by_number[number], batches[number], files)) as writer,
        ):
            for number in [n for n, left in missing.items() if not left]:
                writer.write(number)
            for states in self.place.extract(self.extractor, todo) if todo else ():
                self.spool.add(states)
                stage.held, stage.retries = self.place.held, stage.retries + states.retries
                for note in states.notes:
                    self.reporter.warn(note)
                progress(len(states.numbers) + len(states.failed), len(states.failed))
                left = missing[states.part]
                del left[states.name]
                if not left:
                    writer.write(states.part)
        lost = sum(map(len, missing.values()))
        if lost:
            raise ModelError(f"{name}: {lost} of {len(todo)} batches gave nothing; run the same command again")

    def _batch_size(self, longest: Any, rows: int, settings: str) -> int:
        """As asked for; with auto, what was found when this run was begun, else what is found now. To look for more
        than an eighth of the rows would take as long as to run them."""
        asked = self.config.batch_size
        if asked != "auto":
            return asked or DEFAULT_BATCH
        known = self.spool.recall(settings).get("batch_size")
        if known is None:
            most = max(DEFAULT_BATCH, rows // 8)
            known = DEFAULT_BATCH if longest is None else self.place.find_batch_size(self.extractor, longest, most)
            self.spool.remember(settings, batch_size=known)
        return int(known)

    def _write(self, part: Part, batches: Sequence[RowBatch], files: PartFiles) -> None:
        start = time.perf_counter()
        about = {
            "model_name": self.config.model,
            "model_type": self.extractor.config.model_type,
            "dtype": self.extractor.dtype,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "num_layers": self.extractor.depth,
            "layers": list(self.extractor.layers),
            "layer_fractions": layer_fractions(self.extractor.layers, self.extractor.depth),
            "boundary": self.config.boundary,
            "fingerprint": self.extractor.fingerprint,
            "versions": versions(_VERSIONS),
        }
        found = [self.spool.load(batch) for batch in batches]
        if any(states is None for states in found):
            raise UserError(f"{self.spool.folder}: a finished batch can no longer be read; run the same command again")
        files.write(part, assemble(part, [states for states in found if states], about), self.config.compression)
        self.spool.drop(part.number)
        self.timings["write"] = self.timings.get("write", 0.0) + time.perf_counter() - start

    def _finish(self, table: VqaTable, parts: Sequence[Part], files: PartFiles, there: int) -> Outcome:
        """errors.parquet and the manifest, and what is said at the end."""
        config = self.config
        by_id = {row.question_id: row for part in parts for row in part.rows}
        failed = [BadContent("", config.vqa_dataset, name, why) for name, why in files.failed(parts) if name in by_id]
        bad = [*table.bad, *failed]
        write_errors(config.folder, bad)
        counts = {"rows": len(table.rows) + len(table.bad), "bad": len(bad), "parts": len(parts), "parts before": there}
        counts["extracted"] = sum(len(part.rows) for part in parts) - len(failed)
        paths = [files.path(part) for part in parts]
        outcome = Outcome(config.folder, counts, paths, bad, config.allow_errors)
        write_manifest(
            config.folder,
            EXTRACT_JOB,
            {
                "model": config.model,
                "files": [path.rpartition("/")[2] for path in paths] + ([ERRORS_FILE] if bad else []),
                "counts": counts,
                "settings": files.settings,
                "options": config.as_dict(),
                "versions": versions(_VERSIONS),
                "timings": {name: round(seconds, 3) for name, seconds in self.timings.items()},
                "timeline": self.timeline.as_dict(),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )
        self.spool.close()
        self.reporter.say(f"wrote {len(paths)} files in {config.folder}: {counts['extracted']} rows")
        if spent := self.timeline.line():
            self.reporter.say(spent)
        for note in self._repeats.told():
            self.reporter.warn(note)
        if bad:
            self.reporter.warn(f"{len(bad)} rows have no states, see {config.folder}/{ERRORS_FILE}\n{listed(bad)}")
        return outcome


class _Writer:
    """Writes parts in a thread, one at a time, while the next rows are run; the first failure is raised at the next
    part, or at the end."""

    def __init__(self, write: Callable[[int], None]) -> None:
        self._write, self._pool = write, ThreadPoolExecutor(1, thread_name_prefix="write")
        self._pending: list[Future[None]] = []

    def write(self, number: int) -> None:
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()
        self._pending.append(self._pool.submit(self._write, number))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            for future in self._pending:
                future.result()
