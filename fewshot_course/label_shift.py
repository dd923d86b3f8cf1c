"""Label shift: the classes have other shares in the target, and each looks as it did before.

With p_T(y) ≠ p_S(y) but p_T(x|y) = p_S(x|y), a classifier of the source gives p_S(y|x), and all
that is wrong with it are the shares of the classes.  They can be found without target labels, in
two ways: by the likelihood of the target (EM; Saerens, Latinne & Decaestecker 2002), or by how
often each class is predicted there, given the classifier's confusions on held-out source examples
(black-box shift estimation; Lipton, Wang & Smola 2018).  The first needs probabilities that can
be believed, the second nothing but predictions.

Everything is float64 NumPy; classes are numbered 0, ..., k - 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot_course._arguments import COUNT, POSITIVE, checked
from fewshot_course._checks import check_labels

__all__ = [
    "black_box_shares",
    "confusion_shares",
    "corrected_posteriors",
    "em_shares",
    "em_step",
    "log_likelihood",
]

_SINGULAR = 1e-6


@checked
def corrected_posteriors(
    proba: np.ndarray, source_shares: np.ndarray, target_shares: np.ndarray
) -> np.ndarray:
    r"""Turn probabilities of the source's classifier into those of the target.

    Bayes' rule with the old shares taken out and the new ones put in (Saerens et al. 2002, eq.
    2.4): :math:`p_T(k|x) \propto p_S(k|x)\, p_T(k) / p_S(k)`.

    Args:
        proba: p_S(k|x), ``(n, k)``, rows ≥ 0 with sum 1.
        source_shares: p_S(k), ``(k,)``, all > 0 with sum 1.
        target_shares: p_T(k), ``(k,)``, ≥ 0 with sum 1.

    Returns:
        p_T(k|x), ``(n, k)``, rows with sum 1.

    Raises:
        ValueError: for other shapes, values that are no probabilities, a class that the source
            does not have, or an example whose only possible classes have no share in the target.
    """
    weighted = _ratios(proba, source_shares) * _shares("target_shares", target_shares, len(proba.T))
    total = weighted.sum(axis=1, keepdims=True)
    if (total == 0).any():
        raise ValueError(
            f"target_shares gives no share to the only classes that proba holds possible for "
            f"{int((total == 0).sum())} of {len(proba)} examples; no posterior exists for them."
        )
    return weighted / total


@checked
def log_likelihood(
    proba: np.ndarray, source_shares: np.ndarray, target_shares: np.ndarray
) -> float:
    r"""Mean log-likelihood of the target's shares, up to a constant that they do not change.

    :math:`\frac1n \sum_i \log \sum_k p_T(k)\, p_S(k|x_i) / p_S(k)`, since
    :math:`p(x|k) \propto p_S(k|x) / p_S(k)`.  It is concave in the shares, so a maximum is the
    global one; with ``source_shares`` itself it is 0.

    Args:
        proba: p_S(k|x) of target examples, ``(n, k)``, rows ≥ 0 with sum 1.
        source_shares: p_S(k), ``(k,)``, all > 0 with sum 1.
        target_shares: p_T(k), ``(k,)``, ≥ 0 with sum 1.

    Returns:
        In nats; minus infinity where an example cannot come from these shares.

    Raises:
        ValueError: as :func:`corrected_posteriors`, but for the last.
    """
    ratios = _ratios(proba, source_shares)
    density = ratios @ _shares("target_shares", target_shares, ratios.shape[1])
    if (density == 0).any():
        return float("-inf")
    return float(np.log(density).mean())


@checked
def em_step(proba: np.ndarray, source_shares: np.ndarray, target_shares: np.ndarray) -> np.ndarray:
    """Return better shares: the mean of the posteriors under the present ones (Saerens, eq. 2.9).

    The likelihood never falls, and a step that changes nothing has found a stationary point.

    Args:
        proba: p_S(k|x) of target examples, ``(n, k)``, rows ≥ 0 with sum 1.
        source_shares: p_S(k), ``(k,)``, all > 0 with sum 1.
        target_shares: the present estimate of p_T(k), ``(k,)``, ≥ 0 with sum 1.

    Returns:
        The next estimate, ``(k,)``.

    Raises:
        ValueError: as :func:`corrected_posteriors`.
    """
    return corrected_posteriors(proba, source_shares, target_shares).mean(axis=0)


@checked(tolerance=POSITIVE, max_steps=COUNT)
def em_shares(
    proba: np.ndarray,
    source_shares: np.ndarray,
    tolerance: float = 1e-8,
    max_steps: int = 10_000,
) -> np.ndarray:
    """Estimate the target's class shares by EM (Saerens et al. 2002).

    It begins at the source's shares and believes the probabilities: those of a classifier that is
    too sure of itself mislead it.  Calibrate first, on held-out source examples.

    Args:
        proba: p_S(k|x) of target examples, ``(n, k)``, rows ≥ 0 with sum 1.
        source_shares: p_S(k) that the classifier was trained with, ``(k,)``, > 0 with sum 1.
        tolerance: stop when no share moves by more, > 0.
        max_steps: stop after so many steps anyhow, ≥ 1.

    Returns:
        The shares, ``(k,)``, ≥ 0 with sum 1.

    Raises:
        ValueError: for other shapes, values that are no probabilities, or a class that the source
            does not have.
    """
    ratios = _ratios(proba, source_shares)
    shares = _shares("source_shares", source_shares, ratios.shape[1])
    for _ in range(max_steps):
        weighted = ratios * shares
        new = (weighted / weighted.sum(axis=1, keepdims=True)).mean(axis=0)
        moved, shares = np.abs(new - shares).max(), new
        if moved <= tolerance:
            break
    return shares


@checked(n_classes=COUNT)
def confusion_shares(y: Any, predicted: Any, n_classes: int) -> np.ndarray:
    """Return the share of each pair of predicted and true class among examples.

    Args:
        y: true classes of *held-out* source examples, ``(n,)`` in 0, ..., n_classes - 1: on those
            that it was trained on, a classifier makes too few confusions.
        predicted: their predicted classes, ``(n,)``.
        n_classes: k, ≥ 1.

    Returns:
        C with C[i, j] = share of "predicted i, truly j", ``(k, k)``, sum 1.

    Raises:
        TypeError: for classes that are no whole numbers.
        ValueError: for no examples, two lengths, or a class outside 0, ..., n_classes - 1.
    """
    y = check_labels("y", y)
    predicted = check_labels("predicted", predicted, n=len(y))
    for name, labels in (("y", y), ("predicted", predicted)):
        if len(labels) == 0 or labels.max() >= n_classes:
            came = "no examples" if len(labels) == 0 else f"the class {labels.max()}"
            raise ValueError(f"{name} must hold classes below n_classes={n_classes}, got {came}.")
    return np.bincount(predicted * n_classes + y, minlength=n_classes**2).reshape(
        n_classes, n_classes
    ) / len(y)


@checked
def black_box_shares(confusion: np.ndarray, predicted_shares: np.ndarray) -> np.ndarray:
    r"""Estimate the target's class shares from predictions alone (Lipton et al. 2018, eq. 4).

    If p(x|y) is the same in both domains, so is p(ŷ|y), and the shares of the *predictions* on the
    target are :math:`\mu = C w` with the importance :math:`w_j = p_T(j) / p_S(j)` of class j.
    Solve for w, take what is negative by chance for 0, and give each class its share back.

    Args:
        confusion: C of held-out source examples, ``(k, k)``, see :func:`confusion_shares`.
        predicted_shares: μ, share of each predicted class on the target, ``(k,)``, sum 1.

    Returns:
        p_T(j), ``(k,)``, ≥ 0 with sum 1.

    Raises:
        ValueError: for other shapes, values that are no shares, or a matrix without an inverse:
            then the predictions cannot tell some classes apart, and no shares can be had from
            them.
    """
    C = np.asarray(confusion, np.float64)
    if C.ndim != 2 or C.shape[0] != C.shape[1] or C.size == 0:
        raise ValueError(f"confusion must have shape (k, k), got {C.shape}.")
    _shares("confusion", C.ravel(), C.size)
    mu = _shares("predicted_shares", predicted_shares, len(C))
    _refuse_degenerate(C)
    importance = np.clip(np.linalg.solve(C, mu), 0, None)
    shares = importance * C.sum(axis=0)
    return shares / shares.sum()


def _refuse_degenerate(C: np.ndarray) -> None:
    """Raise where C cannot be inverted, with the reason that can be seen."""
    singular = np.linalg.svd(C, compute_uv=False)
    if singular[-1] > _SINGULAR * singular[0]:
        return
    absent, unused = (np.flatnonzero(C.sum(axis=axis) == 0).tolist() for axis in (0, 1))
    if absent:
        raise ValueError(
            f"confusion has no inverse: the classes {absent} have no held-out example. Hold out "
            f"more examples, or leave these classes out."
        )
    if unused:
        raise ValueError(
            f"confusion has no inverse: the classes {unused} are never predicted, so predictions "
            f"say nothing about their shares. Take a better classifier, or em_shares, which looks "
            f"at probabilities."
        )
    raise ValueError(
        f"confusion has no inverse (smallest singular value {singular[-1]:.2g}, largest "
        f"{singular[0]:.2g}): the predictions do not tell some of the classes apart. Take a better "
        f"classifier, or em_shares, which looks at probabilities."
    )


def _ratios(proba: Any, source_shares: Any) -> np.ndarray:
    """Return p_S(k|x) / p_S(k), ``(n, k)``, of checked arguments."""
    p = np.asarray(proba, np.float64)
    if p.ndim != 2 or p.size == 0:
        raise ValueError(f"proba must have shape (n, k), n, k ≥ 1, got {p.shape}.")
    if p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("proba must hold probabilities: rows ≥ 0 with sum 1.")
    shares = _shares("source_shares", source_shares, p.shape[1])
    if (shares == 0).any():
        raise ValueError(
            f"source_shares is 0 for the classes {np.flatnonzero(shares == 0).tolist()}: what the "
            f"source does not have cannot be corrected. Leave these classes out of proba."
        )
    return p / shares


def _shares(name: str, values: Any, k: int) -> np.ndarray:
    """Return k shares as float64, ≥ 0 with sum 1."""
    shares = np.asarray(values, np.float64)
    if shares.shape != (k,):
        raise ValueError(f"{name} must have shape ({k},), got {shares.shape}.")
    if not np.isfinite(shares).all() or shares.min() < 0 or abs(shares.sum() - 1) > 1e-3:
        raise ValueError(f"{name} must be shares ≥ 0 with sum 1, got the sum {shares.sum():g}.")
    return shares / shares.sum()
