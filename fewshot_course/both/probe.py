"""Logistic regression on frozen features: the probe.  Framework-free."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

_NEWTON_UP_TO = 500  # unknowns; beyond, their square matrix costs more than L-BFGS


def fit_probe(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, C: float
) -> dict[str, np.ndarray]:
    """Return the optimum of a linear head on fixed features, by scikit-learn.

    The sum of weighted cross-entropies plus ‖W‖² / (2C) is convex, so there is one optimum and
    no learning rate; biases are not penalised.

    Args:
        features: ``(n, d)``.
        labels: class indices ``(n,)``, each class present.
        weights: of the examples, ``(n,)``.
        C: inverse strength of the penalty.

    Returns:
        "head.weight" ``(classes, d)`` and "head.bias" ``(classes,)``, float64.
    """
    X = features.astype(np.float64)
    n_classes = len(np.unique(labels))
    unknowns = (1 if n_classes == 2 else n_classes) * (len(X) + 1)
    if len(X) <= X.shape[1] and unknowns <= _NEWTON_UP_TO:
        # The optimum lies in the span of the few features: there Newton's method is quickest.
        basis, coordinates = np.linalg.qr(X.T)
        model = LogisticRegression(C=C, tol=1e-6, solver="newton-cholesky")
        model.fit(coordinates.T, labels, sample_weight=weights)
        weight, bias = model.coef_ @ basis.T, model.intercept_
    else:
        model = LogisticRegression(C=C, tol=1e-6, max_iter=5000)
        model.fit(X, labels, sample_weight=weights)
        weight, bias = model.coef_, model.intercept_
    if len(bias) == 1:  # two classes: one row z says the same as the two rows ∓z/2
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return {"head.weight": weight, "head.bias": bias}


def unit(features: np.ndarray) -> np.ndarray:
    """Give each row the length 1."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def cross_entropy_of(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Return the mean of weight · cross-entropy, in float64."""
    chosen = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return float(-(weights * chosen).mean())
