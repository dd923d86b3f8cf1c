"""Named random streams: the same seed gives the same run in both frameworks.

NumPy draws everything that is random on the CPU, so that neither framework's own generator
has a say.  Each purpose has a stream of its own: a method that needs more noise does not
change the order of the batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

STREAM_NAMES = ("init", "batches", "noise", "dropout")


@dataclass(frozen=True)
class Streams:
    """One :class:`numpy.random.Generator` for each purpose.

    Attributes:
        init: initial weights.
        batches: order of the batches and of the episodes.
        noise: standard normal noise of stochastic encoders, generators and samplers.
        dropout: dropout masks.
    """

    init: np.random.Generator
    batches: np.random.Generator
    noise: np.random.Generator
    dropout: np.random.Generator

    @classmethod
    def from_seed(cls, random_state: int | np.random.SeedSequence | None) -> Streams:
        """Spawn the streams from one seed; ``None`` takes fresh entropy.

        Raises:
            TypeError: if ``random_state`` is neither a whole number nor ``None``.
            ValueError: if it is negative.
        """
        if isinstance(random_state, np.random.SeedSequence):
            sequence = random_state
        elif random_state is None:
            sequence = np.random.SeedSequence()
        elif isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
            if random_state < 0:
                raise ValueError(f"random_state must be >= 0, got {random_state}.")
            sequence = np.random.SeedSequence(int(random_state))
        else:
            raise TypeError(
                f"random_state must be a whole number or None, got {random_state!r} of type "
                f"{type(random_state).__name__}."
            )
        children = sequence.spawn(len(STREAM_NAMES))
        return cls(*(np.random.default_rng(child) for child in children))

    def state(self) -> dict[str, Any]:
        """Return the state of every stream, ready for JSON."""
        return {name: getattr(self, name).bit_generator.state for name in STREAM_NAMES}

    def restore(self, state: dict[str, Any]) -> None:
        """Put every stream back to a :meth:`state`."""
        for name in STREAM_NAMES:
            getattr(self, name).bit_generator.state = state[name]
