"""The three steps of learning from pseudo-labels, around any classifier.

1. *Initial model*: fit the classifier on the labelled examples.
2. *Pseudo-labels*: a labeller predicts the unlabelled ones; keep those it is confident about.
3. *Joint training*: fit the classifier anew on labels and pseudo-labels, the latter with a weight.

Then evaluate, and go back to step 2.  NumPy and scikit-learn's conventions only: the classifier
may be scikit-learn's, PyTorch's or TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from fewshot_course._checks import UNLABELLED, check_features, check_labels, check_number
from fewshot_course.both.pseudo_labels import (
    check_classes,
    select_confident,
    warn_without_unlabelled,
)
from fewshot_course.evaluation import accuracy
from fewshot_course.evaluation.calibration import (
    confidence_and_correct,
    expected_calibration_error,
)

__all__ = ["LoopResult", "Round", "pseudo_label_loop", "select_confident"]


@dataclass(frozen=True)
class Round:
    """What one round did.  A value that cannot be known is NaN.

    Attributes:
        number: 0 for the initial model, which has no pseudo-labels.
        weight: weight of a pseudo-label in the joint training.
        n_pseudo: pseudo-labels that were used.
        coverage: their share of the unlabelled examples, in [0, 1].
        pseudo_accuracy: share of them that is right, in [0, 1]; needs ``y_true``.
        accuracy: of this round's classifier on the evaluation examples, in [0, 1].
        calibration_error: its expected calibration error there (10 bins), in [0, 1].
        class_counts: pseudo-labels of each class, ``(C,)``.
    """

    number: int
    weight: float
    n_pseudo: int
    coverage: float
    pseudo_accuracy: float
    accuracy: float
    calibration_error: float
    class_counts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LoopResult:
    """What :func:`pseudo_label_loop` returns.

    Attributes:
        classifier: of the last round, fitted.
        initial: the classifier of round 0.
        classes: labels, ``(C,)``.
        pseudo_labels: of the last round, ``(n,)``; known labels as given, -1 where none was used.
        confidence: of the labeller in the last round, ``(n,)``; 1 where the label is known.
        history: one entry a round, the initial model first.
    """

    classifier: Any
    initial: Any
    classes: np.ndarray
    pseudo_labels: np.ndarray
    confidence: np.ndarray
    history: tuple[Round, ...]


def pseudo_label_loop(
    classifier: Any,
    X: Any,
    y: Any,
    *,
    labeller: Any = None,
    rounds: int = 3,
    threshold: float | None = 0.9,
    quantile: float | None = None,
    weight: float | Sequence[float] | Callable[[int], float] = 1.0,
    X_eval: Any = None,
    y_eval: Any = None,
    y_true: Any = None,
    classes: Any = None,
    fit_params: Mapping[str, Any] | None = None,
) -> LoopResult:
    """Train a classifier on labels and pseudo-labels, in rounds.

    Args:
        classifier: any unfitted classifier with ``fit`` and ``predict_proba``; each round fits a
            fresh clone, so that a round's errors are not carried on in its weights.
        X: features of all examples, labelled and not, ``(n, ...)``.
        y: labels ≥ 0, and -1 where unknown, ``(n,)``.
        labeller: who makes the pseudo-labels.  ``None``: the classifier of the round before
            (self-training).  Else an unfitted semi-supervised classifier (GMMPseudoLabeler,
            sklearn's LabelSpreading): it is fitted once, on ``X`` with the -1 in ``y``.
        rounds: rounds after the initial model, ≥ 1.
        threshold: smallest confidence of a pseudo-label, in [0, 1].
        quantile: instead (then ``threshold=None``): share of each predicted class that is left
            out, see :func:`select_confident`.  It keeps easy classes from crowding out hard ones.
        weight: what a pseudo-label counts against a label: a number ≥ 0, one for each round, or
            a function of the round's number 1, 2, …  Other than 1 it needs a ``fit`` that takes
            ``sample_weight``.
        X_eval: evaluation examples; they are only scored.
        y_eval: their labels.
        y_true: true labels of ``X`` ``(n,)``, -1 where unknown.  They measure the pseudo-labels
            and are used for nothing else.
        classes: all the labels there are; the classes found in ``y`` if not given.
        fit_params: further keywords of each ``fit``, such as ``{"device": "cuda"}``; of the
            labeller's too, as far as it takes them.

    Returns:
        The classifier and the history.

    Raises:
        TypeError: if the classifier or labeller lacks a method, cannot weigh examples, or the
            classifier does not take ``fit_params``.
        ValueError: for NaN, no labelled example of a class, arrays that do not fit together, or a
            setting out of range.
    """
    for name, estimator in (("classifier", classifier), ("labeller", labeller)):
        if estimator is not None and not hasattr(estimator, "predict_proba"):
            raise TypeError(
                f"{name} must have fit and predict_proba, got {type(estimator).__name__}."
            )
    X = check_features("X", X)
    y = check_labels("y", y, n=len(X), allow_unlabelled=True)
    found = check_classes(y, classes)
    warn_without_unlabelled(y)
    check_number("rounds", rounds, low=1, integer=True)
    weights = _weights(weight, rounds)
    select_confident(np.ones((1, 2)) / 2, threshold, quantile)  # bad settings fail before training
    truth = check_labels(
        "y_true", np.full(len(X), -1) if y_true is None else y_true, n=len(X),
        allow_unlabelled=True,
    )  # fmt: skip
    test = _Evaluation(X_eval, y_eval, X, found)

    known = y != UNLABELLED
    options = dict(fit_params or {})
    model = clone(classifier).fit(X[known], y[known], **options)
    initial = model
    history = [Round(0, 0.0, 0, 0.0, np.nan, *test.score(model), (0,) * len(found))]
    proba = None
    if labeller is not None:
        own = {k: v for k, v in options.items() if has_fit_parameter(labeller, k)}
        proba = _proba(clone(labeller).fit(X, y, **own), X[~known], found)
    adopted, confidence = y.copy(), np.where(known, 1.0, np.nan)
    for number in range(1, rounds + 1):
        guess = proba if proba is not None else _proba(model, X[~known], found)
        chosen = select_confident(guess, threshold, quantile)
        pseudo = np.where(chosen, found[guess.argmax(axis=1)], UNLABELLED)
        adopted[~known], confidence[~known] = pseudo, guess.max(axis=1)
        model = _joint_training(classifier, X, adopted, known, weights[number - 1], options)
        history.append(
            Round(
                number=number,
                weight=weights[number - 1],
                n_pseudo=int(chosen.sum()),
                coverage=float(chosen.mean()) if len(chosen) else 0.0,
                pseudo_accuracy=_share_right(truth[~known][chosen], pseudo[chosen]),
                **dict(zip(("accuracy", "calibration_error"), test.score(model), strict=True)),
                class_counts=tuple(int((pseudo == c).sum()) for c in found),
            )
        )
    return LoopResult(model, initial, found, adopted, confidence, tuple(history))


def _joint_training(
    classifier: Any, X: np.ndarray, y: np.ndarray, known: np.ndarray, weight: float,
    options: Mapping[str, Any],
) -> Any:  # fmt: skip
    used = y != UNLABELLED
    model = clone(classifier)
    if weight == 1.0:
        return model.fit(X[used], y[used], **options)
    if not has_fit_parameter(model, "sample_weight"):
        raise TypeError(
            f"weight={weight:g} needs a classifier whose fit takes sample_weight; that of "
            f"{type(model).__name__} does not. Use weight=1 or another classifier."
        )
    counted = np.where(known[used], 1.0, weight)
    return model.fit(X[used], y[used], sample_weight=counted, **options)


def _proba(model: Any, X: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the probabilities in the order of ``classes``."""
    if len(X) == 0:
        return np.zeros((0, len(classes)))
    if not np.array_equal(model.classes_, classes):
        raise ValueError(
            f"{type(model).__name__} knows the classes {np.asarray(model.classes_).tolist()}, "
            f"expected {classes.tolist()}."
        )
    return np.asarray(model.predict_proba(X), dtype=np.float64)


def _share_right(truth: np.ndarray, pseudo: np.ndarray) -> float:
    return accuracy(truth, pseudo) if (truth != UNLABELLED).any() else float("nan")


def _weights(weight: float | Sequence[float] | Callable[[int], float], rounds: int) -> list[float]:
    if callable(weight):
        values = [weight(number) for number in range(1, rounds + 1)]
    elif isinstance(weight, Sequence):
        values = list(weight)
    else:
        values = [weight] * rounds
    if len(values) != rounds:
        raise ValueError(f"weight has {len(values)} values for rounds={rounds}.")
    return [float(check_number("weight", value, low=0)) for value in values]


class _Evaluation:
    """Scores a model on the evaluation examples, if there are any."""

    def __init__(self, X: Any, y: Any, like: np.ndarray, classes: np.ndarray) -> None:
        if (X is None) != (y is None):
            raise ValueError("give X_eval and y_eval together, or neither.")
        self.X = None if X is None else check_features("X_eval", X, like=like.shape[1:])
        self.classes = classes
        if self.X is not None:
            self.y = check_labels("y_eval", y, n=len(self.X))
            if unknown := sorted(set(self.y.tolist()) - set(classes.tolist())):
                raise ValueError(f"y_eval has the labels {unknown}, which y does not have.")

    def score(self, model: Any) -> tuple[float, float]:
        """Return accuracy and expected calibration error."""
        if self.X is None:
            return float("nan"), float("nan")
        proba = _proba(model, self.X, self.classes)
        confidence, correct = confidence_and_correct(np.searchsorted(self.classes, self.y), proba)
        return float(correct.mean()), expected_calibration_error(confidence, correct)
