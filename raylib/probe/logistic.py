"""The baseline: logistic regression, which tells whether a straight line suffices."""

from __future__ import annotations

import warnings

import numpy as np

from raylib.probe.recipe import Recipe

MAX_ITERATIONS = 1000


def train_logistic(x: np.ndarray, y: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, float, list[str]]:
    """(coef float64 [D], intercept, notes) by scikit-learn: L2 penalty with C = 1, lbfgs. x: standardised,
    float32 [n, D]."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weight = "balanced" if recipe.class_weight else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LogisticRegression(max_iter=MAX_ITERATIONS, class_weight=weight).fit(x, y)
    notes = []
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            notes.append(f"the logistic regression did not converge within {MAX_ITERATIONS} iterations")
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0]), notes


def score(coef: np.ndarray, intercept: float, x: np.ndarray) -> np.ndarray:
    """float64 [n] between 0 and 1, of standardised rows [n, D]."""
    from scipy.special import expit

    return expit(np.asarray(x, np.float64) @ np.asarray(coef, np.float64) + intercept)
