"""Property tests for evaluations: what must hold for every honest one, whatever its scores.

A *leak* lets something of the test into the training.  It seldom raises an error; it raises the
score.  Each function here checks one property that an honest evaluation has by construction, and
raises :class:`LeakFound` where it is violated.  Run them on your own pipeline, for example as
tests under pytest: ``LeakFound`` is an ``AssertionError``.

Two shapes of pipeline occur:

``predict(X_train, y_train, X_query) -> labels``
    trains anew at each call and predicts the queries, in their order; with fixed seeds.
``evaluate(X, y, rng) -> score``
    the whole protocol with its split, an accuracy in [0, 1].

A check that passes shows that this property holds on these data.  It proves no innocence: each
leak needs the check that can see it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from fewshot_course._arguments import checked
from fewshot_course._checks import check_features, check_labels, check_number
from fewshot_course.evaluation.intervals import mean_interval

__all__ = [
    "LeakFound",
    "check_chance_level",
    "check_disjoint",
    "check_distinct_classes",
    "check_label_names",
    "check_no_near_duplicates",
    "check_one_query_at_a_time",
    "check_query_order",
    "check_test_labels_unused",
]

Predict = Callable[[Any, Any, Any], Any]
Evaluate = Callable[[Any, Any, np.random.Generator], float]


class LeakFound(AssertionError):
    """An evaluation lacks a property that every honest one has."""


@checked
def check_disjoint(train: Any, test: Any) -> None:
    """No example may be on both sides, nor twice on one side.

    Args:
        train: indices of the training or support examples, whole numbers of any shape.
        test: indices of the test or query examples.

    Raises:
        LeakFound: for a shared or repeated index.
        TypeError: for indices that are no whole numbers.
    """
    sides = {"train": _indices("train", train), "test": _indices("test", test)}
    shared = np.intersect1d(sides["train"], sides["test"])
    if len(shared):
        n = int(np.isin(sides["test"], shared).sum())
        raise LeakFound(f"{n} of {sides['test'].size} test examples are training examples too.")
    for name, index in sides.items():
        repeated = index.size - np.unique(index).size
        if repeated:
            raise LeakFound(f"{repeated} of {index.size} {name} examples occur more than once.")


@checked
def check_distinct_classes(classes: Any) -> None:
    """An N-way episode must have N different classes, and each way one class only.

    Args:
        classes: the data set's own label of each support example, before it was renumbered,
            ``(N, K)`` or ``(T, N, K)`` for T episodes.

    Raises:
        LeakFound: for a class that fills two ways, or a way with two classes.
        TypeError: for labels that are no whole numbers.
        ValueError: for another shape.
    """
    array = np.asarray(classes)
    if array.dtype.kind not in "iu":
        raise TypeError(f"classes must hold whole numbers, got dtype {array.dtype}.")
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(f"classes must have shape (N, K) or (T, N, K), got {array.shape}.")
    episodes = array[None] if array.ndim == 2 else array
    if (episodes != episodes[..., :1]).any():
        raise LeakFound("a way has examples of more than one class.")
    ways = np.sort(episodes[..., 0], axis=1)
    short = int((np.diff(ways, axis=1) == 0).any(axis=1).sum())
    if short:
        raise LeakFound(
            f"{short} of {len(ways)} episodes have a class twice: they have fewer than "
            f"{ways.shape[1]} ways."
        )


@checked
def check_one_query_at_a_time(predict: Predict, X_train: Any, y_train: Any, X_query: Any) -> None:
    """A prediction must not depend on the other queries.

    All queries are predicted together, and then each one alone.  Statistics of the query batch,
    knowledge of its class balance and a maximum over the wrong axis all show.

    A *transductive* method uses the other queries on purpose, and fails here as it must: say so
    beside its score, and compare it with its like only.

    Args:
        predict: the pipeline.
        X_train: training examples ``(n, ...)``.
        y_train: their labels ``(n,)``.
        X_query: queries ``(m, ...)``, m >= 2.

    Raises:
        LeakFound: if a prediction changes, or their number is not that of the queries.
        ValueError: for fewer than two queries.
    """
    queries = _examples("X_query", X_query, 2)
    _training(X_train, y_train)
    together = _predictions(predict, X_train, y_train, queries)
    alone = np.concatenate(
        [_predictions(predict, X_train, y_train, queries[i : i + 1]) for i in range(len(queries))]
    )
    changed = int((together != alone).sum())
    if changed:
        raise LeakFound(f"{changed} of {len(queries)} predictions change when a query is alone.")


@checked
def check_query_order(
    predict: Predict, X_train: Any, y_train: Any, X_query: Any, rng: np.random.Generator | int
) -> None:
    """Queries in another order must get the same predictions, in that order.

    Test sets are often sorted by class.  A pipeline that makes use of neighbours in the file, on
    purpose or not, then scores too well.

    Args:
        predict: the pipeline.
        X_train: training examples ``(n, ...)``.
        y_train: their labels ``(n,)``.
        X_query: queries ``(m, ...)``, m >= 2.
        rng: draws the other order.

    Raises:
        LeakFound: if a prediction changes, or their number is not that of the queries.
        ValueError: for fewer than two queries.
    """
    queries = _examples("X_query", X_query, 2)
    _training(X_train, y_train)
    order = np.random.default_rng(rng).permutation(len(queries))
    here = _predictions(predict, X_train, y_train, queries)[order]
    there = _predictions(predict, X_train, y_train, queries[order])
    changed = int((here != there).sum())
    if changed:
        raise LeakFound(f"{changed} of {len(queries)} predictions change with the queries' order.")


@checked
def check_label_names(
    predict: Predict, X_train: Any, y_train: Any, X_query: Any, rng: np.random.Generator | int
) -> None:
    """Other numbers for the classes must give the same predictions under their new numbers.

    Args:
        predict: the pipeline; where it draws at random, its draw must not depend on the labels.
        X_train: training examples ``(n, ...)``.
        y_train: their labels ``(n,)``, whole numbers >= 0 of at least two classes.
        X_query: queries ``(m, ...)``.
        rng: draws the new numbers; no class keeps its own.

    Raises:
        LeakFound: if a prediction is another class than before.
        TypeError: for labels that are no whole numbers.
        ValueError: for labels of one class only.
    """
    queries = _examples("X_query", X_query)
    labels = _training(X_train, y_train)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(f"y_train needs at least two classes, got {len(classes)}.")
    # A shift along a random circle of the classes: no class keeps its number.
    circle = np.random.default_rng(rng).permutation(classes)
    new = np.zeros(classes.max() + 1, dtype=np.int64)
    new[circle] = np.roll(circle, 1)
    before = _predictions(predict, X_train, labels, queries)
    after = _predictions(predict, X_train, new[labels], queries)
    unknown = ~np.isin(before, classes)
    if unknown.any():
        raise LeakFound(f"{int(unknown.sum())} of {len(queries)} predictions name no known class.")
    changed = int((new[before] != after).sum())
    if changed:
        raise LeakFound(
            f"{changed} of {len(queries)} predictions change when classes get other numbers."
        )


@checked
def check_test_labels_unused(
    run: Callable[[Any, Any, Any, Any], Any],
    X_train: Any,
    y_train: Any,
    X_test: Any,
    y_test: Any,
    rng: np.random.Generator | int,
    repeats: int = 5,
) -> None:
    """Wrong test labels must change the score only, never the predictions.

    The best of several seeds, epochs or settings, chosen by the test score, shows here.

    Args:
        run: ``run(X_train, y_train, X_test, y_test) -> predictions``: all of a pipeline that has
            the test labels in its hands; with fixed seeds.
        X_train: training examples ``(n, ...)``.
        y_train: their labels ``(n,)``.
        X_test: test examples ``(m, ...)``.
        y_test: their labels ``(m,)``, of at least two classes.
        rng: shuffles the test labels.
        repeats: how often they are shuffled, >= 1.

    Raises:
        LeakFound: if predictions change with the test labels.
        ValueError: for test labels of one class only.
    """
    queries = _examples("X_test", X_test, 2)
    _training(X_train, y_train)
    labels = check_labels("y_test", y_test, n=len(queries))
    if len(np.unique(labels)) < 2:
        raise ValueError("y_test needs at least two classes: a shuffle would change nothing.")
    check_number("repeats", repeats, low=1, integer=True)
    rng = np.random.default_rng(rng)
    expected = _shaped(run(X_train, y_train, queries, labels), len(queries))
    for _ in range(repeats):
        found = _shaped(run(X_train, y_train, queries, rng.permutation(labels)), len(queries))
        changed = int((found != expected).sum())
        if changed:
            raise LeakFound(
                f"{changed} of {len(queries)} predictions change with the labels of the test."
            )


@checked
def check_chance_level(
    evaluate: Evaluate,
    X: Any,
    y: Any,
    rng: np.random.Generator | int,
    *,
    chance: float | None = None,
    draws: int = 20,
    confidence: float = 0.999,
) -> None:
    """With shuffled labels there is nothing to learn: the score must be that of guessing.

    The labels are shuffled before the whole protocol, ``draws`` times.  A score above chance then
    comes from labels of the test that the training has seen.

    It is a statistical test.  An honest protocol fails it about once in 2 / (1 - confidence)
    times, and a leak that is small beside the spread of the score stays unseen; more draws
    sharpen it.

    Args:
        evaluate: the whole protocol.
        X: examples, an array ``(n, ...)`` or a list.
        y: labels ``(n,)``, whole numbers >= 0.
        rng: shuffles the labels, and goes on to the protocol.
        chance: the score of guessing; the share of the largest class if not given.
        draws: shuffles, >= 2.
        confidence: level of the interval that must not lie above chance.

    Raises:
        LeakFound: if the lower end of the interval of the scores lies above chance.
        ValueError: for scores outside [0, 1].
    """
    # A list may hold examples of different sizes, which the protocol knows how to take.
    sizes = [len(_examples("X", one)) for one in X] if _is_ragged(X) else _examples("X", X)
    labels = check_labels("y", y, n=len(sizes))
    check_number("draws", draws, low=2, integer=True)
    level = float(np.bincount(labels).max() / len(labels)) if chance is None else chance
    check_number("chance", level, low=0, high=1)
    rng = np.random.default_rng(rng)
    scores = []
    for _ in range(draws):
        score = float(evaluate(X, rng.permutation(labels), rng))
        scores.append(check_number("the score of evaluate", score, low=0, high=1))
    found = mean_interval(scores, confidence)
    if found.low > level:
        raise LeakFound(
            f"shuffled labels score {100 * found.mean:.1f} %, where guessing has "
            f"{100 * level:.1f} %."
        )


@checked
def check_no_near_duplicates(X_train: Any, X_test: Any, tolerance: float = 0.1) -> None:
    """No test example may be nearly the same as a training example.

    The measure is the Euclidean distance in units of the median distance between two training
    examples.  Near copies are pictures taken twice, texts with one word changed, rows of one
    patient.  What counts as near is your choice: look at the nearest pairs.

    Args:
        X_train: training examples ``(n, ...)``, n >= 2.
        X_test: test examples ``(m, ...)``.
        tolerance: the smallest distance allowed, as a part of the median one, >= 0.

    Raises:
        LeakFound: if a test example is nearer than that; equal examples always are.
        ValueError: for training examples that are all the same, or arrays that do not fit.
    """
    train = check_features("X_train", X_train)
    test = check_features("X_test", X_test, like=train.shape[1:])
    if len(train) < 2:
        raise ValueError("X_train needs at least two examples.")
    check_number("tolerance", tolerance, low=0)
    A = train.reshape(len(train), -1).astype(np.float64)
    B = test.reshape(len(test), -1).astype(np.float64)
    typical = float(np.median(_distances(A, A)[np.triu_indices(len(A), 1)]))
    if typical == 0:
        raise ValueError("X_train has mostly equal examples: there is no distance to compare with.")
    near = int((_distances(B, A).min(axis=1) <= tolerance * typical).sum())
    if near:
        raise LeakFound(f"{near} of {len(test)} test examples are nearly training examples.")


def _distances(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Euclidean distances between rows, ``(len(A), len(B))``; row by row, so that equal is 0."""
    return np.stack([np.sqrt(np.square(B - row).sum(axis=1)) for row in A])


def _indices(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold indices, whole numbers, got dtype {array.dtype}.")
    return array.ravel()


def _examples(name: str, X: Any, least: int = 1) -> np.ndarray:
    """Return examples as an array: finite numbers, or texts.  NaN would hide a leak."""
    try:
        array = X.toarray() if sparse.issparse(X) else np.asarray(X)
    except ValueError:
        raise ValueError(f"{name} is ragged: all examples must have one shape.") from None
    if array.ndim == 0 or len(array) < least:
        raise ValueError(f"{name} needs at least {least} rows, got shape {array.shape}.")
    if array.dtype.kind in "fiub":
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has NaN or infinite values: nothing could be judged.")
    elif not all(isinstance(value, str) for value in array.flat):
        raise TypeError(f"{name} must hold numbers or texts, got dtype {array.dtype}.")
    return array


def _is_ragged(X: Any) -> bool:
    return isinstance(X, list) and len({np.shape(one) for one in X}) > 1


def _training(X_train: Any, y_train: Any) -> np.ndarray:
    """Check the examples that the pipeline gets as they are; return their labels."""
    return check_labels("y_train", y_train, n=len(_examples("X_train", X_train)))


def _predictions(predict: Predict, X_train: Any, y_train: Any, X_query: np.ndarray) -> np.ndarray:
    return _shaped(predict(X_train, y_train, X_query), len(X_query))


def _shaped(predictions: Any, n: int) -> np.ndarray:
    array = np.asarray(predictions)
    if array.shape != (n,):
        raise LeakFound(f"{n} queries got predictions of shape {array.shape}, expected ({n},).")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("the pipeline predicts NaN or infinity: nothing could be judged.")
    return array
