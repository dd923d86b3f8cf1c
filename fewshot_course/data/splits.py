"""Who learns from what: few-shot splits, hidden labels and the order of the batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot_course._arguments import checked
from fewshot_course._checks import UNLABELLED, check_labels, check_number

__all__ = ["BatchStream", "Split", "few_shot_split", "mask_labels"]


@dataclass(frozen=True, eq=False)
class Split:
    """Four disjoint index arrays (int64, ascending) that together hold every example.

    Attributes:
        labelled: ``shots`` examples of each class.
        unlabelled: examples that may be used without their labels.
        validation: examples for choices such as early stopping.
        test: examples for the score only.
    """

    labelled: np.ndarray
    unlabelled: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@checked
def few_shot_split(
    y: Any,
    shots: int,
    rng: np.random.Generator | int,
    *,
    n_validation: int = 0,
    n_test: int | None = None,
) -> Split:
    """Draw a stratified few-shot split.

    Validation and test parts have the class shares of ``y`` (rounded by largest remainder).
    They do not depend on ``shots``, and the labelled examples for fewer shots are among those
    for more: with the same seed, scores at different shots can be compared in pairs.

    Args:
        y: labels ``(n,)``, whole numbers >= 0.
        shots: labelled examples of each class, >= 1.
        rng: a generator or a seed.
        n_validation: examples of the validation part, over all classes.
        n_test: examples of the test part, over all classes; ``None`` takes half of ``y``.

    Returns:
        The split; what is in no other part is unlabelled.

    Raises:
        ValueError: if a class has too few examples.
    """
    y = check_labels("y", y)
    shots = check_number("shots", shots, low=1, integer=True)
    n_validation = check_number("n_validation", n_validation, low=0, integer=True)
    n_test = len(y) // 2 if n_test is None else check_number("n_test", n_test, low=0, integer=True)
    if len(y) == 0:
        raise ValueError("y has no labels.")
    if n_validation + n_test > len(y):
        raise ValueError(
            f"n_validation={n_validation} and n_test={n_test} ask for more than the "
            f"{len(y)} examples of y."
        )
    rng = np.random.default_rng(rng)
    classes, counts = np.unique(y, return_counts=True)
    held_out = _shares(counts, n_validation + n_test)
    testing = _shares(held_out, n_test)
    parts: dict[str, list[np.ndarray]] = {
        "labelled": [],
        "unlabelled": [],
        "validation": [],
        "test": [],
    }
    for label, count, n_held_out, n_testing in zip(classes, counts, held_out, testing, strict=True):
        if shots + n_held_out > count:
            raise ValueError(
                f"class {label} has {count} examples, but shots={shots} labelled and "
                f"{n_held_out} for validation and test are asked for; "
                f"lower shots, n_validation or n_test."
            )
        order = rng.permutation(np.flatnonzero(y == label))
        first_held_out, first_test = count - n_held_out, count - n_testing
        parts["labelled"].append(order[:shots])
        parts["unlabelled"].append(order[shots:first_held_out])
        parts["validation"].append(order[first_held_out:first_test])
        parts["test"].append(order[first_test:])
    return Split(**{name: np.sort(np.concatenate(part)) for name, part in parts.items()})


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Divide ``total`` over the classes in proportion to ``counts`` (largest remainder)."""
    if total == 0:
        return np.zeros_like(counts)
    scaled = counts * total  # whole numbers, so that no rounding error decides
    shares, remainders = scaled // counts.sum(), scaled % counts.sum()
    missing = total - shares.sum()
    largest = np.argsort(-remainders, kind="stable")[:missing]
    shares[largest] += 1
    return shares


@checked
def mask_labels(y: Any, labelled: Any) -> np.ndarray:
    """Return ``y`` with -1, "unknown", everywhere but at the indices ``labelled``.

    Args:
        y: labels ``(n,)``.
        labelled: indices of the labels to keep.

    Returns:
        A new int64 array ``(n,)``.

    Raises:
        TypeError: if ``labelled`` holds no whole numbers (a Boolean mask is not accepted).
        ValueError: if an index lies outside ``y``.
    """
    y = check_labels("y", y, allow_unlabelled=True)
    index = np.asarray(labelled)
    if index.size == 0:
        index = index.astype(np.int64)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise TypeError(
            f"labelled must be a list of indices, got shape {index.shape} and dtype {index.dtype}."
        )
    if len(index) and (index.min() < 0 or index.max() >= len(y)):
        raise ValueError(f"labelled holds indices outside 0..{len(y) - 1}.")
    masked = np.full(len(y), UNLABELLED, dtype=np.int64)
    masked[index] = y[index]
    return masked


class BatchStream:
    """Endless batches of indices, in an order that one generator decides.

    Each epoch is a new permutation, cut into batches of one size; what does not fill a batch is
    left out of that epoch.  The stream takes one number from ``rng`` when it is made and
    nothing later, so streams that share a generator do not disturb each other.

    Args:
        n: number of examples.
        batch_size: examples a batch; cut to ``n`` if larger.
        rng: the generator that decides the order, or a seed.

    Attributes:
        batch_size: the size of every batch.
        batches_per_epoch: ``n // batch_size``.
    """

    def __init__(self, n: int, batch_size: int, rng: np.random.Generator | int) -> None:
        self.n = int(check_number("n", n, low=1, integer=True))
        wanted = int(check_number("batch_size", batch_size, low=1, integer=True))
        self.batch_size = min(wanted, self.n)
        self.batches_per_epoch = self.n // self.batch_size
        self._seed = int(np.random.default_rng(rng).integers(2**63))
        self._start_epoch(0)

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._position = 0
        self._order = np.random.default_rng([self._seed, epoch]).permutation(self.n)

    def next(self) -> np.ndarray:
        """Return the indices ``(batch_size,)`` of the next batch."""
        if self._position == self.batches_per_epoch:
            self._start_epoch(self._epoch + 1)
        start = self._position * self.batch_size
        self._position += 1
        return self._order[start : start + self.batch_size].copy()

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        return self.next()

    def state(self) -> dict[str, int]:
        """Return where the stream stands, ready for JSON."""
        return {
            "n": self.n,
            "batch_size": self.batch_size,
            "seed": self._seed,
            "epoch": self._epoch,
            "position": self._position,
        }

    def restore(self, state: dict[str, int]) -> None:
        """Go on from a :meth:`state`: the next batches are those that would have come.

        Raises:
            ValueError: if the state is of a stream with another ``n`` or ``batch_size``.
        """
        for name in ("n", "batch_size"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"state has {name}={state[name]}, this stream has {getattr(self, name)}."
                )
        self._seed = state["seed"]
        self._start_epoch(state["epoch"])
        self._position = state["position"]
