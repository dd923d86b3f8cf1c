"""How generated examples are judged: which classes, how near to real ones, how varied.

A generator can collapse: its samples look right one by one, but they are few, or of few classes.
None of these numbers needs a network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from fewshot_course._arguments import NOT_NEGATIVE, checked
from fewshot_course._checks import check_features, check_labels, check_number

__all__ = ["active_units", "class_histogram", "coverage", "nearest_distances", "variety"]


@checked
def class_histogram(labels: Any, classes: Any) -> np.ndarray:
    """Return the share of each class among labels of samples, ``(k,)``, adding up to 1.

    Args:
        labels: what a classifier takes each sample for, ``(n,)``.
        classes: all the labels there are, ``(k,)``.

    Raises:
        ValueError: for a label that is no class, or no labels.
    """
    labels, classes = check_labels("labels", labels), check_labels("classes", classes)
    if unknown := sorted(set(labels.tolist()) - set(classes.tolist())):
        raise ValueError(f"labels has {unknown}, which classes does not name.")
    if len(labels) == 0:
        raise ValueError("labels is empty.")
    return (labels[:, None] == classes).mean(axis=0)


@checked
def nearest_distances(samples: Any, X: Any) -> np.ndarray:
    """Return each sample's Euclidean distance to the nearest real example, ``(n,)``.

    0 means a copy.  Compare with the same distances of real examples that were held out: samples
    that are nearer have been learned by heart, samples that are farther look like no example.

    Args:
        samples: ``(n, ...)``.
        X: real examples ``(m, ...)``.
    """
    samples, real = _pair(samples, X)
    return _distances(samples, real, 1)[:, 0]


@checked
def coverage(samples: Any, X: Any, neighbours: int = 5) -> float:
    """Return the share of real examples that have a sample near by (Naeem et al. 2020, eq. 9).

    Near means: not farther than the real example's own ``neighbours``-th nearest real example.
    As many held-out real examples as samples show what can be reached.

    Args:
        samples: ``(n, ...)``.
        X: real examples ``(m, ...)``, m > neighbours.
        neighbours: ≥ 1.

    Returns:
        In [0, 1].

    Raises:
        ValueError: for too few real examples.
    """
    samples, real = _pair(samples, X)
    check_number("neighbours", neighbours, low=1, high=len(real) - 1, integer=True)
    radius = _distances(real, real, neighbours + 1)[:, -1]  # the nearest one is the example itself
    return float((_distances(real, samples, 1)[:, 0] <= radius).mean())


@checked
def variety(samples: Any, X: Any) -> float:
    """Return the mean squared distance between samples over that between real examples.

    1 where samples differ as much as real examples do, 0 where all are one.

    Args:
        samples: ``(n, ...)``.
        X: real examples ``(m, ...)``, not all equal.
    """
    samples, real = _pair(samples, X)
    if not real.var(axis=0).sum():
        raise ValueError("X must hold examples that are not all equal.")
    # The mean squared distance between two draws is twice the sum of the variances.
    return float(samples.var(axis=0).sum() / real.var(axis=0).sum())


@checked(threshold=NOT_NEGATIVE)
def active_units(means: Any, threshold: float = 0.01) -> int:
    """Count latent dimensions that say something about x (Burda et al. 2016, section 5).

    Args:
        means: of q(z|x), ``(n, d)``.
        threshold: a dimension is active if its mean varies over x by more than this variance.
    """
    return int((_flat("means", means).var(axis=0) > threshold).sum())


def _flat(name: str, X: Any) -> np.ndarray:
    X = np.asarray(X)
    return check_features(name, X.reshape(len(X), -1)).astype(np.float64)


def _pair(samples: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
    real = _flat("X", X)
    samples = _flat("samples", samples)
    if samples.shape[1] != real.shape[1]:
        raise ValueError(
            f"samples have {samples.shape[1]} values each and the examples of X {real.shape[1]}; "
            f"expected as many."
        )
    return samples, real


def _distances(queries: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    return NearestNeighbors(n_neighbors=k).fit(points).kneighbors(queries)[0]
