"""Intervals of the report: draws share examples, and no interval is narrower than the binomial."""

from __future__ import annotations

import numpy as np
from scipy import special

from fewshot_course.evaluation import Difference, Interval

CONFIDENCE = 0.95


def answers(weights: np.ndarray) -> float:
    """Return as how many equally weighted answers some weighted ones count, 1 / Σ w².

    Args:
        weights: of the different examples that were scored, ``(n,)``, with the sum 1.
    """
    return float(1 / np.square(weights).sum())


def widened(scores: np.ndarray, n_test: float, n_rest: float) -> float:
    """Return the variance of a mean over repeated splits of the same examples.

    Repeated splits are not independent, so the variance of the scores over their number is too
    small: S² (1/R + n_test / n_rest) (Nadeau & Bengio, "Inference for the generalization error",
    Machine Learning 52, 2003).

    Args:
        scores: of R draws ``(R,)``, R >= 2.
        n_test: held-out examples of a draw.
        n_rest: the other examples of a draw.  Where a method learns from a few of them only, the
            draws still share as much, so this number stays.
    """
    return float(np.var(scores, ddof=1) * (1 / len(scores) + n_test / n_rest))


def share_interval(scores: np.ndarray, n_test: float, n_rest: float, n: float) -> Interval:
    """Return the mean of shares and its interval, within [0, 1].

    The ends are Wilson's (1927) for as many answers as have the variance of :func:`widened`, and
    never for more than ``n``: what was always right in ten examples may be wrong in the next.

    Args:
        scores: share of each draw ``(R,)``.
        n_test: as for :func:`widened`.
        n_rest: as for :func:`widened`.
        n: different answers that all draws have, as :func:`answers` counts them.
    """
    mean = float(np.mean(scores))
    variance = widened(scores, n_test, n_rest)
    spread = mean * (1 - mean)
    limited = spread <= n * variance and variance > 0
    size = spread / variance if limited else n
    df = float(len(scores) - 1 if limited else max(n - 1, 1))
    t = float(special.stdtrit(df, (1 + CONFIDENCE) / 2))
    centre = (mean + t * t / (2 * size)) / (1 + t * t / size)
    half = t / (1 + t * t / size) * np.sqrt(spread / size + t * t / (4 * size * size))
    # Wilson's interval holds the mean but for rounding at 0 and 1.
    low, high = min(mean, max(0.0, centre - half)), max(mean, min(1.0, centre + half))
    return Interval(mean, float(low), float(high), len(scores), CONFIDENCE)


def paired_interval(
    a: np.ndarray, b: np.ndarray, n_test: float, n_rest: float, n: float, won: float, lost: float
) -> Difference:
    """Return the mean of a - b over the draws, its interval and p-value.

    The variance is that of :func:`widened`, and never below that of ``n`` pairs of answers with
    half a pair added to each of the four kinds (Agresti & Min, "Simple improved confidence
    intervals for comparing matched proportions", Statistics in Medicine 24, 2005): that two
    methods never disagreed on ten examples does not say that they never will.

    Args:
        a: scores of one method ``(R,)``.
        b: of the other on the same draws.
        n_test: as for :func:`widened`.
        n_rest: as for :func:`widened`.
        n: pairs of answers.
        won: share of pairs in which only a is right.
        lost: share in which only b is.
    """
    mean = float(np.mean(a - b))
    variance = widened(a - b, n_test, n_rest)
    floor = (n * (won + lost) + 1 - n * n * (won - lost) ** 2 / (n + 2)) / (n + 2) ** 2
    df = float(len(a) - 1 if variance >= floor else max(n - 1, 1))
    error = np.sqrt(max(variance, floor))
    half = float(special.stdtrit(df, (1 + CONFIDENCE) / 2) * error)
    p = float(2 * special.stdtr(df, -abs(mean) / error))
    low, high = max(-1.0, mean - half), min(1.0, mean + half)
    return Difference(mean, low, high, len(a), CONFIDENCE, p=p)
