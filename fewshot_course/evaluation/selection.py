"""Choosing the weights of an adaptation method when the target has no labels.

Accuracy on the target cannot be had, so something else must stand in for it.  None of these is
safe: look at more than one, and say which one chose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone

from fewshot_course._arguments import POSITIVE, checked
from fewshot_course._checks import check_features, check_labels, check_number
from fewshot_course.evaluation.scores import accuracy

__all__ = [
    "mean_entropy",
    "mutual_information",
    "reverse_validation_score",
    "soft_neighbourhood_density",
    "source_validation_score",
]


@checked
def mean_entropy(proba: Any) -> float:
    """Mean entropy of predicted class probabilities, -Σ_k p_k log p_k, in nats.

    Low on the target where the classifier is sure of itself.  It may be surely wrong: a method
    that collapses onto one class has entropy 0.

    Args:
        proba: ``(n, k)``, each row ≥ 0 with sum 1.

    Returns:
        In [0, log k].

    Raises:
        TypeError: for an array that is not numeric.
        ValueError: for another shape, or rows that are no probabilities.
    """
    return float(_entropies(_check_proba(proba)).mean())


@checked
def mutual_information(proba: Any) -> float:
    """Mutual information of example and predicted class, H(mean p) - mean H(p), in nats.

    High where the classifier is sure of each example *and* uses all classes (Bridle et al. 1991;
    "InfoMax", Shi & Sha 2012): unlike :func:`mean_entropy` it is not deceived by a collapse onto
    one class.  It prefers classes of equal shares, and a sure mistake stays unseen.

    Args:
        proba: ``(n, k)``, each row ≥ 0 with sum 1.

    Returns:
        In [0, log k].

    Raises:
        TypeError: for an array that is not numeric.
        ValueError: for another shape, or rows that are no probabilities.
    """
    p = _check_proba(proba)
    return float(max(_entropies(p.mean(axis=0, keepdims=True))[0] - _entropies(p).mean(), 0.0))


@checked(temperature=POSITIVE)
def soft_neighbourhood_density(proba: Any, temperature: float = 0.05) -> float:
    """How many others each example has close by: mean entropy of its similarities, in nats.

    The rows of ``proba``, scaled to length 1, are compared by their inner products; a softmax over
    the *others*, divided by the temperature, makes each example's similarities a distribution, and
    its entropy is high where many others are equally near (Saito et al. 2021, eq. 1 and 2).  High
    is taken for good: classes that lie in dense clumps.  All in one clump is the densest of all,
    so a collapse onto one class has the largest value, log(n - 1).

    Args:
        proba: predicted probabilities ``(n, k)``, n ≥ 2, each row ≥ 0 with sum 1.
        temperature: > 0; the paper's is 0.05.

    Returns:
        In [0, log(n - 1)].

    Raises:
        TypeError: for an array that is not numeric.
        ValueError: for another shape, rows that are no probabilities, or a single row.
    """
    p = _check_proba(proba)
    if len(p) < 2:
        raise ValueError("proba has one row, which has no neighbours; give at least two.")
    rows = p / np.linalg.norm(p, axis=1, keepdims=True)
    logits = rows @ rows.T / temperature
    np.fill_diagonal(logits, -np.inf)  # an example is no neighbour of itself
    near = np.exp(logits - logits.max(axis=1, keepdims=True))
    return float(_entropies(near / near.sum(axis=1, keepdims=True)).mean())


def _check_proba(proba: Any) -> np.ndarray:
    array = check_features("proba", proba)
    if array.ndim != 2:
        raise ValueError(f"proba must have shape (n, k), got {array.shape}.")
    p = array.astype(np.float64)
    sums = p.sum(axis=1)
    if p.min() < 0 or np.abs(sums - 1).max() > 1e-3:
        raise ValueError(
            f"proba must hold probabilities: rows ≥ 0 with sum 1, got a least value of "
            f"{p.min():g} and sums in [{sums.min():g}, {sums.max():g}]."
        )
    return p


def _entropies(p: np.ndarray) -> np.ndarray:
    """Entropy of each row; 0 log 0 = 0."""
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.abs(p * logs).sum(axis=1)


@checked
def source_validation_score(
    make_estimator: Any,
    X_source: Any,
    y_source: Any,
    X_target: Any,
    rng: np.random.Generator,
    held_out: float = 0.2,
) -> float:
    """Accuracy on held-out source examples, after adapting to the unlabelled target.

    It finds a weight that is so strong that the classifier breaks.  It cannot find one that is
    too weak: source-only training mostly scores best.

    Args:
        make_estimator: an estimator that :func:`sklearn.base.clone` can copy, or a zero-argument
            factory of one; it needs ``fit(X_source, y_source, X_target)`` and ``predict``.
        X_source: ``(n, ...)``.
        y_source: labels ≥ 0, ``(n,)``.
        X_target: ``(m, ...)``.
        rng: draws the held-out part.
        held_out: part of each class that is held out, in (0, 1]; one of each class stays.

    Returns:
        The accuracy, in [0, 1].

    Raises:
        TypeError: if ``make_estimator`` is neither an estimator nor a factory.
        ValueError: for data that do not fit together, or classes of one example only.
    """
    X, y, target = _check_data(X_source, y_source, X_target)
    fitted, validation = _hold_out(y, held_out, rng)
    estimator = _fresh(make_estimator).fit(X[fitted], y[fitted], target)
    return accuracy(y[validation], estimator.predict(X[validation]))


@checked
def reverse_validation_score(
    make_estimator: Any,
    X_source: Any,
    y_source: Any,
    X_target: Any,
    rng: np.random.Generator,
    held_out: float = 0.2,
) -> float:
    """Accuracy of the way there and back: source → target → source.

    1. Adapt from the labelled source to the target, and label the target by the prediction.
    2. Adapt with the same settings from the target with these labels to the source without any.
    3. Score the second classifier on source examples that neither step has seen.

    Labels that make no sense on the target do not lead back (Zhong et al. 2010; used for a
    domain-adversarial network by Ganin et al. 2016).  But a consistent mistake, say two classes
    swapped, may be undone on the way back and stay unseen.

    Args:
        make_estimator: an estimator that :func:`sklearn.base.clone` can copy, or a zero-argument
            factory of one; it needs ``fit(X_source, y_source, X_target)`` and ``predict``.
        X_source: ``(n, ...)``.
        y_source: labels ≥ 0, ``(n,)``.
        X_target: ``(m, ...)``.
        rng: draws the held-out part.
        held_out: part of each class that is held out, in (0, 1]; one of each class stays.

    Returns:
        The accuracy, in [0, 1].  Where all of the target got one label, there is nothing to train
        on: the score is that of a classifier that always gives that label.

    Raises:
        TypeError: if ``make_estimator`` is neither an estimator nor a factory.
        ValueError: for data that do not fit together, or classes of one example only.
    """
    X, y, target = _check_data(X_source, y_source, X_target)
    fitted, validation = _hold_out(y, held_out, rng)
    pseudo = _fresh(make_estimator).fit(X[fitted], y[fitted], target).predict(target)
    if len(np.unique(pseudo)) == 1:
        return float(np.mean(y[validation] == pseudo[0]))
    back = _fresh(make_estimator).fit(target, pseudo, X[fitted])
    return accuracy(y[validation], back.predict(X[validation]))


def _fresh(make_estimator: Any | Callable[[], Any]) -> Any:
    """Return a new, unfitted estimator."""
    if hasattr(make_estimator, "get_params") and not isinstance(make_estimator, type):
        return clone(make_estimator)
    if not callable(make_estimator):
        raise TypeError(
            f"make_estimator must be an estimator or a zero-argument factory of one, got "
            f"{make_estimator!r} of type {type(make_estimator).__name__}."
        )
    return make_estimator()


def _check_data(X_source: Any, y_source: Any, X_target: Any) -> tuple[np.ndarray, ...]:
    X = check_features("X_source", X_source)
    y = check_labels("y_source", y_source, n=len(X))
    return X, y, check_features("X_target", X_target, like=X.shape[1:])


def _hold_out(
    y: np.ndarray, held_out: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Split positions class by class into those to fit on and those held out."""
    check_number("held_out", held_out, low=0, high=1, low_open=True)
    fitted, validation = [], []
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        n = min(max(1, round(held_out * len(members))), len(members) - 1)
        validation.append(members[:n])
        fitted.append(members[n:])
    if not sum(map(len, validation)):
        raise ValueError("y_source has one example a class: none can be held out.")
    return np.sort(np.concatenate(fitted)), np.sort(np.concatenate(validation))
