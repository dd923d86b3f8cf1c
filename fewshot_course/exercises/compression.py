"""Exercises of the topic "Small models from large ones"."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from fewshot_course.exercises._exercise import Case, Exercise, Mistake

Array = np.ndarray
_RNG = np.random.default_rng(60)


def _draw(*shape: int) -> Array:
    return np.round(_RNG.normal(0, 1, shape), 2)


# --- distillation_loss -----------------------------------------------------------------------


def _distilled(
    student: Array,
    teacher: Array,
    y: Array,
    T: float,
    alpha: float,
    *,
    square: bool = True,
    turned: bool = False,
    hot: float | None = None,
    known_only: bool = False,
) -> Array:
    """One text at a time, by SciPy's relative entropy; the keywords make mistakes."""
    losses = []
    for z, v, one in zip(student, teacher, y, strict=True):
        p, q = softmax(v / T), softmax(z / T)
        soft = float(entropy(q, p) if turned else entropy(p, q)) * (T**2 if square else 1.0)
        hard = -float((one * log_softmax(z / (hot or 1.0))).sum())
        if not known_only or one.any():
            losses.append(alpha * soft + (1 - alpha) * hard)
    return np.asarray(np.mean(losses))


def _pair(n: int, classes: int, unknown: int) -> dict[str, Array]:
    y = np.eye(classes)[np.arange(n) % classes]
    y[:unknown] = 0
    return {"student": _draw(n, classes), "teacher": 2 * _draw(n, classes), "y": y}


def _hot(student: Array, teacher: Array, y: Array, T: float, alpha: float) -> Array:
    return _distilled(student, teacher, y, T, alpha, hot=T)


DISTILLATION_LOSS = Exercise(
    name="compression.distillation_loss",
    oracle=_distilled,
    cases=(
        Case(
            "the student agrees with the teacher, no label",
            {
                "student": np.array([[1.0, 0.0]]), "teacher": np.array([[1.0, 0.0]]),
                "y": np.zeros((1, 2)), "T": 2.0, "alpha": 1.0,
            },
            hint="Equal distributions have the divergence 0.",
        ),
        Case("soft labels only, T = 3", {**_pair(3, 3, 3), "T": 3.0, "alpha": 1.0},
             hint="The soft part is multiplied by T squared, here 9."),
        Case("hard labels only, T = 3", {**_pair(3, 4, 0), "T": 3.0, "alpha": 0.0},
             hint="The hard part has no temperature."),
        Case("a mix, two of five labels unknown", {**_pair(5, 3, 2), "T": 2.0, "alpha": 0.3},
             hint="Divide by the number of all texts, with or without a label."),
    ),
    hint="alpha * T**2 * KL(p, q) + (1 - alpha) * cross-entropy, and the mean over the texts.",
    mistakes=(
        Mistake(
            "The factor T squared is missing: at a high temperature the soft part would vanish "
            "beside the hard one.",
            lambda **a: _distilled(**a, square=False),
        ),
        Mistake(
            "The divergence is the wrong way round: weigh the logarithms by the teacher's p, not "
            "by the student's q.",
            lambda **a: _distilled(**a, turned=True),
        ),
        Mistake(
            "You divided the student's logits by T in the hard part too. Hard labels are learned "
            "at the temperature 1.",
            lambda **a: _hot(**a),
        ),
        Mistake(
            "alpha is the weight of the soft part; you gave it to the hard one.",
            lambda **a: _distilled(**{**a, "alpha": 1 - a["alpha"]}),
        ),
    ),
)  # fmt: skip


# --- prune_smallest --------------------------------------------------------------------------


def _without_smallest(weights: Array, sparsity: float) -> Array:
    """Take one weight after the other, the smallest first."""
    pruned, left = weights.copy(), np.abs(weights)
    for _ in range(round(sparsity * weights.size)):
        place = np.unravel_index(left.argmin(), left.shape)
        pruned[place], left[place] = 0.0, np.inf
    return pruned


def _by_value(weights: Array, sparsity: float) -> Array:
    pruned = weights.ravel().copy()
    pruned[np.argsort(pruned)[: round(sparsity * pruned.size)]] = 0
    return pruned.reshape(weights.shape)


def _largest(weights: Array, sparsity: float) -> Array:
    pruned = weights.ravel().copy()
    n = round(sparsity * pruned.size)
    pruned[np.argsort(np.abs(pruned))[pruned.size - n :]] = 0
    return pruned.reshape(weights.shape)


def _by_threshold(weights: Array, sparsity: float) -> Array:
    return np.where(np.abs(weights) > sparsity * np.abs(weights).max(), weights, 0.0)


_TWENTY = _RNG.permutation(np.linspace(-1, 0.93, 20)).reshape(4, 5)

PRUNE_SMALLEST = Exercise(
    name="compression.prune_smallest",
    oracle=_without_smallest,
    cases=(
        Case(
            "half of four",
            {"weights": np.array([[1.0, -3.0], [-0.5, 2.0]]), "sparsity": 0.5},
            hint="0.5 and 1 are the smallest magnitudes; -3 is the largest.",
        ),
        Case("none", {"weights": _draw(2, 3), "sparsity": 0.0}, hint="Nothing goes."),
        Case("80 % of twenty", {"weights": _TWENTY,
                                "sparsity": 0.8}, hint="16 weights of 20 go."),
        Case("rows of different size", {"weights": np.array([[0.1, 0.2, 0.3], [4.0, -5.0, 12.0]]),
                                        "sparsity": 0.5},
             hint="The share counts for the whole matrix, not for each row."),
    ),
    hint="Places by np.argsort(np.abs(flat)); the first round(sparsity * n) of them go.",
    mistakes=(
        Mistake(
            "You sorted by value, so that the most negative weights go. Sort by magnitude.",
            _by_value,
        ),
        Mistake("You removed the largest weights and kept the smallest.", _largest),
        Mistake(
            "You compared with a share of the largest weight. The sparsity is the share of the "
            "number of weights.",
            _by_threshold,
        ),
    ),
)  # fmt: skip


# --- cubic_sparsity --------------------------------------------------------------------------


def _cubic_by_cases(t: Array, t0: float, n: float, s_i: float, s_f: float) -> Array:
    """The cubic multiplied out, one step at a time."""
    values = []
    for step in t:
        x = (step - t0) / n
        rising = s_i + (s_f - s_i) * (3 * x - 3 * x**2 + x**3)
        values.append(s_i if x < 0 else s_f if x > 1 else rising)
    return np.array(values)


def _uncut(t: Array, t0: float, n: float, s_i: float, s_f: float) -> Array:
    return s_f + (s_i - s_f) * (1 - (t - t0) / n) ** 3


def _linear(t: Array, t0: float, n: float, s_i: float, s_f: float) -> Array:
    return s_i + (s_f - s_i) * np.clip((t - t0) / n, 0, 1)


def _late(t: Array, t0: float, n: float, s_i: float, s_f: float) -> Array:
    return s_i + (s_f - s_i) * np.clip((t - t0) / n, 0, 1) ** 3


def _no_beginning(t: Array, t0: float, n: float, s_i: float, s_f: float) -> Array:
    return s_f + (s_i - s_f) * (1 - np.clip(t / n, 0, 1)) ** 3


CUBIC_SPARSITY = Exercise(
    name="compression.cubic_sparsity",
    oracle=_cubic_by_cases,
    cases=(
        Case(
            "beginning, middle and end",
            {"t": np.array([0.0, 5.0, 10.0]), "t0": 0.0, "n": 10.0, "s_i": 0.0, "s_f": 0.8},
            hint="Half-way an eighth of the way is left: 0.8 - 0.8 / 8 = 0.7.",
        ),
        Case(
            "before and after",
            {"t": np.array([0.0, 4.0, 30.0]), "t0": 5.0, "n": 10.0, "s_i": 0.2, "s_f": 0.9},
            hint="Before t0 the sparsity is s_i, after t0 + n it is s_f.",
        ),
        Case(
            "a later beginning",
            {"t": np.arange(5.0, 16.0), "t0": 5.0, "n": 10.0, "s_i": 0.2, "s_f": 0.9},
            hint="Count the steps from t0.",
        ),
    ),
    hint="done = clip((t - t0) / n, 0, 1), then s_f + (s_i - s_f) * (1 - done)**3.",
    mistakes=(
        Mistake("You did not cut the part that is done: a cube goes on after the end.", _uncut),
        Mistake("This rises linearly. The distance to s_f falls as a cube.", _linear),
        Mistake(
            "This begins slowly and ends fast. Many weights should go early: the cube is of what "
            "is left, 1 - done.",
            _late,
        ),
        Mistake("You count from step 0. The sparsity rises from t0 on.", _no_beginning),
    ),
)


# --- round_to_int8 ---------------------------------------------------------------------------


def _rounded(weights: Array, top: int = 127, per_row: bool = True, cut: bool = False) -> Array:
    """Look for the nearest of all numbers that eight bits can stand for."""
    rows = []
    for row in weights:
        largest = np.abs(row if per_row else weights).max()
        grid = np.arange(-top, top + 1) * (largest / top)
        if cut:
            rows.append(np.trunc(row / (largest / top)) * (largest / top))
        else:
            rows.append(grid[np.abs(row[:, None] - grid).argmin(1)])
    return np.array(rows)


def _whole(weights: Array, **_: Any) -> Array:
    scale = np.abs(weights).max(1, keepdims=True) / 127
    return np.rint(weights / scale)


ROUND_TO_INT8 = Exercise(
    name="compression.round_to_int8",
    oracle=_rounded,
    cases=(
        Case(
            "one row",
            {"weights": np.array([[12.7, -6.32, 0.04]])},
            hint="The scale is 0.1, so the weights become 127, -63 and 0.",
        ),
        Case(
            "rows of different size",
            {"weights": np.array([[0.011, -0.0243, 0.02], [5.2, 1.13, -7.4]])},
            hint="Each row has its own scale.",
        ),
        Case("four rows", {"weights": _draw(4, 6)}),
    ),
    hint="scale = max |w| of each row / 127, with keepdims; then round(w / scale) * scale.",
    mistakes=(
        Mistake(
            "You took one scale for the whole matrix: the row of small weights loses almost all "
            "its bits.",
            lambda weights: _rounded(weights, per_row=False),
        ),
        Mistake(
            "You cut the fraction off instead of rounding: errors reach a whole scale.",
            lambda weights: _rounded(weights, cut=True),
        ),
        Mistake(
            "These are the whole numbers. Multiply by the scale to get what they stand for.", _whole
        ),
        Mistake(
            "This is rounding to four bits: 7 steps on each side. Eight bits have 127.",
            lambda weights: _rounded(weights, top=7),
        ),
    ),
)

EXERCISES = (DISTILLATION_LOSS, PRUNE_SMALLEST, CUBIC_SPARSITY, ROUND_TO_INT8)
"""The exercises of the topic, in the order of the page."""
