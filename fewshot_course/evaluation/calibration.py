r"""Calibration: is a classifier that says "80 % sure" right in 80 % of such cases?

The *confidence* of a prediction is the probability given to the predicted class.  Cut [0, 1]
into M bins of equal width, ((m - 1)/M, m/M]; let B_m be the predictions whose confidence falls
into bin m, acc(B_m) the share of them that is right and conf(B_m) their mean confidence.  The
*reliability diagram* shows acc(B_m) against conf(B_m), and the *expected calibration error* is

.. math:: \mathrm{ECE} = \sum_{m=1}^{M} \frac{|B_m|}{n}\,
          \bigl|\mathrm{acc}(B_m) - \mathrm{conf}(B_m)\bigr|

(C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks",
ICML 2017, equations 2 and 3.)  With few examples a bin the ECE of a perfectly calibrated
classifier is above 0, since noise counts as error: compare only at equal n and M.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fewshot_course._arguments import checked
from fewshot_course._checks import UNLABELLED, check_labels, check_number


@dataclass(frozen=True)
class ReliabilityBins:
    """The bins of a reliability diagram.

    Attributes:
        edges: borders of the bins ``(M + 1,)``, from 0 to 1.
        count: predictions in each bin ``(M,)``, int64.
        confidence: mean confidence in each bin ``(M,)``; NaN where the bin is empty.
        accuracy: share of right predictions in each bin ``(M,)``; NaN where the bin is empty.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """The weighted mean of ``|accuracy - confidence|`` over the bins, in [0, 1]."""
        filled = self.count > 0
        gap = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((self.count[filled] * gap).sum() / self.count.sum())


@checked
def confidence_and_correct(y_true: ArrayLike, proba: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return what the two functions below need, from predicted probabilities.

    Args:
        y_true: true classes ``(n,)``; rows with ``-1`` ("unknown") are left out.
        proba: predicted probabilities ``(n, K)``; each row sums to 1.

    Returns:
        ``confidence`` float64 ``(m,)`` in [0, 1] and ``correct`` bool ``(m,)`` of the m labelled
        examples.

    Raises:
        TypeError: for labels that are no whole numbers or probabilities that are no numbers.
        ValueError: for differing lengths, labels >= K, rows that are no probabilities, or no
            labelled example.
    """
    probabilities = np.asarray(proba)
    if probabilities.dtype.kind not in "fiub":
        raise TypeError(f"proba must hold numbers, got dtype {probabilities.dtype}.")
    if probabilities.ndim != 2 or probabilities.size == 0:
        raise ValueError(f"proba must have shape (n, K), got {probabilities.shape}.")
    true = check_labels("y_true", y_true, n=len(probabilities), allow_unlabelled=True)
    # 1e-3 lets float16 rows pass and still refuses logits.
    if not (
        np.isfinite(probabilities).all()
        and probabilities.min() >= 0
        and np.allclose(probabilities.sum(axis=1, dtype=np.float64), 1, atol=1e-3)
    ):
        raise ValueError(
            "proba must hold probabilities: numbers in [0, 1] whose rows sum to 1. "
            "Were these logits? Apply softmax first."
        )
    if true.max() >= probabilities.shape[1]:
        raise ValueError(
            f"y_true holds {true.max()}, but proba has {probabilities.shape[1]} classes."
        )
    known = true != UNLABELLED
    if not known.any():
        raise ValueError(f"y_true has no labelled example among {len(true)}.")
    kept = probabilities[known].astype(np.float64)
    return np.minimum(kept.max(axis=1), 1.0), kept.argmax(axis=1) == true[known]


@checked
def reliability_bins(
    confidence: ArrayLike, correct: ArrayLike, n_bins: int = 10
) -> ReliabilityBins:
    """Sort predictions into bins of equal width by their confidence.

    Args:
        confidence: the predicted class's probability ``(n,)``, in [0, 1].
        correct: whether the prediction is right ``(n,)``, bool (or 0 and 1).
        n_bins: number M of bins, >= 1.

    Returns:
        The bins.  A confidence on a border belongs to the bin below it, 0 to the first one.

    Raises:
        TypeError: if ``n_bins`` is no whole number or an array holds no numbers.
        ValueError: for differing lengths, no predictions, or values outside [0, 1].
    """
    check_number("n_bins", n_bins, low=1, integer=True)
    conf = _shares("confidence", confidence)
    right = _shares("correct", correct)
    if len(conf) != len(right):
        raise ValueError(f"confidence has {len(conf)} values and correct has {len(right)}.")
    if not np.isin(right, (0.0, 1.0)).all():
        raise ValueError("correct must be True or False (1 or 0) for each prediction.")
    edges = np.linspace(0, 1, n_bins + 1)
    bins = np.maximum(np.searchsorted(edges, conf, side="left") - 1, 0)
    count = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):  # an empty bin has no mean: 0 / 0 = NaN
        mean_confidence = np.bincount(bins, weights=conf, minlength=n_bins) / count
        accuracy = np.bincount(bins, weights=right, minlength=n_bins) / count
    return ReliabilityBins(edges, count.astype(np.int64), mean_confidence, accuracy)


@checked
def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, n_bins: int = 10
) -> float:
    """Return the expected calibration error, a float in [0, 1] (0 is best).

    Args and errors: as :func:`reliability_bins`.
    """
    return reliability_bins(confidence, correct, n_bins).expected_calibration_error


def _shares(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold numbers, got dtype {array.dtype}.")
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must have shape (n,) with n >= 1, got {array.shape}.")
    array = array.astype(np.float64)
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"{name} must lie in [0, 1], without NaN.")
    return array
