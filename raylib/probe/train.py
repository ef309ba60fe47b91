"""Training and testing one probe: one representation, one classifier, one split."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np

from raylib.errors import UserError
from raylib.probe import logistic, mlp
from raylib.probe.data import ProbeData
from raylib.probe.metrics import THRESHOLD, score_groups, score_rows
from raylib.probe.recipe import PUBLISHED, Recipe
from raylib.probe.results import CLASSIFIERS, Classifier, GroupScores, ProbeResult, SplitFacts
from raylib.probe.scaling import fit_scaling, scaled
from raylib.probe.splits import Split
from raylib.store.representations import Representation

__all__ = ["PUBLISHED", "LoadedProbe", "Recipe", "load_probe", "run_probe"]

MOST_GROUPS = 200
"""A column of more values is no breakdown."""

FEWEST_SOURCES = 10
"""Test sources for a bootstrap over sources: of fewer, most resamples hold the same ones, and the interval is too
narrow."""


def run_probe(
    x: np.ndarray,
    data: ProbeData,
    split: Split,
    facts: SplitFacts,
    representation: Representation,
    classifier: Classifier,
    recipe: Recipe,
    model_name: str,
    target: str,
    fingerprint: str = "",
) -> tuple[ProbeResult, dict[str, Any]]:
    """Train on the training rows of x, float32 [n, D] as `data.matrix` gives it, and score every set.

    Rows of NaN, which the file lacks, are left out, with a note; `facts` is then counted anew. fingerprint: of the
    model that made the states. Gives the result, and the checkpoint: what `load_probe` takes, of tensors and plain
    values only, so that torch.load needs no trust. Raises UserError where too few rows are left.
    """
    start = time.perf_counter()
    if classifier not in CLASSIFIERS:
        raise UserError(f"classifier is {classifier!r}; expected {' or '.join(CLASSIFIERS)}")
    split, facts, notes = _present(x, data, split, facts, representation)
    train, held, test = split.train, split.validation, split.test
    y = data.y
    checkpoint, history, said = _trained(x[train], y[train], x[held], y[held], classifier, recipe)
    checkpoint["config"] |= {"split": facts.kind, "split_seed": facts.seed}
    checkpoint["representation"] = representation.path
    checkpoint |= {"fingerprint": fingerprint, "model_name": model_name, "target": target}
    probe = load_probe(checkpoint)
    groups, of_groups = _bootstrap_groups(data, split)
    notes += said + of_groups

    def scores_of(rows: np.ndarray) -> tuple[np.ndarray, Any]:
        scores = probe(x[rows])
        return scores, score_rows(y[rows], scores, [groups[at] for at in rows], recipe.resamples, recipe.seed)

    test_scores, of_test = scores_of(test)
    by, said = _breakdowns(data, test, test_scores, groups, recipe)
    result = ProbeResult(
        model_name=model_name,
        representation=representation,
        classifier=classifier,
        target=target,
        input_dim=x.shape[1],
        split=facts,
        train=scores_of(train)[1],
        validation=scores_of(held)[1] if len(held) else None,
        test=of_test,
        by=by,
        history=history,
        config=checkpoint["config"],
        test_ids=[data.ids[at] for at in test],
        test_labels=y[test],
        test_scores=test_scores,
        seconds=time.perf_counter() - start,
        notes=notes + said,
    )
    return result, checkpoint


def _present(
    x: np.ndarray, data: ProbeData, split: Split, facts: SplitFacts, representation: Representation
) -> tuple[Split, SplitFacts, list[str]]:
    """Without the rows that have no vector."""
    keep = np.asarray(~np.isnan(x).all(axis=1))
    absent = int((~keep).sum())
    lacking = _one_class(data.y[keep])
    if absent and not lacking:
        split = split.only(keep, data.y)
        facts = split.facts(data.images, data.sources)
        lacking = _one_class(data.y[split.train]) or _one_class(data.y[split.test])
    if lacking:
        raise UserError(
            f"{representation.path}: of {len(x):,} rows, {absent:,} have no such vector, and the others leave rows of "
            "one label only to train on or to test with. Leave this representation out, or extract the rows again."
        )
    notes = [f"{absent:,} of {len(x):,} rows have no {representation.path} and were left out"] if absent else []
    return split, facts, notes


def _one_class(y: np.ndarray) -> bool:
    return len(np.unique(y)) < 2


def _bootstrap_groups(data: ProbeData, split: Split) -> tuple[list[str], list[str]]:
    """What is drawn together: rows of one image, of one source, or each row by itself, as the split kept them."""
    if split.kind == "random":
        return data.ids, []
    if split.kind == "source" and data.sources is not None:
        count = len({data.sources[at] for at in split.test})
        if count >= FEWEST_SOURCES:
            return data.sources, []
        plural = "source is" if count == 1 else "sources are"
        return data.images, [
            f"intervals are by image: {count} test {plural} too few to draw from, so they do not tell how much sources "
            "differ"
        ]
    return data.images, []


def _breakdowns(
    data: ProbeData, test: np.ndarray, scores: np.ndarray, groups: list[str], recipe: Recipe
) -> tuple[dict[str, list[GroupScores]], list[str]]:
    """(name of a column → its groups, notes)."""
    by: dict[str, list[GroupScores]] = {}
    notes: list[str] = []
    of_groups = [groups[at] for at in test]
    for column, values in data.columns.items():
        names = [values[at] for at in test]
        if len(set(names)) > MOST_GROUPS:
            notes.append(f"{column} has {len(set(names)):,} values among the test rows; no scores by it")
            continue
        # sources that were drawn whole say nothing within one of them: there, images are drawn
        drawn = [data.images[at] for at in test] if column == "source" and groups is data.sources else of_groups
        by[column] = score_groups(names, data.y[test], scores, drawn, recipe.resamples, recipe.seed)
    return by, notes


# Checkpoints.


def _tensor(value: np.ndarray | float) -> Any:
    import torch

    return torch.from_numpy(np.array(value))


def _trained(
    x: np.ndarray, y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray, classifier: Classifier, recipe: Recipe
) -> tuple[dict[str, Any], Mapping[str, list[float]], list[str]]:
    """(checkpoint with the names of the old scripts' files and more, history, notes)."""
    mean, deviation = fit_scaling(x) if recipe.standardise or classifier == "logistic" else (None, None)
    inputs = scaled(x, mean, deviation)
    history: Mapping[str, list[float]] = {}
    notes: list[str] = []
    if classifier == "mlp":
        trained = mlp.train_mlp(inputs, y, scaled(held_x, mean, deviation), held_y, recipe)
        state, history = trained.state, trained.history
    else:
        coef, intercept, notes = logistic.train_logistic(inputs, y, recipe)
        state = {"coef": _tensor(coef), "intercept": _tensor(intercept)}
    checkpoint = {
        "model_state_dict": state,
        "config": {**asdict(recipe), "hidden": list(recipe.hidden)},
        "input_dim": x.shape[1],
        "timestamp": datetime.now().strftime("%Y%m%d_%H%M%S"),
        "mean": None if mean is None else _tensor(mean),
        "std": None if deviation is None else _tensor(deviation),
        "classifier": classifier,
        "threshold": THRESHOLD,
    }
    return checkpoint, history, notes


class LoadedProbe:
    """Scores rows as a stored probe does. classifier, input_dim, threshold: its own. representation, fingerprint: ""
    where the checkpoint, of the old scripts, does not tell."""

    def __init__(self, checkpoint: Mapping[str, Any], path: str = "the checkpoint") -> None:
        """See `load_probe`."""
        if "model_state_dict" not in checkpoint:  # some old scripts stored the weights and nothing else
            checkpoint = {"model_state_dict": checkpoint}
        state: Mapping[str, Any] = checkpoint["model_state_dict"]
        self.path = path
        self.classifier: str = checkpoint.get("classifier", "mlp")
        self.representation: str = checkpoint.get("representation", "")
        self.fingerprint: str = checkpoint.get("fingerprint", "")
        self.threshold = float(checkpoint.get("threshold", THRESHOLD))
        self._mean, self._deviation = (_array(checkpoint.get(name)) for name in ("mean", "std"))
        if self.classifier == "logistic":
            if not {"coef", "intercept"} <= set(state):
                raise UserError(f"{path} is of a logistic probe, but holds no coef and intercept; train it again")
            self._coef, self._intercept = _array(state["coef"]), float(state["intercept"])
            self.input_dim = len(state["coef"])
        elif self.classifier == "mlp":
            self._layers = mlp.restore(state, path)
            self.input_dim = mlp.width(self._layers)
        else:
            raise UserError(f"{path} is of a {self.classifier!r} probe; this raylib knows {' and '.join(CLASSIFIERS)}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float64 [n] between 0 and 1, of x float32 [n, D]; NaN for a row with NaN. Raises UserError for another D."""
        if x.ndim != 2 or x.shape[1] != self.input_dim:
            raise UserError(
                f"the vectors are {x.shape}; the probe of {self.path} takes [n, {self.input_dim}]. It was trained on "
                f"{self.representation or 'another representation'}, maybe of another model."
            )
        if len(x) == 0:
            return np.empty(0)
        inputs = scaled(x, self._mean, self._deviation)
        if self.classifier == "logistic":
            assert self._coef is not None
            return logistic.score(self._coef, self._intercept, inputs)
        return mlp.score(self._layers, inputs)


def _array(value: Any) -> np.ndarray | None:
    return None if value is None else np.asarray(value)


def load_probe(checkpoint: Mapping[str, Any], path: str = "the checkpoint") -> LoadedProbe:
    """A function of rows: float32 [n, D] → scores float64 [n] between 0 and 1.

    Takes what `run_probe` gave, what torch.load gives of a probe_model.pt of raylib or of the old scripts in either of
    their layouts, and bare weights. Raises UserError, naming `path`, for anything else.
    """
    return LoadedProbe(checkpoint, path)
