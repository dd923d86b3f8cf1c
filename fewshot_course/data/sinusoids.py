"""Sinusoid regression, the first experiment of the MAML paper."""

from __future__ import annotations

import numpy as np

from fewshot_course._checks import check_number
from fewshot_course.data.episodes import Episodes

__all__ = ["SinusoidSampler"]


class SinusoidSampler:
    """Draws regression tasks ``y = a * sin(x - b)`` with amplitude a and phase b of their own.

    The defaults are those of Finn, Abbeel and Levine (2017), section 5.1: a in [0.1, 5.0],
    b in [0, pi], x in [-5.0, 5.0], all uniform, no noise.

    Args:
        n_support: points that a task is learned from (K), >= 1.
        n_query: points that it is scored on, >= 1.
        amplitude: lowest and highest a, units of y.
        phase: lowest and highest b, radians.
        x: lowest and highest x, radians.

    Raises:
        ValueError: for an empty query set or a range whose end is not above its start.
    """

    def __init__(
        self,
        n_support: int = 5,
        n_query: int = 10,
        amplitude: tuple[float, float] = (0.1, 5.0),
        phase: tuple[float, float] = (0.0, np.pi),
        x: tuple[float, float] = (-5.0, 5.0),
    ) -> None:
        self.n_support = int(check_number("n_support", n_support, low=1, integer=True))
        self.n_query = int(check_number("n_query", n_query, low=1, integer=True))
        self.amplitude = _check_range("amplitude", amplitude)
        self.phase = _check_range("phase", phase)
        self.x = _check_range("x", x)

    def sample(self, rng: np.random.Generator | int, n_tasks: int) -> Episodes:
        """Draw ``n_tasks`` tasks; the same state of ``rng`` gives the same tasks.

        Returns:
            Episodes of float64 arrays: X and y of shape ``(T, n_support, 1)`` and
            ``(T, n_query, 1)``.
        """
        n_tasks = check_number("n_tasks", n_tasks, low=1, integer=True)
        rng = np.random.default_rng(rng)
        a = rng.uniform(*self.amplitude, (n_tasks, 1, 1))
        b = rng.uniform(*self.phase, (n_tasks, 1, 1))
        X = rng.uniform(*self.x, (n_tasks, self.n_support + self.n_query, 1))
        y = a * np.sin(X - b)
        k = self.n_support
        return Episodes(X[:, :k], y[:, :k], X[:, k:], y[:, k:])


def _check_range(name: str, value: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be (lowest, highest), got {value!r}.")
    low, high = (float(check_number(name, end)) for end in value)
    if low >= high:
        raise ValueError(f"{name} must be (lowest, highest) with lowest < highest, got {value!r}.")
    return low, high
