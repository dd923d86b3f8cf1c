"""How good augmented texts are, judged by their vectors: distance, novelty, label agreement.

A useful copy is new, yet still a text of its class.  Novelty says how far it is from the texts
that one had; distance to the class and the agreement of a classifier say whether it is still one
of them.  None of them sees whether a text can be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from fewshot_course._arguments import checked
from fewshot_course._checks import check_features, check_labels

__all__ = [
    "ClassGaussians",
    "fit_class_gaussians",
    "label_agreement",
    "nearest_novelty",
    "shrunk_covariance",
]


@checked
def shrunk_covariance(deviations: Any) -> tuple[np.ndarray, float]:
    """Return the covariance (1 - λ) S + λ μ I with the λ of Ledoit and Wolf.

    With fewer vectors than dimensions S = Xᵀ X / n has no inverse.  Shrinkage pulls its
    eigenvalues to their mean μ = tr(S) / d; λ minimises an estimate of the expected squared error
    (Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices").

    Args:
        deviations: X, vectors minus their mean, ``(n, d)``.

    Returns:
        The covariance ``(d, d)`` float64, positive definite unless X is 0, and λ in [0, 1].
    """
    X = check_features("deviations", deviations).astype(np.float64)
    n, d = X.shape
    S = X.T @ X / n
    mean = float(np.trace(S) / d)
    spread = float(np.square(S).sum() - d * mean**2)  # ‖S - μI‖²
    noise = float((np.square(np.square(X).sum(1)).sum() / n - np.square(S).sum()) / n)
    share = 1.0 if spread <= 0 else min(max(noise, 0.0) / spread, 1.0)
    return (1 - share) * S + share * mean * np.eye(d), share


@dataclass(frozen=True)
class ClassGaussians:
    """A Gaussian a class, all with one covariance.

    Attributes:
        classes: labels, ascending, ``(C,)``.
        means: ``(C, d)``.
        cholesky: lower triangle L of the covariance L Lᵀ, ``(d, d)``.
        shrinkage: λ in [0, 1].
    """

    classes: np.ndarray
    means: np.ndarray
    cholesky: np.ndarray
    shrinkage: float

    def euclidean(self, features: Any, labels: Any) -> np.ndarray:
        """Return ‖h - m_y‖, the distance of each vector to the mean of its class, ``(n,)``."""
        return np.linalg.norm(self._deviations(features, labels), axis=1)

    def mahalanobis(self, features: Any, labels: Any) -> np.ndarray:
        """Return √((h - m_y)ᵀ Σ⁻¹ (h - m_y)), ``(n,)``.

        A step in a direction in which the class varies little counts more.
        """
        deviations = self._deviations(features, labels)
        return np.linalg.norm(solve_triangular(self.cholesky, deviations.T, lower=True), axis=0)

    def _deviations(self, features: Any, labels: Any) -> np.ndarray:
        X = check_features("features", features, like=self.means.shape[1:])
        y = check_labels("labels", labels, n=len(X))
        unknown = sorted(set(y.tolist()) - set(self.classes.tolist()))
        if unknown:
            raise ValueError(f"labels holds {unknown[0]}, a class that was not fitted.")
        return X - self.means[np.searchsorted(self.classes, y)]


@checked
def fit_class_gaussians(features: Any, labels: Any) -> ClassGaussians:
    """Return class means and the shrunk covariance within the classes.

    Args:
        features: ``(n, d)``.
        labels: ``(n,)``.

    Raises:
        ValueError: if all vectors of every class are equal: there is no spread to measure by.
    """
    X = check_features("features", features).astype(np.float64)
    y = check_labels("labels", labels, n=len(X))
    classes, index = np.unique(y, return_inverse=True)
    means = np.stack([X[index == c].mean(0) for c in range(len(classes))])
    covariance, share = shrunk_covariance(X - means[index])
    try:
        cholesky = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise ValueError(
            "features do not vary within the classes; expected two different vectors of one "
            "class or more."
        ) from None
    return ClassGaussians(classes, means, cholesky, share)


@checked
def nearest_novelty(features: Any, originals: Any) -> np.ndarray:
    """Return 1 - the cosine to the nearest original, ``(n,)`` in [0, 2]: 0 for a mere copy.

    Args:
        features: of the new texts, ``(n, d)``, not 0.
        originals: ``(m, d)``, not 0.
    """
    new = check_features("features", features)
    old = check_features("originals", originals, like=new.shape[1:])
    return np.maximum(1 - (_unit("features", new) @ _unit("originals", old).T).max(1), 0.0)


def _unit(name: str, X: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"{name} has vectors of length 0; a cosine needs a direction.")
    return X / lengths


@checked
def label_agreement(probabilities: Any, labels: Any) -> float:
    """Return the share of texts for which a judge finds the label that they were given.

    The judge must have learned from other texts than those that were augmented, or it finds what
    it was told.  It errs too: compare with its agreement on the originals.

    Args:
        probabilities: the judge's, ``(n, C)``; class c in column c.
        labels: ``(n,)``, 0 to C - 1.
    """
    p = check_features("probabilities", probabilities)
    y = check_labels("labels", labels, n=len(p))
    return float((p.argmax(1) == y).mean())
