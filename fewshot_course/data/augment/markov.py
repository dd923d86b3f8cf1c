"""A Markov chain over words, fitted to a few texts: p(x) = p(w₁) Π p(wₜ | wₜ₋₁) · p(end | w_T)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot_course._checks import check_number

__all__ = ["MarkovChain"]


class MarkovChain:
    """A first-order Markov chain with an end.

    Maximum likelihood is counting: the probability of b after a is the number of times that b
    follows a, over the number of times that anything follows a.

    Args:
        smoothing: added to each count, >= 0.  With 0 only pairs that were seen can come.

    Attributes:
        vocabulary_: the V words, sorted.
        start_: probability of each word as the first one, ``(V,)``.
        transitions_: ``(V, V + 1)``: of each word after each word; the last column is the end.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = float(check_number("smoothing", smoothing, low=0))

    def fit(self, sequences: Sequence[Sequence[str]]) -> MarkovChain:
        """Count, and divide.

        Args:
            sequences: texts as lists of words; empty ones are left out.

        Raises:
            ValueError: if no sequence has a word.
        """
        texts = [text for text in sequences if len(text)]
        if not texts:
            raise ValueError("sequences has no words; expected one text with words or more.")
        self.vocabulary_ = sorted({word for text in texts for word in text})
        self._index = {word: i for i, word in enumerate(self.vocabulary_)}
        V = len(self.vocabulary_)
        start, pairs = np.full(V, self.smoothing), np.full((V, V + 1), self.smoothing)
        for text in texts:
            numbers = [self._index[word] for word in text]
            start[numbers[0]] += 1
            np.add.at(pairs, (numbers, [*numbers[1:], V]), 1)
        self.start_ = start / start.sum()
        self.transitions_ = pairs / pairs.sum(1, keepdims=True)
        self._cumulative = np.cumsum(self.transitions_, axis=1)
        return self

    def log_likelihood(self, sequences: Sequence[Sequence[str]]) -> float:
        """Return Σ log p(x) over texts; -inf if one cannot come."""
        total = 0.0
        V = len(self.vocabulary_)
        for text in sequences:
            numbers = [self._index.get(word, -1) for word in text]
            if not numbers or -1 in numbers:
                return -np.inf
            after = self.transitions_[numbers, [*numbers[1:], V]]
            with np.errstate(divide="ignore"):
                total += float(np.log(self.start_[numbers[0]]) + np.log(after).sum())
        return total

    def sample(self, rng: np.random.Generator, max_length: int) -> list[str]:
        """Draw one text; it is cut at ``max_length`` words.

        Args:
            rng: decides what is drawn.
            max_length: >= 1.
        """
        check_number("max_length", max_length, low=1, integer=True)
        word = _draw(np.cumsum(self.start_), rng)
        words = [word]
        while len(words) < max_length:
            word = _draw(self._cumulative[word], rng)
            if word == len(self.vocabulary_):
                break
            words.append(word)
        return [self.vocabulary_[word] for word in words]


def _draw(cumulative: np.ndarray, rng: np.random.Generator) -> int:
    """Draw an index whose probabilities have these sums; the last sum is 1 but for rounding."""
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
