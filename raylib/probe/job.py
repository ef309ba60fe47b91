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
from raylib.probe.outputs import read_probe, write_probe
from raylib.probe.place import Common, Place, ProbeTask
from raylib.probe.report import write_report
from raylib.probe.results import ProbeResult
from raylib.probe.splits import split_rows
from raylib.probe.tables import write_tables
from raylib.probe.train import Recipe
from raylib.store.hidden_states import HiddenStates, open_states
from raylib.store.manifests import MANIFEST, versions, write_manifest

PROBE_JOB = "raylib probe"
BEST = "best"
_VERSIONS = ("raylib-cluster", "torch", "scikit-learn", "numpy", "h5py")


@dataclass
class Outcome:
    """What a job did. results: of all probes, in the order of the states; best: by validation, or by test where nothing
    was held out; folder of it in `files["best"]`."""

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
        labels = read_labels(config.labels, config.target)
        data = join(
            states,
            labels,
            image_column=config.image_column,
            category_column=config.category_column,
            source_column=config.source_column,
        )
        for reason, n in data.dropped.items():
            self.reporter.warn(f"{n} {reason}")
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
        recipe = Recipe.published() if config.recipe == "published" else Recipe()
        recipe = replace(
            recipe,
            epochs=config.epochs,
            batch_size=config.batch_size,
            lr=config.learning_rate,
            seed=config.seed,
            resamples=config.resamples,
        )
        validation = None if config.recipe == "published" else 0.1
        split = split_rows(
            config.split, data.y, data.images, data.columns.get("source"), config.seed, validation_size=validation
        )
        name = str(states.about.get("model_name") or "unknown model")
        return Common(data, split, split.facts(data), recipe, name, config.target)

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
        digest = self._digest(common, states)
        done: dict[ProbeTask, ProbeResult] = {}
        for task in tasks:
            known = None if config.overwrite else read_probe(storage.join(config.output_dir, task.name))
            if known is None:
                continue
            result, theirs = known
            if theirs != digest:
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
                checkpoint["fingerprint"] = states.about.get("fingerprint")
                write_probe(config.output_dir, result, checkpoint, digest)
                done[task] = result
                progress(1)
        return [done[task] for task in tasks], len(missing)

    def _digest(self, common: Common, states: HiddenStates) -> str:
        """SHA-256, hex, over what decides a probe besides its representation and classifier."""
        data = common.data
        told = {
            "rows": list(data.ids),
            "labels": data.y.tolist(),
            "images": list(data.images),
            "columns": dict(data.columns),
            "states": {k: states.about.get(k) for k in ("fingerprint", "model_name", "created_at")},
            "recipe": asdict(common.recipe),
            "split": self.config.split,
            "target": common.target,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()

    def _finish(self, results: list[ProbeResult], trained: int, common: Common) -> Outcome:
        config = self.config
        best = best_of(results)
        notes = [note for result in results for note in result.notes]
        if best.validation is None:
            notes.append("nothing was held out to choose by: the best probe is the best of the test, which flatters it")
        if config.label_shuffle:
            notes.append("labels were permuted: this is a sanity check, not a result")
        notes = list(dict.fromkeys(notes))
        _copy(storage.join(config.output_dir, best.name), storage.join(config.output_dir, BEST))
        write_tables(config.output_dir, results, best)
        write_report(config.output_dir, results, best, common.data.dropped, notes)
        files = {
            "best": storage.join(config.output_dir, BEST),
            "report": storage.join(config.output_dir, "report.html"),
        }
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
    storage.remove_folder(target)
    for path in sorted(storage.list_files(source), key=lambda path: path.endswith("/results.json")):
        with storage.atomic_write(storage.join(target, path.rpartition("/")[2])) as stream:
            stream.write(storage.read_bytes(path))
