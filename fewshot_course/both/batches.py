"""The order of batches where the plain one will not do: by length, and in pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot_course._checks import check_number

WINDOW = 8
"""Batches among which texts of like length are brought together."""


def batches_by_length(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut all texts into batches of like length, so that little is padding.

    Args:
        lengths: ``(n,)``.
        batch_size: texts a batch, at most.

    Returns:
        Index arrays that together hold every text once, shortest texts first.
    """
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


class LengthBatches:
    """Endless training batches: random, but texts of like length come together.

    Each epoch shuffles the texts, sorts them by length within windows of :data:`WINDOW` batches,
    cuts them, and shuffles the batches.  Sizes differ by one at most, and no text is left out.

    Args:
        lengths: tokens of each text, ``(n,)``.
        batch_size: texts a batch, at most.
        rng: decides the order; one number is taken from it, now.

    Attributes:
        batches_per_epoch: ⌈n / batch_size⌉.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> None:
        check_number("batch_size", batch_size, low=1, integer=True)
        self.lengths, self.batch_size = lengths, batch_size
        self.batches_per_epoch = -(-len(lengths) // batch_size)
        self._seed = int(rng.integers(2**63))
        self._start_epoch(0)

    def _start_epoch(self, epoch: int) -> None:
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self.lengths))
        width = WINDOW * self.batch_size
        windows = [order[start : start + width] for start in range(0, len(order), width)]
        by_length = [window[np.argsort(self.lengths[window], kind="stable")] for window in windows]
        batches = np.array_split(np.concatenate(by_length), self.batches_per_epoch)
        self._epoch, self._position = epoch, 0
        self._batches = [batches[index] for index in rng.permutation(self.batches_per_epoch)]

    def next(self) -> np.ndarray:
        """Return the indices of the next batch."""
        if self._position == len(self._batches):
            self._start_epoch(self._epoch + 1)
        self._position += 1
        return self._batches[self._position - 1]

    def state(self) -> dict[str, int]:
        """Return where the batches stand, ready for JSON."""
        return {"seed": self._seed, "epoch": self._epoch, "position": self._position}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from a :meth:`state`."""
        self._seed = state["seed"]
        self._start_epoch(state["epoch"])
        self._position = state["position"]


class PairBatches:
    """Endless batches for pairs: some classes, and some texts of each.

    A batch holds up to ``batch_size / 2`` classes, and of each at least two texts where it has
    two, so that there are pairs within a class and between classes.

    Args:
        labels: class indices ``(n,)``.
        batch_size: texts a batch, at most.
        rng: decides what is drawn; one number is taken from it, now.

    Attributes:
        batches_per_epoch: ⌈n / batch_size⌉.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, rng: np.random.Generator) -> None:
        check_number("batch_size", batch_size, low=4, integer=True)
        self.batches_per_epoch = -(-len(labels) // batch_size)
        self._members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self._classes = min(len(self._members), batch_size // 2)
        self._texts = batch_size // self._classes
        self._rng = np.random.default_rng(int(rng.integers(2**63)))

    def next(self) -> np.ndarray:
        """Return the indices of the next batch."""
        chosen = self._rng.permutation(len(self._members))[: self._classes]
        return np.concatenate(
            [self._rng.permutation(self._members[c])[: self._texts] for c in chosen]
        )

    def state(self) -> dict[str, Any]:
        """Return the generator's state, ready for JSON."""
        return dict(self._rng.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self._rng.bit_generator.state = state
