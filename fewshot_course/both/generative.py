"""What the generative pseudo-labellers share, whatever their framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fewshot_course._checks import (
    UNLABELLED,
    check_choice,
    check_features,
    check_labels,
    check_number,
)
from fewshot_course.both.estimator import CourseClassifier
from fewshot_course.both.pseudo_labels import check_classes, class_index, warn_without_unlabelled


class GenerativeLabeler(CourseClassifier):
    """A classifier that learns from unlabelled examples and can make new ones.

    A subclass gives ``_check_parameters`` and ``predict_proba``.
    """

    _check_parameters: Callable[[], None]
    _apply: Callable[..., np.ndarray]
    input_shape_: tuple[int, ...]
    pseudo_labels_: np.ndarray
    confidence_: np.ndarray

    def _prepare(self, X: Any, y: Any, classes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Check what came; return flat examples ``(n, d)``, labels, and places in classes_."""
        self._check_parameters()
        X = check_features("X", X)
        y = check_labels("y", y, n=len(X), allow_unlabelled=True)
        self.classes_ = check_classes(y, classes)
        warn_without_unlabelled(y, stacklevel=4)
        self.input_shape_ = tuple(X.shape[1:])
        return X.reshape(len(X), -1), y, class_index(y, self.classes_)

    def _note_pseudo_labels(self, X: Any, y: np.ndarray) -> None:
        """Set ``pseudo_labels_`` and ``confidence_``; known labels stay as given."""
        known, proba = y != UNLABELLED, self.predict_proba(X)
        self.pseudo_labels_ = np.where(known, y, self.classes_[proba.argmax(axis=1)])
        self.confidence_ = np.where(known, 1.0, proba.max(axis=1)).astype(np.float64)

    def _wanted_classes(self, n: int, y: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the place in ``classes_`` of each of ``n`` samples: ``y``, or equally many."""
        check_number("n", n, low=1, integer=True)
        if y is None:
            return rng.permutation(np.arange(n) % len(self.classes_))
        labels = np.broadcast_to(np.asarray(y), (n,)) if np.ndim(y) == 0 else np.asarray(y)
        labels = check_labels("y", labels, n=n)
        if unknown := sorted(set(labels.tolist()) - set(self.classes_.tolist())):
            raise ValueError(f"y has the classes {unknown}; known are {self.classes_.tolist()}.")
        return np.searchsorted(self.classes_, labels)


def check_widths(name: str, widths: Any) -> tuple[int, ...]:
    """Return the widths of hidden layers, one at least, each at least 1."""
    if not isinstance(widths, Sequence) or isinstance(widths, str) or not widths:
        raise TypeError(f"{name} must be a tuple of widths such as (500, 250), got {widths!r}.")
    for width in widths:
        check_number(f"{name} (a width)", width, low=1, integer=True)
    return tuple(int(width) for width in widths)


def check_training(estimator: Any) -> None:
    """Check the hyper-parameters that every estimator with labelled and unlabelled batches has."""
    check_number("latent_dim", estimator.latent_dim, low=1, integer=True)
    check_number("steps", estimator.steps, low=1, integer=True)
    check_number("batch_size", estimator.batch_size, low=1, integer=True)
    check_number("unlabelled_batch_size", estimator.unlabelled_batch_size, low=2, integer=True)
    check_number("lr", estimator.lr, low=0, low_open=True)
    check_choice("dtype", estimator.dtype, ["float32", "float64"])


def check_unit_interval(X: np.ndarray, decoder: str) -> None:
    """Raise if a Bernoulli decoder is to explain values that are no probabilities."""
    if decoder == "bernoulli" and (X.min() < 0 or X.max() > 1):
        raise ValueError(
            f"decoder='bernoulli' needs values in [0, 1], X holds [{X.min():g}, {X.max():g}]; "
            f"rescale X, or use decoder='gaussian'."
        )


def one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return ``(n, n_classes)`` float64 with a 1 at each label's place."""
    ones: np.ndarray = np.eye(n_classes)[labels]
    return ones


def final_decay(step: int, steps: int, part: float) -> float:
    """Stay at 1, then fall linearly towards 0 over the last ``part`` of the steps."""
    falling = part * steps
    return min(1.0, (steps - step) / falling) if falling else 1.0
