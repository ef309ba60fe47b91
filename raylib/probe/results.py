"""What training and testing one probe gave: what is written, drawn, compared and applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from raylib.store.representations import Representation

Classifier = Literal["mlp", "logistic"]
SplitKind = Literal["image", "source", "random"]
CLASSIFIERS: tuple[Classifier, ...] = ("mlp", "logistic")


@dataclass(frozen=True)
class Scores:
    """Of one set of rows. auroc: None where all rows are of one class; interval: 95 %, by bootstrap over groups; at the
    threshold 0.5 the others, confusion as [[true 0, false 1], [false 0, true 1]]."""

    rows: int
    positives: int
    auroc: float | None
    interval: tuple[float, float] | None
    accuracy: float
    precision: float
    recall: float
    f1: float
    confusion: list[list[int]]


@dataclass(frozen=True)
class GroupScores:
    """Of the test rows of one category or source. auroc, interval: None where `why` says why there is none."""

    name: str
    rows: int
    positives: int
    auroc: float | None
    interval: tuple[float, float] | None
    why: str = ""


@dataclass(frozen=True)
class SplitFacts:
    """How rows were divided. shared_images: test rows whose image a training row has, the leak of a random split."""

    kind: SplitKind
    seed: int
    train_rows: int
    validation_rows: int
    test_rows: int
    shared_images: int
    groups: int


@dataclass(frozen=True)
class ProbeResult:
    """validation: None where nothing was held out. by: name of a column ("category", "source", …) → its groups.
    history: "loss", "validation_loss", "validation_auroc", … → a number an epoch; {} for logistic. test_*: of the test
    rows, in one order: ids, labels 0 or 1, scores between 0 and 1."""

    model_name: str
    representation: Representation
    classifier: Classifier
    target: str
    input_dim: int
    split: SplitFacts
    train: Scores
    validation: Scores | None
    test: Scores
    by: Mapping[str, list[GroupScores]]
    history: Mapping[str, list[float]]
    config: Mapping[str, Any]
    test_ids: list[str]
    test_labels: np.ndarray
    test_scores: np.ndarray
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return probe_name(self.representation, self.classifier)

    @property
    def title(self) -> str:
        """For a person: e.g. query token, layer 24 (logistic)."""
        kind = self.representation.kind.replace("_", " ")
        layer = "" if self.representation.layer is None else f", layer {self.representation.layer}"
        return kind + layer + ("" if self.classifier == "mlp" else f" ({self.classifier})")


def probe_name(representation: Representation, classifier: Classifier) -> str:
    """Of a probe's folder: vision_only, query_token_layer24, and logistic_query_token_layer24 for the baseline."""
    path = representation.path.replace("/layer_", "_layer")
    return path if classifier == "mlp" else f"{classifier}_{path}"
