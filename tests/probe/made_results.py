"""Results made by hand, for tests of what is written of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from raylib.probe.results import Classifier, GroupScores, ProbeResult, Scores, SplitFacts
from raylib.store.representations import Representation


def scores(auroc: float | None, rows: int = 8, positives: int = 3) -> Scores:
    interval = None if auroc is None else (auroc - 0.04, min(1.0, auroc + 0.03))
    return Scores(
        rows, positives, auroc, interval, 0.75, 0.625, 0.5, 0.5555, [[rows - positives - 1, 1], [1, positives - 1]]
    )


def probe(path: str, auroc: float | None = 0.9, classifier: Classifier = "mlp", **changed: Any) -> ProbeResult:
    """A probe of 8 test rows, 3 of them positive, told apart by category and source."""
    made: dict[str, Any] = {
        "model_name": "google/gemma-3-12b-it",
        "representation": Representation.parse(path),
        "classifier": classifier,
        "target": "is_hallucinating_manual",
        "input_dim": 3840,
        "split": SplitFacts("image", 42, 30, 4, 8, 0, 21),
        "train": scores(0.97, 30, 12),
        "validation": scores(None if auroc is None else auroc - 0.01, 4, 2),
        "test": scores(auroc),
        "by": {
            "category": [
                GroupScores("colour", 4, 2, 0.75, (0.5, 1.0)),
                GroupScores("count, or number", 4, 1, 1.0, None),
            ],
            "source": [
                GroupScores("AMBER", 5, 2, 0.8333333333333334, (0.6, 0.95)),
                GroupScores("MathVista", 3, 0, None, None, "all 3 rows have the label 0"),
            ],
        },
        "history": {} if classifier == "logistic" else {"loss": [0.7, 0.4, 0.25], "validation_auroc": [0.6, 0.8, 0.89]},
        "config": {"epochs": 3, "hidden": [512, 256, 128], "lr": 0.001, "patience": None},
        "test_ids": ["a", 'q"2"', "x,y", "line\nend", "carriage\rreturn", "Ω", "", "h"],
        "test_labels": np.array([0, 0, 1, 0, 1, 0, 0, 1], dtype=np.int8),
        "test_scores": np.array([0.1, 1 / 3, 0.9, 0.2, 0.8, 1e-12, 0.55, 0.5], dtype=np.float32),
        "seconds": 1.25,
        "notes": ["stopped after epoch 3"],
    }
    return ProbeResult(**{**made, **changed})


def many() -> list[ProbeResult]:
    """Five layers of two kinds and vision_only, by both classifiers."""
    found = []
    for classifier, less in (("mlp", 0.0), ("logistic", 0.04)):
        found.append(probe("vision_only", 0.68 - less, classifier))
        for kind, values in {
            "vision_token": (0.62, 0.7, 0.74, 0.73, 0.71),
            "query_token": (0.72, 0.81, 0.9, 0.93, 0.92),
        }.items():
            for layer, value in zip((0, 12, 24, 36, 47), values, strict=True):
                found.append(probe(f"{kind}/layer_{layer}", value - less, classifier))
    return found
