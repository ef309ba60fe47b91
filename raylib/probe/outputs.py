"""The folder of one probe: written whole with results.json last, and read back exactly when a job goes on.

results.json has the names that HALP's scripts gave (their readers find what they look for), and what is new beside
them. An AUROC of rows of one class is null; those scripts wrote 0.5 there.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from raylib import storage
from raylib.errors import UserError
from raylib.probe.results import CLASSIFIERS, GroupScores, ProbeResult, Scores, SplitFacts
from raylib.probe.tables import write_group_tables
from raylib.store.representations import Representation

RESULTS, MODEL, SCORES = "results.json", "probe_model.pt", "test_scores.csv"
_HEAD = ["question_id", "label", "score"]
_OLD_HISTORY = {"loss": "train_loss", "accuracy": "train_acc"}
"""Ours → what HALP's scripts called it; both are written."""


def write_probe(folder: str, result: ProbeResult, checkpoint: Mapping[str, Any], digest: str) -> str:
    """Write <folder>/<result.name>/: the model, figures, tables by group, test_scores.csv and, last, results.json.

    checkpoint: what probe_model.pt holds. digest: of what decided the probe, for read_probe's caller to compare. Gives
    the folder. Raises UserError where it cannot be written.
    """
    import torch

    from raylib.figures import save
    from raylib.probe import figures

    place = storage.join(folder, result.name)
    storage.remove(storage.join(place, RESULTS))  # the folder is not complete from here on
    stream = io.BytesIO()
    torch.save(dict(checkpoint), stream)
    kept = {MODEL: stream.getvalue(), SCORES: _scores_csv(result)}
    drawn = {
        "confusion_matrix.png": save(figures.confusion_matrix(result), "png"),
        "roc_curve.png": save(figures.roc_curve(result), "png"),
    }
    if result.history:
        drawn["training_history.png"] = save(figures.training_history(result), "png")
    for name, content in {**kept, **drawn}.items():
        with storage.atomic_write(storage.join(place, name)) as file:
            file.write(content)
    write_group_tables(place, result)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in kept.items()}
    text = json.dumps({**_as_json(result), "digest": digest, "sha256": sums}, indent=2, allow_nan=False)
    storage.write_text(storage.join(place, RESULTS), text + "\n")
    return place


def read_probe(folder: str) -> tuple[ProbeResult, str] | None:
    """What write_probe wrote to `folder`, the folder of one probe: the result, equal in every value, and its digest.

    None where there is no results.json, so no finished probe. Raises UserError where a file of the folder is damaged,
    or results.json is of another program.
    """
    path = storage.join(folder, RESULTS)
    if not storage.exists(path):
        return None
    try:
        found = json.loads(storage.read_text(path))
        contents = {name: storage.read_bytes(storage.join(folder, name)) for name in (MODEL, SCORES)}
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != found["sha256"][name]:
                raise ValueError(f"{name} is not the file that was written")
        return _from_json(found, contents[SCORES]), str(found["digest"])
    except (OSError, ArithmeticError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{folder} holds no whole probe of raylib ({reason}). Remove the folder, or train again with --overwrite."
        ) from error


def _as_json(result: ProbeResult) -> dict[str, Any]:
    sets = [s for s in (result.train, result.validation, result.test) if s is not None]
    rows, positives = sum(s.rows for s in sets), sum(s.positives for s in sets)
    history = {name: [_number(value) for value in values] for name, values in result.history.items()}
    return {
        "model_name": result.model_name,
        "embedding_type": result.representation.old_kind,
        "layer_name": result.representation.layer_name,
        "target_column": result.target,
        "input_dim": int(result.input_dim),
        "dataset_statistics": {
            "total_samples": rows,
            "num_no_hallucination": rows - positives,
            "num_hallucination": positives,
            "hallucination_percentage": 100 * positives / rows if rows else 0.0,
        },
        "train_set": _scores_json(result.train),
        "test_set": _scores_json(result.test),
        "training_history": {
            **history,
            **{old: history[new] for new, old in _OLD_HISTORY.items() if new in history and old not in history},
        },
        "config": _simple(result.config),
        "classifier": result.classifier,
        "validation_set": None if result.validation is None else _scores_json(result.validation),
        "split": _simple(vars(result.split)),
        "by": {column: [_simple(vars(group)) for group in groups] for column, groups in result.by.items()},
        "test_scores": {"labels": str(result.test_labels.dtype), "scores": str(result.test_scores.dtype)},
        "seconds": float(result.seconds),
        "notes": list(result.notes),
    }


def _scores_json(scores: Scores) -> dict[str, Any]:
    return {
        "num_samples": int(scores.rows),
        "accuracy": _number(scores.accuracy),
        "precision": _number(scores.precision),
        "recall": _number(scores.recall),
        "f1": _number(scores.f1),
        "auroc": None if scores.auroc is None else float(scores.auroc),
        "auroc_interval": None if scores.interval is None else [float(edge) for edge in scores.interval],
        "confusion_matrix": _simple(scores.confusion),
        "num_no_hallucination": int(scores.rows - scores.positives),
        "num_hallucination": int(scores.positives),
    }


def _from_json(found: Mapping[str, Any], scores_csv: bytes) -> ProbeResult:
    ids, labels, scores = _read_scores(scores_csv)
    test, kinds = _read_set(found["test_set"]), found["test_scores"]
    if found["classifier"] not in CLASSIFIERS:
        raise ValueError(
            f"results.json has the classifier {found['classifier']!r}; expected {' or '.join(CLASSIFIERS)}"
        )
    if len(ids) != test.rows:
        raise ValueError(f"{SCORES} has {len(ids)} rows and results.json says {test.rows}")
    twice = {old for new, old in _OLD_HISTORY.items() if new in found["training_history"]}
    told = {name: values for name, values in found["training_history"].items() if name not in twice}
    return ProbeResult(
        model_name=found["model_name"],
        representation=Representation.from_old(found["embedding_type"], found["layer_name"]),
        classifier=found["classifier"],
        target=found["target_column"],
        input_dim=found["input_dim"],
        split=SplitFacts(**found["split"]),
        train=_read_set(found["train_set"]),
        validation=None if found["validation_set"] is None else _read_set(found["validation_set"]),
        test=test,
        by={column: [_read_group(group) for group in groups] for column, groups in found["by"].items()},
        history={name: [_read_number(value) for value in values] for name, values in told.items()},
        config=found["config"],
        test_ids=ids,
        test_labels=np.array(labels, dtype=kinds["labels"]),
        test_scores=np.array(scores, dtype=kinds["scores"]),
        seconds=found["seconds"],
        notes=list(found["notes"]),
    )


def _read_set(found: Mapping[str, Any]) -> Scores:
    measures = {name: _read_number(found[name]) for name in ("accuracy", "precision", "recall", "f1")}
    return Scores(
        rows=found["num_samples"],
        positives=found["num_hallucination"],
        auroc=found["auroc"],
        interval=_pair(found["auroc_interval"]),
        confusion=found["confusion_matrix"],
        **measures,
    )


def _read_group(found: Mapping[str, Any]) -> GroupScores:
    return GroupScores(**{**found, "interval": _pair(found["interval"])})


def _pair(found: Any) -> tuple[float, float] | None:
    if found is None:
        return None
    low, high = found
    return float(low), float(high)


def _scores_csv(result: ProbeResult) -> bytes:
    """question_id, label, score of each test row. A score is written with the digits that give the same number back."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(_HEAD)
    for one, label, score in zip(result.test_ids, result.test_labels, result.test_scores, strict=True):
        writer.writerow([one, int(label), float(str(score))])
    return stream.getvalue().encode()


def _read_scores(content: bytes) -> tuple[list[str], list[int], list[float]]:
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    if not rows or rows[0] != _HEAD:
        raise ValueError(f"{SCORES} does not begin with {','.join(_HEAD)}")
    return [row[0] for row in rows[1:]], [int(row[1]) for row in rows[1:]], [float(row[2]) for row in rows[1:]]


def _number(value: float) -> float | None:
    """JSON has no NaN: null."""
    return float(value) if math.isfinite(value) else None


def _read_number(value: float | None) -> float:
    return math.nan if value is None else value


def _simple(value: Any) -> Any:
    """What JSON can hold: numpy's numbers as numbers, tuples and arrays as lists, anything else as text."""
    if isinstance(value, Mapping):
        return {str(k): _simple(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _simple(value.tolist())
    if isinstance(value, list | tuple):
        return [_simple(v) for v in value]
    if isinstance(value, float):
        return _number(value)
    return value if value is None or isinstance(value, str | int) else str(value)
