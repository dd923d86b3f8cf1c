"""Augmenters that fit a model of sequences to each class, and draw new texts from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fewshot_course._checks import check_number
from fewshot_course.data.augment.hmm import HiddenMarkovModel
from fewshot_course.data.augment.interface import check_pairs
from fewshot_course.data.augment.markov import MarkovChain
from fewshot_course.data.augment.words import join_tokens, tokens

__all__ = ["HMMGenerator", "MarkovGenerator"]

_TRIES = 20  # an HMM may draw the empty text; it is drawn again


class _Sampler(Protocol):
    def sample(self, rng: np.random.Generator, max_length: int) -> list[str]: ...


class _ClassGenerator(ABC):
    """Base: one model a class, fitted to the texts of that class in the call."""

    def augment(
        self, texts: Sequence[str], labels: Any, rng: np.random.Generator
    ) -> tuple[list[str], np.ndarray]:
        """Return for each text one drawn from the model of its class, and the labels.

        A drawn text has at most twice as many tokens as the longest one of its class.  Of a text
        only the label is used, and whether it is empty: then it stays empty.
        """
        listed, y = check_pairs(texts, labels)
        new = list(listed)
        for label in sorted(set(y.tolist())):
            members = [i for i in np.flatnonzero(y == label) if tokens(listed[i])]
            if not members:
                continue
            sequences = [tokens(listed[i]) for i in members]
            model = self.fit(sequences, rng)
            longest = max(map(len, sequences))
            for i in members:
                drawn: list[str] = []
                for _ in range(_TRIES):
                    drawn = drawn or model.sample(rng, 2 * longest)
                new[i] = join_tokens(drawn) if drawn else listed[i]
        return new, y.copy()

    @abstractmethod
    def fit(self, sequences: list[list[str]], rng: np.random.Generator) -> _Sampler:
        """Return a model that was fitted to the texts of one class."""


class MarkovGenerator(_ClassGenerator):
    """Draw texts from a Markov chain over the words of the class.

    Args:
        smoothing: see :class:`~fewshot_course.data.augment.MarkovChain`.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = float(check_number("smoothing", smoothing, low=0))

    def fit(self, sequences: list[list[str]], rng: np.random.Generator) -> MarkovChain:
        """Return the chain."""
        return MarkovChain(self.smoothing).fit(sequences)


class HMMGenerator(_ClassGenerator):
    """Draw texts from a hidden Markov model of the class, fitted anew at each call.

    Args:
        n_states: hidden states.
        max_iterations: EM steps, at most.
    """

    def __init__(self, n_states: int = 5, max_iterations: int = 30) -> None:
        self.n_states = int(check_number("n_states", n_states, low=1, integer=True))
        self.max_iterations = int(
            check_number("max_iterations", max_iterations, low=0, integer=True)
        )

    def fit(self, sequences: list[list[str]], rng: np.random.Generator) -> HiddenMarkovModel:
        """Return the model at the end of EM."""
        return HiddenMarkovModel(self.n_states, self.max_iterations).fit(sequences, rng)
