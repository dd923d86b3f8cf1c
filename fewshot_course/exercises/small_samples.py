"""Exercises of the topic "Learning from few examples"."""

from __future__ import annotations

import math
import statistics

import numpy as np

from fewshot_course.exercises._exercise import Case, Exercise, Mistake

Array = np.ndarray
_RNG = np.random.default_rng(11)


# --- risk_gradient ---------------------------------------------------------------------------


def _by_complex_step(X: Array, y: Array, w: Array, lam: float) -> Array:
    """Differentiate the risk itself: Im F(w + i h e_j) / h, exact but for rounding."""
    found = np.empty(len(w))
    for j in range(len(w)):
        moved = w.astype(complex)
        moved[j] += 1e-30j
        risk = np.log(1 + np.exp(-y * (X @ moved))).mean() + lam * (moved * moved).sum()
        found[j] = risk.imag / 1e-30
    return found


def _slopes(X: Array, y: Array, w: Array) -> Array:
    """The gradient of each loss, (n, d)."""
    return -(y / (1 + np.exp(y * (X @ w))))[:, None] * X


def _logistic(n: int, d: int, lam: float) -> dict[str, Array | float]:
    return {
        "X": np.round(_RNG.normal(size=(n, d)), 2),
        "y": np.where(np.arange(n) % 3 == 0, 1.0, -1.0),
        "w": np.round(_RNG.normal(size=d), 2),
        "lam": lam,
    }


RISK_GRADIENT = Exercise(
    name="small_samples.risk_gradient",
    oracle=_by_complex_step,
    cases=(
        Case(
            "one example, w = 0, no regulariser",
            {
                "X": np.array([[2.0, -4.0]]),
                "y": np.array([1.0]),
                "w": np.zeros(2),
                "lam": 0.0,
            },
            hint="At s = 0 the derivative of the loss is -1/2: the gradient is (-1, 2).",
        ),
        Case(
            "one example, w = 0, with regulariser",
            {"X": np.array([[2.0]]), "y": np.array([-1.0]), "w": np.zeros(1), "lam": 1.0},
            hint="At w = 0 the regulariser is flat.",
        ),
        Case("five examples", _logistic(5, 3, 0.0)),
        Case(
            "five examples, with regulariser",
            _logistic(5, 3, 0.25),
            hint="The gradient of λ‖w‖² is 2λw, once, not for each example.",
        ),
    ),
    hint="-1 / (1 + e^s) for each example, times y x; the mean of these, plus 2λw.",
    mistakes=(
        Mistake(
            "This is the gradient of a sum. The risk is a mean: divide by n.",
            lambda X, y, w, lam: _slopes(X, y, w).sum(0) + 2 * lam * w,
        ),
        Mistake(
            "The sign is wrong: this direction raises the loss of the examples.",
            lambda X, y, w, lam: -_slopes(X, y, w).mean(0) + 2 * lam * w,
        ),
        Mistake(
            "You added λw. The derivative of λ‖w‖² is 2λw.",
            lambda X, y, w, lam: _slopes(X, y, w).mean(0) + lam * w,
        ),
        Mistake(
            "The regulariser is missing.",
            lambda X, y, w, lam: _slopes(X, y, w).mean(0),
        ),
        Mistake(
            "You took the probability of the right class, 1 / (1 + e^-s). An example that is far "
            "on the right side must hardly pull: take 1 / (1 + e^s).",
            lambda X, y, w, lam: _slopes(X, y, -w).mean(0) + 2 * lam * w,
        ),
    ),
)


# --- drop_units ------------------------------------------------------------------------------


def _unit_by_unit(H: Array, u: Array, p: float) -> Array:
    out = np.zeros_like(H)
    for place in np.ndindex(H.shape):
        if u[place] >= p:
            out[place] = H[place] / (1 - p)
    return out


def _hidden(n: int, h: int, p: float) -> dict[str, Array | float]:
    # Numbers with two digits, none of them p itself: rounding to float32 changes no side.
    return {
        "H": np.round(_RNG.normal(1, 1, (n, h)), 2) + 0.005,
        "u": np.round(_RNG.uniform(0, 0.98, (n, h)), 2) + 0.005,
        "p": p,
    }


DROP_UNITS = Exercise(
    name="small_samples.drop_units",
    oracle=_unit_by_unit,
    cases=(
        Case(
            "one unit stays, one goes",
            {"H": np.array([[3.0, 5.0]]), "u": np.array([[0.9, 0.1]]), "p": 0.25},
            hint="The first unit stays and becomes 3 / 0.75 = 4; the second becomes 0.",
        ),
        Case(
            "nothing is left out",
            {"H": np.array([[1.0, -2.0]]), "u": np.array([[0.3, 0.0]]), "p": 0.0},
            hint="With p = 0 nothing changes.",
        ),
        Case("few are left out", _hidden(4, 5, 0.2)),
        Case("most are left out", _hidden(4, 5, 0.8)),
    ),
    hint="H * (u >= p) / (1 - p).",
    mistakes=(
        Mistake(
            "The mean of a unit falls: divide what stays by 1 - p.",
            lambda H, u, p: H * (u >= p),
        ),
        Mistake(
            "You multiplied by 1 - p. That is done for predictions, if training does not divide; "
            "here training divides by 1 - p.",
            lambda H, u, p: H * (u >= p) * (1 - p),
        ),
        Mistake(
            "You kept the units that must go: p is the probability to be left out.",
            lambda H, u, p: H * (u < p) / (1 - p),
        ),
        Mistake(
            "You took the first example's numbers for all: each example leaves out other units.",
            lambda H, u, p: H * (u[:1] >= p) / (1 - p),
        ),
    ),
)


# --- nearest_mean_labels ---------------------------------------------------------------------


def _query_by_query(X: Array, y: Array, Q: Array) -> Array:
    means = {k: [statistics.fmean(column) for column in X[y == k].T] for k in sorted(set(y))}
    found = []
    for q in Q:
        far = {k: math.dist(q, mean) for k, mean in means.items()}
        found.append(min(far, key=far.__getitem__))
    return np.array(found)


def _distances(X: Array, y: Array, Q: Array, total: bool = False) -> Array:
    classes = np.unique(y)
    sums = np.stack([X[y == k].sum(0) for k in classes])
    sizes = np.stack([[(y == k).sum()] for k in classes])
    return np.square(Q[:, None] - sums / (len(y) if total else sizes)).sum(2)


NEAREST_MEAN_LABELS = Exercise(
    name="small_samples.nearest_mean_labels",
    oracle=_query_by_query,
    cases=(
        Case(
            "two classes on a line, one query",
            {
                "X": np.array([[0.0], [2.0], [9.0], [11.0]]),
                "y": np.array([0.0, 0.0, 1.0, 1.0]),
                "Q": np.array([[7.0]]),
            },
            hint="The means are 1 and 10; the query is nearer to 10: class 1.",
        ),
        Case(
            "a class with an example far out",
            {
                "X": np.array([[0.0, 0.0], [0.0, 10.0], [4.0, 0.0], [4.0, 1.0]]),
                "y": np.array([0.0, 0.0, 1.0, 1.0]),
                "Q": np.array([[1.0, 0.0], [0.0, 6.0], [5.0, 0.0]]),
            },
            hint="The mean of class 0 is (0, 5). The first query is nearer to the other mean, "
            "though its nearest example is of class 0.",
        ),
        Case(
            "labels in mixed order, classes of different size",
            {
                "X": np.array([[6.0, 6.0], [0.0, 1.0], [6.0, 0.0], [0.0, 3.0], [5.0, 6.0]]),
                "y": np.array([2.0, 0.0, 1.0, 0.0, 2.0]),
                "Q": np.array([[5.0, 5.0], [1.0, 1.0], [5.0, 1.0], [1.0, 4.0]]),
            },
        ),
        Case(
            "one query a class, in another order",
            {
                "X": np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]]),
                "y": np.array([0.0, 1.0, 2.0]),
                "Q": np.array([[0.0, 2.0], [2.5, 0.0], [0.4, 2.9]]),
            },
            hint="Two queries may have the same class: each query looks for its class, not each "
            "class for its query.",
        ),
    ),
    hint="Means over the rows of a class; squared distances (m, C); argmin over axis 1.",
    mistakes=(
        Mistake(
            "This finds a query for each class: take the argmin over the classes, axis 1.",
            lambda X, y, Q: _distances(X, y, Q).argmin(0),
        ),
        Mistake(
            "This is the class of the nearest example. Take the means first.",
            lambda X, y, Q: y[np.square(Q[:, None] - X).sum(2).argmin(1)],
        ),
        Mistake(
            "This is the class furthest away. Take argmin, or argmax of minus the distance.",
            lambda X, y, Q: _distances(X, y, Q).argmax(1),
        ),
        Mistake(
            "The sums of each class are divided by n. Divide each by its own number of examples.",
            lambda X, y, Q: _distances(X, y, Q, total=True).argmin(1),
        ),
    ),
)


# --- paired_interval -------------------------------------------------------------------------


def _by_the_book(a: Array, b: Array, t: float) -> Array:
    delta = [float(x - z) for x, z in zip(a, b, strict=True)]
    mean = statistics.fmean(delta)
    half = t * statistics.stdev(delta) / math.sqrt(len(delta))
    return np.array([mean, mean - half, mean + half])


def _around(mean: float, half: float) -> Array:
    return np.array([mean, mean - half, mean + half])


def _scores(n: int, t: float) -> dict[str, Array | float]:
    luck = _RNG.normal(0, 0.05, n)
    a = 0.80 + luck + _RNG.normal(0, 0.01, n)
    return {"a": np.round(a, 3), "b": np.round(0.78 + luck, 3), "t": t}


PAIRED_INTERVAL = Exercise(
    name="small_samples.paired_interval",
    oracle=_by_the_book,
    cases=(
        Case(
            "two draws",
            {"a": np.array([0.7, 0.9]), "b": np.array([0.6, 0.6]), "t": 12.706},
            hint="The differences are 0.1 and 0.3; their standard deviation is √0.02.",
        ),
        Case("five draws, the same luck in both", _scores(5, 2.776)),
        Case("ten draws", _scores(10, 2.262)),
    ),
    hint="delta = a - b, then mean, and t * delta.std(ddof=1) / sqrt(n).",
    mistakes=(
        Mistake(
            "You took the scores as independent and added their variances. The luck of a draw is "
            "in both: take the differences first.",
            lambda a, b, t: _around(
                (a - b).mean(), t * np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))
            ),
        ),
        Mistake(
            "This is t standard deviations: where single draws fall. Divide by √n for the mean.",
            lambda a, b, t: _around((a - b).mean(), t * (a - b).std(ddof=1)),
        ),
        Mistake(
            "Your standard deviation divides by n. Use ddof=1.",
            lambda a, b, t: _around((a - b).mean(), t * (a - b).std() / np.sqrt(len(a))),
        ),
        Mistake(
            "You divided by n. The standard error has √n.",
            lambda a, b, t: _around((a - b).mean(), t * (a - b).std(ddof=1) / len(a)),
        ),
        Mistake(
            "This is the interval of b - a.",
            lambda a, b, t: _by_the_book(b, a, t),
        ),
    ),
)

EXERCISES = (RISK_GRADIENT, DROP_UNITS, NEAREST_MEAN_LABELS, PAIRED_INTERVAL)
"""The exercises of the topic, in the order of the page."""
