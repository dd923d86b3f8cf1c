"""Self-training (Lee 2013), and what every pseudo-labeller shares: whom to trust, and how much."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import (
    UNLABELLED,
    check_choice,
    check_features,
    check_labels,
    check_number,
)
from fewshot_course._streams import Streams
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.training import Progress, Run


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
        sure: np.ndarray = confidence >= check_number("threshold", threshold, low=0, high=1)
        return sure
    check_number("quantile", quantile, low=0, high=1)
    chosen = np.zeros(len(proba), dtype=bool)
    for c in np.unique(predicted):
        members = np.flatnonzero(predicted == c)
        kept = max(1, round(len(members) * (1 - quantile)))  # type: ignore[operator]
        chosen[members[np.argsort(-confidence[members], kind="stable")[:kept]]] = True
    return chosen


class SelfTraining(CourseClassifier):
    """A network trained on its own pseudo-labels too (Lee 2013).

    The loss of a step is CE(labelled batch) + α(t) · CE(unlabelled batch, its own classes);
    α(t) is ``lee_weight``.  Lee's network also had dropout, the named networks have none.

    Args:
        network: "mlp", "conv4", a zero-argument factory, or ``None`` (by the shape of X).
        weight: final weight of the pseudo-labels, ≥ 0; 0 trains on the labels alone.
        ramp_start: part of the steps before which α is 0, in [0, 1].
        ramp_end: part of the steps from which α is ``weight``, in [ramp_start, 1].
        threshold: confidence below which a pseudo-label is not used, in [0, 1]; 0 takes all, as
            Lee does.
        steps: number of updates.
        batch_size: labelled examples in a step.
        unlabelled_batch_size: unlabelled examples in a step.
        lr: Adam's learning rate.
        dtype: "float32" or "float64".
        random_state: seed; the same seed gives the same run in both frameworks.

    Attributes:
        network_: the trained network.
        classes_: labels, ``(C,)`` int64.
        input_shape_: shape of one example.
        pseudo_labels_: class of each example given to ``fit``, ``(n,)``; known labels as given.
        confidence_: probability of that class, ``(n,)`` in [0, 1]; 1 where the label is known.
        history_: name → array ``(steps,)``: "loss", "pseudo_loss", "coverage" (share of the
            unlabelled batch that is above the threshold; 0 where the weight is 0).
    """

    _arrays = ("classes_", "pseudo_labels_", "confidence_")

    def __init__(
        self,
        network: str | Callable[[], Any] | None = None,
        weight: float = 3.0,
        ramp_start: float = 0.1,
        ramp_end: float = 0.6,
        threshold: float = 0.0,
        steps: int = 1000,
        batch_size: int = 32,
        unlabelled_batch_size: int = 256,
        lr: float = 1e-3,
        dtype: str = "float32",
        random_state: int | None = None,
    ) -> None:
        self.network = network
        self.weight = weight
        self.ramp_start = ramp_start
        self.ramp_end = ramp_end
        self.threshold = threshold
        self.steps = steps
        self.batch_size = batch_size
        self.unlabelled_batch_size = unlabelled_batch_size
        self.lr = lr
        self.dtype = dtype
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        classes: Any = None,
        device: str = "auto",
        progress: Progress = False,
        log_dir: str | os.PathLike[str] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Train on labelled and unlabelled examples together.

        Args:
            X: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1].
            y: labels ≥ 0, and -1 where unknown, ``(n,)``.
            sample_weight: weight of each labelled example's loss, ``(n,)`` ≥ 0; ``None``: 1.
            classes: all the labels there are; the classes found in ``y`` if not given.
            device: "auto", "cpu", "cuda", ...
            progress: whether to show a progress bar, or a function that is told of each update:
                it gets how many are done, and name → value of the last one's losses.
            log_dir: folder for TensorBoard.
            checkpoint_dir: folder for checkpoints; a ``fit`` that was interrupted resumes.

        Returns:
            The estimator itself.

        Raises:
            ValueError: for NaN, no labelled example at all or of a class, a single class, arrays
                that do not fit together, or a hyper-parameter out of range.
        """
        self._check_parameters()
        X = check_features("X", X)
        y = check_labels("y", y, n=len(X), allow_unlabelled=True)
        self.classes_ = check_classes(y, classes)
        if self.weight:
            warn_without_unlabelled(y)
        weights = _check_weights(sample_weight, len(X))
        self.input_shape_ = tuple(X.shape[1:])
        labels = class_index(y, self.classes_)
        streams = Streams.from_seed(self.random_state)
        run = Run(self._resolve(device), progress, log_dir, checkpoint_dir)
        self._device = run.device
        self._build(streams.init, run.device)
        self.history_ = self._learn(X, labels, weights, streams, run)
        known = labels != UNLABELLED
        proba = self.predict_proba(X)
        self.pseudo_labels_ = np.where(known, y, self.classes_[proba.argmax(axis=1)])
        self.confidence_ = np.where(known, 1.0, proba.max(axis=1)).astype(np.float64)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return class probabilities ``(n, C)``, in the order of ``classes_``."""
        check_is_fitted(self)
        proba: np.ndarray = self._apply(check_features("X", X, like=self.input_shape_))
        return proba

    def _alpha(self, step: int) -> float:
        return lee_weight(step, self.steps, self.ramp_start, self.ramp_end, self.weight)

    def _check_parameters(self) -> None:
        check_number("weight", self.weight, low=0)
        check_number("ramp_start", self.ramp_start, low=0, high=1)
        check_number("ramp_end", self.ramp_end, low=self.ramp_start, high=1)
        check_number("threshold", self.threshold, low=0, high=1)
        check_number("steps", self.steps, low=1, integer=True)
        check_number("batch_size", self.batch_size, low=1, integer=True)
        check_number("unlabelled_batch_size", self.unlabelled_batch_size, low=1, integer=True)
        check_number("lr", self.lr, low=0, low_open=True)
        check_choice("dtype", self.dtype, ["float32", "float64"])


def _check_weights(sample_weight: Any, n: int) -> np.ndarray:
    if sample_weight is None:
        return np.ones(n)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            f"sample_weight must hold {n} finite numbers >= 0, got shape {weights.shape}."
        )
    return weights
