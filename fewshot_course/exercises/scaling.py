"""Exercises of the topic "From a laptop to GPUs and clusters"."""

from __future__ import annotations

import numpy as np

from fewshot_course.exercises._exercise import Case, Exercise, Mistake

Array = np.ndarray
_RNG = np.random.default_rng(90)


def _draw(*shape: int) -> Array:
    return np.round(_RNG.normal(0, 1, shape), 2)


# --- accumulated_gradient --------------------------------------------------------------------


def _gradient_of_all(means: Array, sizes: Array) -> Array:
    """Write every example's share of its part's gradient out, then take one mean over all."""
    examples = np.repeat(means, sizes.astype(int), axis=0)
    return examples.mean(axis=0)


ACCUMULATED_GRADIENT = Exercise(
    name="scaling.accumulated_gradient",
    oracle=_gradient_of_all,
    cases=(
        Case(
            "two parts of the same size",
            {"means": np.array([[1.0, 0.0], [3.0, 2.0]]), "sizes": np.array([4.0, 4.0])},
            hint="Equal parts count alike: the answer is the plain mean, (2, 1).",
        ),
        Case(
            "parts of 6 and 2 examples",
            {"means": np.array([[1.0, 0.0], [3.0, 2.0]]), "sizes": np.array([6.0, 2.0])},
            hint="The first part holds three quarters of the batch.",
        ),
        Case("three parts, the last one small", {"means": _draw(3, 4),
                                                 "sizes": np.array([5.0, 5.0, 1.0])}),
        Case("a single part", {"means": _draw(1, 3), "sizes": np.array([7.0])},
             hint="One part is the whole batch: nothing changes."),
    ),
    hint="Each part's mean gradient counts with its share of the batch, sizes / sizes.sum().",
    mistakes=(
        Mistake(
            "This is the sum over the parts: with k parts the step is k times too long. Weigh each "
            "part by its share of the batch.",
            lambda means, sizes: means.sum(0),
        ),
        Mistake(
            "This is the plain mean over the parts. It gives an example in a small part more "
            "weight than one in a large part.",
            lambda means, sizes: means.mean(0),
        ),
        Mistake(
            "The division is missing: you weighed by the sizes, but a mean is asked for.",
            lambda means, sizes: (sizes[:, None] * means).sum(0),
        ),
    ),
)  # fmt: skip


# --- round_bfloat16 --------------------------------------------------------------------------


def _round_by_bits(x: Array) -> Array:
    """Keep the upper 16 of a float32's 32 bits, rounding to the nearest, ties to even."""
    bits = x.astype(np.float32).view(np.uint32)
    bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def _rounded(x: Array, digits: int, how: str = "rint") -> Array:
    size = np.where(x == 0, 1.0, np.abs(x))
    step = 2.0 ** (np.floor(np.log2(size)) - digits)
    return getattr(np, how)(x / step) * step


ROUND_BFLOAT16 = Exercise(
    name="scaling.round_bfloat16",
    oracle=_round_by_bits,
    cases=(
        Case(
            "numbers around 1",
            {"x": np.array([1.0, 1.003, 1.004, 1.0078125, 1.01, 1.99])},
            hint="From 1 to 2 the numbers lie 2⁻⁷ = 0.0078125 apart.",
        ),
        Case(
            "large and small",
            {"x": np.array([1000.0, 300.7, 0.1, 0.012345, 1.5e-30])},
            hint="The distance grows with the number: it is 2^(e - 7), with 2^e ≤ |x| < 2^(e + 1).",
        ),
        Case("negative numbers", {"x": np.array([-1.0, -2.02, -0.7, -123.4])},
             hint="Take the exponent of |x|; the sign stays."),
        Case("zero among others", {"x": np.array([0.0, 3.14159, -2.71828])},
             hint="log2(0) is minus infinity: put any number in the place of 0 there."),
    ),
    hint="Find e = floor(log2(|x|)), the step 2^(e - 7), and round x / step to a whole number.",
    mistakes=(
        Mistake(
            "You cut the digits off. Round to the nearest instead: cutting makes every number "
            "smaller, and such errors add up.",
            lambda x: _rounded(x, 7, "trunc"),
        ),
        Mistake(
            "You kept one bit too few: seven bits stand behind the leading 1.",
            lambda x: _rounded(x, 6),
        ),
        Mistake(
            "You kept one bit too many. Eight bits in all, with the leading 1: the step is "
            "2^(e - 7).",
            lambda x: _rounded(x, 8),
        ),
        Mistake(
            "The step is 2⁻⁷ for all numbers here. A float's steps grow with its exponent.",
            lambda x: np.rint(x * 128) / 128,
        ),
    ),
)  # fmt: skip


# --- unscaled_update -------------------------------------------------------------------------


def _update_by_loop(weights: Array, scaled: Array, scale: float, lr: float) -> Array:
    """Number by number; anything that is no number ends it."""
    moved = []
    for weight, gradient in zip(weights.tolist(), scaled.tolist(), strict=True):
        if gradient != gradient or gradient in (float("inf"), float("-inf")):
            return weights
        moved.append(weight - lr * (gradient / scale))
    return np.array(moved)


def _descend(weights: Array, gradient: Array, lr: float) -> Array:
    return weights - lr * gradient


UNSCALED_UPDATE = Exercise(
    name="scaling.unscaled_update",
    oracle=_update_by_loop,
    cases=(
        Case(
            "scale 1024",
            {"weights": np.array([1.0, -2.0]), "scaled": np.array([2048.0, -512.0]),
             "scale": 1024.0, "lr": 0.1},
            hint="The gradient itself is (2, -0.5).",
        ),
        Case("scale 1", {"weights": _draw(3), "scaled": _draw(3), "scale": 1.0, "lr": 0.5}),
        Case(
            "one entry overflowed",
            {"weights": np.array([1.0, 2.0, 3.0]), "scaled": np.array([64.0, np.inf, -64.0]),
             "scale": 64.0, "lr": 0.1},
            hint="One infinite entry, and the whole update is left out.",
        ),
        Case(
            "one entry is NaN",
            {"weights": np.array([0.5, -0.5]), "scaled": np.array([np.nan, 8.0]),
             "scale": 8.0, "lr": 1.0},
            hint="NaN is not finite either.",
        ),
    ),
    hint="If all of scaled is finite: weights - lr * scaled / scale. Otherwise the weights as they "
    "were.",
    mistakes=(
        Mistake(
            "The gradient was not divided by the scale, so that the step is scale times too long.",
            lambda weights, scaled, scale, lr: (
                _descend(weights, scaled, lr) if np.isfinite(scaled).all() else weights
            ),
        ),
        Mistake(
            "You left out only the entries that overflowed. The others come from the same wrong "
            "pass: leave the whole update out.",
            lambda weights, scaled, scale, lr: np.where(
                np.isfinite(scaled), _descend(weights, scaled / scale, lr), weights
            ),
        ),
        Mistake(
            "Nothing looks for infinity and NaN: they went into the weights, for good.",
            lambda weights, scaled, scale, lr: _descend(weights, scaled / scale, lr),
        ),
    ),
)  # fmt: skip


# --- speed_up --------------------------------------------------------------------------------


def _speed_up_by_loop(alone: float, shared: float, exchange: float, workers: Array) -> Array:
    seconds = [alone + shared / k + (exchange if k > 1 else 0.0) for k in workers]
    return (alone + shared) / np.array(seconds)


SPEED_UP = Exercise(
    name="scaling.speed_up",
    oracle=_speed_up_by_loop,
    cases=(
        Case(
            "all of it is shared, for nothing",
            {"alone": 0.0, "shared": 8.0, "exchange": 0.0, "workers": np.array([1.0, 2.0, 4.0])},
            hint="Then k workers are k times faster.",
        ),
        Case(
            "a fifth cannot be shared",
            {"alone": 2.0, "shared": 8.0, "exchange": 0.0,
             "workers": np.array([1.0, 2.0, 8.0, 1000.0])},
            hint="However many workers: never more than 10 / 2 = 5 times faster.",
        ),
        Case(
            "the exchange costs something",
            {"alone": 1.0, "shared": 9.0, "exchange": 2.0, "workers": np.array([2.0, 3.0, 9.0])},
            hint="Add the seconds of the exchange to those of the step.",
        ),
        Case(
            "one worker exchanges nothing",
            {"alone": 1.0, "shared": 3.0, "exchange": 4.0, "workers": np.array([1.0, 2.0])},
            hint="The first entry is 1; the second is below 1: two workers are slower here.",
        ),
    ),
    hint="(alone + shared) / (alone + shared / k + exchange), the exchange only where k > 1.",
    mistakes=(
        Mistake(
            "One worker has nobody to exchange with: leave the exchange out where k = 1.",
            lambda alone, shared, exchange, workers: (
                (alone + shared) / (alone + shared / workers + exchange)
            ),
        ),
        Mistake(
            "You divided everything by k. What every worker does alone does not get shorter.",
            lambda alone, shared, exchange, workers: (
                (alone + shared) / ((alone + shared) / workers + exchange * (workers > 1))
            ),
        ),
        Mistake(
            "The exchange is missing. It is what makes more workers slower in the end.",
            lambda alone, shared, exchange, workers: (alone + shared) / (alone + shared / workers),
        ),
        Mistake(
            "These are seconds. A speed-up is the seconds of one worker over those of k.",
            lambda alone, shared, exchange, workers: (
                alone + shared / workers + exchange * (workers > 1)
            ),
        ),
    ),
)  # fmt: skip

EXERCISES = (ACCUMULATED_GRADIENT, ROUND_BFLOAT16, UNSCALED_UPDATE, SPEED_UP)
"""The exercises of the topic, in the order of the page."""
