"""A hidden Markov model over words, fitted by expectation maximisation (Baum-Welch).

The story: a hidden state s₁ is drawn, and emits a word; the next state is drawn given the last
one, and emits a word; and so on, until the word is the end mark.  With states s and words w

    p(w, s) = π(s₁) B(s₁, w₁) Π A(sₜ₋₁, sₜ) B(sₜ, wₜ),      p(w) = Σ_s p(w, s).

Source: Rabiner (1989), "A tutorial on hidden Markov models", with his scaling, over several
sequences at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewshot_course._arguments import checked
from fewshot_course._checks import check_number
from fewshot_course.data.augment.markov import _draw

__all__ = [
    "HiddenMarkovModel",
    "Statistics",
    "backward",
    "expected_counts",
    "forward",
    "maximise",
]


@checked
def forward(
    start: np.ndarray, transitions: np.ndarray, likelihoods: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scaled forward variables, and the scales, of sequences side by side.

    Args:
        start: π, ``(S,)``.
        transitions: A, ``(S, S)``, rows sum to 1.
        likelihoods: B(s, wₜ) of the words that were seen, ``(n, T, S)``.
        mask: ``(n, T)`` bool, True for a word and False for padding on the right.

    Returns:
        α ``(n, T, S)``, p(sₜ | w₁ … wₜ), and c ``(n, T)``, p(wₜ | w₁ … wₜ₋₁), which is 1 where
        there is padding.  The log-likelihood of a sequence is Σₜ log cₜ.
    """
    n, T, _ = likelihoods.shape
    alpha, scale = np.empty_like(likelihoods), np.ones((n, T))
    before = np.broadcast_to(start, (n, len(start)))
    for t in range(T):
        joint = before * likelihoods[:, t]
        total = joint.sum(1)
        scale[:, t] = np.where(mask[:, t], total, 1)
        divisor = np.where(total > 0, total, 1)[:, None]
        last = alpha[:, t - 1] if t else joint
        alpha[:, t] = np.where(mask[:, t, None], joint / divisor, last)
        before = alpha[:, t] @ transitions
    return alpha, scale


@checked
def backward(
    transitions: np.ndarray, likelihoods: np.ndarray, mask: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Return β ``(n, T, S)``, scaled so that α β is p(sₜ | w₁ … w_T)."""
    beta = np.ones_like(likelihoods)
    for t in range(likelihoods.shape[1] - 2, -1, -1):
        ahead = likelihoods[:, t + 1] * beta[:, t + 1]
        here = ahead @ transitions.T / scale[:, t + 1, None]
        beta[:, t] = np.where(mask[:, t + 1, None], here, 1)
    return beta


@dataclass(frozen=True)
class Statistics:
    """What the E step finds: expected counts, under the model, given the words.

    Attributes:
        start: of each state at the beginning, ``(S,)``.
        transitions: of each state after each state, ``(S, S)``.
        emissions: of each word from each state, ``(S, W)``.
        log_likelihood: of all sequences.
    """

    start: np.ndarray
    transitions: np.ndarray
    emissions: np.ndarray
    log_likelihood: float


@checked
def expected_counts(
    start: np.ndarray,
    transitions: np.ndarray,
    emissions: np.ndarray,
    words: np.ndarray,
    mask: np.ndarray,
) -> Statistics:
    """The E step.

    Args:
        start: π, ``(S,)``.
        transitions: A, ``(S, S)``.
        emissions: B, ``(S, W)``, rows sum to 1.
        words: word numbers ``(n, T)`` int64; any number where there is padding.
        mask: ``(n, T)`` bool, True for a word.
    """
    likelihoods = emissions.T[words]
    alpha, scale = forward(start, transitions, likelihoods, mask)
    beta = backward(transitions, likelihoods, mask, scale)
    states = np.where(mask[..., None], alpha * beta, 0)
    ahead = np.where(mask[:, 1:, None], likelihoods[:, 1:] * beta[:, 1:], 0) / scale[:, 1:, None]
    pairs = transitions * np.einsum("nti,ntj->ij", alpha[:, :-1], ahead, optimize=True)
    counts = np.zeros((emissions.shape[1], len(start)))
    np.add.at(counts, words[mask], states[mask])
    with np.errstate(divide="ignore"):
        log_likelihood = float(np.log(scale).sum())
    return Statistics(states[:, 0].sum(0), pairs, counts.T, log_likelihood)


@checked
def maximise(found: Statistics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The M step: each expected count over the sum of its row.

    Returns:
        π ``(S,)``, A ``(S, S)`` and B ``(S, W)``.  A state from which nothing is expected gets
        equal probabilities.
    """
    return (
        found.start / found.start.sum(),
        _rows_to_one(found.transitions),
        _rows_to_one(found.emissions),
    )


def _rows_to_one(counts: np.ndarray) -> np.ndarray:
    total = counts.sum(1, keepdims=True)
    return np.where(total > 0, counts, 1) / np.where(total > 0, total, counts.shape[1])


class HiddenMarkovModel:
    """A hidden Markov model of texts.

    Args:
        n_states: S, hidden states.
        max_iterations: EM steps, at most.
        tolerance: EM ends when a step gains less than this in log-likelihood a word.

    Attributes:
        vocabulary_: the words, sorted; the end mark has the number after the last one.
        start_: π, ``(S,)``.
        transitions_: A, ``(S, S)``.
        emissions_: B, ``(S, V + 1)``.
        log_likelihoods_: before each EM step and after the last, ``(steps + 1,)``.
    """

    def __init__(
        self, n_states: int = 5, max_iterations: int = 30, tolerance: float = 1e-4
    ) -> None:
        self.n_states = int(check_number("n_states", n_states, low=1, integer=True))
        self.max_iterations = int(
            check_number("max_iterations", max_iterations, low=0, integer=True)
        )
        self.tolerance = float(check_number("tolerance", tolerance, low=0))

    def fit(
        self, sequences: Sequence[Sequence[str]], rng: np.random.Generator
    ) -> HiddenMarkovModel:
        """Start from random probabilities and climb.

        Args:
            sequences: texts as lists of words; empty ones are left out.
            rng: decides where EM starts.  It ends in a local maximum.

        Raises:
            ValueError: if no sequence has a word.
        """
        texts = [list(text) for text in sequences if len(text)]
        if not texts:
            raise ValueError("sequences has no words; expected one text with words or more.")
        self.vocabulary_ = sorted({word for text in texts for word in text})
        self._index = {word: i for i, word in enumerate(self.vocabulary_)}
        S, W = self.n_states, len(self.vocabulary_) + 1
        self.start_ = rng.dirichlet(np.ones(S))
        self.transitions_ = rng.dirichlet(np.ones(S), size=S)
        self.emissions_ = rng.dirichlet(np.ones(W), size=S)
        words, mask = self._padded(texts)
        found = self._expect(words, mask)
        climbed = [found.log_likelihood]
        for _ in range(self.max_iterations):
            self.start_, self.transitions_, self.emissions_ = maximise(found)
            found = self._expect(words, mask)
            climbed.append(found.log_likelihood)
            if climbed[-1] - climbed[-2] < self.tolerance * mask.sum():
                break
        self.log_likelihoods_ = np.array(climbed)
        return self

    def _expect(self, words: np.ndarray, mask: np.ndarray) -> Statistics:
        return expected_counts(self.start_, self.transitions_, self.emissions_, words, mask)

    def _padded(self, texts: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Return word numbers ``(n, T)`` with the end mark, and their mask."""
        end = len(self.vocabulary_)
        mask = np.arange(max(map(len, texts)) + 1) <= np.array([[len(text)] for text in texts])
        words = np.full(mask.shape, end)
        for row, text in zip(words, texts, strict=True):
            row[: len(text)] = [self._index[word] for word in text]
        return words, mask

    def log_likelihood(self, sequences: Sequence[Sequence[str]]) -> float:
        """Return Σ log p(x) over texts; -inf if one cannot come."""
        texts = [list(text) for text in sequences]
        if any(word not in self._index for text in texts for word in text):
            return -np.inf
        return self._expect(*self._padded(texts)).log_likelihood if texts else 0.0

    def sample(self, rng: np.random.Generator, max_length: int) -> list[str]:
        """Draw one text, which may be empty; it is cut at ``max_length`` words.

        Args:
            rng: decides what is drawn.
            max_length: >= 1.
        """
        check_number("max_length", max_length, low=1, integer=True)
        words: list[str] = []
        state = _draw(np.cumsum(self.start_), rng)
        while len(words) < max_length:
            word = _draw(np.cumsum(self.emissions_[state]), rng)
            if word == len(self.vocabulary_):
                break
            words.append(self.vocabulary_[word])
            state = _draw(np.cumsum(self.transitions_[state]), rng)
        return words
