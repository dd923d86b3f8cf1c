"""Gaussian mixtures that label: what is asked, and what is done around EM in NumPy.

The mixture and EM itself stand in ``gmm`` of each framework.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from fewshot_course._checks import (
    UNLABELLED,
    check_choice,
    check_features,
    check_labels,
    check_number,
)
from fewshot_course._reading import check_array
from fewshot_course.both.estimator import CourseClassifier, check_answer
from fewshot_course.both.pseudo_labels import check_classes, class_index, warn_without_unlabelled
from fewshot_course.both.training import Run

_ROWS = 4096
"""Examples that are labelled at a time."""

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
CONTRADICTION = 0.25
"""Share of the labelled examples that may fall into another class without a warning."""


class Start(NamedTuple):
    """What EM learns from, and where it starts.

    Attributes:
        X: features with mean 0, ``(n, d)``.
        responsibilities: of the first M-step, times the weights, ``(n, K)``.
        mask: 0, and -inf where an example cannot belong to a component, ``(n, K)``; ``None``: all
            can.
        sample_weight: what each example counts, ``(n,)``; ``None``: 1.
        floor: smallest eigenvalue of a covariance.
    """

    X: np.ndarray
    responsibilities: np.ndarray
    mask: np.ndarray | None
    sample_weight: np.ndarray | None
    floor: float


def n_parameters(covariance_type: str, n_components: int, n_features: int) -> int:
    """Return the number of free parameters of a mixture.

    Args:
        covariance_type: "full", "tied", "diag" or "spherical".
        n_components: K, >= 1.
        n_features: d, >= 1.
    """
    check_choice("covariance_type", covariance_type, COVARIANCE_TYPES)
    symmetric = n_features * (n_features + 1) // 2
    covariances = {
        "full": n_components * symmetric,
        "tied": symmetric,
        "diag": n_components * n_features,
        "spherical": n_components,
    }
    return covariances[covariance_type] + n_components * n_features + n_components - 1


def match_components(counts: np.ndarray, method: str = "assignment") -> np.ndarray:
    """Say which class each component stands for.

    Args:
        counts: how much of each class's labelled examples a component takes, ``(K, C)``, >= 0.
        method: "majority": each component goes to the class it takes most of (of equal ones the
            first), so that a class may get none.  "assignment": every class gets K / C
            components, with the largest total count (Kuhn 1955); C must divide K.

    Returns:
        Class indices ``(K,)``.

    Raises:
        ValueError: for an unknown method, a wrong shape, or a K that C does not divide.
    """
    check_choice("method", method, ["assignment", "majority"])
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 2 or counts.size == 0:
        raise ValueError(f"counts must have shape (K, C), got {counts.shape}.")
    if method == "majority":
        largest: np.ndarray = counts.argmax(axis=1)
        return largest
    n_components, n_classes = counts.shape
    if n_components % n_classes:
        raise ValueError(
            f"method='assignment' needs a multiple of {n_classes} components, got {n_components}."
        )
    each = n_components // n_classes
    components, places = linear_sum_assignment(np.repeat(counts, each, axis=1), maximize=True)
    classes = np.empty(n_components, dtype=np.int64)
    classes[components] = places // each
    return classes


def seeded_start(
    X: np.ndarray, labels: np.ndarray, n_classes: int, each: int, seed: int
) -> np.ndarray:
    """Return 0/1 responsibilities to start clamped EM from.

    Unlabelled examples go to the class with the nearest mean of labelled ones; within a class
    k-means makes ``each`` components.

    Args:
        X: ``(n, d)``.
        labels: class index or -1, ``(n,)``; each class has a labelled example.
        n_classes: C.
        each: components a class.
        seed: of k-means.

    Returns:
        ``(n, C·each)``; the components of class c are ``c·each`` to ``(c+1)·each - 1``.
    """
    means = np.stack([X[labels == c].mean(axis=0) for c in range(n_classes)])
    squares, assigned = (means**2).sum(axis=1), labels.copy()
    unknown = np.flatnonzero(labels == UNLABELLED)
    for start in range(0, len(unknown), _ROWS):
        rows = unknown[start : start + _ROWS]
        # But for |x|², which is the same for all classes.
        assigned[rows] = (squares - 2 * X[rows] @ means.T).argmin(axis=1)
    component = assigned * each
    for c in range(n_classes if each > 1 else 0):
        members = np.flatnonzero(assigned == c)
        component[members] += _clusters(X[members], each, seed)
    responsibilities = np.zeros((len(X), n_classes * each))
    responsibilities[np.arange(len(X)), component] = 1
    return responsibilities


def _clusters(X: np.ndarray, k: int, seed: int) -> np.ndarray:
    if len(X) <= k:
        return np.arange(len(X))
    found: np.ndarray = KMeans(k, n_init=3, random_state=seed).fit(X).labels_
    return found


def raised(covariances: np.ndarray, covariance_type: str, floor: float) -> int:
    """Return how many eigenvalues of the covariances lie at the floor."""
    if covariance_type in ("full", "tied"):
        covariances = np.linalg.eigvalsh(covariances)
    return int((covariances <= floor * (1 + 1e-6)).sum())


class GMMPseudoLabeler(CourseClassifier):
    """A Gaussian mixture, fitted by EM on labelled and unlabelled examples together.

    With ``clamp`` a labelled example belongs to the components of its own class alone, and EM
    raises Σ_labelled log p(x, y) + unlabelled_weight · Σ_unlabelled log p(x) (Nigam et al. 2000,
    with Gaussians).  Without it labels play no part in EM; they only name the components
    afterwards (``match_components``).

    EM is a maximisation over covariances whose eigenvalues are at least a floor, which keeps the
    likelihood bounded; a warning tells where the floor was needed.

    Args:
        components_per_class: Gaussians of each class, ≥ 1.
        covariance_type: "full", "tied" (one for all), "diag" or "spherical".
        n_pca: project on that many principal components of all examples first; ``None``: do not.
        clamp: whether labels take part in EM.
        matching: without ``clamp``, "assignment" or "majority".
        unlabelled_weight: what an unlabelled example counts, in (0, 1].
        covariance_floor: smallest eigenvalue of a covariance, as a share of the features' mean
            variance, > 0.
        max_iter: most steps of EM.
        tol: EM ends when the mean log-likelihood rises by less, in nats.
        random_state: seed of k-means, where several components a class or no clamping need it.

    Attributes:
        classes_: labels, ``(C,)`` int64.
        weights_: π, ``(K,)`` float64, K = C·components_per_class.
        means_: ``(K, d)``, of the features after PCA.
        covariances_: ``(K, d, d)`` full, ``(d, d)`` tied, ``(K, d)`` diag, ``(K,)`` spherical.
        component_class_: index into ``classes_`` of each component, ``(K,)``.
        pseudo_labels_: class of each example given to ``fit``, ``(n,)``; known labels as given.
        confidence_: probability of that class, ``(n,)`` in [0, 1]; 1 where the label is known.
        log_likelihood_: mean log-likelihood before each step of EM, in nats; it never falls.
        converged_: whether EM ended before ``max_iter``.
        label_contradiction_: share of the labelled examples that the mixture, asked without
            their labels, puts into another class, in [0, 1].
    """

    _facts = ("input_shape_", "converged_", "label_contradiction_")
    _arrays = (
        "classes_",
        "weights_",
        "means_",
        "covariances_",
        "component_class_",
        "centre_",
        "log_likelihood_",
        "pseudo_labels_",
        "confidence_",
    )
    _device = "cpu"

    def __init__(
        self,
        components_per_class: int = 1,
        covariance_type: str = "full",
        n_pca: int | None = None,
        clamp: bool = True,
        matching: str = "assignment",
        unlabelled_weight: float = 1.0,
        covariance_floor: float = 1e-3,
        max_iter: int = 200,
        tol: float = 1e-4,
        random_state: int | None = None,
    ) -> None:
        self.components_per_class = components_per_class
        self.covariance_type = covariance_type
        self.n_pca = n_pca
        self.clamp = clamp
        self.matching = matching
        self.unlabelled_weight = unlabelled_weight
        self.covariance_floor = covariance_floor
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any, *, classes: Any = None, device: str = "auto") -> Self:
        """Fit the mixture and label the unlabelled examples.

        Args:
            X: vectors ``(n, d)`` or images ``(n, h, w[, c])`` in [0, 1], labelled and unlabelled.
            y: labels ≥ 0, and -1 where unknown, ``(n,)``.
            classes: all the labels there are; the classes found in ``y`` if not given.
            device: "auto", "cpu", "cuda", ...; it must know float64.

        Returns:
            The estimator itself.

        Raises:
            ValueError: for NaN, no labelled example at all or of a class, a single class, fewer
                examples than components, features that do not vary, or a hyper-parameter out of
                range.
        """
        self._check_parameters()
        X = check_features("X", X)
        y = check_labels("y", y, n=len(X), allow_unlabelled=True)
        self.classes_ = check_classes(y, classes)
        n_components = self.components_per_class * len(self.classes_)
        if len(X) < n_components:
            raise ValueError(
                f"X has {len(X)} examples for {n_components} components; "
                f"lower components_per_class={self.components_per_class} or bring more examples."
            )
        warn_without_unlabelled(y)
        self.input_shape_ = tuple(X.shape[1:])
        run = Run(self._resolve(device))
        self._device = run.device
        self._fit_features(X)
        labels = class_index(y, self.classes_)
        start = self._start(self._features(X), labels)
        self._build(start, run.device)
        self.log_likelihood_ = self._learn(start, run)["log_likelihood"]
        self._label(start.X, labels)
        self._warn_about(start.floor)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return p(y|x), ``(n, C)`` float64: the responsibilities of each class's components."""
        return self._class_proba(self._checked(X))

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion (Schwarz 1978) on ``X``; lower is better.

        -2·log-likelihood + (number of free parameters)·log n, labels and PCA not counted.
        """
        features = self._checked(X)
        log_likelihood = logsumexp(self._apply(features), axis=1).sum()
        free = n_parameters(self.covariance_type, *self.means_.shape)
        return float(-2 * log_likelihood + free * np.log(len(features)))

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._features(check_features("X", X, like=self.input_shape_))

    def _fit_features(self, X: np.ndarray) -> None:
        """Learn the centre and, if asked for, the principal axes."""
        flat = X.reshape(len(X), -1).astype(np.float64)
        self.centre_ = flat.mean(axis=0)
        self.projection_ = None
        if self.n_pca is None:
            return
        most = min(flat.shape)
        check_number("n_pca", self.n_pca, low=1, high=most, integer=True)
        _, vectors = np.linalg.eigh(np.cov(flat, rowvar=False).reshape(len(flat[0]), -1))
        axes = vectors[:, ::-1][:, : self.n_pca]
        # The sign of an axis is free; fix it, so that two machines agree.
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
        self.projection_ = axes * np.sign(largest)

    def _features(self, X: np.ndarray) -> np.ndarray:
        centred: np.ndarray = X.reshape(len(X), -1).astype(np.float64) - self.centre_
        return centred if self.projection_ is None else centred @ self.projection_

    def _start(self, X: np.ndarray, labels: np.ndarray) -> Start:
        """Say where EM starts, and which class the components are of."""
        n_classes, each = len(self.classes_), self.components_per_class
        variance = float(X.var(axis=0).mean())
        if variance == 0:
            raise ValueError("X does not vary: all examples are equal.")
        floor = self.covariance_floor * variance
        seed = 0 if self.random_state is None else self.random_state
        self.component_class_ = np.repeat(np.arange(n_classes), each)
        if not self.clamp:  # what they are of is known when EM has ended
            clusters = _clusters(X, n_classes * each, seed)
            return Start(X, np.eye(n_classes * each)[clusters], None, None, floor)
        responsibilities = seeded_start(X, labels, n_classes, each, seed)
        other = (labels[:, None] != UNLABELLED) & (labels[:, None] != self.component_class_)
        mask = np.where(other, -np.inf, 0.0)
        weight = np.where(labels == UNLABELLED, self.unlabelled_weight, 1.0)
        return Start(X, responsibilities * weight[:, None], mask, weight, floor)

    def _label(self, X: np.ndarray, labels: np.ndarray) -> None:
        """Put labels on all examples, and see how far they fit those that are known."""
        known = labels != UNLABELLED
        if not self.clamp:
            counts = (
                _normalised(self._apply(X[known])).T @ np.eye(len(self.classes_))[labels[known]]
            )
            self.component_class_ = match_components(counts, self.matching)
        # In blocks: with many classes the probabilities of all examples are the largest array.
        blocks = (X[start : start + _ROWS] for start in range(0, len(X), _ROWS))
        best = [(p.argmax(axis=1), p.max(axis=1)) for p in map(self._class_proba, blocks)]
        predicted, highest = (np.concatenate(part) for part in zip(*best, strict=True))
        self.label_contradiction_ = float((predicted != labels)[known].mean())
        self.pseudo_labels_ = self.classes_[np.where(known, labels, predicted)]
        self.confidence_ = np.where(known, 1.0, highest)

    def _class_proba(self, X: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # infinite values are looked for in the next line
            proba = check_answer(_normalised(self._apply(X)))
        components = np.arange(len(self.component_class_))
        ones = np.ones(len(components))
        of_class = sparse.csr_array(
            (ones, (components, self.component_class_)), (len(components), len(self.classes_))
        )
        return np.minimum(proba @ of_class, 1.0)

    def _warn_about(self, floor: float) -> None:
        if not self.converged_:
            warnings.warn(
                f"EM has not converged in max_iter={self.max_iter} steps; raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
        if n := raised(self.covariances_, self.covariance_type, floor):
            _warn(
                f"{n} eigenvalues of the covariances were singular or nearly so and were raised "
                f"to {floor:.3g} (covariance_floor={self.covariance_floor:g} of the features' mean "
                f"variance). Use fewer features (n_pca), covariance_type='diag' or 'tied', or "
                f"fewer components."
            )
        if self.label_contradiction_ > CONTRADICTION:
            _warn(
                f"the unlabelled examples contradict the labels: asked without their labels, the "
                f"mixture puts {self.label_contradiction_:.0%} of the labelled examples into "
                f"another class. Either the classes are no clusters of this mixture or they "
                f"overlap, so do not trust its pseudo-labels. Try more components_per_class, "
                f"another covariance_type, other features, or a smaller unlabelled_weight, and "
                f"compare with labels only on a validation set."
            )

    def _check_parameters(self) -> None:
        check_number("components_per_class", self.components_per_class, low=1, integer=True)
        check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        check_choice("matching", self.matching, ["assignment", "majority"])
        check_number("unlabelled_weight", self.unlabelled_weight, low=0, high=1, low_open=True)
        check_number("covariance_floor", self.covariance_floor, low=0, low_open=True)
        check_number("max_iter", self.max_iter, low=1, integer=True)
        check_number("tol", self.tol, low=0)
        if self.random_state is not None:
            check_number("random_state", self.random_state, low=0, integer=True)

    def _fitted_arrays(self) -> dict[str, np.ndarray]:
        axes = {} if self.projection_ is None else {"projection_": self.projection_}
        return super()._fitted_arrays() | axes

    def _check_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Raise where the arrays of a file make no mixture."""
        pixels, classes = math.prod(self.input_shape_), len(arrays["classes_"])
        axes = arrays.get("projection_")
        check_array("centre_", arrays["centre_"], "f", (pixels,))
        if axes is not None:
            check_array("projection_", axes, "f", (pixels, None))
        d = pixels if axes is None else axes.shape[1]
        check_array("weights_", arrays["weights_"], "f", (None,))
        k = len(arrays["weights_"])
        check_array("means_", arrays["means_"], "f", (k, d))
        shapes = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}
        covariances = arrays["covariances_"]
        check_array("covariances_", covariances, "f", shapes[self.covariance_type])
        if self.covariance_type in ("full", "tied"):
            np.linalg.cholesky(covariances)  # raises LinAlgError, a ValueError, if it is none
        elif (covariances <= 0).any():
            raise ValueError("covariances_ must be positive")
        if (arrays["weights_"] < 0).any() or abs(arrays["weights_"].sum() - 1) > 1e-6:
            raise ValueError("weights_ must be >= 0 and sum to 1")
        check_array("component_class_", arrays["component_class_"], "i", (k,))
        if not np.isin(arrays["component_class_"], np.arange(classes)).all():
            raise ValueError(f"component_class_ must lie in [0, {classes})")

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self._check_arrays(arrays)
        super()._restore(arrays)
        self.projection_ = arrays.pop("projection_", None)
        if arrays:
            raise ValueError(f"a mixture has no arrays {sorted(arrays)}.")


def _normalised(log_joint: np.ndarray) -> np.ndarray:
    responsibilities: np.ndarray = np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))
    return responsibilities


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)  # the line that called fit
