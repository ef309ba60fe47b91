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
from raylib.probe.metrics import score
from raylib.probe.results import Scores
from raylib.probe.train import load_probe
from raylib.store.hidden_states import HiddenStates, open_states
from raylib.store.representations import Representation

PROBE_FILE = "probe_model.pt"
SCORES_FILE = "scores.csv"
METRICS_FILE = "metrics.json"
RESULTS_FILE = "results.json"
_THRESHOLD = 0.5


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
    checkpoint = read_checkpoint(config.apply)
    states = open_states(config.states)
    representation = representation_of(checkpoint, config.apply)
    if representation not in states.representations:
        have = ", ".join(one.path for one in states.representations)
        raise UserError(f"{config.apply} reads {representation.path}; {config.states} has {have}")
    _check_model(checkpoint, states, config.apply, reporter)
    matrix = states.matrix(representation)
    if matrix.shape[1] != checkpoint["input_dim"]:
        raise UserError(
            f"{config.apply} was trained on {checkpoint['input_dim']} dimensions; {representation.path} in "
            f"{config.states} has {matrix.shape[1]}. Give the states of the model it was trained for"
        )
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(bad):
        names = ", ".join(states.question_ids[i] for i in bad[:5])
        raise UserError(f"{len(bad)} rows of {representation.path} hold NaN or infinite numbers: {names}")
    found = Applied(config.output_dir, states.question_ids, load_probe(checkpoint)(matrix))
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


def read_checkpoint(folder: str) -> dict[str, Any]:
    """What probe_model.pt holds, in a folder or as a file. Nothing in it is run. Raises UserError."""
    import torch

    path = folder if folder.endswith(".pt") else storage.join(folder, PROBE_FILE)
    if not storage.exists(path):
        raise UserError(f"--apply {folder}: there is no {PROBE_FILE}; expected a probe's folder, such as probes/best")
    try:
        found = torch.load(io.BytesIO(storage.read_bytes(path)), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError
        raise UserError(f"{path} cannot be read: {type(error).__name__}") from error
    if isinstance(found, dict) and {"input_dim", "config"} <= set(found):
        return found
    if not isinstance(found, dict) or not found or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise UserError(f"{path} is no probe: expected model_state_dict, config and input_dim")
    return _bare(found, path)


def _bare(weights: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Some of HALP's scripts saved the weights alone; what they read is in the results.json beside them."""
    beside = storage.join(path.rpartition("/")[0] or ".", RESULTS_FILE)
    if not storage.exists(beside):
        raise UserError(f"{path} holds weights alone; expected the {RESULTS_FILE} of that probe beside it")
    told = json.loads(storage.read_text(beside))
    config = {"EMBEDDING_TYPE": told.get("embedding_type"), "LAYER_NAME": told.get("layer_name")}
    first = next(tensor for tensor in weights.values() if tensor.ndim == 2)
    return {"model_state_dict": dict(weights), "config": config, "input_dim": int(first.shape[1])}


def representation_of(checkpoint: Mapping[str, Any], folder: str) -> Representation:
    """What a probe reads. HALP's scripts wrote it into their config. Raises UserError where it does not tell."""
    told = checkpoint.get("representation")
    if told is None:
        config = checkpoint["config"]
        kind = str(config.get("EMBEDDING_TYPE", "")).removesuffix("_representation")
        told = f"{kind}/{config['LAYER_NAME']}" if config.get("LAYER_NAME") else kind
    try:
        return Representation.parse(str(told))
    except ValueError as error:
        raise UserError(f"--apply {folder}: its {PROBE_FILE} does not tell what it reads: {error}") from error


def _check_model(checkpoint: Mapping[str, Any], states: HiddenStates, folder: str, reporter: Reporter) -> None:
    """Raises UserError where both sides say which model they are of, and differ."""
    trained, given = checkpoint.get("fingerprint"), states.about.get("fingerprint")
    if trained and given and trained != given:
        raise UserError(
            f"{folder} was trained on states of another model, revision or number format (fingerprint {trained[:12]}, "
            f"these have {given[:12]}). Extract again as for the training, or train a probe on these"
        )
    if not (trained and given):
        reporter.warn(f"{folder} or the states do not tell which model they are of: nothing could be compared")


def _metrics(found: Applied, labels: Mapping[str, int], states: HiddenStates, config: ProbeConfig) -> Scores:
    """Intervals by images, where the states tell them."""
    rows = [i for i, name in enumerate(found.question_ids) if name in labels]
    if not rows:
        raise UserError(f"none of the {len(found.question_ids)} rows has a label in {config.labels}")
    y = np.array([labels[found.question_ids[i]] for i in rows], dtype=np.int8)
    images = states.texts("image_id") if "image_id" in states.text_names else None
    groups = None if images is None else [images[i] for i in rows]
    return score(y, found.scores[rows], groups=groups, resamples=config.resamples, seed=config.seed)


def _write(found: Applied, labels: Mapping[str, int]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["question_id", "score", "predicted", *(["label"] if labels else [])])
    for name, value in zip(found.question_ids, found.scores.tolist(), strict=True):
        label = [labels.get(name, "")] if labels else []
        writer.writerow([name, f"{value:.6f}", int(value > _THRESHOLD), *label])
    storage.write_text(storage.join(found.folder, SCORES_FILE), text.getvalue())
    metrics = storage.join(found.folder, METRICS_FILE)
    if found.metrics is None:
        storage.remove(metrics)
    else:
        storage.write_text(metrics, json.dumps(asdict(found.metrics), indent=1) + "\n")
