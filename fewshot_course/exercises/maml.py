"""Exercises of the topic "Meta-learning"."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot_course.exercises._exercise import Case, Exercise, Mistake

Array = np.ndarray
_RNG = np.random.default_rng(30)


def _draw(*shape: int) -> Array:
    return np.round(_RNG.normal(0, 1, shape), 2)


# --- inner_update ----------------------------------------------------------------------------


def _inner_by_hessian(w: Array, X: Array, y: Array, lr: float, steps: int) -> Array:
    """The loss is quadratic: w_k - w* = (I - αH)ᵏ (w - w*), with the least-squares solution w*."""
    hessian = 2 * X.T @ X / len(y)
    best = np.linalg.pinv(X) @ y
    return best + np.linalg.matrix_power(np.eye(len(w)) - lr * hessian, steps) @ (w - best)


def _descend(
    w: Array, X: Array, y: Array, lr: float, steps: int, factor: float = 1.0, anew: bool = True
) -> Array:
    start = w
    for _ in range(int(steps)):
        at = w if anew else start
        w = w - lr * factor * 2 * X.T @ (X @ at - y) / len(y)
    return w


INNER_UPDATE = Exercise(
    name="maml.inner_update",
    oracle=_inner_by_hessian,
    cases=(
        Case(
            "one weight, one example, one step",
            {"w": np.zeros(1), "X": np.ones((1, 1)), "y": np.array([3.0]), "lr": 0.1, "steps": 1},
            hint="The gradient is 2 (w - 3) = -6, so the new weight is 0.6.",
        ),
        Case(
            "four examples, one step",
            {"w": _draw(2), "X": _draw(4, 2), "y": _draw(4), "lr": 0.1, "steps": 1},
            hint="The loss is a mean: divide the sum by the number of examples.",
        ),
        Case(
            "three steps",
            {"w": _draw(3), "X": _draw(5, 3), "y": _draw(5), "lr": 0.05, "steps": 3},
            hint="Compute the gradient anew in each step.",
        ),
    ),
    hint="In each step: w = w - lr * 2 / n * X.T @ (X @ w - y).",
    mistakes=(
        Mistake(
            "You added the gradient. Go against it: w - lr * gradient.",
            lambda **a: _descend(**{**a, "lr": -a["lr"]}),
        ),
        Mistake(
            "You took the sum over the examples. The loss is their mean: divide by n. This "
            "mistake changes what an inner rate means.",
            lambda **a: _descend(**a, factor=len(a["y"])),
        ),
        Mistake(
            "The gradient is that of the first weights in every step. Compute it anew.",
            lambda **a: _descend(**a, anew=False),
        ),
        Mistake("The factor 2 of the square is missing.", lambda **a: _descend(**a, factor=0.5)),
    ),
)


# --- meta_gradient ---------------------------------------------------------------------------


def _parts(a: dict[str, Any]) -> tuple[Array, Array, Array]:
    """Return I - αH, the query gradient at the adapted weights, and that at the old ones."""
    w, X, y, Q, z = (a[k] for k in ("w", "X_support", "y_support", "X_query", "y_query"))
    adapted = _inner_by_hessian(w, X, y, a["lr"], 1)
    factor = np.eye(len(w)) - a["lr"] * 2 * X.T @ X / len(y)
    at_new, at_old = (2 * Q.T @ (Q @ v - z) / len(z) for v in (adapted, w))
    return factor, at_new, at_old


def _meta_by_hand(**a: Any) -> Array:
    factor, at_new, _ = _parts(a)
    return factor @ at_new


def _on_support(**a: Any) -> Array:
    return _meta_by_hand(**{**a, "X_query": a["X_support"], "y_query": a["y_support"]})


def _task(d: int, n: int, q: int, lr: float) -> dict[str, Any]:
    names = ("X_support", "y_support", "X_query", "y_query")
    arrays = (_draw(n, d), _draw(n), _draw(q, d), _draw(q))
    return {"w": _draw(d), **dict(zip(names, arrays, strict=True)), "lr": lr}


META_GRADIENT = Exercise(
    name="maml.meta_gradient",
    oracle=_meta_by_hand,
    cases=(
        Case("one weight", _task(1, 2, 2, 0.1)),
        Case(
            "inner rate 0: the plain query gradient",
            _task(2, 3, 3, 0.0),
            hint="With an inner rate of 0 nothing is adapted.",
        ),
        Case("two weights", _task(2, 4, 3, 0.2)),
        Case("four weights", _task(4, 5, 6, 0.1)),
    ),
    hint="Differentiate the query loss at w - lr * inner by w, not by the adapted weights.",
    mistakes=(
        Mistake(
            "This is first-order MAML: the inner gradient was a constant. Keep it in the graph "
            "(create_graph=True, or the outer tape around the inner one).",
            lambda **a: _parts(a)[1],
        ),
        Mistake(
            "This is the query gradient at the old weights: nothing was adapted.",
            lambda **a: _parts(a)[2],
        ),
        Mistake(
            "The outer loss is computed on the support set. It must be the query set.", _on_support
        ),
    ),
)


# --- prototype_distances ---------------------------------------------------------------------


def _distances_by_loop(support: Array, queries: Array) -> Array:
    """One query and one class at a time."""
    means = [sum(examples) / len(examples) for examples in support]
    return np.array([[float((q - m) @ (q - m)) for m in means] for q in queries])


PROTOTYPE_DISTANCES = Exercise(
    name="maml.prototype_distances",
    oracle=_distances_by_loop,
    cases=(
        Case(
            "one shot in one dimension",
            {"support": np.array([[[0.0]], [[4.0]]]), "queries": np.array([[1.0]])},
            hint="The squared distances are 1 and 9.",
        ),
        Case("three classes, two shots", {"support": _draw(3, 2, 2), "queries": _draw(4, 2)}),
        Case(
            "as many shots as classes",
            {"support": _draw(3, 3, 2), "queries": _draw(2, 2)},
            hint="Take the mean over axis 1, the shots; axis 0 are the classes.",
        ),
    ),
    hint="Mean over axis 1, differences of shape (q, ways, d), squares, sum over the last axis.",
    mistakes=(
        Mistake(
            "These are distances. Prototypical networks use their squares: leave the root out.",
            lambda **a: np.sqrt(_distances_by_loop(**a)),
        ),
        Mistake(
            "You took the mean over the coordinates. A squared length is their sum.",
            lambda **a: _distances_by_loop(**a) / a["queries"].shape[1],
        ),
        Mistake(
            "This is the mean distance to the examples of a class, not the distance to their mean.",
            lambda support, queries: np.square(queries[:, None, None] - support).sum(-1).mean(-1),
        ),
    ),
)


# --- attention_labels ------------------------------------------------------------------------


def _attention_by_loop(
    support: Array, labels: Array, queries: Array, ways: int, scale: float, **how: bool
) -> Array:
    """One query and one support example at a time; ``how`` makes a mistake."""
    owners = [int(label) for label in labels]
    result = np.zeros((len(queries), int(ways)))
    for row, z in zip(result, queries, strict=True):
        norms = [1.0 if how.get("dot") else np.linalg.norm(z) * np.linalg.norm(x) for x in support]
        scores = [scale * (z @ x) / norm for x, norm in zip(support, norms, strict=True)]
        counted = owners
        if how.get("mean"):
            scores = [float(np.mean(np.array(scores)[labels == k])) for k in range(int(ways))]
            counted = list(range(int(ways)))
        weights = np.exp(scores)
        for label, weight in zip(counted, weights, strict=True):
            row[label] += weight if how.get("bare") else weight / weights.sum()
    return result


_ATTENDED = {"support": _draw(6, 3), "labels": np.array([0, 2, 1, 0, 0, 1]), "queries": _draw(4, 3)}

ATTENTION_LABELS = Exercise(
    name="maml.attention_labels",
    oracle=_attention_by_loop,
    cases=(
        Case(
            "two examples at a right angle",
            {
                "support": np.array([[2.0, 0.0], [0.0, 3.0]]),
                "labels": np.array([0, 1]),
                "queries": np.array([[5.0, 0.0]]),
                "ways": 2,
                "scale": 1.0,
            },
            hint="The cosines are 1 and 0, so the first class has e / (e + 1) = 0.731.",
        ),
        Case("three classes of unequal size", {**_ATTENDED, "ways": 3, "scale": 1.0}),
        Case("a scale of 10", {**_ATTENDED, "ways": 3, "scale": 10.0}),
    ),
    hint="Unit vectors, scale * queries @ support.T, softmax over axis 1, times one-hot labels.",
    mistakes=(
        Mistake(
            "These are products of the vectors as they are. For cosines, divide each vector by its "
            "length first.",
            lambda **a: _attention_by_loop(**a, dot=True),
        ),
        Mistake(
            "The scale is missing: multiply the cosines by it before the softmax.",
            lambda **a: _attention_by_loop(**{**a, "scale": 1.0}),
        ),
        Mistake(
            "You averaged the cosines of a class and took the softmax over the classes. Take it "
            "over the support examples, and add up the attention of each class.",
            lambda **a: _attention_by_loop(**a, mean=True),
        ),
        Mistake(
            "The weights do not add up to 1: divide them by their sum over the support set.",
            lambda **a: _attention_by_loop(**a, bare=True),
        ),
    ),
)


# --- reptile_step ----------------------------------------------------------------------------


def _reptile_by_loop(theta: Array, ends: Array, rate: float) -> Array:
    """A weighted mean of theta and the mean of the ends."""
    return (1 - rate) * theta + rate * sum(ends) / len(ends)


REPTILE_STEP = Exercise(
    name="maml.reptile_step",
    oracle=_reptile_by_loop,
    cases=(
        Case(
            "half way to one task's weights",
            {"theta": np.zeros(2), "ends": np.array([[2.0, 4.0]]), "rate": 0.5},
            hint="Half of the way from (0, 0) to (2, 4) is (1, 2).",
        ),
        Case("three tasks", {"theta": _draw(2), "ends": _draw(3, 2), "rate": 0.3}),
        Case("rate 1: the mean", {"theta": _draw(4), "ends": _draw(5, 4), "rate": 1.0}),
    ),
    hint="theta + rate * mean(ends - theta) over axis 0, the tasks.",
    mistakes=(
        Mistake(
            "You went away from the ends: the way is ends - theta.",
            lambda theta, ends, rate: theta - rate * (ends - theta).mean(0),
        ),
        Mistake(
            "You took the sum over the tasks. Take the mean.",
            lambda theta, ends, rate: theta + rate * (ends - theta).sum(0),
        ),
        Mistake(
            "You moved by the ends themselves. Subtract theta first.",
            lambda theta, ends, rate: theta + rate * ends.mean(0),
        ),
    ),
)

EXERCISES = (
    INNER_UPDATE,
    META_GRADIENT,
    PROTOTYPE_DISTANCES,
    ATTENTION_LABELS,
    REPTILE_STEP,
)
"""The exercises of the topic, in the order of the page."""
