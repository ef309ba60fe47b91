"""The probe job: states and labels → one split → a probe per representation, layer and classifier → a report."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from raylib import storage
from raylib.errors import UserError
from raylib.evaluate.progress import Reporter
from raylib.probe.config import ProbeConfig
from raylib.probe.data import ProbeData, join
from raylib.probe.labels import read_labels
from raylib.probe.outputs import RESULTS, read_probe, write_probe
from raylib.probe.place import Common, Place, ProbeTask
from raylib.probe.recipe import PUBLISHED, Recipe
from raylib.probe.report import REPORT, write_report
from raylib.probe.results import ProbeResult
from raylib.probe.splits import VALIDATION_SIZE, split_rows
from raylib.probe.tables import write_tables
from raylib.store.hidden_states import HiddenStates, open_states
from raylib.store.manifests import MANIFEST, versions, write_manifest
from raylib.store.representations import Representation

PROBE_JOB = "raylib probe"
BEST = "best"
_VERSIONS = ("raylib-cluster", "torch", "scikit-learn", "numpy", "h5py")


@dataclass
class Outcome:
    """What a job did. results: of all probes, in the order of the states; best: by validation, with its folder in
    `files["best"]`; by test, and without a folder, where nothing was held out."""

    folder: str
    results: list[ProbeResult]
    best: ProbeResult
    files: dict[str, str] = field(default_factory=dict)
    trained: int = 0


class ProbeJob:
    """See the module. `run`, once."""

    def __init__(self, config: ProbeConfig, place: Place, reporter: Reporter) -> None:
        self.config, self.place, self.reporter = config, place, reporter

    def run(self) -> Outcome:
        """Train what is not finished yet, and write everything. Raises UserError for states or labels that cannot be
        used, and for probes of another run in the output folder."""
        config = self.config
        assert config.labels is not None
        states = open_states(config.states)
        chosen = config.chosen(states.representations)
        data = join(states, read_labels(config.labels, config.target, config.columns()))
        for reason, n in data.dropped.items():
            self.reporter.warn(f"{n} rows {reason}")
        if config.label_shuffle:
            data = replace(data, y=np.random.default_rng(config.seed).permutation(data.y))
        common = self._common(states, data)
        self._say(common)
        tasks = [ProbeTask(one, name) for one in chosen for name in config.classifiers]  # pyright: ignore[reportArgumentType]
        storage.make_folder(config.output_dir)
        results, trained = self._train(tasks, common, states)
        return self._finish(results, trained, common)

    def _common(self, states: HiddenStates, data: ProbeData) -> Common:
        config = self.config
        recipe = PUBLISHED if config.recipe == "published" else Recipe()
        recipe = replace(
            recipe,
            epochs=config.epochs,
            batch_size=config.batch_size,
            lr=config.learning_rate,
            seed=config.seed,
            resamples=config.resamples,
        )
        validation = None if config.recipe == "published" else VALIDATION_SIZE
        order = published_order(states, data) if config.split == "random" else np.arange(len(data.y))
        split = split_rows(
            config.split,
            data.y[order],
            [data.images[i] for i in order],
            None if data.sources is None else [data.sources[i] for i in order],
            config.seed,
            validation_size=validation,
        )
        split = replace(split, train=order[split.train], validation=order[split.validation], test=order[split.test])
        name = str(states.about.get("model_name") or "unknown model")
        facts = split.facts(data.images, data.sources)
        fingerprint, depth = str(states.about.get("fingerprint") or ""), states.about.get("num_layers")
        return Common(data, split, facts, recipe, name, config.target, fingerprint, depth)

    def _say(self, common: Common) -> None:
        facts, positives = common.facts, int(common.data.y.sum())
        self.reporter.say(
            f"{common.model_name}: {len(common.data.y)} rows, {positives} of them {common.target}; "
            f"{facts.train_rows} to train, {facts.validation_rows} to choose, {facts.test_rows} to test"
        )
        if facts.shared_images:
            self.reporter.warn(
                f"{facts.shared_images} of {facts.test_rows} test rows share their image with a training row: their "
                "scores are too good; --split image keeps them apart"
            )

    def _train(self, tasks: list[ProbeTask], common: Common, states: HiddenStates) -> tuple[list[ProbeResult], int]:
        """The results of all tasks, those that were finished before among them, and how many were trained now."""
        config = self.config
        digests = self._digests(common, states, tasks)
        done: dict[ProbeTask, ProbeResult] = {}
        for task in tasks:
            known = None if config.overwrite else read_probe(storage.join(config.output_dir, task.name))
            if known is None:
                continue
            result, theirs = known
            if theirs != digests[task.representation]:
                raise UserError(
                    f"{config.output_dir}/{task.name} is a probe of other rows, labels or settings. Give another "
                    "--output-dir, or replace it with --overwrite"
                )
            done[task] = result
        missing = [task for task in tasks if task not in done]
        if missing:
            storage.remove(storage.join(config.output_dir, MANIFEST))
        if done:
            self.reporter.say(f"{len(done)} of {len(tasks)} probes were trained before")

        def matrix(representation: Any) -> np.ndarray:
            return common.data.matrix(states, representation)

        with self.reporter.stage("train probes", len(missing)) as progress:
            for task, result, checkpoint in self.place.train(missing, common, matrix) if missing else ():
                write_probe(config.output_dir, result, checkpoint, digests[task.representation])
                done[task] = result
                progress(1)
        return [done[task] for task in tasks], len(missing)

    def _digests(self, common: Common, states: HiddenStates, tasks: list[ProbeTask]) -> dict[Representation, str]:
        """SHA-256, hex, over what decides a probe besides its classifier: the states themselves among it."""
        data = common.data
        told = {
            "rows": list(data.ids),
            "labels": data.y.tolist(),
            "images": list(data.images),
            "columns": dict(data.columns),
            "recipe": asdict(common.recipe),
            "split": self.config.split,
            "target": common.target,
        }
        shared = json.dumps(told, sort_keys=True, default=str).encode()
        found = {}
        for one in dict.fromkeys(task.representation for task in tasks):
            digest = hashlib.sha256(shared + one.path.encode())
            digest.update(np.ascontiguousarray(data.matrix(states, one)).data)
            found[one] = digest.hexdigest()
        return found

    def _finish(self, results: list[ProbeResult], trained: int, common: Common) -> Outcome:
        config = self.config
        best = best_of(results)
        notes = [note for result in results for note in result.notes]
        if best.validation is None:
            notes.append("nothing was held out to choose by: the best probe is the best of the test, which flatters it")
            notes.append("no probe is kept as best/")
        if config.label_shuffle:
            notes.append("labels were permuted: this is a sanity check, not a result")
        notes = list(dict.fromkeys(notes))
        kept = storage.join(config.output_dir, BEST)
        storage.remove_folder(kept)
        if best.validation is not None:
            _copy(storage.join(config.output_dir, best.name), kept)
        write_tables(config.output_dir, results, best)
        write_report(config.output_dir, results, best, common.data.dropped, notes, common.depth)
        files = {"report": storage.join(config.output_dir, REPORT)}
        files |= {"best": kept} if best.validation is not None else {}
        write_manifest(
            config.output_dir,
            PROBE_JOB,
            {
                "model": common.model_name,
                "probes": [result.name for result in results],
                "best": best.name,
                "options": config.as_dict(),
                "versions": versions(_VERSIONS),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )
        self.reporter.say(f"wrote {len(results)} probes and {files['report']}")
        return Outcome(config.output_dir, results, best, files, trained)


def published_order(states: HiddenStates, data: ProbeData) -> np.ndarray:
    """int64 [rows]: the rows in the order in which HALP's scripts read them, file by file and by name in each: the
    published split is one of rows in that order."""
    part = {name: i for i, one in enumerate(states.parts) for name in one.question_ids}
    return np.array(sorted(range(len(data.ids)), key=lambda i: (part[data.ids[i]], data.ids[i].encode())), np.int64)


def best_of(results: list[ProbeResult]) -> ProbeResult:
    """The highest AUROC on the validation rows, or on the test rows where nothing was held out; of equal ones the
    first. Raises UserError where no probe has one."""

    def auroc(result: ProbeResult) -> float:
        scores = result.validation if result.validation is not None else result.test
        return -1.0 if scores.auroc is None else scores.auroc

    best = max(results, key=auroc)
    if auroc(best) < 0:
        raise UserError("no probe has an AUROC: the rows to choose by are of one class; give more rows")
    return best


def _copy(source: str, target: str) -> None:
    """Every file of one folder into another, results.json last."""
    for path in sorted(storage.list_files(source), key=lambda path: path.endswith(f"/{RESULTS}")):
        with storage.atomic_write(storage.join(target, path.rpartition("/")[2])) as stream:
            stream.write(storage.read_bytes(path))
