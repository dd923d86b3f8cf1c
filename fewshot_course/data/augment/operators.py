"""Small changes of a text: insertion, swap, deletion, synonyms, recombined segments.

The first four are those of EDA (Wei & Zou 2019, "EDA: Easy data augmentation techniques for
boosting performance on text classification tasks"), except that insertion draws from the words
of the class.  Words are what white space separates; punctuation stays with its word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewshot_course._checks import check_number
from fewshot_course.data.augment.interface import PerText, check_pairs
from fewshot_course.data.augment.synonyms import default_synonyms
from fewshot_course.data.augment.words import segments, strip_punctuation

__all__ = [
    "RandomDeletion",
    "RandomInsertion",
    "RandomSwap",
    "SegmentRecombination",
    "SynonymReplacement",
]


def _edits(strength: float, n_words: int) -> int:
    """Return the number of edits in a text of ``n_words``: at least one, as in EDA."""
    return max(1, round(strength * n_words))


class RandomSwap(PerText):
    """Exchange two words, several times; the words of a text stay the same.

    Args:
        strength: exchanges a word of the text, in [0, 1]; at least one is made.
    """

    def __init__(self, strength: float = 0.1) -> None:
        self.strength = float(check_number("strength", strength, low=0, high=1))

    def change(self, words: list[str], rng: np.random.Generator) -> list[str]:
        """Return the words with pairs exchanged; a single word stays as it is."""
        words = list(words)
        if len(words) > 1:
            for _ in range(_edits(self.strength, len(words))):
                i = int(rng.integers(len(words)))
                j = (i + 1 + int(rng.integers(len(words) - 1))) % len(words)  # another place
                words[i], words[j] = words[j], words[i]
        return words


class RandomDeletion(PerText):
    """Leave words out, each with the same probability and on its own.

    Args:
        strength: probability that a word is left out, in [0, 1].
    """

    def __init__(self, strength: float = 0.1) -> None:
        self.strength = float(check_number("strength", strength, low=0, high=1))

    def change(self, words: list[str], rng: np.random.Generator) -> list[str]:
        """Return the words that are left, in order; if none were, one drawn at random."""
        if not words:
            return []
        draws = rng.random(len(words))
        kept = [word for word, u in zip(words, draws, strict=True) if u >= self.strength]
        return kept or [words[rng.integers(len(words))]]


class SynonymReplacement(PerText):
    """Put synonyms in the place of words.

    Args:
        strength: share of the words to replace, in [0, 1]; at least one, if a word has a synonym.
        synonyms: word in lower case → words that may stand in its place; ``None``: the course's
            small table.
    """

    def __init__(
        self, strength: float = 0.1, synonyms: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.strength = float(check_number("strength", strength, low=0, high=1))
        self.synonyms = default_synonyms() if synonyms is None else synonyms

    def change(self, words: list[str], rng: np.random.Generator) -> list[str]:
        """Return as many words, some replaced; capitals and punctuation are kept."""
        words = list(words)
        parts = [strip_punctuation(word) for word in words]
        known = [i for i, (_, core, _) in enumerate(parts) if self.synonyms.get(core.lower())]
        if not known:
            return words
        n = min(_edits(self.strength, len(words)), len(known))
        for i in rng.choice(known, n, replace=False):
            before, core, after = parts[i]
            options = self.synonyms[core.lower()]
            words[i] = before + _with_case(core, options[int(rng.integers(len(options)))]) + after
        return words


def _with_case(old: str, new: str) -> str:
    """Write ``new`` in the capitals of ``old``."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


class RandomInsertion:
    """Insert words at random places, drawn from all words of the texts with the same label.

    A word that is frequent in the class is drawn more often: q inserts from the class's unigram
    distribution.  Punctuation at the edge of an inserted word is dropped.

    Args:
        strength: insertions a word of the text, in [0, 1]; at least one is made.
    """

    def __init__(self, strength: float = 0.1) -> None:
        self.strength = float(check_number("strength", strength, low=0, high=1))

    def augment(
        self, texts: Sequence[str], labels: Any, rng: np.random.Generator
    ) -> tuple[list[str], np.ndarray]:
        """Return one longer text for each that has words, and the labels, which are kept."""
        listed, y = check_pairs(texts, labels)
        pools: dict[int, list[str]] = {}
        for text, label in zip(listed, y.tolist(), strict=True):
            cores = (strip_punctuation(word)[1].lower() for word in text.split())
            pools.setdefault(label, []).extend(core for core in cores if core)
        new = [
            self._insert(text.split(), pools[label], rng)
            for text, label in zip(listed, y.tolist(), strict=True)
        ]
        return new, y.copy()

    def _insert(self, words: list[str], pool: list[str], rng: np.random.Generator) -> str:
        if words and pool:
            for _ in range(_edits(self.strength, len(words))):
                place = rng.integers(len(words) + 1)
                words.insert(place, pool[rng.integers(len(pool))])
        return " ".join(words)


class SegmentRecombination:
    """Put together segments of texts with the same label ("coarse-graining").

    A text is looked at from afar: not as words, but as segments between punctuation marks, each
    an opening, a middle or a closing one.  Each segment is replaced, with a probability, by one
    of the same kind from a text with the same label.  What a segment says stays whole; which
    segments come together is new.

    Args:
        strength: probability that a segment is replaced, in [0, 1].
    """

    def __init__(self, strength: float = 0.5) -> None:
        self.strength = float(check_number("strength", strength, low=0, high=1))

    def augment(
        self, texts: Sequence[str], labels: Any, rng: np.random.Generator
    ) -> tuple[list[str], np.ndarray]:
        """Return one text for each, made of segments of its class, and the labels."""
        listed, y = check_pairs(texts, labels)
        cut = [segments(text) for text in listed]
        pools: dict[tuple[int, str], list[list[str]]] = {}
        for parts, label in zip(cut, y.tolist(), strict=True):
            for i, part in enumerate(parts):
                pools.setdefault((label, _kind(i, len(parts))), []).append(part)
        new = []
        for parts, label in zip(cut, y.tolist(), strict=True):
            words: list[str] = []
            for i, part in enumerate(parts):
                pool = pools[label, _kind(i, len(parts))]
                replace = rng.random() < self.strength
                words += pool[rng.integers(len(pool))] if replace else part
            new.append(" ".join(words))
        return new, y.copy()


def _kind(index: int, n_segments: int) -> str:
    """Return which part of its text a segment is."""
    if index == 0:
        return "opening"
    return "closing" if index == n_segments - 1 else "middle"
