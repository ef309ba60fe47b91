"""The encode job: files → contents → what the store lacks is encoded → vectors in one file, in input order.

Where contents are encoded is the place's affair. Nothing in the output folder looks complete before it is: the vectors
appear whole, and the manifest that names them comes last.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from raylib import storage
from raylib.buckets import Repeats
from raylib.encode.config import EncodeConfig
from raylib.encode.gather import Contents, gather
from raylib.encode.inputs import Inputs, find_inputs
from raylib.encode.output import NAMES, VectorTable, write_vectors
from raylib.encode.planned import Place, Planned, resolve_encoder
from raylib.encode.readers import read_items
from raylib.encode.vectors import in_order
from raylib.errors import BadContent, ModelError, UserError
from raylib.evaluate.encode import EncodeReport
from raylib.evaluate.errors_file import ERRORS_FILE, listed, write_errors
from raylib.evaluate.progress import Reporter
from raylib.store.embeddings import Shelf
from raylib.store.manifests import MANIFEST, read_manifest, versions, write_manifest
from raylib.store.vector_files import ENCODE_JOB
from raylib.timeline import Timeline

_VERSIONS = ("raylib-cluster", "torch", "transformers", "sentence-transformers", "numpy", "pillow", "pypdfium2")


@dataclass
class Outcome:
    """What a job did. counts: contents, distinct, stored before, encoded, failed. files: path of what was written,
    "embeddings" and, with --format npy, "ids"; empty where too many contents failed. bad: what has no vector."""

    folder: str
    counts: dict[str, int]
    files: dict[str, str] = field(default_factory=dict)
    bad: list[BadContent] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """The vectors are complete, but for as many contents as --allow-errors lets go."""
        return bool(self.files)


class EncodeJob:
    """See the module. `run` or `dry_run`, once."""

    def __init__(
        self, config: EncodeConfig, place: Place, reporter: Reporter, timeline: Timeline | None = None
    ) -> None:
        self.config, self.place, self.reporter = config, place, reporter
        self.timeline = (timeline or Timeline()).of(config.spec.name)
        self.timings: dict[str, float] = {}
        self._repeats = Repeats()

    def dry_run(self) -> dict[str, Any]:
        """What `run` would encode. Writes nothing."""
        with self._planned() as (planned, inputs):
            return {
                "model": planned.encoder.spec.asked,
                **planned.counts(self._shelf(planned)),
                "bad": planned.bad_contents(),
                "skipped": inputs.skipped,
            }

    def run(self) -> Outcome:
        """Encode what is missing and write the output.

        Raises UserError for what cannot be right from the start, ModelError and StoreError for what fails later. Too
        many bad contents are no exception: the outcome is not `ok`.
        """
        config = self.config
        storage.make_folder(config.output_folder)
        storage.make_folder(config.store_folder)
        with self._planned() as (planned, inputs):
            for note in planned.unread:
                self.reporter.warn(note)
            self._check_readable(planned)
            digest = _digest(planned, config)
            known = self._known(digest)
            if known is not None:
                return known
            shelf = self._shelf(planned)
            counts = planned.counts(shelf)
            report = self._encode(planned, shelf, counts)
            bad = planned.bad_contents()
            counts |= {"encoded": report.encoded, "failed": len(bad)}
            outcome = Outcome(config.output_folder, counts, bad=bad)
            self._clear()
            self._tell_bad(bad)
            write_errors(config.output_folder, bad)
            if len(bad) <= config.allow_errors:
                self._write(planned, shelf, outcome, digest, inputs)
            return outcome

    @contextmanager
    def _planned(self) -> Iterator[tuple[Planned, Inputs]]:
        """Everything that is to be encoded, under its keys; while the block lasts."""
        config = self.config
        encoder = resolve_encoder(config.spec)
        inputs = find_inputs(config.input, leave_out=[config.output_folder, config.store_folder])
        if inputs.skipped:
            kinds = sorted({os.path.splitext(path)[1] or "no suffix" for path in inputs.skipped})
            self.reporter.say(f"{len(inputs.skipped)} files of other kinds are not read ({', '.join(kinds[:8])})")
        with tempfile.TemporaryDirectory(prefix="raylib-encode-") as folder:
            with self._timed("read"):
                contents = self._gathered(inputs, folder)
            with self._timed("plan"):
                planned = Planned.of(encoder, contents, config.role)
            yield planned, inputs

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        with self.timeline.stage(name) as stage:
            yield
        self.timings[name] = stage.seconds

    def _gathered(self, inputs: Inputs, folder: str) -> Contents:
        config = self.config
        items = itertools.chain.from_iterable(read_items(file, config) for file in inputs.files)
        contents = gather(itertools.islice(items, config.limit), folder, config.dpi)
        if not contents.ids:
            raise UserError(f"no content in --input {', '.join(config.input)}: the files are empty")
        return contents

    def _shelf(self, planned: Planned) -> Shelf:
        return Shelf(self.config.store_folder, planned.encoder.fingerprint)

    def _check_readable(self, planned: Planned) -> None:
        """Before hours are spent: raises UserError where this model cannot be given some of the contents."""
        if len(planned.unreadable) <= self.config.allow_errors and len(planned.unreadable) < len(planned.keys):
            return
        first = next(iter(planned.unreadable))
        raise UserError(
            f"{len(planned.unreadable)} of {len(planned.keys)} contents, {planned.contents.ids[first]} first: "
            f"{planned.unreadable[first]}. Give a model that reads them, name the others in --input, choose one field "
            "with --text-column or --image-column, or leave them out with --allow-errors N"
        )

    def _known(self, digest: str) -> Outcome | None:
        """The outcome of a run that did all this before; None where it is to be done. Raises UserError where the
        folder has vectors that would be lost."""
        folder = self.config.output_folder
        manifest = read_manifest(folder, ENCODE_JOB)
        if self.config.overwrite:
            return None
        if manifest is None:
            there = [name for name in (*NAMES, MANIFEST) if storage.exists(storage.join(folder, name))]
            if there:
                raise UserError(
                    f"{folder} holds {', '.join(there)} without the manifest of `raylib encode`: another program's, or "
                    "of a run that was killed as it ended. Give another --output, or replace them with --overwrite"
                )
            return None
        if manifest.get("digest") != digest:
            raise UserError(
                f"{folder} holds vectors of another run ({manifest.get('model')}, "
                f"{manifest.get('counts', {}).get('contents')} contents). Give another --output, or replace them with "
                "--overwrite"
            )
        if manifest["counts"]["failed"]:
            return None  # what failed may be mended: it is tried again
        self.reporter.say(f"{folder} is complete: the same contents, model and options as before")
        counts = {**manifest["counts"], "stored": manifest["counts"]["distinct"], "encoded": 0}
        return Outcome(folder, counts, _paths(folder, manifest["files"]))

    def _encode(self, planned: Planned, shelf: Shelf, counts: dict[str, int]) -> EncodeReport:
        self.timeline.reused("encode", counts["stored"])
        with self.timeline.stage("encode") as stage:
            report = planned.encode(shelf, counts, self.place, self.config.limits, self.reporter)
            stage.take(report)
        if counts["distinct"] > counts["stored"]:
            self.timings["startup"], self.timings["encode"] = report.startup_seconds, report.seconds
            self.timings["encode_cpu"] = report.cpu_seconds
        self._repeats.others += report.repeated
        return report

    def _tell_bad(self, bad: list[BadContent]) -> None:
        if not bad:
            return
        told = f"{len(bad)} contents could not be encoded, see {self.config.output_folder}/{ERRORS_FILE}\n{listed(bad)}"
        if len(bad) > self.config.allow_errors:
            told += f"\nNo vectors were written. Mend them, or leave them out with --allow-errors {len(bad)}."
        self.reporter.warn(told)

    def _clear(self) -> None:
        """Take away the output of an earlier run, its manifest first."""
        for name in (MANIFEST, *NAMES):
            storage.remove(storage.join(self.config.output_folder, name))

    def _write(self, planned: Planned, shelf: Shelf, outcome: Outcome, digest: str, inputs: Inputs) -> None:
        config, encoder, contents = self.config, planned.encoder, planned.contents
        good = planned.good_positions()
        if not good:
            raise ModelError("no content could be encoded")
        late = encoder.similarity == "maxsim"
        about = {"model": encoder.spec.asked, "fingerprint": encoder.fingerprint, "similarity": encoder.similarity}
        aside = None if storage.is_remote(config.output_folder) else config.output_folder
        keys: Any = [planned.keys[i] for i in good]
        with self._timed("write"), in_order(shelf, keys, np.dtype(config.output_dtype), aside) as vectors:
            if not late and not vectors.is_dense:
                raise ModelError(f"{encoder.spec.asked} compares by {encoder.similarity} and gave several vectors")
            ids, sources = [contents.ids[i] for i in good], [contents.source_of(i) for i in good]
            files = write_vectors(
                VectorTable(ids, sources, vectors, late, {**about, "role": config.role}),
                config.output_folder,
                config.format,
            )
            shape = {"vectors": len(good), "tokens": len(vectors.values), "dim": vectors.dim}
        outcome.counts |= {"vectors": len(good)}
        manifest = {
            **about,
            "identity": dict(encoder.identity),
            "role": config.role,
            "prompt": planned.prompt,
            "late_interaction": late,
            "dtype": config.output_dtype,
            **shape,
            "files": files | ({"errors": ERRORS_FILE} if outcome.bad else {}),
            "counts": outcome.counts,
            "inputs": {"files": len(inputs.files), "skipped": inputs.skipped},
            "repeated_requests": self._repeats.count,
            "digest": digest,
            "options": config.as_dict(),
            "versions": versions(_VERSIONS),
            "timings": {name: round(seconds, 3) for name, seconds in self.timings.items()},
            "timeline": self.timeline.as_dict(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_manifest(config.output_folder, ENCODE_JOB, manifest)
        outcome.files = _paths(config.output_folder, files)
        told = f"{len(good)} vectors of {shape['dim']} dimensions" + (f", {shape['tokens']} tokens" if late else "")
        self.reporter.say(f"wrote {outcome.files['embeddings']}: {told}")
        if spent := self.timeline.line():
            self.reporter.say(spent)
        for note in self._repeats.told():
            self.reporter.warn(note)


def _paths(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {name: storage.join(folder, files[name]) for name in ("embeddings", "ids") if name in files}


def _digest(planned: Planned, config: EncodeConfig) -> str:
    """Names what the output holds: every id with its key, in order, and the form."""
    digest = hashlib.sha256(json.dumps([config.format, config.output_dtype, planned.encoder.fingerprint]).encode())
    for name, key in zip(planned.contents.ids, planned.keys, strict=True):
        digest.update(len(name).to_bytes(8, "little") + name.encode() + (key or b"-"))
    return digest.hexdigest()
