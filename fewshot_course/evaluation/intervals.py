"""Means with their uncertainty: no score of a small sample means anything without it.

A *draw* is one repetition of an experiment: a new choice of the labelled examples (or a new
episode) and a new seed.  The intervals here say how well the mean over all possible draws is
known from the n draws that were made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        low: lower end of the interval; NaN where n = 1, unless it is over test items.
        high: upper end of the interval; likewise.
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
    """The mean of a - b over the same draws, with its confidence interval.

    Attributes:
        p: two-sided p-value of "no difference"; NaN where n = 1.
    """

    p: float = float("nan")

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero.

        Only then may you say that one of the two is better.  False where n = 1, whatever the
        interval is over: one training says nothing about the next.
        """
        return self.n > 1 and bool(self.low > 0 or self.high < 0)

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
    found = _student("a - b", first - second, confidence)
    return Difference(*found, p=_p_value(first - second))


@checked
def accuracy_interval(correct: ArrayLike, confidence: float = 0.95) -> Interval:
    r"""Return the mean accuracy of draws that share test items, with its interval.

    Ten draws scored on the same 450 texts are not 4,500 answers: a hard text is hard in every
    draw.  With :math:`y_{ri}` = μ + a_r + b_i + e_{ri} for draw r and item i the variance of the
    mean of R draws and C items is :math:`σ_a^2/R + σ_b^2/C + σ_e^2/(RC)`; an interval over draws
    knows the first part only.  The three are estimated by sums of squares (Searle, Casella &
    McCulloch 1992; where draws have other items, Gao & Owen 2017), the degrees of freedom by
    Satterthwaite (1946).

    The ends are Wilson's (1927) for as many answers as would have this variance, so that they
    stay within [0, 1]; the variance is never taken below that of R·C independent answers.  A
    bootstrap over draws and items gives the like for many draws, and is too narrow for three.

    Args:
        correct: ``(draws, items)``, 1 or True where right; NaN where an item is no part of a
            draw's test.
        confidence: the level, in (0, 1).

    Returns:
        The interval; its ``n`` is the number of draws.  One draw is taken for independent items,
        and its interval is about this one training.

    Raises:
        ValueError: for another shape, values other than 0, 1 and NaN, a draw without items, or
            several draws of one item each.
    """
    y = _crossed("correct", correct)
    mean, variance, df = _mean_and_variance(y)
    number = int((~np.isnan(y)).sum())
    if 0 < mean < 1:
        n = mean * (1 - mean) / max(variance, mean * (1 - mean) / number)
    else:  # no spread at all tells nothing about the spread: as many answers as items
        n = int((~np.isnan(y)).any(axis=0).sum())
        df = max(n - 1.0, 1.0)
    t = _quantile(df, confidence)
    centre = (mean + t**2 / (2 * n)) / (1 + t**2 / n)
    half = t / (1 + t**2 / n) * np.sqrt(mean * (1 - mean) / n + t**2 / (4 * n**2))
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return Interval(mean, float(low), float(high), len(y), float(confidence))


@checked
def accuracy_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Difference:
    """Return the difference of two accuracies on the same draws and items, with its interval.

    As :func:`accuracy_interval`, for the differences of two answers to one item in one draw.

    Args:
        a: of one method, ``(draws, items)``, 1 where right, NaN where an item is no part of a draw.
        b: of the other, likewise.
        confidence: the level, in (0, 1).

    Raises:
        ValueError: as :func:`accuracy_interval`, and for two shapes or other items.
    """
    first, second = _crossed("a", a), _crossed("b", b)
    if first.shape != second.shape or (np.isnan(first) != np.isnan(second)).any():
        raise ValueError("a and b must be answers to the same items in the same draws.")
    mean, variance, df = _mean_and_variance(first - second)
    spread = np.sqrt(variance)
    half = _quantile(df, confidence) * spread
    p = float(2 * special.stdtr(df, -abs(mean) / spread)) if spread else float(mean == 0)
    low, high = float(mean - half), float(mean + half)
    return Difference(mean, low, high, len(first), float(confidence), p=p)


@checked
def holm(p_values: ArrayLike) -> np.ndarray:
    """Return p-values adjusted for their number (Holm 1979): for verdicts on one question.

    Of twenty comparisons without any difference one has p < 0.05 by chance.  After Holm's
    correction the chance that *any* of them has is 0.05.

    Args:
        p_values: of the comparisons of one question, ``(m,)`` in [0, 1].

    Returns:
        ``(m,)`` in [0, 1], in the order of ``p_values``.
    """
    p = _scores("p_values", p_values)
    if (p < 0).any() or (p > 1).any():
        raise ValueError("p_values must lie in [0, 1].")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _crossed(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} must have shape (draws, items), got {array.shape}.")
    array = array.astype(np.float64)
    there = ~np.isnan(array)
    if not np.isin(array[there], (0.0, 1.0)).all():
        raise ValueError(f"{name} must hold 1 for a right answer, 0 for a wrong one, or NaN.")
    if not there.any(axis=1).all():
        raise ValueError(f"{name} has a draw without any item.")
    if len(array) > 1 and there.sum() == len(array):
        raise ValueError(f"{name} has one item a draw: nothing tells draws from items.")
    return array


def _mean_and_variance(y: np.ndarray) -> tuple[float, float, float]:
    """Return the mean, its variance in the crossed model, and the degrees of freedom of that."""
    there = ~np.isnan(y)
    y = np.where(there, y, 0.0)
    rows, columns = there.sum(axis=1), there.sum(axis=0)
    columns, y, there = columns[columns > 0], y[:, columns > 0], there[:, columns > 0]
    n, r, c = int(rows.sum()), len(rows), len(columns)
    mean = float(y.sum() / n)
    if r == 1:
        variance = float(((y - mean) ** 2)[there].sum() / (n - 1) / n) if n > 1 else np.inf
        return mean, variance, max(n - 1, 1)
    by_row, by_column = y.sum(axis=1) / rows, y.sum(axis=0) / columns
    within_rows = (there * (y - by_row[:, None]) ** 2).sum()
    within_columns = (there * (y - by_column) ** 2).sum()
    whole = n * ((y - mean) ** 2)[there].sum()
    # What these sums are on average, in σ_a², σ_b², σ_e².
    matrix = np.array(
        [
            [0.0, n - r, n - r],
            [n - c, 0.0, n - c],
            [n**2 - (rows**2).sum(), n**2 - (columns**2).sum(), n**2 - n],
        ]
    )
    if n == c:  # no item in two draws: items and rest cannot be told apart
        of_draws = (whole / n / n - within_rows / max(n - r, 1)) / (1 - (rows**2).sum() / n**2)
        a, b, e = max(of_draws, 0.0), 0.0, within_rows / max(n - r, 1)
    else:
        a, b, e = np.maximum(np.linalg.solve(matrix, [within_rows, within_columns, whole]), 0.0)
    rest = e / n
    draws, items = a * (rows**2).sum() / n**2 + rest, b * (columns**2).sum() / n**2 + rest
    variance = draws + items - rest
    squares = draws**2 / (r - 1) + items**2 / max(c - 1, 1) + rest**2 / max(n - r - c + 1, 1)
    return mean, float(variance), float(variance**2 / squares) if squares else float(r - 1)


def _quantile(df: float, confidence: float) -> float:
    check_number("confidence", confidence, low=0.0, high=1.0, low_open=True)
    if confidence == 1.0:
        raise ValueError("confidence must be below 1: a certain interval would be infinite.")
    return float(special.stdtrit(df, (1 + confidence) / 2))


def _p_value(differences: np.ndarray) -> float:
    """Return the two-sided p-value of the paired t-test."""
    n, spread = len(differences), float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if n == 1:
        return float("nan")
    mean = float(differences.mean())
    if not spread:
        return float(mean == 0)
    return float(2 * special.stdtr(n - 1, -abs(mean) / (spread / np.sqrt(n))))


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
