"""Episodes: many small tasks, each with a support set to learn from and a query set to score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_course._checks import check_labels, check_number

__all__ = ["EpisodeSampler", "Episodes"]


@dataclass(frozen=True, eq=False)
class Episodes:
    """T tasks, stacked.

    For classification a task has N ways (classes) and K shots; its labels are 0 to N-1 and mean
    something else in every task.  For regression the labels are floats ``(T, n, 1)``.

    Attributes:
        X_support: ``(T, N*K, ...)``, what a task is learned from.
        y_support: ``(T, N*K)`` int64, or the targets of a regression.
        X_query: ``(T, N*Q, ...)``, what the task is scored on.
        y_query: ``(T, N*Q)`` int64, or the targets of a regression.
        classes: ``(T, N)``, what the sampler calls the classes 0 to N-1 of each task; ``None``
            where nobody knows.  A learner that is to learn the tasks must not look at it.
    """

    X_support: np.ndarray
    y_support: np.ndarray
    X_query: np.ndarray
    y_query: np.ndarray
    classes: np.ndarray | None = None

    def __post_init__(self) -> None:
        for part in ("support", "query"):
            X, y = getattr(self, f"X_{part}"), getattr(self, f"y_{part}")
            if X.shape[:2] != y.shape[:2]:
                raise ValueError(
                    f"X_{part} has shape {X.shape} and y_{part} {y.shape}; "
                    f"the first two dimensions (tasks, examples) must agree."
                )
        if len(self.X_support) != len(self.X_query):
            raise ValueError(
                f"X_support has {len(self.X_support)} tasks, X_query {len(self.X_query)}."
            )

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.X_support)

    def task(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return (X_support, y_support, X_query, y_query) of one task."""
        return (
            self.X_support[index],
            self.y_support[index],
            self.X_query[index],
            self.y_query[index],
        )


class EpisodeSampler:
    """Draws classification tasks from any labelled arrays.

    A task takes ``ways`` different classes, and of each ``shots + queries`` different examples.
    Within a task the classes are numbered in random order, so a number tells nothing.  The
    examples of a support or query set are ordered by that number.

    Args:
        X: examples ``(n, ...)``: vectors, images, or any other numeric array.
        y: labels ``(n,)``.
        ways: classes a task, >= 2.
        shots: support examples a class, >= 1.
        queries: query examples a class, >= 1.
        classes: the labels to draw from; default all.  Classes held out for the test are left
            out here.

    Raises:
        ValueError: for more ways than classes, a class with fewer than ``shots + queries``
            examples, an empty query set, a label that does not occur, or NaN.
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        ways: int,
        shots: int,
        queries: int,
        classes: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        self.X = _check_examples(X)
        self.y = check_labels("y", y, n=len(self.X))
        self.ways = int(check_number("ways", ways, low=2, integer=True))
        self.shots = int(check_number("shots", shots, low=1, integer=True))
        self.queries = int(check_number("queries", queries, low=1, integer=True))
        present = np.unique(self.y)
        if classes is None:
            self.classes = present
        else:
            self.classes = np.unique(check_labels("classes", classes))
            absent = np.setdiff1d(self.classes, present)
            if len(absent):
                raise ValueError(f"classes names {absent.tolist()}, which do not occur in y.")
        if self.ways > len(self.classes):
            raise ValueError(
                f"ways={self.ways} asks for more than the {len(self.classes)} classes."
            )
        # Examples sorted by class: the members of a class are one slice of this array.
        order = np.argsort(self.y, kind="stable")
        starts = np.searchsorted(self.y[order], self.classes)
        ends = np.searchsorted(self.y[order], self.classes, side="right")
        self._members = [order[a:b] for a, b in zip(starts, ends, strict=True)]
        needed = self.shots + self.queries
        for label, members in zip(self.classes, self._members, strict=True):
            if len(members) < needed:
                raise ValueError(
                    f"class {label} has {len(members)} examples, but shots={self.shots} and "
                    f"queries={self.queries} need {needed}."
                )

    def sample_indices(
        self, rng: np.random.Generator | int, n_tasks: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the examples of tasks.

        Returns:
            Indices into ``X``: support ``(T, ways, shots)`` and query ``(T, ways, queries)``.
        """
        n_tasks = check_number("n_tasks", n_tasks, low=1, integer=True)
        rng = np.random.default_rng(rng)
        needed = self.shots + self.queries
        drawn = np.empty((n_tasks, self.ways, needed), dtype=np.int64)
        for task in range(n_tasks):
            chosen = rng.choice(len(self.classes), size=self.ways, replace=False)
            for way, index in enumerate(chosen):
                drawn[task, way] = rng.choice(self._members[index], size=needed, replace=False)
        return drawn[:, :, : self.shots], drawn[:, :, self.shots :]

    def sample(self, rng: np.random.Generator | int, n_tasks: int) -> Episodes:
        """Draw ``n_tasks`` tasks; the same state of ``rng`` gives the same tasks."""
        support, query = self.sample_indices(rng, n_tasks)
        y = np.arange(self.ways)
        classes = self.y[support[:, :, 0]]
        return Episodes(
            X_support=self.X[support.reshape(len(support), -1)],
            y_support=np.tile(np.repeat(y, self.shots), (len(support), 1)),
            X_query=self.X[query.reshape(len(query), -1)],
            y_query=np.tile(np.repeat(y, self.queries), (len(query), 1)),
            classes=classes,
        )


def _check_examples(X: Any) -> np.ndarray:
    """Return ``X`` as a finite numeric array ``(n, ...)``; its dtype stays what it was."""
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"X is ragged: all examples must have one shape ({error}).") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"X must be a numeric array, got dtype {array.dtype}.")
    if array.ndim < 2 or len(array) == 0:
        raise ValueError(f"X must have shape (n, ...) with n >= 1, got {array.shape}.")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array.reshape(len(array), -1))).any(axis=1).sum())
        raise ValueError(f"X has NaN or infinite values in {bad} of {len(array)} examples.")
    return array
