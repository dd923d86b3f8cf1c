"""What makes a model smaller, without a framework: masks, whole numbers, files and times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fewshot_course._checks import check_choice, check_number
from fewshot_course.weights import Arrays

SCOPES = ("layer", "global")
PRUNING = ("one-shot", "gradual")

PRUNED_BY = 0.7  # part of the training after which gradual pruning has reached its sparsity
MASKS_MADE = 20  # times that the mask is made anew on the way there


# ---------------------------------------------------------------- pruning


def cubic_sparsity(
    step: float, steps: float, final: float, initial: float = 0.0, begin: float = 0.0
) -> float:
    """Return the sparsity of a step: s_f + (s_i - s_f)·(1 - (t - t₀)/n)³ (Zhu & Gupta 2017, eq. 1).

    Many weights go early, when most are superfluous, and few at the end.

    Args:
        step: t.
        steps: n, how long the sparsity rises, > 0.
        final: s_f, in [0, 1].
        initial: s_i, in [0, 1].
        begin: t₀; before it the sparsity is s_i, after t₀ + n it is s_f.
    """
    check_number("steps", steps, low=0, low_open=True)
    check_number("final", final, low=0, high=1)
    check_number("initial", initial, low=0, high=1)
    done = min(max((step - begin) / steps, 0.0), 1.0)
    return final + (initial - final) * (1.0 - done) ** 3


def magnitude_mask(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Return which weights stay: all but the round(sparsity·n) smallest in magnitude.

    Args:
        weights: finite, of any shape.
        sparsity: share that goes, in [0, 1].

    Returns:
        bool, like ``weights``; the number of ``False`` is exact also where weights are equal.
    """
    return magnitude_masks({"weights": weights}, sparsity)["weights"]


def magnitude_masks(
    weights: Mapping[str, np.ndarray], sparsity: float, scope: str = "layer"
) -> Arrays:
    """Return :func:`magnitude_mask` of each of several arrays.

    Args:
        weights: name → array.
        sparsity: share that goes, in [0, 1].
        scope: "layer" takes this share of each array; "global" ranks all weights together, so
            that an array of small weights loses more.

    Raises:
        ValueError: for a sparsity out of range, an unknown scope, or NaN among the weights.
    """
    check_number("sparsity", sparsity, low=0, high=1)
    check_choice("scope", scope, SCOPES)
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has NaN or infinite weights, which have no rank.")
    if scope == "layer":
        return {name: _mask(np.asarray(array), sparsity) for name, array in weights.items()}
    flat = np.concatenate([np.ravel(array) for array in weights.values()])
    kept = _mask(flat, sparsity)
    ends = np.cumsum([np.size(array) for array in weights.values()])[:-1]
    parts = np.split(kept, ends)
    return {
        name: part.reshape(np.shape(array))
        for (name, array), part in zip(weights.items(), parts, strict=True)
    }


def _mask(weights: np.ndarray, sparsity: float) -> np.ndarray:
    n_zeros = round(sparsity * weights.size)
    if not n_zeros:
        return np.ones(weights.shape, dtype=bool)
    sizes = np.abs(weights).ravel()
    # argpartition takes more than twice as long where many weights are 0 already.
    largest = np.partition(sizes, n_zeros - 1)[n_zeros - 1]  # of those that go
    kept: np.ndarray = sizes > largest
    ties = np.flatnonzero(sizes == largest)
    surplus = kept.size - int(kept.sum()) - n_zeros  # ties that must stay
    kept[ties[ties.size - surplus :]] = True
    return kept.reshape(weights.shape)


class Pruner:
    """When a training makes its masks anew, and with what sparsity.

    Args:
        sparsity: at the end.
        pruning: "one-shot" (before the first step) or "gradual" (:func:`cubic_sparsity` over the
            first :data:`PRUNED_BY` of the steps).
        scope: see :func:`magnitude_masks`.
        steps: of the training.
    """

    def __init__(self, sparsity: float, pruning: str, scope: str, steps: int) -> None:
        self.sparsity, self.gradual, self.scope = sparsity, pruning == "gradual", scope
        self.rising = max(1, int(PRUNED_BY * steps))
        self.every = max(1, self.rising // MASKS_MADE)
        self.now = 0.0 if self.gradual else sparsity

    def start(self, weights: Mapping[str, np.ndarray]) -> Arrays:
        """Return the masks before the next step: also those of a training that goes on.

        What was pruned is 0, so the smallest weights are the same as when the mask was made.
        """
        return magnitude_masks(weights, self.now, self.scope)

    def due(self, step: int) -> bool:
        """Whether new masks are made after this step, counted from 0."""
        if not self.gradual or step + 1 > self.rising:
            return False
        return (step + 1) % self.every == 0 or step + 1 == self.rising

    def advance(self, step: int, weights: Mapping[str, np.ndarray]) -> Arrays:
        """Return the masks after a step that is due."""
        self.now = cubic_sparsity(step + 1, self.rising, self.sparsity)
        return self.start(weights)

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` needs, ready for JSON."""
        return {"now": self.now}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.now = state["now"]


# ---------------------------------------------------------------- integers


def quantize_symmetric(
    weights: np.ndarray, axis: int | None = None, bits: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Return whole numbers q and a scale s with weights ≈ q·s, no error above s/2.

    s = m / (2^(bits-1) - 1), m the largest magnitude, and q = round(w / s): symmetric, so that 0
    stays 0 (Jacob et al. 2018, with the zero-point 0).

    Args:
        weights: finite, of any shape.
        axis: ``None``: one scale for the whole array ("per tensor"); else one for each index of
            this axis ("per channel").
        bits: from 2 to 8; 8 uses -127…127.

    Returns:
        q, int8, like ``weights``; s, float64, of shape ``()`` or ``(weights.shape[axis],)``.
    """
    check_number("bits", bits, low=2, high=8, integer=True)
    array = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("weights has NaN or infinite values, which no whole number stands for.")
    if axis is None:
        largest = np.abs(array).max(initial=0.0)
    else:
        check_number("axis", axis, low=-array.ndim, high=array.ndim - 1, integer=True)
        others = tuple(i for i in range(array.ndim) if i != axis % array.ndim)
        largest = np.abs(array).max(axis=others, initial=0.0)
    top = 2 ** (bits - 1) - 1
    # So small a channel has no quotient in float64; it is 0 in any case.
    scale = np.where(largest > 1e-290, largest / top, 1.0)
    q = np.rint(array / _along(scale, axis, array.ndim))
    return np.clip(q, -top, top).astype(np.int8), scale


def dequantize(q: np.ndarray, scale: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Return q·s, float64: what :func:`quantize_symmetric` stands for.

    Args:
        q: int8.
        scale: s, ``()`` or ``(q.shape[axis],)``.
        axis: as it was.
    """
    floats: np.ndarray = q.astype(np.float64) * _along(np.asarray(scale, np.float64), axis, q.ndim)
    return floats


def _along(scale: np.ndarray, axis: int | None, ndim: int) -> np.ndarray:
    if axis is None:
        return scale
    shape = [1] * ndim
    shape[axis] = -1
    return np.reshape(scale, shape)


# ---------------------------------------------------------------- files and time
