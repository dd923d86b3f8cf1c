"""Means with their uncertainty: no score of a small sample means anything without it.

A *draw* is one repetition of an experiment: a new choice of the labelled examples (or a new
episode) and a new seed.  The intervals here say how well the mean over all possible draws is
known from the n draws that were made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from fewshot_course._arguments import checked
from fewshot_course._checks import check_number


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: the mean over the draws.
        low: lower end of the interval; NaN where n = 1.
        high: upper end of the interval; NaN where n = 1.
        n: number of draws.
        confidence: the level, e.g. 0.95.
    """

    mean: float
    low: float
    high: float
    n: int
    confidence: float = 0.95

    @property
    def half_width(self) -> float:
        """Half the width of the interval; NaN where n = 1."""
        return (self.high - self.low) / 2

    def format(self, percent: bool = True, digits: int | None = None) -> str:
        """Return the interval as text, such as ``84.2 % [83.1, 85.3], n = 10``.

        Args:
            percent: whether the numbers are shares in [0, 1] to be shown in per cent.
            digits: digits after the point; 1 for per cent and 3 otherwise if not given.
        """
        return self._format(" %" if percent else "", percent, digits, sign="")

    def _format(self, unit: str, percent: bool, digits: int | None, sign: str) -> str:
        digits = (1 if percent else 3) if digits is None else digits
        factor = 100 if percent else 1

        def text(value: float) -> str:
            # Adding 0.0 turns a rounded -0.0 into 0.0.
            return f"{round(factor * value, digits) + 0.0:{sign}.{digits}f}"

        mean = f"{text(self.mean)}{unit}"
        if self.n == 1:
            return f"{mean} (n = 1, no interval)"
        return f"{mean} [{text(self.low)}, {text(self.high)}], n = {self.n}"

    def __str__(self) -> str:
        return self.format(percent=False)


@dataclass(frozen=True)
class Difference(Interval):
    """The mean of a - b over the same draws, with its confidence interval."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero.

        Only then may you say that one of the two is better.  False where n = 1.
        """
        return bool(self.low > 0 or self.high < 0)

    def format(self, percent: bool = True, digits: int | None = None) -> str:
        """Return the difference with its sign, such as ``+3.1 points [+1.2, +5.0], n = 10``.

        Args:
            percent: whether a and b are shares in [0, 1]; the difference is then shown in
                percentage points.
            digits: digits after the point; 1 for points and 3 otherwise if not given.
        """
        return self._format(" points" if percent else "", percent, digits, sign="+")

    def __str__(self) -> str:
        return self.format(percent=False)


@checked
def mean_interval(scores: ArrayLike, confidence: float = 0.95) -> Interval:
    r"""Return the mean of the scores and its confidence interval by Student's t.

    With n scores of mean m and standard deviation s (with n - 1 in the denominator) the
    interval is :math:`m \pm t\, s / \sqrt{n}`, where t is the (1 + confidence) / 2 quantile of
    Student's t distribution with n - 1 degrees of freedom (Student, "The probable error of a
    mean", Biometrika 6, 1908).  It is exact for independent, normally distributed scores and
    good for means of scores that are not far from it.

    Args:
        scores: one finite number a draw ``(n,)``, n >= 1.
        confidence: the level, in (0, 1).

    Returns:
        The interval.  One draw says nothing about the spread: for n = 1 both ends are NaN.

    Raises:
        TypeError: for scores or a confidence that are no numbers.
        ValueError: for no scores, a wrong shape, NaN or infinity, or a level outside (0, 1).
    """
    return Interval(*_student("scores", _scores("scores", scores), confidence))


@checked
def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Difference:
    """Return the interval of the mean of a - b, two methods scored on the same draws.

    Both methods meet the same easy and the same hard draws, so their difference varies less
    than either score: the paired interval is the sharper comparison.  It is the interval that
    belongs to the paired t-test.

    Args:
        a: scores of one method ``(n,)``; ``a[i]`` and ``b[i]`` come from the same draw.
        b: scores of the other ``(n,)``.
        confidence: the level, in (0, 1).

    Returns:
        The difference; ask its ``excludes_zero`` before you call a method better.

    Raises:
        TypeError: for scores or a confidence that are no numbers.
        ValueError: for differing lengths, and as :func:`mean_interval`.
    """
    first, second = _scores("a", a), _scores("b", b)
    if len(first) != len(second):
        raise ValueError(
            f"a has {len(first)} scores and b has {len(second)}; paired scores must come from "
            f"the same draws, in the same order."
        )
    return Difference(*_student("a - b", first - second, confidence))


def _scores(name: str, values: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} is ragged; expected one number a draw, shape (n,).") from None
    if array.size == 0:
        raise ValueError(f"{name} is empty; expected at least one score.")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold numbers, got dtype {array.dtype}.")
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), one score a draw, got {array.shape}.")
    array = array.astype(np.float64)
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(
            f"{name} has NaN or infinite values in {bad} of {len(array)} draws. Do not drop "
            f"them: a draw that failed is a result too."
        )
    return array


def _student(
    name: str, scores: np.ndarray, confidence: float
) -> tuple[float, float, float, int, float]:
    check_number("confidence", confidence, low=0.0, high=1.0, low_open=True)
    if confidence == 1.0:
        raise ValueError("confidence must be below 1: a certain interval would be infinite.")
    n = len(scores)
    mean = float(scores.mean())
    if not np.isfinite(mean):
        raise ValueError(f"{name} has values too large to average.")
    if n == 1:
        return mean, float("nan"), float("nan"), 1, float(confidence)
    t = float(special.stdtrit(n - 1, (1 + confidence) / 2))
    half = t * float(scores.std(ddof=1)) / np.sqrt(n)
    return mean, float(mean - half), float(mean + half), n, float(confidence)
