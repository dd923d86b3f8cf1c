"""What every pseudo-labeller shares: which labels there are, whom to trust, and how much."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fewshot_course._checks import UNLABELLED, check_labels, check_number


def check_classes(y: np.ndarray, classes: Any = None) -> np.ndarray:
    """Return the classes of checked labels ``y`` (-1: unknown), or say which are missing.

    Args:
        y: labels ``(n,)`` int64.
        classes: all the labels there are; those found in ``y`` if ``None``.

    Raises:
        ValueError: if every label is -1, a class has none, or there is a single class.
    """
    found = np.unique(y[y != UNLABELLED])
    if len(found) == 0:
        raise ValueError("y has no labelled example: every label is -1; give one a class at least.")
    if classes is not None:
        wanted = set(check_labels("classes", classes).tolist())
        if missing := sorted(wanted - set(found.tolist())):
            raise ValueError(f"y has no labelled example of the classes {missing}.")
        if unknown := sorted(set(found.tolist()) - wanted):
            raise ValueError(f"y has the labels {unknown}, which classes does not name.")
    if len(found) < 2:
        raise ValueError(f"y has labels of the single class {found[0]}; expected two or more.")
    return found


def class_index(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the place of each label in ``classes``, -1 where it is unknown."""
    return np.where(y == UNLABELLED, UNLABELLED, np.searchsorted(classes, y))


def warn_without_unlabelled(y: np.ndarray, stacklevel: int = 3) -> None:
    """Warn if there is nothing to put pseudo-labels on."""
    if not (y == UNLABELLED).any():
        warnings.warn(
            "y has no unlabelled example (-1): there is nothing to put pseudo-labels on.",
            UserWarning,
            stacklevel=stacklevel,
        )


def lee_weight(step: int, steps: int, start: float, end: float, weight: float) -> float:
    """Return the weight α(t) of the pseudo-labels in a step (Lee 2013, equation 16).

    It is 0 in the first part ``start`` of the steps, rises linearly, and is ``weight`` from the
    part ``end`` on.

    Args:
        step: t, counted from 0.
        steps: number of steps in all.
        start: in [0, 1].
        end: in [start, 1].
        weight: the final weight, ≥ 0.
    """
    part = step / steps
    if part < start:
        return 0.0
    if part >= end:
        return float(weight)
    return float(weight * (part - start) / (end - start))


def select_confident(
    proba: np.ndarray, threshold: float | None = None, quantile: float | None = None
) -> np.ndarray:
    """Say which predictions to take as pseudo-labels.

    Args:
        proba: class probabilities ``(n, C)``.
        threshold: take those with a confidence of at least this, in [0, 1].
        quantile: of each predicted class leave out this share, the least confident, in [0, 1);
            every class that is predicted at all keeps at least one.

    Returns:
        Boolean mask ``(n,)``.

    Raises:
        ValueError: unless exactly one of ``threshold`` and ``quantile`` is given, in its range.
    """
    if (threshold is None) == (quantile is None):
        raise ValueError(
            f"give either threshold or quantile, got threshold={threshold} and quantile={quantile}."
        )
    predicted, confidence = proba.argmax(axis=1), proba.max(axis=1)
    if threshold is not None:
        return confidence >= check_number("threshold", threshold, low=0, high=1)
    check_number("quantile", quantile, low=0, high=1)
    chosen = np.zeros(len(proba), dtype=bool)
    for c in np.unique(predicted):
        members = np.flatnonzero(predicted == c)
        kept = max(1, round(len(members) * (1 - quantile)))  # type: ignore[operator]
        chosen[members[np.argsort(-confidence[members], kind="stable")[:kept]]] = True
    return chosen
