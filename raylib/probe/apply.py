"""Scoring rows with a probe that was trained before: ours, or one of HALP's."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from raylib import storage
from raylib.errors import UserError
from raylib.evaluate.progress import Reporter
from raylib.probe.config import ProbeConfig
from raylib.probe.labels import read_labels
from raylib.probe.metrics import THRESHOLD, score_rows
from raylib.probe.outputs import MODEL, RESULTS
from raylib.probe.results import Scores
from raylib.probe.train import LoadedProbe, load_probe
from raylib.store.hidden_states import HiddenStates, open_states
from raylib.store.representations import Representation

SCORES_FILE = "scores.csv"
METRICS_FILE = "metrics.json"


@dataclass
class Applied:
    """scores [n] between 0 and 1, of the rows in the order of the states; metrics: where labels were given."""

    folder: str
    question_ids: list[str]
    scores: np.ndarray
    metrics: Scores | None = None


def apply_probe(config: ProbeConfig, reporter: Reporter) -> Applied:
    """Score every row of the states and write scores.csv, and metrics.json where labels are given.

    Raises UserError where there is no probe, or where it was trained on states of another kind.
    """
    assert config.apply is not None
    checkpoint, path = read_checkpoint(config.apply)
    probe = load_probe(checkpoint, path)
    states = open_states(config.states)
    representation = representation_of(probe, checkpoint, path)
    if representation not in states.representations:
        have = ", ".join(one.path for one in states.representations)
        raise UserError(f"{path} reads {representation.path}; {config.states} has {have}")
    _check_model(probe, states, reporter)
    matrix = states.matrix(representation)
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        names = ", ".join(states.question_ids[i] for i in bad[:5])
        raise UserError(f"{len(bad)} rows of {representation.path} hold NaN or infinite numbers: {names}")
    found = Applied(config.output_dir, states.question_ids, probe(matrix))
    labels = dict[str, int]()
    if config.labels is not None:
        read = read_labels(config.labels, config.target)
        labels = dict(zip(read.ids, (int(y) for y in read.y), strict=True))
        found.metrics = _metrics(found, labels, states, config)
    storage.make_folder(config.output_dir)
    _write(found, labels)
    reporter.say(f"wrote {len(found.scores)} scores to {storage.join(config.output_dir, SCORES_FILE)}")
    if found.metrics is not None and found.metrics.auroc is not None and found.metrics.interval is not None:
        low, high = found.metrics.interval
        reporter.say(
            f"AUROC {found.metrics.auroc:.4f} ({low:.4f} to {high:.4f}) over {found.metrics.rows} labelled rows"
        )
    return found


def read_checkpoint(folder: str) -> tuple[dict[str, Any], str]:
    """What probe_model.pt holds, in a folder or as a file, and where it is. Nothing in it is run. Raises UserError."""
    import torch

    path = folder if folder.endswith(".pt") else storage.join(folder, MODEL)
    if not storage.exists(path):
        raise UserError(f"--apply {folder}: there is no {MODEL}; expected a probe's folder, such as probes/best")
    try:
        found = torch.load(io.BytesIO(storage.read_bytes(path)), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError
        raise UserError(f"{path} cannot be read: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is no probe but a {type(found).__name__}")
    return found, path


def representation_of(probe: LoadedProbe, checkpoint: Mapping[str, Any], path: str) -> Representation:
    """What a probe reads. HALP's scripts wrote it into their config, or into the results.json beside weights alone.
    Raises UserError where nothing tells."""
    try:
        if probe.representation:
            return Representation.parse(probe.representation)
        config = checkpoint.get("config")
        if not isinstance(config, Mapping):
            beside = storage.join(path.rpartition("/")[0] or ".", RESULTS)
            config = json.loads(storage.read_text(beside)) if storage.exists(beside) else {}
        config = {name.lower(): value for name, value in config.items()}
        return Representation.from_old(config.get("embedding_type"), config.get("layer_name"))
    except ValueError as error:
        raise UserError(f"{path} does not tell what it reads, nor a {RESULTS} beside it: {error}") from error


def _check_model(probe: LoadedProbe, states: HiddenStates, reporter: Reporter) -> None:
    """Raises UserError where both sides say which model they are of, and differ."""
    trained, given = probe.fingerprint, states.about.get("fingerprint")
    if trained and given and trained != given:
        raise UserError(
            f"{probe.path} was trained on states of another model, revision or number format (fingerprint "
            f"{trained[:12]}, these have {given[:12]}). Extract again as for the training, or train a probe on these"
        )
    if not (trained and given):
        reporter.warn(f"{probe.path} or the states do not tell which model they are of: nothing could be compared")


def _metrics(found: Applied, labels: Mapping[str, int], states: HiddenStates, config: ProbeConfig) -> Scores:
    """Intervals by images, where the states tell them."""
    rows = [i for i, name in enumerate(found.question_ids) if name in labels]
    if not rows:
        raise UserError(f"none of the {len(found.question_ids)} rows has a label in {config.labels}")
    y = np.array([labels[found.question_ids[i]] for i in rows], dtype=np.int8)
    images = states.texts("image_id") if "image_id" in states.text_names else states.question_ids
    return score_rows(y, found.scores[rows], [images[i] for i in rows], config.resamples, config.seed)


def _write(found: Applied, labels: Mapping[str, int]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["question_id", "score", "predicted", *(["label"] if labels else [])])
    for name, value in zip(found.question_ids, found.scores.tolist(), strict=True):
        label = [labels.get(name, "")] if labels else []
        writer.writerow([name, f"{value:.6f}", int(value > THRESHOLD), *label])
    storage.write_text(storage.join(found.folder, SCORES_FILE), text.getvalue())
    metrics = storage.join(found.folder, METRICS_FILE)
    if found.metrics is None:
        storage.remove(metrics)
    else:
        storage.write_text(metrics, json.dumps(asdict(found.metrics), indent=1) + "\n")
