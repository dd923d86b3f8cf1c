"""A network of two layers in NumPy, to watch overfitting, weight decay and dropout at work.

The gradient is written out by hand and short enough to be read whole.  For serious training take
:mod:`fewshot_course.torch` or :mod:`fewshot_course.tf`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from fewshot_course._arguments import NOT_NEGATIVE, checked
from fewshot_course._checks import check_features, check_labels, check_number
from fewshot_course._streams import Streams

__all__ = ["SmallNetwork", "dropout_mask", "log_softmax", "regularised_risk"]

Parameters = dict[str, np.ndarray]


@checked
def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Return log p(class) for scores ``(n, C)``; the largest score is taken off first."""
    return _log_softmax(scores)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    # NaN stays NaN here: a training that diverges is told of by its own check.
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@checked
def dropout_mask(shape: tuple[int, ...], rate: float, rng: np.random.Generator) -> np.ndarray:
    """Return factors that are 0 with probability ``rate`` and 1 / (1 - rate) otherwise.

    Their mean is 1, so nothing needs to be rescaled for the prediction ("inverted" dropout; the
    idea is that of Srivastava et al. 2014, who rescale the weights instead).

    Args:
        shape: of the mask.
        rate: in [0, 1).
        rng: draws the mask.

    Raises:
        ValueError: for a rate outside [0, 1).
    """
    check_number("rate", rate, low=0)
    if rate >= 1:
        raise ValueError(f"rate must lie in [0, 1), got {rate!r}: nothing would be left.")
    return (rng.random(shape) >= rate) / (1 - rate)


@checked(weight_decay=NOT_NEGATIVE)
def regularised_risk(
    parameters: Parameters,
    X: np.ndarray,
    y: np.ndarray,
    weight_decay: float = 0.0,
    mask: np.ndarray | float = 1.0,
) -> tuple[float, Parameters]:
    r"""Return the regularised empirical risk of a network of two layers, and its gradient.

    .. math:: \frac{1}{n} \sum_i L(y_i, f(x_i)) + \lambda R(W), \qquad
       R(W) = \tfrac{1}{2} \bigl( \lVert W_1 \rVert^2 + \lVert W_2 \rVert^2 \bigr)

    with :math:`f(x) = \mathrm{relu}(x W_1 + b_1) W_2 + b_2` and the cross-entropy L.

    Args:
        parameters: ``W1 (d, h)``, ``b1 (h,)``, ``W2 (h, C)``, ``b2 (C,)``.
        X: examples ``(n, d)``.
        y: classes 0 to C-1, ``(n,)``.
        weight_decay: λ >= 0; biases are not decayed.
        mask: factors of the hidden units ``(n, h)``, see :func:`dropout_mask`; 1 for none.

    Returns:
        The risk, and the gradient by the names of the parameters.
    """
    W1, b1, W2, b2 = (parameters[name] for name in ("W1", "b1", "W2", "b2"))
    n = len(X)
    before = X @ W1 + b1
    hidden = np.maximum(before, 0) * mask
    log_p = _log_softmax(hidden @ W2 + b2)
    penalty = 0.5 * (np.square(W1).sum() + np.square(W2).sum())
    risk = -log_p[np.arange(n), y].mean() + weight_decay * penalty

    to_scores = np.exp(log_p)
    to_scores[np.arange(n), y] -= 1
    to_scores /= n
    to_before = (to_scores @ W2.T) * mask * (before > 0)
    return float(risk), {
        "W1": X.T @ to_before + weight_decay * W1,
        "b1": to_before.sum(axis=0),
        "W2": hidden.T @ to_scores + weight_decay * W2,
        "b2": to_scores.sum(axis=0),
    }


class SmallNetwork(ClassifierMixin, BaseEstimator):
    r"""A network of two layers, trained by gradient descent on all examples at once.

    Args:
        hidden: hidden units, >= 1.
        weight_decay: λ, the weight of half the squared length of the weights, >= 0.
        dropout: probability with which a hidden unit is left out of a step, in [0, 1).
        learning_rate: η > 0.
        steps: steps of gradient descent, >= 1.
        random_state: seed of initial weights and masks.

    Attributes:
        classes_: the labels, ascending ``(C,)``.
        parameters_: see :func:`regularised_risk`.
        losses_: the cross-entropy on the training examples before each step and after the last,
            without penalty and dropout ``(steps + 1,)``.
        held_out_losses_: the same on the examples given as held out; empty if there were none.
    """

    def __init__(
        self,
        hidden: int = 256,
        weight_decay: float = 0.0,
        dropout: float = 0.0,
        learning_rate: float = 0.5,
        steps: int = 300,
        random_state: int | None = 0,
    ) -> None:
        self.hidden = hidden
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.steps = steps
        self.random_state = random_state

    def fit(self, X: Any, y: Any, X_held_out: Any = None, y_held_out: Any = None) -> SmallNetwork:
        """Train; held-out examples are only looked at, never learned from.

        Args:
            X: examples ``(n, ...)``; images are flattened.
            y: labels ``(n,)``, whole numbers >= 0.
            X_held_out: examples for ``held_out_losses_``.
            y_held_out: their labels, of the classes in ``y``.

        Raises:
            TypeError: for settings or labels that are no numbers.
            ValueError: for settings out of range, data that do not fit together, or a risk that
                is no longer finite.
        """
        check_number("hidden", self.hidden, low=1, integer=True)
        check_number("weight_decay", self.weight_decay, low=0)
        check_number("learning_rate", self.learning_rate, low=0, low_open=True)
        check_number("steps", self.steps, low=1, integer=True)
        features = check_features("X", X)
        labels = check_labels("y", y, n=len(features))
        self.classes_, targets = np.unique(labels, return_inverse=True)
        self._shape = features.shape[1:]
        A = _flat(features)
        watched = [(A, targets)]
        if X_held_out is not None:
            watched.append(self._held_out(X_held_out, y_held_out))
        streams = Streams.from_seed(self.random_state)
        self.parameters_ = _initial(A.shape[1], self.hidden, len(self.classes_), streams.init)
        losses: list[list[float]] = [[] for _ in watched]
        for step in range(self.steps + 1):
            for (B, t), path in zip(watched, losses, strict=True):
                path.append(_cross_entropy(self.parameters_, B, t))
            if not np.isfinite(losses[0][-1]):
                raise ValueError(
                    f"the loss is {losses[0][-1]} after {step} steps with "
                    f"learning_rate={self.learning_rate}; lower it."
                )
            if step < self.steps:
                self._step(A, targets, streams.dropout)
        self.losses_ = np.array(losses[0])
        self.held_out_losses_ = np.array(losses[1] if len(losses) > 1 else [])
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes ``(n, C)``; no unit is left out."""
        check_is_fitted(self)
        A = _flat(check_features("X", X, like=self._shape))
        return np.exp(_log_softmax(_scores(self.parameters_, A)))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each example ``(n,)``."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _step(self, A: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> None:
        mask: np.ndarray | float = 1.0
        if self.dropout:
            mask = dropout_mask((len(A), self.hidden), self.dropout, rng)
        _, gradient = regularised_risk(self.parameters_, A, targets, self.weight_decay, mask)
        for name, value in self.parameters_.items():
            value -= self.learning_rate * gradient[name]

    def _held_out(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        features = check_features("X_held_out", X, like=self._shape)
        labels = check_labels("y_held_out", y, n=len(features))
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise ValueError(f"y_held_out has classes {unknown.tolist()} that y has not.")
        return _flat(features), np.searchsorted(self.classes_, labels)


def _flat(X: np.ndarray) -> np.ndarray:
    return X.reshape(len(X), -1).astype(np.float64)


def _initial(d: int, hidden: int, classes: int, rng: np.random.Generator) -> Parameters:
    """Weights with variance 2 / inputs, which keeps the scale through a relu (He et al. 2015)."""
    return {
        "W1": rng.normal(0, np.sqrt(2 / d), (d, hidden)),
        "b1": np.zeros(hidden),
        "W2": rng.normal(0, np.sqrt(2 / hidden), (hidden, classes)),
        "b2": np.zeros(classes),
    }


def _scores(parameters: Parameters, A: np.ndarray) -> np.ndarray:
    hidden = np.maximum(A @ parameters["W1"] + parameters["b1"], 0)
    return hidden @ parameters["W2"] + parameters["b2"]


def _cross_entropy(parameters: Parameters, A: np.ndarray, targets: np.ndarray) -> float:
    log_p = _log_softmax(_scores(parameters, A))
    return float(-log_p[np.arange(len(A)), targets].mean())
